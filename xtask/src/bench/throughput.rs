//! Throughput inside one process: each case three times in a process of its own, the median shown.

use anyhow::{Context, Result};
use serde_json::Value;

use super::ground::Ground;
use super::row::Row;

/// Runs of each case; odd, so that there is a median.
const RUNS: usize = 3;

/// The cases of `host/daemon/examples/bench.rs`, and what they are.
const CASES: [(&str, &str); 3] = [
    ("wasm", "wasm source and normalizer, windows, rules"),
    ("durable", "the same, all stored with fsync"),
    ("native", "the same work without plugins or store"),
];

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
        "\n| case | records per CPU s | samples per CPU s | records per s | samples per s | peak memory |".to_owned(),
        "|---|---:|---:|---:|---:|---:|".to_owned(),
    ];
    for (case, what) in CASES {
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
            "| {case}: {what} | {} | {} | {} | {} | {:.0} MB |",
            thousands(median(&|r| number(r, "records") / number(r, "cpu_s"))),
            thousands(median(&|r| number(r, "samples") / number(r, "cpu_s"))),
            thousands(median(&|r| number(r, "records") / number(r, "wall_s"))),
            thousands(median(&|r| number(r, "samples") / number(r, "wall_s"))),
            median(&|r| number(r, "rss_kib")) * 1_024.0 / 1e6,
        ));
    }
    lines.extend(PEERS.map(|(name, n)| format!("| {name} | {} | | | | |", thousands(n as f64))));
    Ok(lines.into_iter().map(Row::verbatim).collect())
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
