//! The recorded outcome of a check: status, findings, and the hashes of all that made it.

use std::fmt;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::series::SeriesDef;

/// Outcome of a check. Missing data and broken rules never look like PASS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Within limits.
    Pass,
    /// Nothing to judge.
    #[serde(rename = "NO_DATA")]
    NoData,
    /// Beyond the warn limit.
    Drift,
    /// The rule itself failed.
    Error,
    /// Beyond the fail limit in k of n windows.
    Fail,
}

impl Status {
    /// The text form used everywhere a person or a file sees it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pass => "PASS",
            Status::NoData => "NO_DATA",
            Status::Drift => "DRIFT",
            Status::Error => "ERROR",
            Status::Fail => "FAIL",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Severity of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Look at it today.
    Warn,
    /// Look at it now.
    Fail,
    /// Drop everything.
    Critical,
}

impl Severity {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warn => "WARN",
            Severity::Fail => "FAIL",
            Severity::Critical => "CRITICAL",
        }
    }
}

/// Operating mode of the asset. Nothing in this release sets one: each decision is made in [`Mode::Nominal`]. The others
/// are the words that policies and readers of decisions will meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Coming up.
    Startup,
    /// As designed.
    #[default]
    Nominal,
    /// Working with losses.
    Degraded,
    /// On the substitute.
    Fallback,
    /// Being worked on.
    Maintenance,
    /// Under test.
    Test,
    /// Out of control.
    Emergency,
}

impl Mode {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Startup => "startup",
            Mode::Nominal => "nominal",
            Mode::Degraded => "degraded",
            Mode::Fallback => "fallback",
            Mode::Maintenance => "maintenance",
            Mode::Test => "test",
            Mode::Emergency => "emergency",
        }
    }
}

/// One rule's statement on one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The series it speaks of.
    pub series: SeriesDef,
    /// Rule id.
    pub rule: String,
    /// Its status.
    pub status: Status,
    /// Value compared, in the rule's terms; null when none.
    pub value: Option<f64>,
    /// Limit it was compared with; null when none.
    pub limit: Option<f64>,
    /// `|value| - limit`; null when either is.
    pub margin: Option<f64>,
    /// Share of this finding in the sum of `|value| / limit` over all findings, 0 to 1.
    pub contribution: f64,
    /// Mean of the window, in the series' unit; null without samples.
    pub observed: Option<f64>,
    /// Median of the baseline, in the series' unit; null without a baseline.
    pub expected: Option<f64>,
    /// Why, for a person.
    pub reason: String,
}

/// Which baseline was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineRef {
    /// Tag that named it, as `golden`.
    pub tag: String,
    /// Version the tag pointed to.
    pub version: u32,
    /// SHA-256 of the baseline's canonical CBOR.
    pub hash: Hash,
}

/// What was counted for the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Series judged.
    pub series: u32,
    /// Samples in the window.
    pub samples: u64,
    /// Samples of this partition refused as late since the decision before.
    pub late: u64,
    /// Samples held back because their time jumped ahead, and not confirmed, since the decision before.
    pub jumped: u64,
    /// Samples refused because a cap was reached, since the decision before.
    pub shed: u64,
    /// Empty windows passed over since the decision before.
    pub skipped_windows: u64,
}

/// Hashes that bind a decision to its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputsRef {
    /// SHA-256 of the partition's snapshot the journal range starts from.
    pub snapshot: Hash,
    /// Hash over the partition's inputs since that snapshot, up to and including the one that closed the window.
    pub journal: Hash,
    /// How many inputs that range holds.
    pub inputs: u64,
}

/// The recorded outcome of one check of one window of one asset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Schema version of this structure.
    pub v: u8,
    /// Version of the decision semantics.
    pub engine: String,
    /// Tenant.
    pub program: String,
    /// `live` or a run id.
    pub lane: String,
    /// Asset.
    pub asset: String,
    /// Check id.
    pub check: String,
    /// Window start, inclusive, ns since the epoch.
    pub start_ns: i64,
    /// Window end, exclusive, ns since the epoch.
    pub end_ns: i64,
    /// Outcome: the worst of all findings.
    pub status: Status,
    /// Outcome of the window before.
    pub previous: Status,
    /// Severity, when it should alert somebody.
    pub severity: Option<Severity>,
    /// Operating mode.
    pub mode: Mode,
    /// Baseline compared with; null when the tag names none.
    pub baseline: Option<BaselineRef>,
    /// Findings that are not PASS, the worst first.
    pub findings: Vec<Finding>,
    /// Hash over every number that was judged, PASS or not.
    pub findings_hash: Hash,
    /// Counts.
    pub counts: Counts,
    /// Generations that fed the window's partition since the snapshot, the one that judged last.
    pub generations: Vec<Hash>,
    /// What it was made from.
    pub inputs: InputsRef,
}

impl Decision {
    /// Version of the structure written now.
    pub const V: u8 = 1;

    /// Canonical CBOR: the bytes that are hashed, signed and reproduced.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Whether it must be kept in full: anything but an unchanged PASS.
    pub fn is_notable(&self) -> bool {
        self.status != Status::Pass || self.previous != Status::Pass
    }
}
