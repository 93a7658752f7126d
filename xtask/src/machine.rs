//! What a machine must have besides the Rust toolchain: Debian packages, installed only when they are missing.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Debian package, known to be there by a program it brings.
struct Package {
    name: &'static str,
    program: &'static str,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "g++", program: "c++", reason: "compiles the Luau interpreter and zstd" },
    Package { name: "curl", program: "curl", reason: "asks for health and metrics as the guide does" },
    Package { name: "minisign", program: "minisign", reason: "verifies evidence the way an auditor would" },
    Package { name: "mosquitto", program: "mosquitto", reason: "is the broker that tests talk to" },
    Package { name: "chromium", program: "chromium", reason: "opens reports as people do" },
    Package { name: "chromium-driver", program: "chromedriver", reason: "drives it" },
    Package { name: "npm", program: "npm", reason: "fetches axe-core, which judges pages for those who cannot see" },
    Package { name: "mosquitto-clients", program: "mosquitto_pub", reason: "publishes to it as others would" },
    Package {
        name: "systemd",
        program: "systemd-analyze",
        reason: "judges the service, and runs it in a machine of tests",
    },
];

/// Installs what is missing, when this is root; otherwise says what to install.
pub(crate) fn ensure_packages() -> Result<()> {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|p| !is_on_path(p.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("setup: {} is missing: it {}", package.name, package.reason);
    }
    install(&missing.iter().map(|p| p.name).collect::<Vec<_>>())
}

/// Installs Debian packages by these names, when this is root; otherwise says how.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    ensure!(is_root()?, "only root can install packages; run `sudo {}`", install_line(names));
    // A fresh image knows no packages at all until it has looked.
    apt_get(&["update", "-q"])?;
    apt_get(&[&["install", "-y", "-q", "--no-install-recommends"], names].concat())
}

/// The command that installs these packages by hand.
pub(crate) fn install_line(names: &[&str]) -> String {
    format!("apt-get install {}", names.join(" "))
}

fn apt_get(args: &[&str]) -> Result<()> {
    eprintln!("setup: apt-get {}", args.join(" "));
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("apt-get cannot run; these are the names of Debian packages")?;
    ensure!(status.success(), "apt-get {} ended with {status}", args.join(" "));
    Ok(())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons lie where the path of an ordinary user does not lead.
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder: PathBuf| folder.join(program).is_file())
}

fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    // The owner of this very process, without a call into libc.
    Ok(Path::new("/proc/self").metadata().context("/proc/self")?.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_on_the_path_alone() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-program"));
    }
}
