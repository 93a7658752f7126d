//! The report as a page: one file without scripts and outside parts, for screen, paper and screen readers.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use hb_engine::decision::{Severity, Status};
use hb_log::hash::Hash;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, chart, class, patterns};
use super::words::{self, age, moment, moment_of, moments, moments_of};
use super::{
    BaselineReport, CaseLine, Report, ReportKind, SeriesReport, SeriesTrack, explain_command, number, short, time,
};
use crate::diagnostic::neutralise;

/// Most charts of flagged series: the page stays below a few MB, and nobody looks at more.
pub const MAX_FLAGGED_CHARTS: usize = 40;

/// Most charts of series that were as expected, for comparison.
pub const MAX_OTHER_CHARTS: usize = 4;

/// Most rows of the table behind a chart; the file of numbers has all.
pub const MAX_TABLE_ROWS: usize = 120;

/// Most decisions listed in the page.
pub(super) const MAX_DECISION_ROWS: usize = 200;

/// Most rows in the list of flagged series.
pub(super) const MAX_SERIES_ROWS: usize = 100;

/// Most names in a list of assets or sources.
const MAX_NAMES: usize = 10;

/// Characters of a part of a name that stay on one line: as many as a telephone shows.
const UNBROKEN_CHARS: usize = 32;

/// All that the page looks like.
const STYLE: &str = include_str!("style.css");

/// The page. Tracks are drawn in the order of the report's series; those of no flagged series come last.
pub fn render(report: &Report, tracks: &[SeriesTrack]) -> String {
    let title =
        format!("{} {}, drift report of {}", report.status, words::headline(report), neutralise(&report.run_id));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(policy());
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (patterns())
                main {
                    (header(report))
                    (shares(report))
                    (hints(report))
                    (charts(report, tracks))
                    (baseline(report))
                    (evidence(report))
                    (decisions(report))
                    (left_out(report, tracks))
                }
                footer { p { "All times are UTC. Written by hb, report version " (report.schema_version) "." } }
            }
        }
    };
    page.into_string()
}

