//! What follows from an input: decisions with their cases and alerts, refused samples, snapshots.

use ciborium::Value;
use hb_engine::decision::{Decision, Status};
use hb_engine::engine::{Effect, Refusal};
use hb_engine::partition::PartitionInput;
use hb_engine::spec::LatePolicy;
use hb_log::hash::Hash;

use super::{Recorder, counter_of, decision_entry, text_map};
use crate::case::Case;
use crate::clock;
use crate::pipeline::recover::core_name;
use crate::state::{DeadRow, DecisionRow, HoldChange, SnapshotRow};

/// Unchanged PASS decisions named in one log entry at most; an entry stays below 150 kB.
const PASS_PER_ENTRY: usize = 4_096;

impl Recorder {
    pub(super) fn absorb(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Decision { seq, hash, decision, bytes, trace } => {
                    self.decided((seq, hash), *decision, bytes, trace.unwrap_or_default());
                }
                Effect::Refused { why, ordinal, series, time_ns, value } => {
                    self.count("refused", 1);
                    self.news.refused += 1;
                    let sample = format!("{} {series} {value}", clock::rfc3339(time_ns));
                    if why == Refusal::Late && self.spec.late == LatePolicy::SideOutput {
                        let (plugin, cause) = ("engine".to_owned(), why.as_str().to_owned());
                        self.pending.dead.push(DeadRow { plugin, ordinal, cause, frame: sample.clone().into_bytes() });
                    }
                    let key = (self.columns.source.clone(), "engine".to_owned(), why.as_str().to_owned());
                    let slot = self.quarantine.entry(key).or_default();
                    slot.0 += 1;
                    slot.1.get_or_insert_with(|| (ordinal, sample.into_bytes()));
                }
                Effect::Snapshot { asset, seq, hash, bytes } => {
                    // The row names the first input that is not in it.
                    self.snapshots.insert(asset.clone(), seq + 1);
                    self.pending.snapshots.push(SnapshotRow { asset, seq: seq + 1, hash, bytes });
                }
                Effect::Checkpoint { seq, bytes } => {
                    self.floor = seq + 1;
                    self.pending.floor = Some(self.floor);
                    self.compared.restart(self.engine.core());
                    let name = core_name(&self.lane);
                    self.pending.meta.retain(|m| m.0 != name);
                    self.pending.meta.push((name, bytes));
                }
            }
        }
    }

    /// Takes a decision with the number of the input that closed its window, and its hash.
    fn decided(&mut self, (seq, hash): (u64, Hash), decision: Decision, bytes: Vec<u8>, trace: Vec<PartitionInput>) {
        self.count(counter_of(decision.status), 1);
        self.news.decided(decision.status);
        self.pending.decisions.push(DecisionRow {
            id: hash,
            asset: decision.asset.clone(),
            check: decision.check.clone(),
            end_ns: decision.end_ns,
            seq,
            status: decision.status as u8,
            bytes,
        });
        if matches!(decision.status, Status::Pass | Status::Drift) {
            for case in self.open.resolve(&decision) {
                self.pending.hold_changes.push(HoldChange { case, open: Some(false), ..HoldChange::default() });
            }
        }
        if !decision.is_notable() {
            self.passed.push(hash);
            self.alert(hash, &decision, None);
            return;
        }
        self.name_passed();
        // From the first entry of the commit.
        let entry = self.pending.entries.len() as u64;
        self.log("decision", decision_entry(hash, &decision));
        if decision.status == Status::Fail && decision.previous != Status::Fail {
            let case = Case::open(hash, &decision, entry);
            self.log("case.opened", text_map(&[("case", &case.id)]));
            self.count("cases", 1);
            self.hold(&case, seq, &trace);
            self.alert(hash, &decision, Some(&case.id));
            self.outcome.cases.push(case);
        } else {
            self.alert(hash, &decision, None);
        }
        self.outcome.notable.push(decision);
        self.news.notable.push(hash);
    }

    /// Adds to the pending commit what the decision means for alerts and sinks.
    fn alert(&mut self, hash: Hash, decision: &Decision, case: Option<&str>) {
        let Some(alerting) = &mut self.alerting else { return };
        self.news.alerts.extend(alerting.decided(hash, decision, case, &mut self.pending));
    }

    /// Adds to the pending commit that alerts of checks that are gone are resolved.
    pub(super) fn retire_alerts(&mut self) {
        let (now_ns, checks) = (self.clock_ns(), &self.spec.checks);
        let Some(alerting) = &mut self.alerting else { return };
        let has_check = |id: &str| checks.iter().any(|check| check.id == id);
        self.news.alerts.extend(alerting.retire(has_check, now_ns, &mut self.pending));
    }

    /// Names the unchanged PASS decisions so far in one log entry.
    pub(super) fn name_passed(&mut self) {
        for chunk in std::mem::take(&mut self.passed).chunks(PASS_PER_ENTRY) {
            let hashes = chunk.iter().map(|h| Value::Bytes(h.as_bytes().to_vec())).collect();
            self.log("decisions.pass", Value::Map(vec![(Value::Text("decisions".into()), Value::Array(hashes))]));
        }
    }
}
