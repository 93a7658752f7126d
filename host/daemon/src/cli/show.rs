//! `hb status`, `hb runs list`, `hb quarantine list`: what the state holds.

use std::collections::BTreeMap;

use clap::Subcommand;
use hb_engine::decision::Decision;
use hb_log::cbor;
use serde::Serialize;

use super::analyze::Run;
use super::{Done, Failure, Global, existing_state};
use crate::case::Case;
use crate::clock;
use crate::diagnostic::{exit, neutralise};
use crate::pipeline::Cursor;
use crate::pipeline::export::Stands;
use crate::pipeline::record::LIVE;
use crate::pipeline::schedule::Progress;
use crate::state::{DecisionFilter, Reader};

/// Cases and decisions listed by `hb status`.
const LISTED: usize = 10;

/// Verbs of `hb runs`.
#[derive(Subcommand)]
pub(crate) enum RunsVerb {
    /// List stored runs.
    #[command(after_help = "Example: hb runs list --json")]
    List,
}

/// Verbs of `hb quarantine`.
#[derive(Subcommand)]
pub(crate) enum QuarantineVerb {
    /// Counts by source and reason, with a sample each, and dead letters by plugin.
    #[command(after_help = "Example: hb quarantine list --json")]
    List,
}

#[derive(Serialize)]
struct Status {
    program: String,
    host_id: String,
    commits: u64,
    log_entries: u64,
    disk_bytes: u64,
    sources: BTreeMap<String, SourceStatus>,
    counters: BTreeMap<String, u64>,
    tags: BTreeMap<String, u32>,
    last_decisions: Vec<String>,
    cases: Vec<String>,
    runs: usize,
    usage: Used,
    checkpoint: Stands,
    first_baseline: Option<FirstBaseline>,
}

/// What is needed of what is allowed, bytes.
#[derive(Serialize)]
struct Used {
    state_bytes: u64,
    state_cap_bytes: u64,
    log_bytes: u64,
    log_cap_bytes: u64,
}

/// How far the first baseline is that is made by itself.
#[derive(Serialize)]
struct FirstBaseline {
    percent: i64,
    samples: u64,
    series: usize,
}

#[derive(Serialize)]
struct SourceStatus {
    frames: u64,
    lines: u64,
    ended: bool,
}

/// Shows what the state holds.
pub(crate) fn status(global: &Global) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let mut sources = BTreeMap::new();
    for (name, bytes) in reader.cursors(&program)? {
        if let Some(source) = name.strip_prefix("live/") {
            let c: Cursor = cbor::decode(&bytes).map_err(|e| Failure::data(e.to_string()))?;
            sources.insert(source.to_owned(), SourceStatus { frames: c.ordinal, lines: c.line, ended: c.ended });
        }
    }
    let usage = state.usage();
    let status = Status {
        host_id: state.host_id().to_owned(),
        commits: reader.commits()?,
        log_entries: reader.entry_count()?,
        disk_bytes: state.disk_bytes()?,
        sources,
        counters: reader.counters(&program, LIVE)?.into_iter().collect(),
        tags: reader.tags(&program)?.into_iter().collect(),
        last_decisions: last_decisions(&reader, &program)?,
        cases: cases(&reader, &program)?,
        runs: reader.runs(&program)?.len(),
        usage: Used {
            state_bytes: usage.bytes,
            state_cap_bytes: usage.cap_bytes,
            log_bytes: usage.log_bytes,
            log_cap_bytes: usage.log_cap_bytes,
        },
        checkpoint: Stands::read(&state, &program, LIVE)?,
        first_baseline: first_baseline(&reader, &program)?,
        program,
    };
    global.print(&status, text);
    Ok(exit::OK)
}

/// Lists stored runs.
pub(crate) fn runs(global: &Global) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let mut runs = Vec::new();
    for (_, bytes) in state.reader()?.runs(file.config.program.as_str())? {
        runs.push(serde_json::from_slice::<Run>(&bytes).map_err(|e| Failure::data(e.to_string()))?);
    }
    runs.sort_by(|a, b| a.analyzed_at.cmp(&b.analyzed_at));
    global.print(&runs, |runs| {
        runs.iter()
            .map(|r| format!("{} {} {:7} {}\n", r.analyzed_at, r.run_id, r.status.as_str(), r.sentence))
            .collect()
    });
    Ok(exit::OK)
}

#[derive(Serialize)]
struct Quarantined {
    refused: Vec<RefusedLine>,
    dead_letters: Vec<DeadLine>,
}

#[derive(Serialize)]
struct RefusedLine {
    source: String,
    by: String,
    reason: String,
    count: u64,
    sample: Option<String>,
}

#[derive(Serialize)]
struct DeadLine {
    plugin: String,
    ordinal: u64,
    cause: String,
    frame: String,
}

