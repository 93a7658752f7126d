//! The report as a page: one file without scripts and outside parts, for screen, paper and screen readers.

use std::collections::{BTreeMap, BTreeSet};

use hb_engine::decision::Status;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{chart, class, patterns};
use super::{FlaggedSpan, Report, SeriesReport, SeriesTrack, number, time};
use crate::diagnostic::neutralise;

/// Most charts of flagged series: the page stays below a few MB, and nobody looks at more.
pub const MAX_FLAGGED_CHARTS: usize = 40;

/// Most charts of series that were as expected, for comparison.
pub const MAX_OTHER_CHARTS: usize = 4;

/// Most rows of the table behind a chart; the file of numbers has all.
pub const MAX_TABLE_ROWS: usize = 200;

/// Most decisions listed in the page.
const MAX_DECISION_ROWS: usize = 200;

/// Most rows in the list of flagged series.
const MAX_SERIES_ROWS: usize = 200;

/// Nothing but the style sheet may be used, even if text should escape its place.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page. Tracks are drawn in the order of the report's series; those of no flagged series come last.
pub fn render(report: &Report, tracks: &[SeriesTrack]) -> String {
    let title = format!("{} drift report {}", report.status, neutralise(&report.run_id));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (patterns())
                main {
                    (header(report))
                    (facts(report))
                    (flagged(report))
                    (hints(report))
                    (charts(report, tracks))
                    (evidence(report))
                    (decisions(report))
                }
                footer { p { "Times are UTC. Written by hb; schema version " (report.schema_version) "." } }
            }
        }
    };
    page.into_string()
}

fn header(report: &Report) -> Markup {
    html! {
        header {
            h1 { "Drift report " (pill(report.status)) }
            p.sentence { (neutralise(&report.status_sentence)) }
        }
    }
}

fn facts(report: &Report) -> Markup {
    let w = &report.windows;
    let s = &report.samples;
    html! {
        section aria-labelledby="facts" {
            h2 id="facts" { "What was looked at" }
            dl {
                (fact("Run", &html! { (neutralise(&report.run_id)) }))
                (fact("Correlation", &html! { (neutralise(&report.correlation_id)) }))
                (fact("Made at", &html! { (report.made_at) }))
                @if let Some(span) = &report.span {
                    (fact("Time", &html! { (span.start) " to " (span.end) }))
                }
                (fact("Assets", &html! { (list(&report.assets)) }))
                (fact("Baseline", &html! {
                    @if let Some(b) = &report.baseline {
                        (neutralise(&b.tag)) ", version " (b.version)
                        @if let Some(age) = b.age_sec { ", " (age_text(age)) " old" }
                        ", " code title=(b.hash.to_string()) { (b.hash.short()) }
                        @if b.others > 0 { " and " (b.others) " other" }
                    } @else { "none" }
                }))
                (fact("Windows", &html! {
                    (w.total) ": " (w.pass) " PASS, " (w.drift) " DRIFT, " (w.fail) " FAIL, " (w.no_data) " NO_DATA, "
                    (w.error) " ERROR"
                }))
                (fact("Samples", &html! {
                    (s.judged) " judged, " (s.late) " late, " (s.jumped) " ahead of time, " (s.shed) " refused at a cap"
                }))
            }
        }
    }
}

