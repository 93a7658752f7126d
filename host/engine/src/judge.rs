//! The question the engine puts to a rule, and the answer it takes.
//!
//! The engine hands over one [`Ask`] per check, window and rule, with a row for each series. Values travel as
//! fixed columns of `f64` ([`WINDOW_FIELDS`], [`BASELINE_FIELDS`]) so that a policy host can pass all rows in one
//! buffer; an absent number is NaN.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Mode, Severity, Status};
use crate::series::SeriesDef;

/// Names of the window's columns, in order. `sd` is the population standard deviation, quantiles are exact up to
/// the sketch's capacity; all are in the series' unit except `count`.
pub const WINDOW_FIELDS: [&str; 9] = ["count", "mean", "sd", "min", "max", "median", "p05", "p95", "last"];

/// Names of the baseline's columns, in order. `mad` is the raw median absolute deviation (multiply by 1.4826 for a
/// normal's standard deviation), `sd` the population standard deviation.
pub const BASELINE_FIELDS: [&str; 11] =
    ["count", "mean", "sd", "min", "max", "median", "mad", "p01", "p05", "p95", "p99"];

/// The window's numbers, ordered as [`WINDOW_FIELDS`].
pub type WindowRow = [f64; WINDOW_FIELDS.len()];

/// The baseline's numbers, ordered as [`BASELINE_FIELDS`].
pub type BaselineRow = [f64; BASELINE_FIELDS.len()];

/// Whether a series is where the baseline expects it; without a baseline each series that was seen is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// In the window and in the baseline.
    Present,
    /// In the baseline, never seen in this lane.
    Missing,
    /// In the baseline and seen before, but not in this window.
    Silent,
    /// In the window, not in the baseline.
    New,
    /// In the baseline and in the window, with fewer samples than the check wants: too few to judge, too many to call
    /// it silent.
    Sparse,
}

impl Presence {
    /// Code used in numeric buffers: 0 present, 1 missing, 2 silent, 3 new, 4 sparse.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// One series of an [`Ask`].
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Identity.
    pub series: &'a SeriesDef,
    /// Where it stands against the baseline.
    pub presence: Presence,
    /// For a missing series the new one that looks like it, and the other way round.
    pub renamed: Option<&'a SeriesDef>,
    /// The window's columns; `count` is 0 when there was no sample.
    pub window: WindowRow,
    /// The baseline's columns, all NaN when there is none.
    pub baseline: BaselineRow,
    /// The rule's state for this series after the window before, in declared order.
    pub state: &'a [f64],
}

/// A rule as a check uses it: resolved from the policy when the generation is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleUse {
    /// Rule id, as `drift.robust_z`.
    pub rule: String,
    /// Version the policy declares.
    pub version: String,
    /// SHA-256 of the policy's source.
    pub source: hb_log::hash::Hash,
    /// Metric patterns the policy declares.
    pub applies_to: Vec<String>,
    /// The policy's defaults with the check's overrides: name -> value.
    pub params: BTreeMap<String, Param>,
    /// Declared state: name and first value; the order is the order of the state columns.
    pub state: Vec<(String, f64)>,
}

/// A rule parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// A switch.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A choice.
    Text(String),
}

/// One check of one window of one asset, put to one rule.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Check id.
    pub check: &'a str,
    /// The rule and its parameters.
    pub rule: &'a RuleUse,
    /// Asset.
    pub asset: &'a str,
    /// Window start, inclusive, ns since the epoch.
    pub start_ns: i64,
    /// Window end, exclusive, ns since the epoch.
    pub end_ns: i64,
    /// The partition's event-time clock when the window closed, ns.
    pub now_ns: i64,
    /// Operating mode.
    pub mode: Mode,
    /// One row per series the rule applies to, sorted by series definition.
    pub rows: Vec<Row<'a>>,
}

/// What a rule says of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// PASS, DRIFT, FAIL, NO_DATA or ERROR.
    pub status: Status,
    /// The value that was compared, in the rule's terms (a z, a count); NaN when none.
    pub value: f64,
    /// The limit it was compared with; NaN when none.
    pub limit: f64,
    /// Why, for a person; empty on PASS.
    pub reason: String,
    /// The rule's state after this window, as long as its declared state.
    pub state: Vec<f64>,
}

/// Answers for rules; the policy host implements it, tests use a closure or a fixed table.
pub trait Judge {
    /// Judges each row of `ask` in order: exactly one verdict per row. A rule that fails on a row answers
    /// [`Status::Error`] with the cause as reason and the row's state unchanged.
    fn judge(&mut self, ask: &Ask<'_>) -> Vec<Verdict>;

    /// Severity of a decision that is not PASS; `None` when it should alert nobody.
    fn severity(&mut self, decision: &Decision) -> Option<Severity>;
}
