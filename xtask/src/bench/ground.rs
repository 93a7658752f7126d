//! What all cases stand on: the optimised build, the plugins, and a directory on a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{machine, plugins};

/// The built program and its surroundings.
pub(super) struct Ground {
    /// The source tree.
    pub(super) root: PathBuf,
    plugins: PathBuf,
    target: PathBuf,
}

/// A directory of a case; it is gone with the case.
pub(super) struct Dir(PathBuf);

impl Ground {
    /// Builds what is missing, or takes all of it as it was built.
    pub(super) fn prepare(root: &Path, is_built: bool) -> Result<Ground> {
        machine::ensure_packages(machine::Need::Test)?;
        let built = plugins::build(root)?;
        if !is_built {
            build(root)?;
        }
        let target = built.dir.parent().context("target directory")?.to_owned();
        Ok(Ground { root: root.canonicalize()?, plugins: built.dir, target })
    }

    /// An empty directory. Below the target directory: a disk shall be measured, and /tmp may be memory.
    pub(super) fn dir(&self, case: &str) -> Result<Dir> {
        let dir = self.target.join(format!("bench-{case}-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Dir(dir))
    }

    /// `hb`, not started.
    pub(super) fn hb(&self, dir: &Path) -> Command {
        self.command(&self.target.join("release/hb"), dir)
    }

    /// `hb` with a verb, run to its end, which must be good; what it says on stdout.
    pub(super) fn done(&self, dir: &Path, args: &[&str]) -> Result<String> {
        let output = self.hb(dir).args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`hb {}` ended with {}: {said}", args.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same with `--json`.
    pub(super) fn json(&self, dir: &Path, args: &[&str]) -> Result<Value> {
        let text = self.done(dir, &[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`hb {}` said {text}", args.join(" ")))
    }

    /// The example `bench`, run to its end; what it says on stdout.
    pub(super) fn example(&self, args: &[&str], dir: &Path) -> Result<String> {
        let mut command = self.command(&self.target.join("release/examples/bench"), dir);
        let output = command.args(args).arg(dir).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`bench {}`: {said}", args.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The library that makes a disk slow for whoever loads it before others.
    pub(super) fn slow_disk(&self, dir: &Path) -> Result<PathBuf> {
        let (source, library) = (self.root.join("tests/support/hard_world.c"), dir.join("hard_world.so"));
        let mut cc = Command::new("cc");
        let status = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        ensure!(status.context("cc")?.success(), "the library of the slow disk could not be built");
        Ok(library)
    }

    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env("HB_PLUGINS_DIR", &self.plugins)
            .env("HB_POLICIES_DIR", self.root.join("policies"));
        for name in
            ["HB_CONFIG", "HB_CORRELATION_ID", "HB_GATE_FAIL_EXIT", "HB_LOG_FORMAT", "RUST_LOG", "MALLOC_ARENA_MAX"]
        {
            command.env_remove(name);
        }
        command
    }
}

fn build(root: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace, so that dependencies have the features of every other build and are not built again.
    let args = "build --locked --release --workspace --bin hb --example bench";
    let status = Command::new(cargo).args(args.split(' ')).current_dir(root).status().context("cargo")?;
    ensure!(status.success(), "the optimised build failed");
    Ok(())
}

impl std::ops::Deref for Dir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left behind lies below the target directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