/// Nothing but this very style sheet may be used, even if text should escape its place.
fn policy() -> String {
    let hash = BASE64.encode(Hash::of(STYLE.as_bytes()).as_bytes());
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

fn header(report: &Report) -> Markup {
    let (w, s) = (&report.windows, &report.samples);
    let counts = [(w.fail, "FAIL"), (w.error, "ERROR"), (w.drift, "DRIFT"), (w.no_data, "NO_DATA"), (w.pass, "PASS")];
    let lost = [(s.late, "late"), (s.jumped, "ahead of time"), (s.shed, "refused at a cap")];
    let told = |counts: &[(u64, &str)]| {
        let told = counts.iter().filter(|c| c.0 > 0).map(|c| format!("{} {}", c.0, c.1));
        told.collect::<Vec<_>>().join(", ")
    };
    html! {
        header {
            p.what { "Drift report of " (neutralise(&report.run_id)) " on " (names(&report.assets)) }
            h1 { (pill(report.status)) " " (capital(&words::headline(report))) }
            @if let Some(worst) = words::worst(report) { p.worst { strong { "Worst: " } (worst) } }
            dl.facts {
                @if let Some(span) = &report.span {
                    (fact("Judged", &html! { (moments(&span.start, &span.end)) }))
                }
                (fact("Compared with", &html! { @if let Some(b) = &report.baseline { (named(b)) } @else { "nothing" } }))
                (fact("Windows", &html! { (w.total) @if w.total > 0 { ": " (told(&counts)) } }))
                (fact("Samples", &html! {
                    (s.judged) " judged" @if lost.iter().any(|l| l.0 > 0) { ", " (told(&lost)) }
                }))
            }
        }
    }
}

/// How much each flagged series makes up, as bars and in figures.
fn shares(report: &Report) -> Markup {
    if report.series.is_empty() {
        return html! {};
    }
    // Its day is told above.
    let day = report.span.as_ref().map_or("", |span| span.start.as_str());
    html! {
        section aria-labelledby="shares" {
            h2 id="shares" { "Which series contribute" }
            div.wide tabindex="0" role="region" aria-label="Table of flagged series" {
                table.shares {
                    thead { tr {
                        th scope="col" { "Series" }
                        th scope="col" { "Share of all that was found" }
                        th scope="col" { "Status" }
                        th.n scope="col" { "Worst mean" }
                        th.n scope="col" { "Normal" }
                        th.n scope="col" { "Times limit" }
                        th.n scope="col" { "Windows" }
                        th scope="col" { "Flagged" }
                    } }
                    tbody {
                        @for (i, s) in report.series.iter().take(MAX_SERIES_ROWS).enumerate() {
                            tr {
                                th scope="row" {
                                    @if i < MAX_FLAGGED_CHARTS {
                                        a href=(format!("#{}", s.anchor)) { (name(s)) }
                                    } @else { (name(s)) }
                                }
                                td { (bar(s.contribution, s.status)) }
                                td { (pill(s.status)) }
                                td.n { (measure(s.worst.observed, &s.series.unit)) }
                                td.n { (measure(s.worst.expected, &s.series.unit)) }
                                td.n { (beyond(s)) }
                                td.n { (s.windows_flagged) }
                                td.t { (when(s, day)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn hints(report: &Report) -> Markup {
    if report.investigation_hints.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="hints" {
            h2 id="hints" { "Where to look next" }
            // Hints are built of neutralised parts.
            ol { @for hint in &report.investigation_hints { li { (hint) } } }
        }
    }
}

fn charts(report: &Report, tracks: &[SeriesTrack]) -> Markup {
    let by_name: BTreeMap<(&str, &str), &SeriesTrack> =
        tracks.iter().map(|t| ((t.check.as_str(), t.label.as_str()), t)).collect();
    let others = as_expected(report, tracks);
    html! {
        @if !report.series.is_empty() {
            section aria-labelledby="charts" {
                h2 id="charts" { "Flagged series" }
                (legend())
                @for s in report.series.iter().take(MAX_FLAGGED_CHARTS) {
                    article id=(s.anchor) aria-labelledby=(format!("{}-h", s.anchor)) {
                        h3 id=(format!("{}-h", s.anchor)) { (name(s)) " " (pill(s.status)) }
                        (why(s))
                        @if let Some(track) = by_name.get(&(s.check.as_str(), s.label.as_str())) {
                            (figure(track, &s.anchor))
                        } @else { p.soft { "There are no numbers to draw it from." } }
                        (proof(s, report))
                    }
                }
            }
        }
        @if !others.is_empty() {
            section aria-labelledby="others" {
                h2 id="others" { "Series that were as expected" }
                @for (i, track) in others.iter().take(MAX_OTHER_CHARTS).enumerate() {
                    article {
                        h3 { (neutralise(&track.label)) " " (pill(Status::Pass)) }
                        (figure(track, &format!("other-{}", i + 1)))
                    }
                }
            }
        }
    }
}

/// The tracks of series that were never flagged.
fn as_expected<'t>(report: &Report, tracks: &'t [SeriesTrack]) -> Vec<&'t SeriesTrack> {
    let known: BTreeSet<&str> = report.series.iter().map(|s| s.label.as_str()).collect();
    let mut others = BTreeMap::new();
    for track in tracks.iter().filter(|t| t.flagged.is_empty() && !known.contains(t.label.as_str())) {
        // Several checks may have looked at it.
        others.entry(track.label.as_str()).or_insert(track);
    }
    others.into_values().collect()
}

fn why(s: &SeriesReport) -> Markup {
    html! {
        ul.why {
            @for f in &s.findings {
                li {
                    strong { (f.status) } " in " (f.windows) @if f.windows == 1 { " window" } @else { " windows" }
                    " by rule " code { (neutralise(&f.rule)) } " of check " code { (neutralise(&s.check)) }
                    @if !f.reason.is_empty() { ": " (neutralise(&f.reason)) }
                }
            }
        }
    }
}

/// Where the proof of a series lies.
fn proof(s: &SeriesReport, report: &Report) -> Markup {
    let link = report.evidence_links.iter().find(|l| l.metric_name == s.label);
    // A pack holds the state before its own decision alone.
    let command = match report.kind {
        ReportKind::Run => Some(explain_command(&s.worst.decision)),
        ReportKind::Case => {
            let own = report.cases.iter().find(|c| c.decision == s.worst.decision);
            own.and_then(|c| c.commands.first()).cloned()
        }
    };
    html! {
        p.soft {
            "Worst window until " (moment(&s.worst.at))
            @if let Some(command) = command { ": " code { (neutralise(&command)) } }
            @if let Some(case) = &s.case { ", case " a href=(format!("#{case}")) { (case) } }
            @if let Some(link) = link { ". In " (file(&link.artifact_ref)) ": " (neutralise(&link.hint)) "." }
        }
    }
}

/// A file to look into; only a plain name is a link, for only that is the same everywhere.
fn file(path: &str) -> Markup {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    html! {
        @if !path.is_empty() && path.chars().all(is_name) { a href=(path) { (path) } }
        @else { code { (neutralise(path)) } }
    }
}

fn figure(track: &SeriesTrack, id: &str) -> Markup {
    let rows = track.points.len();
    let every = rows.div_ceil(MAX_TABLE_ROWS).max(1);
    html! {
        figure { div.wide tabindex="0" role="region" aria-label=(format!("Chart of {}", neutralise(&track.label))) {
            (chart(track, &format!("{id}-chart")))
        } }
        details {
            summary { "Numbers of " (neutralise(&track.label)) }
            table.numbers {
                caption {
                    @if every > 1 { "One of " (every) " windows, of " (rows) } @else { (rows) " windows" }
                    @if !track.unit.is_empty() { ", in " (neutralise(&track.unit)) }
                    @if let Some(b) = track.band {
                        "; the baseline's median is " (number(b.median)) ", nine of ten values lie from " (number(b.p05))
                        " to " (number(b.p95))
                    }
                }
                thead { tr {
                    th scope="col" { "Window end" }
                    th.n scope="col" { "Mean" }
                    th.n scope="col" { "Smallest" }
                    th.n scope="col" { "Largest" }
                } }
                tbody {
                    @for p in track.points.iter().step_by(every) {
                        tr {
                            th scope="row" { (moment(&time(p.end_ns))) }
                            td.n { (number(p.mean)) }
                            td.n { (number(p.min)) }
                            td.n { (number(p.max)) }
                        }
                    }
                }
            }
        }
        @if !track.flagged.is_empty() {
            details {
                summary { "Flagged times (" (track.flagged.len()) ")" }
                table {
                    thead { tr {
                        th scope="col" { "Status" } th scope="col" { "When" } th scope="col" { "Why" }
                    } }
                    tbody {
                        @for s in track.flagged.iter().take(MAX_TABLE_ROWS) {
                            tr {
                                td { (pill(s.status)) }
                                td { (moments(&time(s.start_ns), &time(s.end_ns))) }
                                td { (neutralise(&s.reason)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is what in a chart, each with a sample of it.
fn legend() -> Markup {
    let sample = |inside: Markup| html! { svg.key viewBox="0 0 34 14" aria-hidden="true" { (inside) } };
    html! {
        ul.legend {
            li { (sample(html! { rect.range width="34" height="14" {} line.mean x2="34" y1="7" y2="7" {} }))
                "mean of a window, from its smallest to its largest value" }
            li { (sample(html! { rect.band width="34" height="14" {} line.median x2="34" y1="7" y2="7" {} }))
                "baseline: median, and nine of ten values" }
            li { (sample(html! { line.limit-drift x2="34" y1="4" y2="4" {} line.limit-fail x2="34" y1="10" y2="10" {} }))
                "limits of the rule for DRIFT and FAIL" }
            li { (sample(html! { rect class="flag fail" width="34" height="14" {} rect class="strip fail" width="34" height="5" {} }))
                "flagged: above the plot solid is FAIL, hatched DRIFT, dotted NO_DATA, crossed ERROR" }
        }
    }
}

fn baseline(report: &Report) -> Markup {
    let Some(b) = &report.baseline else { return html! {} };
    html! {
        section aria-labelledby="baseline" {
            h2 id="baseline" { "What was compared with" }
            dl.facts {
                (fact("Baseline", &named(b)))
                @if let Some(span) = &b.span { (fact("Made from", &html! { (moments(&span.start, &span.end)) })) }
                @if let Some(series) = b.series { (fact("Series in it", &html! { (series) })) }
                @if !b.sources.is_empty() { (fact("Sources", &html! { (names(&b.sources)) })) }
                (fact("SHA-256", &html! { code { (b.hash) } }))
            }
            @if b.others > 0 {
                p { "Some windows were compared with " (b.others) " other "
                    @if b.others == 1 { "version" } @else { "versions" } "." }
            }
        }
    }
}

fn evidence(report: &Report) -> Markup {
    html! {
        section aria-labelledby="evidence" {
            h2 id="evidence" { "Evidence" }
            ul { @for f in &report.files { li { (file(&f.path)) ": " (neutralise(&f.holds)) } } }
            @if report.cases.is_empty() {
                p { "No case was opened: nothing failed often enough." }
            } @else {
                p { "Anyone can verify and re-execute a decision from its pack, with the public key of the host."
                    @if report.kind == ReportKind::Case { " This page lies in such a pack; the commands are typed in \
                        the folder that holds it." } }
                @for case in &report.cases { (case_box(case)) }
            }
        }
    }
}

fn case_box(case: &CaseLine) -> Markup {
    html! {
        article id=(case.id) {
            h3 { "Case " (neutralise(&case.id)) " " (pill(case.status)) }
            p { "Check " code { (neutralise(&case.check)) } " on " (neutralise(&case.asset)) ", "
                (moments(&case.window.start, &case.window.end)) }
            pre tabindex="0" role="region" aria-label=(format!("Commands for {}", case.id)) {
                code { @for command in &case.commands { (neutralise(command)) "\n" } }
            }
        }
    }
}

fn decisions(report: &Report) -> Markup {
    if report.decisions.is_empty() {
        return html! {};
    }
    let all = report.decisions.len() as u64 + report.left_out.decisions;
    html! {
        section.folded aria-labelledby="decisions" {
            h2 id="decisions" { "Decisions" }
            details {
                summary { "Decisions that are not PASS (" (all) ")" }
                div.wide tabindex="0" role="region" aria-label="Table of decisions" { table {
                    thead { tr {
                        th scope="col" { "Window" } th scope="col" { "Status" } th scope="col" { "Severity" }
                        th scope="col" { "Check" } th scope="col" { "Asset" } th scope="col" { "Decision" }
                    } }
                    tbody {
                        @for d in report.decisions.iter().take(MAX_DECISION_ROWS) {
                            tr {
                                th.t scope="row" { (moments(&d.window.start, &d.window.end)) }
                                td { (pill(d.status)) }
                                td { (d.severity.map_or("–", Severity::as_str)) }
                                td { (neutralise(&d.check)) }
                                td { (neutralise(&d.asset)) }
                                td { code { (neutralise(&d.id)) } }
                            }
                        }
                    }
                } }
            }
        }
    }
}

/// What the page does not show, and where it is.
fn left_out(report: &Report, tracks: &[SeriesTrack]) -> Markup {
    let beyond = |all: u64, shown: usize| all.saturating_sub(shown as u64);
    let (flagged, out) = (report.series_flagged, &report.left_out);
    let decisions = report.decisions.len() as u64 + report.left_out.decisions;
    let drawn: Vec<&SeriesTrack> = tracks.iter().filter(|t| t.points.len() > chart::MAX_POINTS).collect();
    let crowded = tracks.iter().filter(|t| t.flagged.len() > chart::MAX_SPANS).count() as u64;
    let rows = [
        (beyond(flagged, MAX_SERIES_ROWS), "flagged series are not in the table", "the JSON report lists 1,000"),
        (beyond(flagged, MAX_FLAGGED_CHARTS), "flagged series have no chart", "their numbers are beside this page"),
        (
            beyond(as_expected(report, tracks).len() as u64, MAX_OTHER_CHARTS),
            "series that were as expected have no chart",
            "they were within limits too",
        ),
        (drawn.len() as u64, "charts join neighbouring windows", "600 points are as many as can be told apart"),
        (crowded, "charts show only their 100 longest flagged times", "the log has all decisions"),
        (out.cases, "cases are not listed", "`hb cases list` shows them"),
        (out.unsummed, "decisions are counted and described nowhere", "the mildest and oldest; the log has all"),
        (out.undrawn, "windows of series are in no chart", "the oldest; their numbers are beside this page"),
        (
            beyond(decisions, MAX_DECISION_ROWS),
            "decisions are not listed",
            "the JSON report lists 1,000, the log has all",
        ),
    ];
    if rows.iter().all(|r| r.0 == 0) {
        return html! {};
    }
    html! {
        section aria-labelledby="left-out" {
            h2 id="left-out" { "What this page leaves out" }
            ul { @for (n, what, elsewhere) in rows.iter().filter(|r| r.0 > 0) { li { (n) " " (what) "; " (elsewhere) "." } } }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn named(b: &BaselineReport) -> Markup {
    html! {
        "baseline " strong { (neutralise(&b.tag)) } ", version " (b.version)
        @if let Some(sec) = b.age_sec { ", " (age(sec)) " old" }
    }
}

/// The status as a word with a sign: never by colour alone.
fn pill(status: Status) -> Markup {
    let sign = match status {
        Status::Pass => "✓",
        Status::Drift => "▲",
        Status::Fail => "✕",
        Status::NoData => "?",
        Status::Error => "!",
    };
    html! { span class=(format!("pill {}", class(status))) { span aria-hidden="true" { (sign) " " } (status) } }
}

/// A bar for the eye, a figure for everybody.
fn bar(share: f64, status: Status) -> Markup {
    let percent = (share * 1000.0).round() / 10.0;
    html! {
        span.share {
            svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.rail width="100" height="10" {}
                rect class=(class(status)) width=(format!("{percent}")) height="10" {}
            }
            span.n { (number(percent)) " %" }
        }
    }
}

fn measure(value: Option<f64>, unit: &str) -> Markup {
    html! {
        (short(value.unwrap_or(f64::NAN)))
        @if value.is_some() && !unit.is_empty() { " " span.unit { (neutralise(unit)) } }
    }
}

/// How often the value compared holds its limit.
fn beyond(s: &SeriesReport) -> String {
    match (s.worst.value, s.worst.limit) {
        (Some(value), Some(limit)) if limit != 0.0 => short((value / limit).abs()),
        _ => "–".into(),
    }
}

/// A series with places to break its line: between metric and labels and between labels, but not within a name that
/// has room.
fn name(s: &SeriesReport) -> Markup {
    let labels = &s.series.labels;
    let end = |i: usize| if i + 1 == labels.len() { "}" } else { "," };
    let begin = |i: usize| if i == 0 { "{" } else { "" };
    let label = |(i, (key, value))| format!("{}{key}={value}{}", begin(i), end(i));
    html! {
        (part(&s.series.metric))
        @for text in labels.iter().enumerate().map(label) { wbr; (part(&text)) }
    }
}

fn part(text: &str) -> Markup {
    let text = neutralise(text);
    let class = if text.chars().count() <= UNBROKEN_CHARS { "name" } else { "name long" };
    html! { span class=(class) { (text) } }
}

/// When it was flagged; `day` is that of the report.
fn when(s: &SeriesReport, day: &str) -> String {
    let before = if s.began_before { "before " } else { "" };
    if s.last_status.is_some() {
        format!("since {before}{}", moment_of(day, &s.first_flagged))
    } else {
        format!("{before}{}", moments_of(day, &s.first_flagged, &s.last_flagged))
    }
}

fn names(items: &[String]) -> Markup {
    html! {
        @for (i, item) in items.iter().take(MAX_NAMES).enumerate() { @if i > 0 { ", " } (neutralise(item)) }
        @if items.len() > MAX_NAMES { " and " (items.len() - MAX_NAMES) " more" }
        @if items.is_empty() { "no asset" }
    }
}

/// A sentence as it stands at the beginning.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
