//! Runs every test of the workspace: packages, guests, then the test runner, each step with its time.

use crate::{machine, plugins};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// All tests, or those whose names match one of `filter`.
pub(crate) fn run(root: &Path, filter: &[&str]) -> Result<()> {
    let start = Instant::now();
    step("packages", machine::ensure_packages)?;
    step("guests", || plugins::build(root).map(drop))?;
    let nextest = has_nextest();
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    step("tests", || cargo(root, &[runner, &["--workspace", "--locked"], filter].concat()))?;
    // Only cargo's own runner runs the examples in the documentation; they have no names worth a filter.
    if nextest && filter.is_empty() {
        step("documentation tests", || cargo(root, &["test", "--doc", "--workspace", "--locked", "--quiet"]))?;
    }
    eprintln!("== all tests passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    work().with_context(|| format!("step `{name}`"))?;
    eprintln!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn has_nextest() -> bool {
    let mut command = Command::new(cargo_program());
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let status = Command::new(cargo_program()).args(args).current_dir(root).status().context("cargo")?;
    ensure!(status.success(), "`cargo {}` ended with {status}", args.join(" "));
    Ok(())
}

/// The cargo that runs this program, so that all steps use one toolchain.
fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
