//! The report in words: one sentence on what happened, hints on where to look next, and times as people say them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Readings, Report, SeriesReport, Status, number};
use crate::diagnostic::{clip, neutralise};

/// Most hints: a longer list is not read.
const MAX_HINTS: usize = 10;

/// Most names in one hint.
const MAX_NAMES: usize = 5;

/// Characters of a rule's reason that a sentence quotes.
const REASON_CHARS: usize = 300;

/// Most assets that a sentence names.
const MAX_PLACES: usize = 3;

/// Characters of an asset's name that a sentence quotes.
const NAME_CHARS: usize = 60;

/// Most series of which is told how they left their baseline: the first ones are the ones to look at.
const MAX_MANNERS: usize = 3;

/// Fewest flagged windows of which can be told whether something lasts.
const MIN_LASTING: u64 = 3;

/// What happened, in one sentence with the status first.
pub(super) fn sentence(r: &Report) -> String {
    let mut text = format!("{}: {}", r.status, headline(r));
    if let Some(worst) = worst(r) {
        text.push_str("; worst: ");
        text.push_str(&worst);
    }
    text.push('.');
    text
}

/// How many series did what, where and since when; without a stop.
pub(super) fn headline(r: &Report) -> String {
    let w = &r.windows;
    if w.total == 0 {
        return "no window was judged".into();
    }
    if r.series.is_empty() {
        return match r.status {
            Status::Pass => format!("{} within limits", all_of(w.total, "window")),
            status => format!("{} {}, and no series says why", counted(w.of(status), "window"), what(status)),
        };
    }
    let (drifting, rest): (Vec<&SeriesReport>, Vec<&SeriesReport>) =
        r.series.iter().partition(|s| matches!(s.status, Status::Drift | Status::Fail));
    let (broken, empty): (Vec<&SeriesReport>, Vec<&SeriesReport>) =
        rest.iter().partition(|s| s.status == Status::Error);
    let (now, over): (Vec<&SeriesReport>, Vec<&SeriesReport>) =
        drifting.iter().partition(|s| matches!(s.last_status, Some(Status::Drift | Status::Fail)));
    let last = |series: &[&SeriesReport]| series.iter().any(|s| s.last_status.is_some());
    let (told, verb, reason, is_on) = match (now.len(), drifting.len(), broken.len()) {
        (0, 0, 0) => (&empty, "could not be judged", " for want of data", last(&empty)),
        (0, 0, _) => (&broken, "could not be judged", " because a rule failed", last(&broken)),
        (0, ..) => (&drifting, "drifted", "", false),
        (1, ..) => (&now, "drifts", "", true),
        _ => (&now, "drift", "", true),
    };
    let (n, all) = (told.len(), counted(r.series_judged, "series"));
    let mut text = format!("{n} of {all} {verb} on {}{reason}{}", places(told, r), when(told, is_on));
    // Writing to a String cannot fail.
    if !now.is_empty() && !over.is_empty() {
        let _ = write!(text, "; {} more drifted earlier", over.len());
    }
    let others = rest.len() - if drifting.is_empty() { n } else { 0 };
    if others > 0 {
        let _ = write!(text, "; {others} more could not be judged");
    }
    text
}

/// The series that most deserves a look and why, without a stop.
pub(super) fn worst(r: &Report) -> Option<String> {
    let first = r.series.first()?;
    let reason = first.worst.reason.trim().trim_end_matches('.');
    let label = neutralise(&first.label);
    Some(if reason.is_empty() { label.into_owned() } else { format!("{label}: {}", clip(reason, REASON_CHARS)) })
}

/// A time of the report for people: `2026-01-01 10:42 UTC`.
pub(crate) fn moment(rfc3339: &str) -> String {
    match clock(rfc3339) {
        Some((day, clock)) => format!("{day} {clock} UTC"),
        None => rfc3339.to_owned(),
    }
}

/// Two times of the report for people; the day is not repeated.
pub(crate) fn moments(start: &str, end: &str) -> String {
    match (clock(start), clock(end)) {
        (Some((day, from)), Some((same, to))) if day == same => format!("{day} {from} to {to} UTC"),
        (Some((day, from)), Some((other, to))) => format!("{day} {from} to {other} {to} UTC"),
        _ => format!("{start} to {end}"),
    }
}

/// Two times of the report where its day is known: `10:42 to 10:59`, with the day only where it is another.
pub(super) fn moments_of(day: &str, start: &str, end: &str) -> String {
    format!("{} to {}", moment_of(day, start), moment_of(day, end))
}

/// A time of the report where its day is known.
pub(super) fn moment_of(day: &str, rfc3339: &str) -> String {
    match clock(rfc3339) {
        Some((same, clock)) if day.starts_with(same) => clock.to_owned(),
        Some((other, clock)) => format!("{other} {clock}"),
        None => rfc3339.to_owned(),
    }
}

/// Day and time of day, without seconds where there are none.
fn clock(rfc3339: &str) -> Option<(&str, &str)> {
    let (day, rest) = rfc3339.split_once('T')?;
    let rest = rest.strip_suffix('Z')?;
    Some((day, rest.strip_suffix(":00").filter(|hm| hm.len() == 5).unwrap_or(rest)))
}

