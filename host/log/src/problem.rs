//! A problem is one reason not to believe a bag or a pack: where, what, and what to do about it.

use std::fmt;

use serde::Serialize;

/// One reason not to believe. Checks collect all of them instead of stopping at the first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file it was found in, relative to the root of the bag; may come from a hostile bag, so neutralise it
    /// before printing.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What the reader can do, or what it means.
    pub help: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { path: path.into(), what: what.into(), help: help.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.path.escape_debug(), self.what, self.help)
    }
}
