//! Decisions and alerts as documents: what leaves the host, for whom, and in what words.
//!
//! Documents are made with the decision and committed with it; [`crate::dispatch`] carries them. An alert event is
//! versioned JSON, described by `docs/reference/alert_event.schema.json`.

use std::path::{Path, PathBuf};

use hb_engine::alert::{Alert, AlertState, fingerprint};
use hb_engine::decision::{Decision, Severity, Status};
use hb_log::hash::Hash;
use hb_log::pack::root_name;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;
use crate::config::{Config, DocumentKind};

/// Version of the alert event written now.
pub const EVENT_V: u8 = 1;

/// Findings named in an event, the worst first: more are read in the decision, or in the report.
pub const DRIFT_METRICS_MAX: usize = 50;

/// Report inside an evidence pack.
const REPORT: &str = "data/drift_report.html";

/// Ranks of documents: when the queue of a sink is full, the lowest rank goes first.
const RANK_DECISION: u8 = 0;
const RANK_FAILURE: u8 = 1;
const RANK_ALERT: u8 = 2;

/// Who gets which documents, and where the packs lie that they point to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// One for each sink, in the order of the config.
    pub sinks: Vec<Route>,
    /// Where packs go; none when no FAIL is packed.
    pub packs: Option<PathBuf>,
}

/// What one sink asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sink.
    pub sink: String,
    /// Kinds of documents.
    pub deliver: Vec<DocumentKind>,
}

impl Routes {
    /// Those of a config.
    pub fn of(config: &Config) -> Routes {
        let sinks = config.sinks.iter().map(|s| Route { sink: s.name.to_string(), deliver: s.deliver.clone() });
        Routes { sinks: sinks.collect(), packs: config.evidence.on_fail.then(|| config.evidence.dir.clone()) }
    }

    /// Sinks that asked for a kind.
    pub fn wanting(&self, kind: DocumentKind) -> impl Iterator<Item = &str> {
        self.sinks.iter().filter(move |route| route.deliver.contains(&kind)).map(|route| route.sink.as_str())
    }
}

/// An alert as the state keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAlert {
    /// Schema version of this structure.
    pub v: u8,
    /// The alert as it was told last.
    pub alert: Alert,
    /// The sinks it was queued for then.
    pub sinks: Vec<String>,
}

/// A document, ready to be queued for any sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What asks for it.
    pub kind: DocumentKind,
    /// Idempotency key.
    pub id: String,
    /// Documents of one subject keep their order.
    pub subject: String,
    /// How dear it is.
    pub rank: u8,
    /// The document.
    pub json: Vec<u8>,
}

impl Document {
    /// A decision; its id is its hash.
    pub fn of_decision(hash: Hash, decision: &Decision) -> Document {
        let is_failure = matches!(decision.status, Status::Fail | Status::Error);
        Document {
            kind: DocumentKind::Decisions,
            id: hash.to_string(),
            subject: String::new(),
            rank: if is_failure { RANK_FAILURE } else { RANK_DECISION },
            json: serde_json::to_vec(decision).unwrap_or_default(),
        }
    }

    /// What an alert says now, by the decision that made it say so; `packs` is where its case is packed.
    pub fn of_alert(alert: &Alert, decision: &Decision, packs: Option<&Path>) -> Document {
        Document {
            kind: DocumentKind::Alerts,
            id: alert.event_id().to_string(),
            subject: alert.fingerprint.clone(),
            rank: RANK_ALERT,
            json: event(alert, decision, packs).to_string().into_bytes(),
        }
    }

    /// What an alert says that no decision resolved.
    pub fn of_retired(alert: &Alert, packs: Option<&Path>) -> Document {
        let ts_ns = alert.ends_at_ns.unwrap_or(alert.starts_at_ns);
        Document {
            kind: DocumentKind::Alerts,
            id: alert.event_id().to_string(),
            subject: alert.fingerprint.clone(),
            rank: RANK_ALERT,
            json: words(alert, ts_ns, Vec::new(), 0, packs).to_string().into_bytes(),
        }
    }

    /// An alert that is about nothing but the way to the sink.
    pub fn of_test(program: &str, now_ns: i64) -> Document {
        let nothing = format!("test {now_ns}");
        let alert = Alert {
            v: Alert::V,
            fingerprint: fingerprint(program, "test", "hb", "alert-test"),
            program: program.to_owned(),
            lane: "test".to_owned(),
            asset: "hb".to_owned(),
            check: "alert-test".to_owned(),
            state: AlertState::Firing,
            severity: Severity::Warn,
            status: Status::Drift,
            issue: None,
            reason: "a test by `hb alert test`: nothing is wrong".to_owned(),
            starts_at_ns: now_ns,
            ends_at_ns: None,
            decision: Hash::of(nothing.as_bytes()),
            case: None,
        };
        let mut json = words(&alert, now_ns, Vec::new(), 0, None);
        json["test"] = true.into();
        Document {
            kind: DocumentKind::Alerts,
            id: alert.event_id().to_string(),
            subject: String::new(),
            rank: RANK_ALERT,
            json: json.to_string().into_bytes(),
        }
    }
}

/// The event of an alert that is told now.
fn event(alert: &Alert, decision: &Decision, packs: Option<&Path>) -> Value {
    let findings = decision.findings.iter().take(DRIFT_METRICS_MAX).map(|f| {
        json!({
            "metric": f.series.metric, "unit": f.series.unit, "labels": f.series.labels,
            "rule": f.rule, "status": f.status, "value": f.value, "limit": f.limit,
            "observed": f.observed, "expected": f.expected, "contribution": f.contribution, "reason": f.reason,
        })
    });
    let left_out = decision.findings.len().saturating_sub(DRIFT_METRICS_MAX);
    words(alert, decision.end_ns, findings.collect(), left_out, packs)
}

fn words(alert: &Alert, ts_ns: i64, drift_metrics: Vec<Value>, left_out: usize, packs: Option<&Path>) -> Value {
    let report = alert.case.as_ref().zip(packs).map(|(case, packs)| packs.join(root_name(case)).join(REPORT));
    json!({
        "v": EVENT_V,
        "id": alert.event_id().to_string(),
        "ts": clock::rfc3339(ts_ns),
        "severity": alert.severity,
        "status": alert.status,
        "state": alert.state,
        "run_id": alert.lane,
        "primary_issue": alert.issue,
        "reason": alert.reason,
        "report_path": report.map(|path| path.display().to_string()),
        "drift_metrics": drift_metrics,
        "drift_metrics_left_out": left_out,
        "fingerprint": alert.fingerprint,
        "program": alert.program,
        "asset": alert.asset,
        "check": alert.check,
        "case": alert.case,
        "decision": alert.decision.to_string(),
        "starts_at": clock::rfc3339(alert.starts_at_ns),
        "ends_at": alert.ends_at_ns.map(clock::rfc3339),
    })
}