/// The flagged series as a table with a bar for each one's share.
fn flagged(report: &Report) -> Markup {
    if report.series.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="flagged" {
            h2 id="flagged" { "What was flagged" }
            div.wide tabindex="0" role="region" aria-label="Table of flagged series" {
                table {
                    thead { tr {
                        th scope="col" { "Series" }
                        th scope="col" { "Status" }
                        th scope="col" { "Share of all findings" }
                        th.n scope="col" { "Windows" }
                        th.n scope="col" { "Observed" }
                        th.n scope="col" { "Expected" }
                        th.n scope="col" { "Value" }
                        th.n scope="col" { "Limit" }
                        th scope="col" { "First" }
                        th scope="col" { "Last" }
                    } }
                    tbody {
                        @for s in report.series.iter().take(MAX_SERIES_ROWS) {
                            tr {
                                th scope="row" { (neutralise(&s.label)) }
                                td { (pill(s.status)) }
                                td { (bar(s.contribution)) }
                                td.n { (s.windows_flagged) }
                                td.n { (optional(s.worst.observed)) }
                                td.n { (optional(s.worst.expected)) }
                                td.n { (optional(s.worst.value)) }
                                td.n { (optional(s.worst.limit)) }
                                td.t { (s.first_flagged) }
                                td.t { (s.last_flagged) }
                            }
                        }
                    }
                }
            }
            (left_out(report.series.len(), MAX_SERIES_ROWS, "series", "the JSON report has all"))
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
            ol { @for hint in &report.investigation_hints { li { (neutralise(hint)) } } }
        }
    }
}

fn charts(report: &Report, tracks: &[SeriesTrack]) -> Markup {
    let by_label: BTreeMap<&str, &SeriesTrack> = tracks.iter().map(|t| (t.label.as_str(), t)).collect();
    let known: BTreeSet<&str> = report.series.iter().map(|s| s.label.as_str()).collect();
    let others: Vec<&SeriesTrack> = tracks.iter().filter(|t| !known.contains(t.label.as_str())).collect();
    html! {
        @if !report.series.is_empty() {
            section aria-labelledby="charts" {
                h2 id="charts" { "Flagged series" }
                (legend())
                @for s in report.series.iter().take(MAX_FLAGGED_CHARTS) {
                    article id=(s.anchor) {
                        h3 { (neutralise(&s.label)) " " (pill(s.status)) }
                        (why(s))
                        @if let Some(track) = by_label.get(s.label.as_str()) { (figure(track, &s.anchor)) }
                    }
                }
                (left_out(report.series.len(), MAX_FLAGGED_CHARTS, "flagged series", "the table above lists them"))
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
                (left_out(others.len(), MAX_OTHER_CHARTS, "series", "they were within limits too"))
            }
        }
    }
}

fn why(s: &SeriesReport) -> Markup {
    html! {
        ul.why {
            @for f in &s.findings {
                li {
                    strong { (f.status) } " by " code { (neutralise(&f.rule)) } " in " (f.windows)
                    @if f.windows == 1 { " window" } @else { " windows" }
                    @if !f.reason.is_empty() { ": " (neutralise(&f.reason)) }
                }
            }
        }
    }
}

fn figure(track: &SeriesTrack, id: &str) -> Markup {
    let rows = track.points.len();
    let every = rows.div_ceil(MAX_TABLE_ROWS).max(1);
    html! {
        figure {
            (chart(track, &format!("{id}-chart")))
            @if !track.unit.is_empty() { figcaption { "Values in " (neutralise(&track.unit)) "." } }
        }
        @if !track.flagged.is_empty() { (spans(&track.flagged)) }
        details {
            summary { "Numbers of " (neutralise(&track.label)) }
            table {
                caption {
                    @if every > 1 { "Every " (every) "th of " (rows) " windows" } @else { (rows) " windows" }
                    @if let Some(b) = track.band {
                        "; baseline p05 " (number(b.p05)) ", median " (number(b.median)) ", p95 " (number(b.p95))
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
                            th scope="row" { (time(p.end_ns)) }
                            td.n { (number(p.mean)) }
                            td.n { (number(p.min)) }
                            td.n { (number(p.max)) }
                        }
                    }
                }
            }
        }
    }
}

