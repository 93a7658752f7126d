//! Measures throughput as an operator would see it: each case three times in a process of its own, the median shown.

use crate::{machine, plugins};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

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

/// Builds with optimisation and measures.
pub(crate) fn run(root: &Path) -> Result<()> {
    machine::ensure_packages()?;
    let built = plugins::build(root)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--locked", "--release", "-p", "hb", "--example", "bench"];
    let status = Command::new(cargo).args(build).current_dir(root).status().context("cargo")?;
    ensure!(status.success(), "the bench could not be built");
    let target = built.dir.parent().context("target directory")?;
    let bench = Bench { root, plugins: &built.dir, program: &target.join("release/examples/bench") };
    // Below the target directory: the durable case shall measure a disk, and /tmp may be memory.
    let dir = target.join(format!("bench-{}", std::process::id()));
    bench.call("prepare", &dir)?;
    let measured = bench.all(&dir);
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let mut out = std::io::stdout();
    for line in measured? {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

struct Bench<'a> {
    root: &'a Path,
    plugins: &'a Path,
    program: &'a Path,
}

impl Bench<'_> {
    /// The whole table.
    fn all(&self, dir: &Path) -> Result<Vec<String>> {
        let mut lines = vec![
            "| case | records per CPU s | samples per CPU s | records per s | samples per s | peak memory |".to_owned(),
            "|---|---:|---:|---:|---:|---:|".to_owned(),
        ];
        for (case, what) in CASES {
            let mut runs = Vec::new();
            for n in 1..=RUNS {
                eprintln!("bench: {case}, run {n} of {RUNS}");
                let line = self.call(case, dir)?;
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
        Ok(lines)
    }

    fn call(&self, case: &str, dir: &Path) -> Result<String> {
        let mut command = Command::new(self.program);
        command
            .arg(case)
            .arg(dir)
            .env("HB_PLUGINS_DIR", self.plugins)
            .env("HB_POLICIES_DIR", self.root.join("policies"));
        let output = command.output().with_context(|| self.program.display().to_string())?;
        ensure!(output.status.success(), "`bench {case}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
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
