//! Runs every test of the workspace: packages, axe-core, guests, then the test runner, each step with its time.
//!
//! What a green run hides, tests write into a file: what they skipped, and how often a check was wrong within what is
//! allowed. It is shown at the end, whatever the end is.

use crate::{browser, machine, plugins};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Names the file of the notes; the tests append lines to it.
const NOTES: &str = "HB_TEST_NOTES";

/// All tests, or those whose names match one of `filter`.
pub(crate) fn run(root: &Path, filter: &[&str]) -> Result<()> {
    let start = Instant::now();
    step("packages", || machine::ensure_packages(machine::Need::Test))?;
    step("browser", || browser::ensure(root))?;
    let guests = step("guests", || plugins::build(root))?;
    let notes = guests.dir.with_file_name("test-notes.txt");
    let _ = fs::remove_file(&notes);
    let done = run_tests(root, filter, notes.as_os_str());
    show(&fs::read_to_string(&notes).unwrap_or_default());
    done?;
    eprintln!("== all tests passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn run_tests(root: &Path, filter: &[&str], notes: &OsStr) -> Result<()> {
    let nextest = has_nextest();
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    step("tests", || cargo(root, &[runner, &["--workspace", "--locked"], filter].concat(), notes))?;
    // Only cargo's own runner runs the examples in the documentation; they have no names worth a filter.
    if nextest && filter.is_empty() {
        let examples = ["test", "--doc", "--workspace", "--locked", "--quiet"];
        step("documentation tests", || cargo(root, &examples, notes))?;
    }
    Ok(())
}

/// Shows the notes, each once and in an order that does not depend on the threads of the tests.
fn show(notes: &str) {
    let mut lines: Vec<&str> = notes.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        eprintln!("== {line}");
    }
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let made = work().with_context(|| format!("step `{name}`"))?;
    eprintln!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(made)
}

fn has_nextest() -> bool {
    let mut command = Command::new(cargo_program());
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn cargo(root: &Path, args: &[&str], notes: &OsStr) -> Result<()> {
    let mut command = Command::new(cargo_program());
    let status = command.args(args).current_dir(root).env(NOTES, notes).status().context("cargo")?;
    ensure!(status.success(), "`cargo {}` ended with {status}", args.join(" "));
    Ok(())
}

/// The cargo that runs this program, so that all steps use one toolchain.
fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
