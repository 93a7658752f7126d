//! Keeps the deciding crates pure: what they name in their source, and what they link.

use super::Finding;
use super::rust;
use super::tree::Tree;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Where the pure crates lie, and their names.
const CRATES: &[(&str, &str)] = &[("host/engine/src/", "hb-engine"), ("host/log/src/", "hb-log")];

/// Modules of the standard library that reach outside, or differ from run to run.
const STD: &[&str] = &["env", "fs", "net", "os", "process", "thread", "time"];

/// Names that make a run unlike another wherever they come from.
const NAMES: &[&str] =
    &["HashMap", "HashSet", "Instant", "RandomState", "SystemTime", "getrandom", "rand", "thread_local", "tokio"];

/// Crates with a clock, random numbers, threads, files or sockets.
const LINKED: &[&str] = &[
    "async-std",
    "chrono",
    "getrandom",
    "jiff",
    "mio",
    "mlua",
    "rand",
    "rand_core",
    "rayon",
    "redb",
    "rustix",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "uuid",
    "wasmtime",
];

/// What the source of the pure crates names, tests aside.
pub(super) fn check_source(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.of_kind("rs").filter(|f| !tree.is_test(&f.path)) {
        let Some((_, krate)) = CRATES.iter().find(|(folder, _)| file.path.starts_with(folder)) else { continue };
        let tokens = rust::tokens(&file.text);
        let code = rust::split_tests(&tokens).product;
        let std_paths = rust::paths(&code).into_iter().filter_map(|p| match p.segments.as_slice() {
            ["std", module, ..] if STD.contains(module) => Some((p.line, format!("std::{module}"))),
            _ => None,
        });
        let names = code.iter().filter(|t| NAMES.contains(&t.text)).map(|t| (t.line, t.text.to_owned()));
        for (line, name) in std_paths.chain(names) {
            let help = "pass the value in, or return what should happen; for maps take BTreeMap";
            findings.push(Finding::new(&file.path, line, format!("`{name}` in the pure crate {krate}"), help));
        }
    }
    findings
}

/// What the pure crates link, as cargo resolves it.
pub(super) fn check_crates(root: &Path) -> Result<Vec<Finding>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["tree", "--locked", "--edges", "normal", "--prefix", "depth", "--no-dedupe"]);
    command.args(CRATES.iter().flat_map(|(_, name)| ["--package", name]));
    let output = command.output().context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(linked(&String::from_utf8(output.stdout)?))
}

/// Reads lines of `<depth><name> v<version>`; the line before with a depth less by one is the user.
fn linked(tree: &str) -> Vec<Finding> {
    let mut trail: Vec<&str> = Vec::new();
    let mut findings = Vec::new();
    for line in tree.lines() {
        let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let Ok(depth) = line[..line.len() - name.len()].parse::<usize>() else { continue };
        let name = name.split(' ').next().unwrap_or_default();
        trail.truncate(depth);
        if LINKED.contains(&name) {
            let message = format!("the pure crate {} links {name} ({})", trail[0], trail.join(" -> "));
            let manifest = CRATES.iter().find(|(_, krate)| *krate == trail[0]).map_or("", |(folder, _)| folder);
            let path = manifest.replace("src/", "Cargo.toml");
            let help = "drop the dependency or the feature that brings it";
            findings.push(Finding::new(&path, 1, message, help));
        }
        trail.push(name);
    }
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_outside_world_is_not_named() {
        fixture::check(
            check_source,
            &[
                ("host/engine/src/a.rs", "use std::{fmt, fs::File};\nfn f(m: HashMap<u8, u8>) { std::time::sleep() }"),
                ("host/log/src/b.rs", "//! No std::fs.\n\nuse tokio::sync;\nuse std::io::Read;"),
                ("host/daemon/src/c.rs", "use std::fs;"),
            ],
            &[
                "host/engine/src/a.rs:1: `std::fs` in the pure crate hb-engine",
                "host/engine/src/a.rs:2: `HashMap` in the pure crate hb-engine",
                "host/engine/src/a.rs:2: `std::time` in the pure crate hb-engine",
                "host/log/src/b.rs:3: `tokio` in the pure crate hb-log",
            ],
        );
    }

    #[test]
    fn tests_may_name_it() {
        fixture::check(
            check_source,
            &[
                ("host/log/src/lib.rs", "#[cfg(test)]\nmod testing;\n#[cfg(test)]\nmod tests { use std::fs; }"),
                ("host/log/src/testing.rs", "use std::fs;"),
                ("host/log/tests/x.rs", "use std::env;"),
            ],
            &[],
        );
    }

    #[test]
    fn what_is_linked_is_followed_to_its_user() {
        let tree = "0hb-engine v0.1.0 (x)\n1hb-log v0.1.0\n2zip v9.0.0\n3crc32fast v1.4.0\n\
                    0hb-log v0.1.0\n1ciborium v0.2.0\n2rand v0.9.0\n3getrandom v0.4.0\n1tokio-like v1.0.0\n";
        let found: Vec<String> = linked(tree).into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
        assert_eq!(
            found,
            [
                "host/log/Cargo.toml: the pure crate hb-log links getrandom (hb-log -> ciborium -> rand)",
                "host/log/Cargo.toml: the pure crate hb-log links rand (hb-log -> ciborium)"
            ]
        );
    }
}