/// A span of seconds in its two largest units, as `2 h 5 min`.
pub(crate) fn age(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut left = seconds.max(0);
    let mut parts = Vec::new();
    for (unit, name) in units[first..].iter().take(2) {
        let n = left / unit;
        left %= unit;
        if n > 0 || parts.is_empty() {
            parts.push(format!("{n} {name}"));
        }
    }
    parts.join(" ")
}

/// The assets that these series are of.
fn places(series: &[&SeriesReport], r: &Report) -> String {
    let assets: BTreeSet<&str> = series.iter().map(|s| s.asset.as_str()).collect();
    let named: Vec<String> = assets.iter().take(MAX_PLACES).map(|a| clip(a, NAME_CHARS).into_owned()).collect();
    match (assets.len(), named.as_slice()) {
        (_, []) => "no asset".into(),
        (_, [one]) if one.is_empty() => "an asset without a name".into(),
        (n, _) if n > MAX_PLACES && n == r.assets.len() => format!("all {n} assets"),
        (n, _) if n > MAX_PLACES => format!("{n} of {} assets", r.assets.len()),
        (_, [one]) => one.clone(),
        (_, [most @ .., last]) => format!("{} and {last}", most.join(", ")),
    }
}

/// Since when, or from when to when, these series were flagged; one of them at least.
fn when(series: &[&SeriesReport], is_on: bool) -> String {
    // Of two that began at the same time the one that began before it was earlier.
    let first = series.iter().map(|s| (s.first_flagged.as_str(), !s.began_before)).min();
    let (first, is_seen) = first.unwrap_or_default();
    let before = if is_seen { "" } else { "before " };
    if is_on {
        return format!(" since {before}{}", moment(first));
    }
    let last = series.iter().map(|s| s.last_flagged.as_str()).max().unwrap_or_default();
    format!(" from {before}{}", moments(first, last))
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
    if let Some(first) = unseen.first() {
        let reason = clip(first.worst.reason.trim().trim_end_matches('.'), REASON_CHARS);
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        hints.push(format!(
            "{} gave no samples{reason}: check sensor, source and mapping before the machine itself.",
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
    hints.extend(r.series.iter().filter_map(manner).take(MAX_MANNERS));
    if let Some(s) = r.series.iter().find(|s| s.contribution >= 0.8).filter(|_| r.series.len() > 1) {
        hints.push(format!(
            "{} makes up {} % of all that was found: begin there.",
            neutralise(&s.label),
            number((s.contribution * 100.0).round())
        ));
    }
    if !r.series.is_empty() && r.series.iter().all(|s| s.last_status.is_none()) {
        let last = r.series.iter().map(|s| s.last_flagged.as_str()).max().unwrap_or_default();
        hints.push(format!("All series have been within limits again since {}.", moment(last)));
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
    if r.series.iter().any(|s| s.began_before) {
        // Nobody saw which was first.
        return;
    }
    let (first, later): (Vec<&SeriesReport>, Vec<&SeriesReport>) =
        r.series.iter().partition(|s| s.first_flagged == earliest);
    if first.len() > 1 {
        hints.push(format!(
            "{} were first flagged in the same window, from {}: look for a common cause.",
            names(&first),
            moment(earliest)
        ));
    } else if let Some(next) = later.iter().min_by_key(|s| &s.first_flagged) {
        hints.push(format!(
            "{} was flagged first, from {}; {} followed from {}.",
            names(&first),
            moment(earliest),
            neutralise(&next.label),
            moment(&next.first_flagged)
        ));
    }
}

/// What the way in which a series left its baseline points to.
fn manner(s: &SeriesReport) -> Option<String> {
    let label = neutralise(&s.label);
    Some(match (&s.onset, s.readings) {
        (Some(onset), _) if onset.sudden => {
            let at = moment(&s.first_flagged);
            format!("{label} jumped within one window: look for what was changed or failed at about {at}.")
        }
        (Some(onset), _) => {
            let took = age(onset.took_sec);
            format!("{label} moved away over {took}: look for wear, fouling, load or a sensor that drifts.")
        }
        (None, Some(Readings::Single)) => format!(
            "{label} has single readings far out, while its mean moved little: look for shocks, interference or a \
             loose contact."
        ),
        (None, Some(Readings::Still)) => {
            format!("{label} does not move at all: check the sensor and what reads it before the machine itself.")
        }
        // A series without samples has a hint of its own.
        (None, None) if s.worst.observed.is_some() && s.windows_flagged < MIN_LASTING && !s.began_before => {
            let windows = if s.windows_flagged == 1 { "one window" } else { "two windows" };
            format!("{label} was flagged in {windows} only: what comes next tells whether it lasts.")
        }
        (None, None) => return None,
    })
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
    format!("{n} {what}{}", if n == 1 || what.ends_with('s') { "" } else { "s" })
}

fn all_of(n: u64, what: &str) -> String {
    if n == 1 { format!("the one {what} was") } else { format!("all {n} {what}s were") }
}
