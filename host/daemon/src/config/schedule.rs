//! When windows are judged that do not say it themselves, and what is learned by itself.

use hb_engine::NS_PER_SEC;
use serde::Serialize;

use crate::config::checks::{MAX_WINDOW_NS, MIN_EVERY_NS};
use crate::config::name::Name;
use crate::config::read::{Fields, FromNode, Reader};
use crate::config::yaml::Node;

/// Longest time until a baseline is made, ns: 31 days, as the longest window.
const LONGEST_NS: i64 = MAX_WINDOW_NS;
/// Shortest time between two rolling baselines, ns: each reads the whole journal again.
const ROLLING_EVERY_MIN_NS: i64 = 10 * NS_PER_SEC;

/// What holds for all checks, in the clock of the telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScheduleConfig {
    /// `interval_sec`: how often windows are judged of checks that have no `every_sec`, 0.01 s to 31 days; it must
    /// divide their `window_sec`. Default: each check's `window_sec`. Example: `60`. In ns here.
    pub interval_ns: Option<i64>,
    /// Tag of the baseline of checks that name none. Default: `rolling` with `rolling_baseline`, else none. Example:
    /// `golden`.
    pub baseline_tag: Option<Name>,
    /// Makes a baseline of the newest telemetry again and again, under the tag `rolling`. Default: no.
    pub rolling_baseline: Option<RollingConfig>,
    /// `first_baseline_after_sec`: after so much telemetry all of it becomes the first baseline, under `baseline_tag`
    /// or else `golden`, unless that tag names one; 1 s to 31 days. Default: never. Example: `3600`. In ns here.
    pub first_baseline_after_ns: Option<i64>,
}

/// A baseline that rolls: older versions go when nothing names them any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RollingConfig {
    /// `window_sec`: telemetry it is made of, 1 s to 31 days. Default: 86400, a day. Example: `43200`. In ns here.
    pub window_ns: i64,
    /// `every_sec`: time between two, 10 s to 31 days. Default: 3600. Example: `1800`. In ns here.
    pub every_ns: i64,
}

impl FromNode for ScheduleConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "schedule", reader)?;
        // A time that is not given stays one that is not allowed.
        let unset = |ns: i64| (ns > 0).then_some(ns);
        let interval_ns = f.seconds("interval_sec", Some(0), &(MIN_EVERY_NS..=MAX_WINDOW_NS), reader);
        let baseline_tag = f.optional("baseline_tag", reader);
        let rolling_baseline = f.optional("rolling_baseline", reader);
        let first = f.seconds("first_baseline_after_sec", Some(0), &(NS_PER_SEC..=LONGEST_NS), reader);
        f.close(reader);
        Some(ScheduleConfig {
            interval_ns: unset(interval_ns?),
            baseline_tag: baseline_tag?,
            rolling_baseline: rolling_baseline?,
            first_baseline_after_ns: unset(first?),
        })
    }
}

impl FromNode for RollingConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const DAY_NS: i64 = 86_400 * NS_PER_SEC;
        let mut f = Fields::open(node, "a rolling baseline", reader)?;
        let window_ns = f.seconds("window_sec", Some(DAY_NS), &(NS_PER_SEC..=LONGEST_NS), reader);
        let every = ROLLING_EVERY_MIN_NS..=LONGEST_NS;
        let every_ns = f.seconds("every_sec", Some(3_600 * NS_PER_SEC), &every, reader);
        f.close(reader);
        Some(RollingConfig { window_ns: window_ns?, every_ns: every_ns? })
    }
}
