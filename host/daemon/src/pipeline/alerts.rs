//! Alerts of the live lane: each decision moves them, and what is to be told joins the decision's own commit.

use ciborium::Value;
use hb_engine::alert::{Alert, AlertBook, AlertState, CHECK_REMOVED, Step};
use hb_engine::decision::Decision;
use hb_log::cbor;
use hb_log::hash::Hash;

use super::PipelineError;
use crate::alert::{Document, KeptAlert, Routes};
use crate::clock;
use crate::config::DocumentKind;
use crate::generation::Generation;
use crate::state::{Commit, NewEntry, OutboxDocument, Reader};

/// The alerts as the state keeps them, and who is told.
#[derive(Debug, Default)]
pub(super) struct Alerting {
    book: AlertBook,
    /// Replaced with the generation.
    pub(super) routes: Routes,
}

impl Alerting {
    /// The alerts as the last commit left them.
    pub(super) fn load(reader: &Reader, generation: &Generation) -> Result<Self, PipelineError> {
        let mut alerts = Vec::new();
        for (_, bytes) in reader.alerts(&generation.program)? {
            let kept: KeptAlert = cbor::decode(&bytes).map_err(|e| PipelineError::corrupt("alert", e))?;
            alerts.push(kept.alert);
        }
        Ok(Alerting { book: AlertBook::restore(alerts), routes: generation.routes.clone() })
    }

    /// Alerts that fire now.
    pub(super) fn firing(&self) -> u64 {
        self.book.alerts().iter().filter(|alert| alert.state == AlertState::Firing).count() as u64
    }

    /// Adds to the commit of a decision what follows from it: its documents, its alert, and the alert's entry. Returns
    /// the alert when somebody is told.
    pub(super) fn decided(
        &mut self,
        hash: Hash,
        decision: &Decision,
        case: Option<&str>,
        commit: &mut Commit,
    ) -> Option<Alert> {
        if decision.is_notable() && self.routes.wanting(DocumentKind::Decisions).next().is_some() {
            self.queue(&Document::of_decision(hash, decision), commit);
        }
        let step = self.book.step(decision, hash, case)?;
        let document = Document::of_alert(&step.alert, decision, self.routes.packs.as_deref());
        self.tell(step, &document, None, commit)
    }

    /// Adds to a commit that what fires for removed checks is resolved; returns the alerts.
    pub(super) fn retire(
        &mut self,
        has_check: impl Fn(&str) -> bool,
        now_ns: Option<i64>,
        commit: &mut Commit,
    ) -> Vec<Alert> {
        let mut told = Vec::new();
        for step in self.book.retire(has_check, now_ns) {
            let document = Document::of_retired(&step.alert, self.routes.packs.as_deref());
            told.extend(self.tell(step, &document, Some(CHECK_REMOVED), commit));
        }
        told
    }

    fn tell(&self, step: Step, document: &Document, why: Option<&str>, commit: &mut Commit) -> Option<Alert> {
        let Step { alert, is_told, forgotten } = step;
        commit.alerts.extend(forgotten.map(|fingerprint| (fingerprint, None)));
        if is_told {
            self.queue(document, commit);
            commit.entries.push(entry(&alert, why));
        }
        let sinks = self.routes.wanting(DocumentKind::Alerts).map(str::to_owned).collect();
        let kept = cbor::encode(&KeptAlert { v: 1, alert: alert.clone(), sinks });
        // The newest row stands, also within one commit.
        commit.alerts.push((alert.fingerprint.clone(), Some(kept)));
        is_told.then_some(alert)
    }

    fn queue(&self, document: &Document, commit: &mut Commit) {
        let queued_ns = clock::now_ns();
        commit.outbox.extend(self.routes.wanting(document.kind).map(|sink| OutboxDocument {
            sink: sink.to_owned(),
            kind: document.kind.name().to_owned(),
            id: document.id.clone(),
            subject: document.subject.clone(),
            rank: document.rank,
            queued_ns,
            json: document.json.clone(),
        }));
    }
}

/// The log's entry of an alert that fired, got worse or was resolved; `why` when no decision says it.
fn entry(alert: &Alert, why: Option<&str>) -> NewEntry {
    let kind = match alert.state {
        AlertState::Firing => "alert.firing",
        AlertState::Resolved => "alert.resolved",
    };
    let text = |name: &str, value: &str| (Value::Text(name.into()), Value::Text(value.into()));
    let mut body = vec![
        text("fingerprint", &alert.fingerprint),
        text("program", &alert.program),
        text("lane", &alert.lane),
        text("asset", &alert.asset),
        text("check", &alert.check),
        text("severity", alert.severity.as_str()),
        text("status", alert.status.as_str()),
    ];
    body.extend(alert.case.iter().map(|case| text("case", case)));
    body.extend(why.map(|why| text("why", why)));
    body.extend(
        [("decision", alert.decision), ("event", alert.event_id())]
            .map(|(name, hash)| (Value::Text(name.into()), Value::Bytes(hash.as_bytes().to_vec()))),
    );
    NewEntry { kind: kind.to_owned(), time_ns: clock::now_ns(), body: Value::Map(body) }
}
