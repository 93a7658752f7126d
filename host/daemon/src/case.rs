//! A case: one failure that evidence is gathered for.

use hb_engine::decision::{Decision, Severity, Status};
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

/// What is known of a case. The pack is made from it and from the journal, so the same case gives the same pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Schema version of this structure.
    pub v: u8,
    /// `case-` and the first 12 digits of the decision's hash.
    pub id: String,
    /// The decision it is about.
    pub decision: Hash,
    /// Index of the log entry that records the decision.
    pub entry: u64,
    /// Tenant.
    pub program: String,
    /// `live` or a run id.
    pub lane: String,
    /// Asset.
    pub asset: String,
    /// Check.
    pub check: String,
    /// Window start, ns.
    pub start_ns: i64,
    /// Window end, ns.
    pub end_ns: i64,
    /// Status of the decision.
    pub status: Status,
    /// Severity of the decision.
    pub severity: Option<Severity>,
}

impl Case {
    /// A case for a decision that log entry `entry` records.
    pub fn open(hash: Hash, d: &Decision, entry: u64) -> Self {
        Case {
            v: 1,
            id: format!("case-{}", hash.short()),
            decision: hash,
            entry,
            program: d.program.clone(),
            lane: d.lane.clone(),
            asset: d.asset.clone(),
            check: d.check.clone(),
            start_ns: d.start_ns,
            end_ns: d.end_ns,
            status: d.status,
            severity: d.severity,
        }
    }
}

/// Name of the note that a case was packed.
pub fn packed_name(case: &str) -> String {
    format!("packed/{case}")
}

/// Name of the value that says how a case was sealed.
pub fn seal_name(case: &str) -> String {
    format!("seal/{case}")
}

/// What is kept of a case from the moment it is opened, so that its pack needs no replay: the pinned snapshot of the
/// asset and the inputs since then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Schema version of this structure.
    pub v: u8,
    /// The first journal input that is not in the snapshot: with the asset, its name.
    pub snapshot_seq: u64,
    /// The blob with the inputs, in canonical CBOR.
    pub inputs: Hash,
    /// The first journal input that is kept for it: the first behind the checkpoint before.
    #[serde(default)]
    pub from_seq: u64,
}

impl Held {
    /// Name of the value that holds it.
    pub fn name(case: &str) -> String {
        format!("held/{case}")
    }
}
