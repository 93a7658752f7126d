//! Upper bounds of one deployment, and what is kept as evidence.

use std::path::PathBuf;

use hb_engine::spec::Caps;
use serde::Serialize;

use crate::config::read::{Fields, FromNode, Reader};
use crate::config::yaml::Node;

/// Bounds on memory and batches. What goes beyond is shed and counted, never a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsConfig {
    /// Series of one asset, 1 to 1,000,000. Default: 2,000; an asset with more is a mapping mistake. Example: `5000`.
    pub max_series: u32,
    /// Steps (`every_sec`) one grid of windows keeps, 1 to 1,000,000. Default: 4,096, a day in steps of 30 s. Example:
    /// `10000`.
    pub max_buckets: u32,
    /// Assets, 1 to 1,000,000. Default: 10,000. Example: `500`.
    pub max_assets: u32,
    /// Frames handed to a plugin at once, 1 to 65,536. Default: 1,024. Example: `256`.
    pub batch_frames: u32,
    /// Bytes handed to a plugin at once, 4 KiB to 64 MiB. Default: 1 MiB. Example: `262144`.
    pub batch_bytes: u32,
    /// Samples committed at once, 1 to 1,000,000. Default: 10,000. Example: `50000`.
    pub commit_samples: u32,
    /// Longest wait before what is there is committed, 1 to 60,000 ms. Default: 250 ms. Example: `100`.
    pub commit_ms: u32,
    /// Longest line of a text transport, 64 B to 64 MiB; a longer one is skipped and counted. Default: 1 MiB. Example:
    /// `65536`.
    pub max_line_bytes: u32,
    /// Memory of one plugin instance, 1 to 4,096 MiB. Default: 64 MiB. Example: `32`.
    pub plugin_memory_mib: u32,
    /// What the state may need, 4 to 1,048,576 MiB. At 80 % frames, journal and decisions go, oldest first, but never
    /// what a recovery or a kept case needs; at 95 % samples are shed and counted. Default: 4,096 MiB, a month of a
    /// thousand samples a second. Example: `8192`.
    pub max_state_mb: u32,
    /// What evidence packs may need in `evidence.dir`, 1 to 1,048,576 MiB; the oldest go first, those of kept cases
    /// stay. Default: 2,048 MiB, some thousand packs. Example: `1024`.
    pub max_report_dir_mb: u32,
    /// What the audit log may need of the state, 1 to 1,048,576 MiB, at most half of `max_state_mb`. Beyond it a signed
    /// entry removes the oldest bodies; hashes stay, and kept cases' entries. Default: an eighth of `max_state_mb`.
    /// Example: `256`.
    pub max_audit_log_mb: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let caps = Caps::default();
        LimitsConfig {
            max_series: caps.max_series,
            max_buckets: caps.max_buckets,
            max_assets: caps.max_assets,
            batch_frames: 1_024,
            batch_bytes: 1 << 20,
            commit_samples: 10_000,
            commit_ms: 250,
            max_line_bytes: 1 << 20,
            plugin_memory_mib: 64,
            max_state_mb: 4_096,
            max_report_dir_mb: 2_048,
            max_audit_log_mb: 512,
        }
    }
}

impl LimitsConfig {
    /// The part the engine keeps.
    pub fn caps(&self) -> Caps {
        Caps { max_series: self.max_series, max_buckets: self.max_buckets, max_assets: self.max_assets }
    }
}

/// What is packed as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvidenceConfig {
    /// Whether a decision FAIL packs its case at once. Default: true. Example: `false`.
    pub on_fail: bool,
    /// Where packs go. Default: `evidence_packs` beside the config. Example: `/var/lib/hb/evidence`.
    pub dir: PathBuf,
}

impl FromNode for LimitsConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const MILLION: u32 = 1_000_000;
        const MIB: u32 = 1 << 20;
        let d = LimitsConfig::default();
        let mut f = Fields::open(node, "limits", reader)?;
        let max_series = f.whole("max_series", d.max_series, &(1..=MILLION), reader);
        let max_buckets = f.whole("max_buckets", d.max_buckets, &(1..=MILLION), reader);
        let max_assets = f.whole("max_assets", d.max_assets, &(1..=MILLION), reader);
        let batch_frames = f.whole("batch_frames", d.batch_frames, &(1..=65_536), reader);
        let batch_bytes = f.whole("batch_bytes", d.batch_bytes, &(4_096..=64 * MIB), reader);
        let commit_samples = f.whole("commit_samples", d.commit_samples, &(1..=MILLION), reader);
        let commit_ms = f.whole("commit_ms", d.commit_ms, &(1..=60_000), reader);
        let max_line_bytes = f.whole("max_line_bytes", d.max_line_bytes, &(64..=64 * MIB), reader);
        let plugin_memory_mib = f.whole("plugin_memory_mib", d.plugin_memory_mib, &(1..=4_096), reader);
        let max_state_mb = f.whole("max_state_mb", d.max_state_mb, &(4..=MIB), reader);
        let max_report_dir_mb = f.whole("max_report_dir_mb", d.max_report_dir_mb, &(1..=MIB), reader);
        let eighth = (max_state_mb.unwrap_or(d.max_state_mb) / 8).max(1);
        let max_audit_log_mb = f.whole("max_audit_log_mb", eighth, &(1..=MIB), reader);
        if let (Some(state), Some(log)) = (max_state_mb, max_audit_log_mb)
            && log > state / 2
        {
            let d =
                reader.error(format!("`max_audit_log_mb` is {log}; it may be half of `max_state_mb`, {}", state / 2));
            reader
                .push(f.span("max_audit_log_mb"), d.help("the log lies in the state: telemetry needs room beside it"));
        }
        f.close(reader);
        Some(LimitsConfig {
            max_series: max_series?,
            max_buckets: max_buckets?,
            max_assets: max_assets?,
            batch_frames: batch_frames?,
            batch_bytes: batch_bytes?,
            commit_samples: commit_samples?,
            commit_ms: commit_ms?,
            max_line_bytes: max_line_bytes?,
            plugin_memory_mib: plugin_memory_mib?,
            max_state_mb: max_state_mb?,
            max_report_dir_mb: max_report_dir_mb?,
            max_audit_log_mb: max_audit_log_mb?,
        })
    }
}

/// The directory packs go to when none is named, relative to the config's.
pub(crate) const DEFAULT_EVIDENCE_DIR: &str = "evidence_packs";

impl FromNode for EvidenceConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "evidence", reader)?;
        let on_fail = f.or("on_fail", true, reader);
        let dir = f.or("dir", reader.resolve(DEFAULT_EVIDENCE_DIR.as_ref()), reader);
        f.close(reader);
        Some(EvidenceConfig { on_fail: on_fail?, dir: dir? })
    }
}
