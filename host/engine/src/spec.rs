//! What an operator configures for the engine: checks, windows, lateness and caps, as one value with a hash.

use std::collections::BTreeMap;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::NS_PER_SEC;
use crate::judge::RuleUse;
use crate::series::glob;

/// Everything of a generation that the engine needs. Its hash goes into decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Label whose value names the asset.
    pub asset_label: String,
    /// Checks in the order of the config.
    pub checks: Vec<CheckSpec>,
    /// Policy that names severities; null for none.
    pub severity: Option<RuleUse>,
    /// How late a sample may be against the newest of its source, ns.
    pub lateness_ns: i64,
    /// What happens to later ones.
    pub late: LatePolicy,
    /// How far ahead of its source's newest sample a time may jump before it must be confirmed, ns.
    pub max_jump_ns: i64,
    /// After this long without a sample of its own a partition's windows close by the clock, ns.
    pub idle_ns: i64,
    /// Caps.
    pub caps: Caps,
    /// Hashes of everything else that shaped the inputs (config, plugins, schema), by name.
    pub parts: BTreeMap<String, Hash>,
}

impl EngineSpec {
    /// SHA-256 of the canonical CBOR: the name of the generation.
    pub fn hash(&self) -> Hash {
        Hash::of(&cbor::encode(self))
    }
}

impl Default for EngineSpec {
    fn default() -> Self {
        EngineSpec {
            asset_label: "asset".into(),
            checks: Vec::new(),
            severity: None,
            lateness_ns: 0,
            late: LatePolicy::Drop,
            max_jump_ns: 7 * 86_400 * NS_PER_SEC,
            idle_ns: 60 * NS_PER_SEC,
            caps: Caps::default(),
            parts: BTreeMap::new(),
        }
    }
}

/// What happens to a sample that is later than the allowed lateness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// It is counted and dropped.
    #[default]
    Drop,
    /// It is filed into its bucket while that is still kept; windows judged before are not judged again.
    Buffer,
    /// It is dropped from windows, and the whole of it is kept among the dead letters.
    SideOutput,
}

/// Upper bounds of one partition's memory. Beyond them samples are shed and counted, never a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Series of one asset.
    pub max_series: u32,
    /// Buckets of one grid.
    pub max_buckets: u32,
    /// Assets of one lane.
    pub max_assets: u32,
}

impl Default for Caps {
    fn default() -> Self {
        // An asset with more than 2,000 series is a mapping mistake; 4,096 buckets hold a day in steps of 30 s.
        Caps { max_series: 2_000, max_buckets: 4_096, max_assets: 10_000 }
    }
}

/// One check: which series, which window, which rules, compared with which baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Unique id.
    pub id: String,
    /// Window length, ns; a multiple of `every_ns`.
    pub window_ns: i64,
    /// Distance of two windows, ns; windows end at its multiples since the epoch.
    pub every_ns: i64,
    /// Baseline tag; null compares with nothing.
    pub baseline: Option<String>,
    /// Metric patterns; a series is in when one matches.
    pub metrics: Vec<String>,
    /// Metric patterns that are left out.
    pub except: Vec<String>,
    /// Asset patterns.
    pub assets: Vec<String>,
    /// A series with fewer samples in the window is sparse, or passed over when the baseline does not expect it.
    pub min_samples: u32,
    /// Rules in order.
    pub rules: Vec<RuleUse>,
}

impl CheckSpec {
    /// Whether the check looks at this metric.
    pub fn wants(&self, metric: &str) -> bool {
        self.metrics.iter().any(|p| glob(p, metric)) && !self.except.iter().any(|p| glob(p, metric))
    }

    /// Whether the check looks at this asset.
    pub fn wants_asset(&self, asset: &str) -> bool {
        self.assets.iter().any(|p| glob(p, asset))
    }

    /// Buckets in one window.
    pub fn buckets(&self) -> usize {
        (self.window_ns / self.every_ns) as usize
    }
}
