//! What the kernel says of a process and its sockets.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc/PID/stat`; the kernel shows 100 on every machine.
const TICKS_PER_SEC: f64 = 100.0;

/// Resident memory now, MB.
pub(super) fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS:")
}

/// Most resident memory ever, MB.
pub(super) fn peak_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmHWM:")
}

fn status_mb(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| field.to_owned())?;
    let kib: f64 = line.split_whitespace().next().with_context(|| field.to_owned())?.parse()?;
    Ok(kib * 1_024.0 / 1e6)
}

/// User and system time of all its threads so far, s.
pub(super) fn cpu_sec(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may hold anything, so fields are counted behind its last parenthesis.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SEC)
}

/// How often its threads went on after a wait so far.
pub(super) fn wake_ups(pid: u32) -> Result<u64> {
    let mut all = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let own = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += own.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(all)
}

/// Datagrams the kernel dropped at a UDP port, as it tells everybody.
pub(super) fn udp_drops(port: u16) -> Result<u64> {
    let table = fs::read_to_string("/proc/net/udp")?;
    let local = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|columns| columns.get(1).is_some_and(|address| address.ends_with(&local)));
    Ok(own.filter_map(|columns| columns.last()?.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(peak_mb(pid).unwrap() >= resident_mb(pid).unwrap() - 1.0 && resident_mb(pid).unwrap() > 0.5);
        assert!(cpu_sec(pid).is_ok() && wake_ups(pid).is_ok());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp_drops(socket.local_addr().unwrap().port()).unwrap(), 0);
    }
}
