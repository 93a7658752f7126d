//! Progress of long work, shown only where a person looks: on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::session;

/// How often a spinner turns, ms: often enough to be seen alive.
const TURN_MS: u64 = 100;

/// Frames whose number nobody knows before; `{msg}` is for whatever else is counted.
pub(crate) fn frames(what: &'static str) -> ProgressBar {
    made(what, None, "{prefix} {spinner} {human_pos} frames{msg}, {per_sec}")
}

/// A share of `total` frames.
pub(crate) fn share(what: &'static str, total: u64) -> ProgressBar {
    made(what, Some(total), "{prefix} {wide_bar} {percent} % of {human_len} frames{msg}, {eta} left")
}

/// Steps, of which there may be no last one.
pub(crate) fn steps(what: &'static str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} {wide_bar} {percent} % of {human_len} steps, {eta} left",
        None => "{prefix} {spinner} {human_pos} steps, {elapsed}",
    };
    made(what, total, template)
}

/// Steps of a last one, and below them whatever else is said.
pub(crate) fn steps_and_more(what: &'static str, total: u64) -> ProgressBar {
    made(what, Some(total), "{prefix} {wide_bar} {percent} % of {human_len} steps, {eta} left\n{msg}")
}

/// Work without a number: it turns by itself, until it is finished or dropped.
pub(crate) fn busy(what: &'static str) -> ProgressBar {
    let bar = made(what, None, "{prefix} {spinner} {elapsed}");
    if !bar.is_hidden() {
        bar.tick();
        bar.enable_steady_tick(Duration::from_millis(TURN_MS));
    }
    bar
}

fn made(what: &'static str, total: Option<u64>, template: &str) -> ProgressBar {
    if session::is_remote() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    bar.with_style(style).with_prefix(what)
}