/// Lists what was refused, and what plugins failed on.
pub(crate) fn quarantine(global: &Global) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let mut refused = Vec::new();
    for count in reader.quarantine(&program)? {
        let samples = reader.quarantine_samples(&program, &count.plugin)?;
        let sample = samples.iter().find(|s| s.source == count.source && s.reason == count.reason);
        refused.push(RefusedLine {
            sample: sample.map(|s| shown(&s.frame)),
            source: count.source,
            by: count.plugin,
            reason: count.reason,
            count: count.count,
        });
    }
    let mut dead_letters = Vec::new();
    for plugin in reader.dead_counts(&program)? {
        for row in reader.dead(&program, &plugin.plugin)? {
            dead_letters.push(DeadLine {
                plugin: row.plugin,
                ordinal: row.ordinal,
                cause: row.cause,
                frame: shown(&row.frame),
            });
        }
    }
    global.print(&Quarantined { refused, dead_letters }, |q| {
        let mut text = String::new();
        for r in &q.refused {
            text.push_str(&format!("{} x {} ({}, by {})\n", r.count, neutralise(&r.reason), r.source, r.by));
            if let Some(sample) = &r.sample {
                text.push_str(&format!("    {sample}\n"));
            }
        }
        for d in &q.dead_letters {
            text.push_str(&format!(
                "dead: frame {} on {}: {}\n    {}\n",
                d.ordinal,
                d.plugin,
                neutralise(&d.cause),
                d.frame
            ));
        }
        text
    });
    Ok(exit::OK)
}

/// Bytes of telemetry as one line that does nothing to a terminal.
fn shown(bytes: &[u8]) -> String {
    crate::diagnostic::clip(&String::from_utf8_lossy(bytes), 120).into_owned()
}

fn first_baseline(reader: &Reader, program: &str) -> Result<Option<FirstBaseline>, Failure> {
    let Some(percent) = Progress::read(reader, program)?.and_then(|progress| progress.percent()) else {
        return Ok(None);
    };
    let counters = reader.counters(program, LIVE)?;
    let samples = counters.iter().find(|c| c.0 == "samples").map_or(0, |c| c.1);
    Ok(Some(FirstBaseline { percent, samples, series: reader.series(program)?.len() }))
}

fn last_decisions(reader: &Reader, program: &str) -> Result<Vec<String>, Failure> {
    let filter = DecisionFilter { newest_first: true, ..DecisionFilter::default() };
    let mut lines = Vec::new();
    for row in reader.decisions(program, LIVE, filter)?.take(LISTED) {
        let row = row?;
        let d: Decision = cbor::decode(&row.bytes).map_err(|e| Failure::data(e.to_string()))?;
        let end = clock::rfc3339(d.end_ns);
        lines.push(format!("{end} {} {} {} {}", d.status, d.check, neutralise(&d.asset), row.id.short()));
    }
    Ok(lines)
}

fn cases(reader: &Reader, program: &str) -> Result<Vec<String>, Failure> {
    let mut cases = Vec::new();
    for (_, bytes) in reader.cases(program)? {
        cases.push(cbor::decode::<Case>(&bytes).map_err(|e| Failure::data(e.to_string()))?);
    }
    cases.sort_by_key(|c| std::cmp::Reverse(c.end_ns));
    let line =
        |c: &Case| format!("{} {} {} {} {}", c.id, clock::rfc3339(c.end_ns), c.status, c.check, neutralise(&c.asset));
    Ok(cases.iter().map(line).collect())
}

fn text(s: &Status) -> String {
    let mut out = format!(
        "program {} on host {}: {} commits, {} log entries, {} kB on disk\n",
        s.program,
        s.host_id,
        s.commits,
        s.log_entries,
        s.disk_bytes / 1024
    );
    for (name, source) in &s.sources {
        let state = if source.ended { "ended" } else { "open" };
        out.push_str(&format!("source {name}: {} lines, {} frames, {state}\n", source.lines, source.frames));
    }
    let mb = |bytes: u64| bytes >> 20;
    let u = &s.usage;
    out.push_str(&format!("state: {} of {} MiB, ", mb(u.state_bytes), mb(u.state_cap_bytes)));
    out.push_str(&format!("log: {} of {} MiB\n", mb(u.log_bytes), mb(u.log_cap_bytes)));
    if let Some(first) = &s.first_baseline {
        let FirstBaseline { percent, samples, series } = first;
        out.push_str(&format!("first baseline: {percent} % of its time, {samples} samples, {series} series\n"));
    }
    let counters: Vec<String> = s.counters.iter().map(|(k, v)| format!("{k} {v}")).collect();
    out.push_str(&format!("counts: {}\n", counters.join(", ")));
    let tags: Vec<String> = s.tags.iter().map(|(k, v)| format!("{k} = v{v}")).collect();
    out.push_str(&format!("baselines: {}\n", if tags.is_empty() { "none tagged".into() } else { tags.join(", ") }));
    for line in &s.last_decisions {
        out.push_str(&format!("decision {line}\n"));
    }
    for line in s.cases.iter().take(LISTED) {
        out.push_str(&format!("{line}\n"));
    }
    if s.cases.len() > LISTED {
        out.push_str(&format!("... and {} more cases\n", s.cases.len() - LISTED));
    }
    out
}
