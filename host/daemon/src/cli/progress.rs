//! Progress of long work, shown only where a person looks.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A counter of lines on stderr; hidden when stderr is no terminal.
pub(crate) fn lines(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_prefix(what);
    let style = ProgressStyle::with_template("{prefix} {spinner} {human_pos} frames, {per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
