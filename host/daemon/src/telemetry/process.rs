//! What the kernel says of this process. What it does not say is not shown.

use std::fs;
use std::path::Path;

use super::metric::Scrape;
use super::table::Id;

/// Steps of CPU time in a second as the kernel tells them to programs: fixed for all processors hb is built for.
const TICKS_PER_SEC: f64 = 100.0;

/// Adds the metrics every exporter has; `start_ns` is when the process started.
pub(super) fn add(scrape: &mut Scrape, start_ns: i64) {
    add_from(scrape, Path::new("/proc/self"));
    scrape.number(Id::ProcessStart, &[], start_ns as f64 / 1e9);
}

fn add_from(scrape: &mut Scrape, proc: &Path) {
    let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    // The name of the program stands in brackets and may hold anything; user and system time are the 12th and 13th
    // behind it.
    let stat = read("stat");
    let times = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().skip(11).take(2));
    let ticks: Option<Vec<f64>> = times.map(|t| t.filter_map(|n| n.parse().ok()).collect());
    if let Some([user, system]) = ticks.as_deref() {
        scrape.number(Id::ProcessCpu, &[], (user + system) / TICKS_PER_SEC);
    }
    let status = read("status");
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok());
    for (id, name, factor) in [
        (Id::ProcessResident, "VmRSS:", 1_024),
        (Id::ProcessVirtual, "VmSize:", 1_024),
        (Id::ProcessThreads, "Threads:", 1),
    ] {
        if let Some(n) = field(name) {
            let n: u64 = n;
            scrape.count(id, &[], n * factor);
        }
    }
    if let Ok(open) = fs::read_dir(proc.join("fd")) {
        scrape.count(Id::ProcessOpenFds, &[], open.count() as u64);
    }
    let limits = read("limits");
    let most =
        limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse().ok());
    if let Some(most) = most {
        scrape.count(Id::ProcessMaxFds, &[], most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Format;

    #[test]
    fn the_kernel_tells_all_of_them() {
        let mut scrape = Scrape::default();
        add(&mut scrape, 1_500_000_000);
        let text = scrape.text(Format::Prometheus);
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds", "threads"]
        {
            let line = text.lines().find(|l| l.starts_with(&format!("process_{name} ")));
            let value = line.and_then(|l| l.split(' ').next_back()?.parse::<f64>().ok());
            assert!(value.is_some_and(|v| v > 0.0 || name == "cpu_seconds_total"), "{name}: {text}");
        }
        assert!(text.contains("process_start_time_seconds 1.5\n"), "{text}");
    }

    #[test]
    fn a_name_with_brackets_shifts_nothing_and_what_is_absent_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stat"), "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0").unwrap();
        let mut scrape = Scrape::default();
        add_from(&mut scrape, dir.path());
        let text = scrape.text(Format::Prometheus);
        assert_eq!(text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>(), ["process_cpu_seconds_total 3.0"]);
    }
}
