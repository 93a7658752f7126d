//! The names of the files in a pack, relative to its root; folders end with a slash.

pub use crate::bag::{BAG_INFO, BAGIT, MANIFEST, TAGMANIFEST, TAGMANIFEST_SIGNATURE};

/// Every other payload file with its SHA-256, for programs that read JSON.
pub const MANIFEST_JSON: &str = "data/manifest.json";
/// The entries of [`ENTRIES`], one JSON line each.
pub const AUDIT_LOG: &str = "data/audit_log.jsonl";
/// The decision the case is about, canonical CBOR.
pub const DECISION: &str = "data/decision.cbor";

/// The case's entries of the log: canonical CBOR array of byte strings, by rising seq.
pub const ENTRIES: &str = "data/log/entries.cbor";
/// Canonical CBOR map `{size, proofs}`: for each entry the hashes of its inclusion proof.
pub const PROOFS: &str = "data/log/proofs.cbor";
/// The log's head when the pack was sealed.
pub const CHECKPOINT: &str = "data/log/checkpoint.txt";
/// The signature over [`CHECKPOINT`].
pub const CHECKPOINT_SIGNATURE: &str = "data/log/checkpoint.txt.minisig";
/// The public keys of the log, as minisign writes them, one after the other.
pub const KEYS: &str = "data/log/keys.pub";

/// Telemetry around the incident as it came in, one JSON line per frame.
pub const RAW_SLICE: &str = "data/raw_telemetry_slice.jsonl";
/// The same after normalizing.
pub const METRICS: &str = "data/normalized_metrics.csv";
/// The drift report for programs.
pub const REPORT_JSON: &str = "data/drift_report.json";
/// The drift report for people.
pub const REPORT_HTML: &str = "data/drift_report.html";
/// Who did what with the evidence, up to sealing.
pub const CUSTODY: &str = "data/custody.jsonl";
/// How to check the pack with stock tools.
pub const VERIFY_MD: &str = "data/VERIFY.md";
/// The configuration, with references to secrets and never a secret.
pub const CONFIG_SNAPSHOT: &str = "data/config_snapshot/";

/// Raw frames, for re-execution.
pub const FRAMES: &str = "data/frames.cbor";
/// The engine's journal since [`STATE_BEFORE`], for re-execution.
pub const JOURNAL: &str = "data/journal.cbor";
/// The table of series ids, for re-execution.
pub const SERIES: &str = "data/series.cbor";
/// The engine's snapshot that re-execution starts from.
pub const STATE_BEFORE: &str = "data/state_before.cbor";
/// The plugins that ran.
pub const PLUGINS: &str = "data/plugins/";
/// The policies that judged.
pub const POLICIES: &str = "data/policies/";
/// The baseline compared with.
pub const BASELINE: &str = "data/baseline/";
