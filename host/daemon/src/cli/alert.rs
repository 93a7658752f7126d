//! `hb alert`: what fires, what has ended, and whether the sinks know.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use hb_engine::alert::AlertState;
use hb_engine::decision::{Severity, Status};
use hb_log::cbor;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Done, Failure, Global, existing_state};
use crate::alert::{Document, KeptAlert};
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::dispatch::Sinks;
use crate::state::{DocumentOutcomes, Reader};

/// Resolved alerts listed without `--all`, those that ended last.
const RESOLVED_LISTED: usize = 10;

/// Verbs of `hb alert`.
#[derive(Subcommand)]
pub(crate) enum AlertVerb {
    /// Alerts that fire, then those that ended last, and what each sink knows of them.
    #[command(after_help = "Example: hb alert list --all --json")]
    List(ListArgs),
    /// Send a test alert through a sink, now, and say what came of it.
    #[command(after_help = "Example: hb alert test --sink out")]
    Test(TestArgs),
}

/// Arguments of `hb alert list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Every resolved alert that is remembered.
    #[arg(long)]
    all: bool,
}

/// Arguments of `hb alert test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// A sink of the config, by its name.
    #[arg(long, value_name = "NAME")]
    sink: String,
}

/// Runs an alert verb.
pub(crate) fn run(global: &Global, verb: &AlertVerb) -> Done {
    match verb {
        AlertVerb::List(args) => list(global, args.all),
        AlertVerb::Test(args) => test(global, &args.sink),
    }
}

/// One alert, for a person or a script.
#[derive(Serialize)]
struct Line {
    fingerprint: String,
    state: AlertState,
    severity: Severity,
    status: Status,
    asset: String,
    check: String,
    primary_issue: Option<String>,
    reason: String,
    starts_at: String,
    ends_at: Option<String>,
    /// Seconds since it began.
    age_sec: i64,
    case: Option<String>,
    decision: String,
    /// By sink: `delivered`, `waiting`, `dead`, `dropped`, or `unknown` where no document was queued for it.
    delivery: BTreeMap<String, &'static str>,
}

/// Lists alerts.
fn list(global: &Global, all: bool) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let lines = lines(&state.reader()?, file.config.program.as_str(), clock::now_ns(), all)?;
    global.print(&lines, |lines| if lines.is_empty() { "no alerts\n".to_owned() } else { text(lines) });
    Ok(exit::OK)
}

/// Alerts that fire now, the worst and oldest first, as JSON.
pub(super) fn firing(reader: &Reader, program: &str) -> Result<Vec<Value>, Failure> {
    let lines = lines(reader, program, clock::now_ns(), false)?;
    let firing = lines.iter().filter(|line| line.state == AlertState::Firing);
    Ok(firing.filter_map(|line| serde_json::to_value(line).ok()).collect())
}

/// The alerts of a program: firing ones first, the worst and oldest of them first, then those that ended last.
fn lines(reader: &Reader, program: &str, now_ns: i64, all: bool) -> Result<Vec<Line>, Failure> {
    let mut kept = Vec::new();
    for (_, bytes) in reader.alerts(program)? {
        kept.push(cbor::decode::<KeptAlert>(&bytes).map_err(|e| Failure::data(e.to_string()))?);
    }
    kept.sort_by_key(|k| {
        let a = &k.alert;
        (a.state, std::cmp::Reverse((a.ends_at_ns, a.severity)), a.starts_at_ns, a.fingerprint.clone())
    });
    let firing = kept.iter().filter(|k| k.alert.state == AlertState::Firing).count();
    if !all {
        kept.truncate(firing + RESOLVED_LISTED);
    }
    let ways = Ways::look(reader, program)?;
    Ok(kept.into_iter().map(|k| line(k, now_ns, &ways)).collect())
}