fn spans(flagged: &[FlaggedSpan]) -> Markup {
    html! {
        details {
            summary { "Flagged times (" (flagged.len()) ")" }
            table {
                thead { tr {
                    th scope="col" { "Status" } th scope="col" { "From" } th scope="col" { "To" } th scope="col" { "Why" }
                } }
                tbody {
                    @for s in flagged.iter().take(MAX_TABLE_ROWS) {
                        tr {
                            td { (pill(s.status)) }
                            td.t { (time(s.start_ns)) }
                            td.t { (time(s.end_ns)) }
                            td { (neutralise(&s.reason)) }
                        }
                    }
                }
            }
            (left_out(flagged.len(), MAX_TABLE_ROWS, "times", "the JSON report lists the decisions"))
        }
    }
}

fn legend() -> Markup {
    html! {
        p.legend {
            "The line is the mean of each window, the shade around it reaches from the smallest to the largest value. "
            "The green band is where the baseline has nine of ten values, the dashed line its median. "
            "Above the plot: solid is FAIL, hatched DRIFT, dotted NO_DATA, crossed ERROR."
        }
    }
}

fn evidence(report: &Report) -> Markup {
    if report.evidence_links.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="evidence" {
            h2 id="evidence" { "Evidence" }
            ul {
                @for link in report.evidence_links.iter().take(MAX_FLAGGED_CHARTS) {
                    li {
                        (neutralise(&link.metric_name)) ": " code { (neutralise(&link.artifact_ref)) } ", "
                        (neutralise(&link.hint))
                    }
                }
            }
            (left_out(report.evidence_links.len(), MAX_FLAGGED_CHARTS, "series", "the JSON report has all"))
        }
    }
}

fn decisions(report: &Report) -> Markup {
    if report.decisions.is_empty() {
        return html! {};
    }
    let all = report.decisions.len() as u64 + report.decisions_left_out;
    html! {
        section aria-labelledby="decisions" {
            h2 id="decisions" { "Decisions" }
            details {
                summary { "Decisions that are not PASS (" (all) ")" }
                table {
                    thead { tr {
                        th scope="col" { "Decision" } th scope="col" { "Check" } th scope="col" { "Asset" }
                        th scope="col" { "Window" } th scope="col" { "Status" } th scope="col" { "Severity" }
                    } }
                    tbody {
                        @for d in report.decisions.iter().take(MAX_DECISION_ROWS) {
                            tr {
                                th scope="row" { code { (neutralise(&d.id)) } }
                                td { (neutralise(&d.check)) }
                                td { (neutralise(&d.asset)) }
                                td { (d.window.start) " to " (d.window.end) }
                                td { (pill(d.status)) }
                                td { (d.severity.map_or("–", hb_engine::decision::Severity::as_str)) }
                            }
                        }
                    }
                }
                (left_out(all as usize, MAX_DECISION_ROWS, "decisions", "the log has all"))
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
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

fn bar(share: f64) -> Markup {
    let percent = (share * 1000.0).round() / 10.0;
    html! {
        span.share {
            span.bar aria-hidden="true" { span style=(format!("width:{percent}%")) {} }
            span { (number(percent)) " %" }
        }
    }
}

fn list(items: &[String]) -> Markup {
    const SHOWN: usize = 10;
    html! {
        @for (i, item) in items.iter().take(SHOWN).enumerate() { @if i > 0 { ", " } (neutralise(item)) }
        @if items.len() > SHOWN { " and " (items.len() - SHOWN) " more" }
        @if items.is_empty() { "none" }
    }
}

fn left_out(all: usize, shown: usize, what: &str, where_: &str) -> Markup {
    html! { @if all > shown { p.more { (all - shown) " more " (what) " are not shown; " (where_) "." } } }
}

fn optional(value: Option<f64>) -> String {
    number(value.unwrap_or(f64::NAN))
}

fn age_text(sec: i64) -> String {
    match sec {
        ..120 => format!("{sec} s"),
        120..7_200 => format!("{} min", sec / 60),
        7_200..172_800 => format!("{} h", sec / 3_600),
        _ => format!("{} days", sec / 86_400),
    }
}
