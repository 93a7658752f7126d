//! What a machine must have besides the Rust toolchain: Debian packages, installed only when they are missing.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What packages are for; what is needed for one of them is needed for the later ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// To build hb, and to play the demo.
    Demo,
    /// To run every test and every bench.
    Test,
}

/// A Debian package, known to be there by a program it brings.
struct Package {
    name: &'static str,
    program: &'static str,
    need: Need,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "g++", program: "c++", need: Need::Demo, reason: "compiles the Luau interpreter and zstd" },
    Package {
        name: "minisign",
        program: "minisign",
        need: Need::Demo,
        reason: "verifies evidence the way an auditor would",
    },
    Package {
        name: "curl",
        program: "curl",
        need: Need::Test,
        reason: "asks for health and metrics as the guide does",
    },
    Package { name: "mosquitto", program: "mosquitto", need: Need::Test, reason: "is the broker that tests talk to" },
    Package {
        name: "mosquitto-clients",
        program: "mosquitto_pub",
        need: Need::Test,
        reason: "publishes to it as others would",
    },
    Package { name: "time", program: "time", need: Need::Test, reason: "says how much memory a run took at most" },
    Package { name: "chromium", program: "chromium", need: Need::Test, reason: "opens reports as people do" },
    Package { name: "chromium-driver", program: "chromedriver", need: Need::Test, reason: "drives it" },
    Package {
        name: "npm",
        program: "npm",
        need: Need::Test,
        reason: "fetches axe-core, which judges pages for those who cannot see",
    },
    Package {
        name: "systemd",
        program: "systemd-analyze",
        need: Need::Test,
        reason: "judges the service, and runs it in a machine of tests",
    },
];

/// Installs what is missing of what is needed, when this is root; otherwise says what to install.
pub(crate) fn ensure_packages(need: Need) -> Result<()> {
    let missing: Vec<&Package> = needed(need).filter(|p| !is_on_path(p.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("setup: {} is missing: it {}", package.name, package.reason);
    }
    install(&missing.iter().map(|p| p.name).collect::<Vec<_>>())
}

fn needed(need: Need) -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(move |package| package.need <= need)
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

    #[test]
    fn the_demo_wants_what_it_uses_and_the_readme_names_all_of_it() {
        let names = |need| needed(need).map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names(Need::Demo), ["g++", "minisign"]);
        let listed = |names: &[&str]| {
            let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let (last, first) = quoted.split_last().unwrap();
            format!("{} and {last}", first.join(", "))
        };
        let (demo, all) = (names(Need::Demo), names(Need::Test));
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        for expected in
            [format!("the demo {},", listed(&demo)), format!("the tests also {}.", listed(&all[demo.len()..]))]
        {
            assert!(readme.contains(&expected), "README.md does not say `{expected}`");
        }
    }
}
