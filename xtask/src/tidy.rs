//! The rules no compiler knows: each reads the project's files and returns what breaks it. Nothing is compiled.
//!
//! [`floors`] keeps the daemon's modules in order, [`purity`] keeps clocks and files out of the deciding crates,
//! [`manifests`] keeps dependencies in one place, [`markdown`] keeps links alive, [`boxes`] keeps commands true,
//! [`source`] keeps files readable, and [`generated`] makes the pages that repeat what the source says, with [`schema`],
//! [`metrics`] and [`comments`], and finds those that are stale.

mod boxes;
mod comments;
mod floors;
mod generated;
mod manifests;
mod markdown;
mod metrics;
mod purity;
mod rust;
mod schema;
mod source;
mod tree;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::Path;
use tree::Tree;

/// One place where a rule is broken, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
    help: String,
}

/// Checks all rules and prints what breaks them.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings = [
        floors::check(&tree),
        purity::check_source(&tree),
        purity::check_crates(root)?,
        manifests::check(&tree),
        markdown::check(&tree),
        boxes::check(&tree),
        source::check(&tree),
        generated::check(&tree),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        n => bail!("tidy: {n} findings"),
    }
}

/// Writes the generated pages anew.
pub(crate) fn generate(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    for (path, text) in generated::pages(&tree) {
        let file = root.join(path);
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        eprintln!("wrote {path}");
    }
    Ok(())
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n  help: {}", self.path, self.line, self.message, self.help)
    }
}

#[cfg(test)]
mod fixture {
    //! How the tests of the rules state what they expect.

    use super::{Finding, Tree, tree};

    /// Checks a rule on a tree of `(path, text)`: one `path:line: message` for each finding, in order.
    pub(super) fn check(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
        let mut findings = rule(&tree::fixture::tree(files));
        findings.sort();
        let found: Vec<String> = findings.iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.message)).collect();
        assert_eq!(found, expected);
        assert!(findings.iter().all(|f| !f.help.is_empty()));
    }
}
