//! Finds a compiler for wasm: the rustup target where it can be had, else Debian's rustc with its own standard library.

use crate::machine;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Forces one of the two ways: `rustup` or `debian`.
pub(super) const ENV: &str = "HB_WASM_TOOLCHAIN";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

#[derive(Debug)]
pub(super) enum Toolchain {
    /// The compiler in use has the target's standard library.
    Rustup { sysroot: PathBuf },
    /// Debian's compiler builds the standard library from source; the linker may be that of the compiler in use.
    Debian { sysroot: PathBuf, linker: Option<PathBuf> },
}

impl Toolchain {
    /// The way to go, by the environment or by what works.
    pub(super) fn find(target: &str) -> Result<Self> {
        match std::env::var(ENV).as_deref() {
            Ok("rustup") => rustup(target),
            Ok("debian") => debian(),
            Ok("") | Err(_) => rustup(target).or_else(|first| {
                eprintln!("plugins: no rustup target ({first:#}); trying Debian's {}", DEBIAN_PACKAGES[0]);
                debian().with_context(|| {
                    format!(
                        "no compiler for {target}: run `rustup target add {target}`, or on Debian `{}`",
                        machine::install_line(&DEBIAN_PACKAGES)
                    )
                })
            }),
            Ok(other) => bail!("{ENV}={other:?} is none of rustup, debian"),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Rustup { .. } => "rustup",
            Self::Debian { .. } => "debian",
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Rustup { sysroot } => format!("the rustup target in {}", sysroot.display()),
            Self::Debian { .. } => format!("{DEBIAN_RUSTC} and a standard library built from source"),
        }
    }

    /// Sets up a cargo call.
    pub(super) fn apply(&self, cargo: &mut Command) {
        let Self::Debian { linker, .. } = self else { return };
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        cargo.env_remove("RUSTC_WRAPPER");
        if let Some(linker) = linker {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    }

    /// Folders whose names must not show in a component.
    pub(super) fn sysroots(&self) -> Vec<PathBuf> {
        match self {
            Self::Rustup { sysroot } => vec![sysroot.clone()],
            Self::Debian { sysroot, .. } => {
                // Debian's source folder is reached through links.
                let source = sysroot.join("lib/rustlib/src/rust");
                let real = source.canonicalize().ok();
                [Some(source), real].into_iter().flatten().collect()
            }
        }
    }
}

fn rustup(target: &str) -> Result<Toolchain> {
    let sysroot = sysroot("rustc".as_ref())?;
    let library = sysroot.join("lib/rustlib").join(target);
    if !library.is_dir() {
        eprintln!("plugins: rustup target add {target}");
        let status = Command::new("rustup").args(["target", "add", target]).status().context("rustup")?;
        ensure!(status.success(), "rustup could not fetch the target {target}");
        ensure!(library.is_dir(), "rustup added the target to another toolchain than {}", sysroot.display());
    }
    Ok(Toolchain::Rustup { sysroot })
}

fn debian() -> Result<Toolchain> {
    let ready = || {
        let sysroot = sysroot(DEBIAN_RUSTC.as_ref()).ok()?;
        sysroot.join("lib/rustlib/src/rust/library/std").is_dir().then_some(sysroot)
    };
    if ready().is_none() {
        machine::install(&DEBIAN_PACKAGES)?;
    }
    let sysroot = ready().with_context(|| format!("{DEBIAN_RUSTC} has no source of the standard library"))?;
    Ok(Toolchain::Debian { sysroot, linker: rust_lld() })
}

/// The linker that comes with the compiler in use; none where that is a distribution's, which then finds its own.
fn rust_lld() -> Option<PathBuf> {
    let rustc = Path::new("rustc");
    let version = Command::new(rustc).arg("-vV").output().ok()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|l| l.strip_prefix("host: "))?;
    let linker = sysroot(rustc).ok()?.join("lib/rustlib").join(host).join("bin/rust-lld");
    linker.is_file().then_some(linker)
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    let output = output.with_context(|| rustc.display().to_string())?;
    ensure!(output.status.success(), "{} --print sysroot: {}", rustc.display(), output.status);
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
