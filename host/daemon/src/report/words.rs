//! The report in words: one sentence on what happened, and hints on where to look next.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Report, SeriesReport, Status, WindowCounts, number};
use crate::diagnostic::{clip, neutralise};

/// Most hints: a longer list is not read.
const MAX_HINTS: usize = 10;

/// Most names in one hint.
const MAX_NAMES: usize = 5;

/// Characters of a rule's reason that a sentence quotes.
const REASON_CHARS: usize = 300;

/// What happened, in one or two sentences.
pub(super) fn sentence(r: &Report) -> String {
    let w = &r.windows;
    if w.total == 0 {
        return "NO_DATA: no window was judged.".into();
    }
    let Some(first) = r.series.first() else {
        return match r.status {
            Status::Pass => format!("PASS: {} within limits.", all_of(w.total, "window")),
            status => {
                format!("{status}: {} {}, and no series says why.", counted(of(w, status), "window"), what(status))
            }
        };
    };
    // Writing to a String cannot fail.
    let mut text = format!(
        "{}: {} was flagged in {} from {} to {}",
        r.status,
        neutralise(&first.label),
        counted(first.windows_flagged, "window"),
        first.first_flagged,
        first.last_flagged,
    );
    let reason = first.worst.reason.trim().trim_end_matches('.');
    if !reason.is_empty() {
        let _ = write!(text, ": {}", clip(reason, REASON_CHARS));
    }
    text.push('.');
    let more = r.series.len() as u64 - 1;
    if more > 0 {
        let verb = if more == 1 { "was" } else { "were" };
        let _ = write!(text, " {more} more series {verb} flagged.");
    }
    text
}

/// Where to look next, the most telling first.
pub(super) fn hints(r: &Report) -> Vec<String> {
    let mut hints = Vec::new();
    let flagged = |status| r.series.iter().filter(move |s| s.status == status);

    for s in flagged(Status::Error).take(2) {
        hints.push(format!(
            "Rule {} failed on {}: mend the policy first, these windows were not judged.",
            neutralise(&s.worst.rule),
            neutralise(&s.label)
        ));
    }
    let unseen: Vec<&SeriesReport> = r.series.iter().filter(|s| s.worst.observed.is_none()).collect();
    if !unseen.is_empty() {
        hints.push(format!(
            "{} gave no samples: check sensor, source and mapping before the machine itself.",
            names(&unseen)
        ));
    }
    together(r, &mut hints);
    let affected: BTreeSet<&str> = r.series.iter().map(|s| s.asset.as_str()).collect();
    if r.assets.len() > 1 && affected.len() == 1 {
        let asset = affected.iter().next().copied().unwrap_or_default();
        hints.push(format!(
            "Only asset {} of {} is affected: compare it with the others.",
            neutralise(asset),
            r.assets.len()
        ));
    }
    if let Some(s) = r.series.iter().find(|s| s.contribution >= 0.8).filter(|_| r.series.len() > 1) {
        hints.push(format!(
            "{} makes up {} % of all that was found: begin there.",
            neutralise(&s.label),
            number((s.contribution * 100.0).round())
        ));
    }
    if let Some(end) = r.span.as_ref().map(|s| &s.end) {
        let back: Vec<&SeriesReport> = r.series.iter().filter(|s| s.last_flagged < *end).collect();
        if !back.is_empty() && back.len() == r.series.len() {
            let last = back.iter().map(|s| s.last_flagged.as_str()).max().unwrap_or_default();
            hints.push(format!("All series have been within limits again since {last}."));
        }
    }
    let counts = &r.samples;
    for (n, what) in [
        (counts.late, "too late for their windows: raise `lateness_sec`, or check the clocks of the sources"),
        (counts.jumped, "held back because their time jumped ahead: check the clocks of the sources"),
        (counts.shed, "refused at a cap: raise `limits`, or look for labels that never repeat"),
    ] {
        if n > 0 {
            hints.push(format!("{} {what}.", counted(n, "sample")));
        }
    }
    if r.windows.total > 0 && r.baseline.is_none() {
        hints.push("Nothing was compared with a baseline: make one with `hb baseline create`.".into());
    }
    if r.baseline.as_ref().is_some_and(|b| b.others > 0) {
        hints.push("The baseline changed in between: some windows were compared with another version.".into());
    }
    hints.truncate(MAX_HINTS);
    hints
}

/// Series that left their baseline together point to a common cause; otherwise the first one matters.
fn together(r: &Report, hints: &mut Vec<String>) {
    let Some(earliest) = r.series.iter().map(|s| s.first_flagged.as_str()).min() else { return };
    let (first, later): (Vec<&SeriesReport>, Vec<&SeriesReport>) =
        r.series.iter().partition(|s| s.first_flagged == earliest);
    if first.len() > 1 {
        hints.push(format!(
            "{} were first flagged in the same window, from {earliest}: look for a common cause.",
            names(&first)
        ));
    } else if let Some(next) = later.iter().min_by_key(|s| &s.first_flagged) {
        hints.push(format!(
            "{} was flagged first, from {earliest}; {} followed from {}.",
            names(&first),
            neutralise(&next.label),
            next.first_flagged
        ));
    }
}

fn names(series: &[&SeriesReport]) -> String {
    let mut shown: Vec<String> = series.iter().take(MAX_NAMES).map(|s| neutralise(&s.label).into_owned()).collect();
    if series.len() > MAX_NAMES {
        shown.push(format!("{} more", series.len() - MAX_NAMES));
    }
    match shown.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn of(w: &WindowCounts, status: Status) -> u64 {
    match status {
        Status::Pass => w.pass,
        Status::Drift => w.drift,
        Status::Fail => w.fail,
        Status::NoData => w.no_data,
        Status::Error => w.error,
    }
}

fn what(status: Status) -> &'static str {
    match status {
        Status::Pass => "within limits",
        Status::Drift => "beyond the warn limit",
        Status::Fail => "beyond the fail limit",
        Status::NoData => "without anything to judge",
        Status::Error => "in which a rule failed",
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn all_of(n: u64, what: &str) -> String {
    if n == 1 { format!("the one {what} was") } else { format!("all {n} {what}s were") }
}
