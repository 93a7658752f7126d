//! axe-core, which judges pages for those who cannot see them: fetched by npm in one version, believed by its hash alone.

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::plugins::target_dir;

/// The package; nothing of it is installed or run but the one file, in the browser of a test.
const PACKAGE: &str = "axe-core";
const VERSION: &str = "4.14.1";

/// The file in it, and its SHA-256.
const FILE: &str = "axe.min.js";
const SHA256: &str = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c";

/// Fetches the file into `browser/` of the target directory, unless it lies there.
pub(crate) fn ensure(root: &Path) -> Result<()> {
    let dir = target_dir(root).join("browser");
    let file = dir.join(FILE);
    if file.is_file() && check(&file).is_ok() {
        return Ok(());
    }
    eprintln!("setup: {PACKAGE} {VERSION} is missing: tests of reports need it");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let archive = format!("{PACKAGE}-{VERSION}.tgz");
    let package = format!("{PACKAGE}@{VERSION}");
    let missing = || format!("{package} comes from a registry of npm packages; there is none that npm can reach here");
    run(&dir, "npm", &["pack", "--ignore-scripts", "--silent", &package]).with_context(missing)?;
    run(&dir, "tar", &["--strip-components=1", "-xzf", &archive, &format!("package/{FILE}")])?;
    fs::remove_file(dir.join(&archive)).with_context(|| archive.clone())?;
    check(&file)
}

fn check(file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    ensure!(found == SHA256, "{} has SHA-256 {found}, not {SHA256}: it is not what was reviewed", file.display());
    Ok(())
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program).args(args).current_dir(dir).status().with_context(|| program.to_owned())?;
    ensure!(status.success(), "`{program} {}` ended with {status}", args.join(" "));
    Ok(())
}
