//! Throughput inside one process: each case three times in a process of its own, the median shown.

use anyhow::{Context, Result};
use serde_json::Value;

use super::ground::Ground;
use super::row::Row;

/// Runs of each case; odd, so that there is a median.
const RUNS: usize = 3;

/// The cases of `host/daemon/examples/bench.rs`, what they are, and what each is meant to reach, records per CPU second:
/// an aim that a slow machine misses, and so no limit.
const CASES: [(&str, &str, Option<f64>); 3] = [
    ("wasm", "wasm source and normalizer, windows, rules", Some(1_000_000.0)),
    ("durable", "the same, all stored with fsync", Some(400_000.0)),
    ("native", "the same work without plugins or store", None),
];

/// Most memory of a case, MB.
const PEAK_MB: f64 = 150.0;

/// What others do per core with lines like these, measured on a machine of this class.
const PEERS: [(&str, u64); 5] = [
    ("Fluent Bit 5.1, tail + JSON -> null", 927_000),
    ("Fluent Bit 5.1, tail + JSON -> file", 387_000),
    ("Fluent Bit 5.1, units converted by a Lua filter", 285_000),
    ("Fluent Bit 5.1, units converted by a WASM filter", 106_000),
    ("Bytewax", 220_000),
];

/// The whole table.
pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("throughput")?;
    ground.example(&["prepare"], &dir)?;
    let mut lines = vec![
        "\n| case | records per CPU s | aim | samples per CPU s | records per s | samples per s |".to_owned(),
        "|---|---:|---:|---:|---:|---:|".to_owned(),
    ];
    let (mut peaks_mb, mut per_record) = (Vec::new(), Vec::new());
    for (case, what, aim) in CASES {
        let mut runs = Vec::new();
        for n in 1..=RUNS {
            eprintln!("bench: {case}, run {n} of {RUNS}");
            let line = ground.example(&[case], &dir)?;
            let run: Value = serde_json::from_str(&line).with_context(|| format!("`{case}` printed no JSON"))?;
            runs.push(run);
        }
        let median = |of: &dyn Fn(&Value) -> f64| {
            let mut numbers: Vec<f64> = runs.iter().map(of).collect();
            numbers.sort_by(f64::total_cmp);
            numbers[RUNS / 2]
        };
        let number = |run: &Value, key: &str| run[key].as_f64().unwrap_or(f64::NAN);
        lines.push(format!(
            "| {case}: {what} | {} | {} | {} | {} | {} |",
            thousands(median(&|r| number(r, "records") / number(r, "cpu_s"))),
            aim.map_or_else(String::new, thousands),
            thousands(median(&|r| number(r, "samples") / number(r, "cpu_s"))),
            thousands(median(&|r| number(r, "records") / number(r, "wall_s"))),
            thousands(median(&|r| number(r, "samples") / number(r, "wall_s"))),
        ));
        per_record.push((case, median(&|r| number(r, "cpu_s") / number(r, "records"))));
        peaks_mb.push((case, median(&|r| number(r, "rss_kib")) * 1_024.0 / 1e6));
    }
    lines.extend(PEERS.map(|(name, n)| format!("| {name} | {} | | | | |", thousands(n as f64))));
    let mut rows: Vec<Row> = lines.into_iter().map(Row::verbatim).collect();
    rows.extend(["", "| | measured | limit |", "|---|---:|---:|"].map(|line| Row::verbatim(line.to_owned())));
    let native = per_record.last().map_or(f64::NAN, |(_, seconds)| *seconds);
    for (case, seconds) in &per_record[..per_record.len() - 1] {
        rows.push(Row::told(&format!("{case}: CPU time against native"), format!("{:.2}", seconds / native)));
    }
    rows.extend(peaks_mb.iter().map(|(case, mb)| Row::below(&format!("{case}: peak memory"), *mb, PEAK_MB, "MB")));
    Ok(rows)
}

/// Rounded to thousands, because no more of it can be repeated.
fn thousands(n: f64) -> String {
    format!("{:.0}k", n / 1e3)
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_shown_in_thousands() {
        assert_eq!(super::thousands(927_499.0), "927k");
    }
}
