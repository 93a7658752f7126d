//! Builds what `hb demo` needs, and plays it.

use crate::{machine, plugins};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Builds hb with the same features of its dependencies as `cargo xtask test`, so that each is compiled once for both.
/// Cargo unites features over what it builds: the whole workspace, and with the example what only tests depend on.
const BUILD: [&str; 7] = ["build", "--locked", "--workspace", "--bin", "hb", "--example", "bench"];

/// Plays the demo with these arguments of `hb demo`.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    machine::ensure_packages(machine::Need::Demo)?;
    let built = plugins::build(root)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(BUILD).current_dir(root).status();
    ensure!(status.context("cargo")?.success(), "hb could not be built");
    let hb = built.dir.parent().context("target directory")?.join("debug/hb");
    let mut demo = Command::new(&hb);
    demo.arg("demo").args(args).env("HB_PLUGINS_DIR", &built.dir).env("HB_POLICIES_DIR", root.join("policies"));
    let status = demo.status().with_context(|| hb.display().to_string())?;
    ensure!(status.success(), "the demo did not go as it should");
    Ok(())
}
