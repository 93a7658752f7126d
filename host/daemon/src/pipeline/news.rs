//! What a recorder tells: the log what was decided, the metrics how much and how fast, and whoever reads the lines of the
//! daemon what somebody may look for.

use std::time::{Duration, Instant};

use hb_engine::alert::{Alert, AlertState};
use hb_engine::decision::{Severity, Status};
use hb_log::hash::Hash;

use super::Normalized;
use super::record::Outcome;
use crate::clock;
use crate::telemetry::{Durable, Taken};

/// Decisions of one commit that get a line of their own at most; a plant that fails as a whole would drown everything
/// else, and all of them are in the state.
const TOLD_PER_COMMIT: usize = 100;

/// What is told of a commit once it is durable.
#[derive(Debug, Default)]
pub(super) struct News {
    /// When the newest frame of what the engine is fed was received.
    pub(super) received: Option<Instant>,
    /// The hashes of what is notable in the outcome.
    pub(super) notable: Vec<Hash>,
    /// Alerts that somebody is told of.
    pub(super) alerts: Vec<Alert>,
    /// Samples that the engine refused since the last batch.
    pub(super) refused: u64,
    /// Decisions by the time of what made them and by status.
    decided: Vec<(Instant, Status, u64)>,
}

impl News {
    /// A decision was made of what the engine is fed.
    pub(super) fn decided(&mut self, status: Status) {
        let received = self.received.unwrap_or_else(Instant::now);
        // The batch that closes many windows closes them at once, with a few statuses.
        let mut newest = self.decided.iter_mut().rev().take(8);
        match newest.find(|d| (d.0, d.1) == (received, status)) {
            Some(same) => same.2 += 1,
            None => self.decided.push((received, status, 1)),
        }
    }

    /// For the vitals.
    pub(super) fn durable(&mut self, outcome: &Outcome) -> Durable {
        Durable {
            decided: std::mem::take(&mut self.decided),
            cases: outcome.cases.len() as u64,
            alerts: self.alerts.iter().map(|alert| alert.state.as_str()).collect(),
            ..Durable::default()
        }
    }

    /// Says what was decided: the lines of one decision share their `correlation_id`.
    pub(super) fn tell(&self, outcome: &Outcome, lane: &str, txn: u64) {
        for (hash, d) in self.notable.iter().zip(&outcome.notable).take(TOLD_PER_COMMIT) {
            tracing::info!(
                correlation_id = hash.short(),
                decision = hash.to_string(),
                txn,
                lane,
                check = d.check,
                asset = d.asset,
                status = d.status.as_str(),
                previous = d.previous.as_str(),
                severity = d.severity.map(Severity::as_str),
                end = clock::rfc3339(d.end_ns),
                reason = d.findings.first().map(|f| f.reason.as_str()),
                "decided"
            );
        }
        if self.notable.len() > TOLD_PER_COMMIT {
            let more = self.notable.len() - TOLD_PER_COMMIT;
            tracing::info!(txn, lane, more, "more was decided than is told one by one");
        }
        for case in outcome.cases.iter().take(TOLD_PER_COMMIT) {
            let (correlation_id, decision) = (case.decision.short(), case.decision.to_string());
            tracing::info!(correlation_id, decision, txn, lane, case = case.id, "case opened");
        }
        for alert in self.alerts.iter().take(TOLD_PER_COMMIT) {
            let what = match alert.state {
                AlertState::Firing => "alert fires",
                AlertState::Resolved => "alert is resolved",
            };
            tracing::info!(
                correlation_id = alert.decision.short(),
                decision = alert.decision.to_string(),
                txn,
                lane,
                alert = alert.event_id().to_string(),
                fingerprint = alert.fingerprint,
                check = alert.check,
                asset = alert.asset,
                severity = alert.severity.as_str(),
                reason = alert.reason,
                "{what}"
            );
        }
    }
}

/// Says that another generation judges from here on.
pub(super) fn tell_swap(generation: Hash, lane: &str, author: &str, reason: &str) {
    let (correlation_id, generation) = (generation.short(), generation.to_string());
    tracing::info!(correlation_id, generation, lane, author, reason, "generation becomes active");
}

/// What a batch brings.
pub(super) fn taken(batch: &Normalized) -> Taken {
    Taken {
        frames: batch.frames.len() as u64,
        bytes: batch.frames.data_len() as u64,
        samples: batch.columns.len() as u64,
        events: batch.events.len() as u64,
        ignored: batch.ignored,
        rejects: batch.refused.len() as u64,
        faults: batch.faults.len() as u64,
        ..Taken::default()
    }
}

/// When the newest frame of a batch was received; what was recorded once is received when it is taken.
pub(super) fn received(batch: &Normalized) -> Instant {
    let now = Instant::now();
    let newest = batch.frames.len().checked_sub(1).and_then(|last| batch.frames.get(last));
    let age_ns = match newest.map_or(0, |f| f.received_ns) {
        0 => 0,
        ns => clock::now_ns().saturating_sub(ns),
    };
    // A wall clock that was set back says nothing.
    now.checked_sub(Duration::from_nanos(u64::try_from(age_ns).unwrap_or(0))).unwrap_or(now)
}