fn line(kept: KeptAlert, now_ns: i64, ways: &Ways) -> Line {
    let alert = kept.alert;
    let event = alert.event_id().to_string();
    let way = |sink: String| {
        let way = ways.of(&sink, &alert.fingerprint, &event);
        (sink, way)
    };
    Line {
        delivery: kept.sinks.into_iter().map(way).collect(),
        state: alert.state,
        severity: alert.severity,
        status: alert.status,
        starts_at: clock::rfc3339(alert.starts_at_ns),
        ends_at: alert.ends_at_ns.map(clock::rfc3339),
        age_sec: now_ns.saturating_sub(alert.starts_at_ns) / hb_engine::NS_PER_SEC,
        decision: alert.decision.to_string(),
        fingerprint: alert.fingerprint,
        asset: alert.asset,
        check: alert.check,
        primary_issue: alert.issue,
        reason: alert.reason,
        case: alert.case,
    }
}

/// What became of the documents of alerts.
struct Ways {
    /// Fingerprint and sink of what waits.
    waiting: BTreeSet<(String, String)>,
    settled: DocumentOutcomes,
}

impl Ways {
    fn look(reader: &Reader, program: &str) -> Result<Ways, Failure> {
        let mut waiting = BTreeSet::new();
        for (sink, _) in reader.outbox_sums(program)? {
            for row in reader.outbox(program, &sink)? {
                waiting.insert((row?.subject, sink.clone()));
            }
        }
        Ok(Ways { waiting, settled: reader.outbox_outcomes(program)? })
    }

    /// What a sink knows of an alert; only what was settled for what the alert says now counts.
    fn of(&self, sink: &str, fingerprint: &str, event: &str) -> &'static str {
        let key = (fingerprint.to_owned(), sink.to_owned());
        if self.waiting.contains(&key) {
            return "waiting";
        }
        let settled = self.settled.get(&key).filter(|(_, id)| id == event);
        settled.map_or("unknown", |(outcome, _)| outcome.as_str())
    }
}

fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    for l in lines {
        let (asset, reason) = (neutralise(&l.asset), neutralise(&l.reason));
        let (state, severity) = (l.state.as_str(), l.severity.as_str());
        let when = match &l.ends_at {
            Some(end) => format!("{} to {end}", l.starts_at),
            None => format!("since {} ({})", l.starts_at, span(l.age_sec)),
        };
        out.push_str(&format!("{state:8} {severity:8} {asset} {} {when} {}\n", l.check, l.fingerprint));
        let issue = l.primary_issue.as_ref().map_or(String::new(), |issue| format!("{}: ", neutralise(issue)));
        if !reason.is_empty() {
            out.push_str(&format!("    {issue}{reason}\n"));
        }
        let ways: Vec<String> = l.delivery.iter().map(|(sink, way)| format!("{sink} {way}")).collect();
        if !ways.is_empty() {
            out.push_str(&format!("    {}\n", ways.join(", ")));
        }
    }
    out
}

/// A span of seconds in its two largest units, as `2h 5m`.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut left = seconds.max(0);
    let parts = units[first..].iter().take(2).map(|(unit, name)| {
        let n = left / unit;
        left %= unit;
        format!("{n}{name}")
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Sends a test alert.
fn test(global: &Global, name: &str) -> Done {
    let file = global.load()?;
    let names = || file.config.sinks.iter().map(|sink| sink.name.as_str());
    if !names().any(|known| known == name) {
        let d = Diagnostic::error(Area::Usage, format!("no sink is named `{}`", neutralise(name)));
        let listed = names().collect::<Vec<_>>().join(", ");
        let d = if listed.is_empty() {
            d.help("the config names none: add one to `sinks`")
        } else {
            d.suggest(name, names())
        };
        return Err(Failure::new(exit::USAGE, d));
    }
    let document = Document::of_test(file.config.program.as_str(), clock::now_ns());
    let sent = Sinks::open_one(&file, name)?.offer(&document);
    if let Err(why) = sent {
        let d = Diagnostic::error(Area::Io, format!("sink `{name}` did not take the test alert: {}", neutralise(&why)));
        return Err(Failure::new(exit::IO, d.help("mend what the sink needs, then test it again")));
    }
    let done = json!({ "sink": name, "id": document.id, "delivered": true });
    global.print(&done, |_| format!("sink {name}: the test alert {} is delivered\n", &document.id[..12]));
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(-1, "0s"), (0, "0s"), (59, "59s"), (61, "1m 1s"), (7_500, "2h 5m"), (266_400, "3d 2h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
