//! Manifests: one `hash  path` line per file, sorted, as `sha256sum` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{CHANGED, Files, Problem};
use crate::hash::Hash;

pub(super) fn render<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = String::new();
    for (path, bytes) in files {
        let _ = writeln!(text, "{}  {path}", Hash::of(bytes));
    }
    text
}

/// Demands that the manifest `name` is exactly what we would have written, and says line by line where it is not.
pub(super) fn check_exact<'a>(
    files: &Files,
    name: &str,
    covered: impl Iterator<Item = (&'a str, &'a [u8])>,
    problems: &mut Vec<Problem>,
) {
    let expected = render(covered);
    let Some(found) = files.get(name) else {
        problems.push(Problem::missing(name));
        return;
    };
    if found == expected.as_bytes() {
        return;
    }
    let before = problems.len();
    match std::str::from_utf8(found) {
        Ok(found) => explain(name, found, &expected, problems),
        Err(_) => problems.push(Problem::new(name, "it is not text", CHANGED)),
    }
    if problems.len() == before {
        let what = "the right lines, but in another order or spelling";
        problems.push(Problem::new(name, what, "a sealed bag's manifest is sorted, with exact line ends"));
    }
}

fn explain(name: &str, found: &str, expected: &str, problems: &mut Vec<Problem>) {
    let mut listed: BTreeMap<&str, &str> = BTreeMap::new();
    for line in found.lines() {
        let Some((hash, path)) = line.split_once("  ") else {
            problems.push(Problem::new(name, format!("a line that is not `hash  path`: {line:?}"), CHANGED));
            continue;
        };
        if listed.insert(path, hash).is_some() {
            problems.push(Problem::new(path, format!("listed twice in {name}"), "one of the lines was added"));
        }
    }
    for (hash, path) in expected.lines().filter_map(|line| line.split_once("  ")) {
        match listed.remove(path) {
            None => problems.push(Problem::new(path, format!("not listed in {name}"), "the file was added")),
            Some(other) if other != hash => {
                let what = format!("has SHA-256 {hash}, {name} says {other:?}");
                problems.push(Problem::new(path, what, "the file or the manifest was changed"));
            }
            Some(_) => {}
        }
    }
    for path in listed.keys() {
        problems.push(Problem::new(*path, format!("listed in {name}, but missing"), "the file was removed"));
    }
}
