//! What one commit holds: everything that must become true together, or not at all.

use hb_log::checkpoint::Checkpoint;
use hb_log::hash::Hash;

use super::holds::{HoldChange, HoldRow};

/// One durable step of one lane of one program. Empty parts cost nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The tenant everything below belongs to; the first part of every key.
    pub program: String,
    /// The lane of journal, frames, decisions, snapshots, counters and pins.
    pub lane: String,
    /// The engine's inputs, in order.
    pub journal: Vec<JournalRow>,
    /// Raw bytes as they arrived.
    pub frames: Vec<FrameBlock>,
    /// Newly defined series: id and canonical definition. An id never changes its meaning.
    pub series: Vec<(u32, Vec<u8>)>,
    /// Decisions, in the order they were made.
    pub decisions: Vec<DecisionRow>,
    /// Entries to append to the signed log, in order.
    pub entries: Vec<NewEntry>,
    /// Partition snapshots of the engine; each replaces its asset's previous one unless that is pinned.
    pub snapshots: Vec<SnapshotRow>,
    /// Snapshots to keep: (asset, seq). Each must be stored, or arrive in this commit.
    pub pins: Vec<(String, u64)>,
    /// The first journal input that a recovery of the lane needs from now on; what is before it may go.
    pub floor: Option<u64>,
    /// The baselines the lane compares with from now on.
    pub compared: Option<Vec<Hash>>,
    /// What is kept for cases from now on. Their log entries count from the first entry of this commit.
    pub holds: Vec<HoldRow>,
    /// Changes of why cases stay.
    pub hold_changes: Vec<HoldChange>,
    /// Baseline versions that may go; those that something still names stay.
    pub forget_baselines: Vec<u32>,
    /// Resume positions by source, after this commit.
    pub cursors: Vec<(String, Vec<u8>)>,
    /// How messages of brokers are recognised when they come again.
    pub deliveries: Vec<DeliveryRows>,
    /// Resume positions by source, as they must be before it; otherwise the commit is refused as a duplicate.
    pub expect_cursors: Vec<(String, Option<Vec<u8>>)>,
    /// Telemetry that was refused: counted, with a few samples.
    pub quarantine: Vec<QuarantineRow>,
    /// Frames a plugin failed on.
    pub dead: Vec<DeadRow>,
    /// Content by its hash: generations, plugins, policies, baselines, config files.
    pub blobs: Vec<(Hash, Vec<u8>)>,
    /// What to add to the lane's counters.
    pub counters: Vec<(String, u64)>,
    /// Run summaries: id and JSON; the last one written stands.
    pub runs: Vec<(String, Vec<u8>)>,
    /// Cases: id and CBOR; the last one written stands.
    pub cases: Vec<(String, Vec<u8>)>,
    /// New baseline versions; a version never changes.
    pub baselines: Vec<BaselineRow>,
    /// Baseline tags: name and the version it now names.
    pub tags: Vec<(String, u32)>,
    /// Alerts: fingerprint and CBOR; the last one written stands, and without bytes the row goes.
    pub alerts: Vec<(String, Option<Vec<u8>>)>,
    /// Documents to deliver, in order.
    pub outbox: Vec<OutboxDocument>,
    /// What became of documents that waited.
    pub settled: Vec<Settled>,
    /// Small values by name; the last one written stands.
    pub meta: Vec<(String, Vec<u8>)>,
}

/// Messages of one source: what becomes of its table of packet ids. Rows of earlier epochs go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryRows {
    /// The source.
    pub source: String,
    /// Session epoch.
    pub epoch: u64,
    /// Packet ids whose rows go first.
    pub settled: Vec<u16>,
    /// Packet ids and what their messages were.
    pub rows: Vec<(u16, [u8; 16])>,
}

/// A run of journal inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Sequence number of the first input.
    pub seq: u64,
    /// How many inputs the bytes hold.
    pub count: u32,
    /// The inputs, encoded by the engine's owner.
    pub bytes: Vec<u8>,
}

/// A run of raw frames of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBlock {
    /// The source they came from.
    pub source: String,
    /// Ordinal of the first frame.
    pub first: u64,
    /// How many frames the bytes hold.
    pub count: u32,
    /// The frames, encoded by the pipeline.
    pub bytes: Vec<u8>,
}

/// One decision with what is needed to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// The decision's own hash: its name.
    pub id: Hash,
    /// The asset it is about.
    pub asset: String,
    /// The check that made it.
    pub check: String,
    /// End of its window, nanoseconds since the Unix epoch.
    pub end_ns: i64,
    /// Journal sequence number of the input that caused it.
    pub seq: u64,
    /// Status code, as the engine numbers them.
    pub status: u8,
    /// The canonical bytes.
    pub bytes: Vec<u8>,
}

/// An entry for the signed log; its index is given when it is appended.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// What it records, for example `decision` or `generation.swap`.
    pub kind: String,
    /// When, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The content.
    pub body: ciborium::Value,
}

/// The engine's memory of one asset at one point of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The asset.
    pub asset: String,
    /// The first journal input that is not in it.
    pub seq: u64,
    /// Hash of the bytes, as decisions name it.
    pub hash: Hash,
    /// The canonical bytes.
    pub bytes: Vec<u8>,
}

/// Telemetry of one source refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// The source.
    pub source: String,
    /// The plugin that refused it.
    pub plugin: String,
    /// Why; a short fixed text, not one with values in it.
    pub reason: String,
    /// How many frames or samples.
    pub count: u64,
    /// One of them: ordinal and frame.
    pub sample: Option<(u64, Vec<u8>)>,
}

/// A frame on which a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRow {
    /// The plugin.
    pub plugin: String,
    /// The frame's ordinal.
    pub ordinal: u64,
    /// How the plugin failed.
    pub cause: String,
    /// The frame.
    pub frame: Vec<u8>,
}

/// One version of reference statistics; its content is a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineRow {
    /// The version.
    pub version: u32,
    /// Hash of the content.
    pub hash: Hash,
    /// What it is and why it is trusted, encoded by its owner.
    pub meta: Vec<u8>,
}

/// A document on its way to one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxDocument {
    /// The sink.
    pub sink: String,
    /// Its type, as the sink is told it.
    pub kind: String,
    /// Idempotency key: stays the same over retries and restarts.
    pub id: String,
    /// Documents of one subject keep their order; empty when there is none.
    pub subject: String,
    /// How dear it is: over the cap the lowest rank goes first.
    pub rank: u8,
    /// When it was queued, ns since the Unix epoch.
    pub queued_ns: i64,
    /// The document.
    pub json: Vec<u8>,
}

/// What became of a document that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The sink.
    pub sink: String,
    /// Its number in the queue of the sink.
    pub seq: u64,
    /// What became of it.
    pub what: Settlement,
}

/// Whether a document still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Its sink has it.
    Delivered,
    /// It was given up, and is a dead letter in the same commit.
    Dead,
    /// It is to be offered again.
    Later {
        /// Attempts so far.
        attempts: u32,
        /// Not before this, ns since the Unix epoch.
        next_attempt_ns: i64,
    },
}

/// What a successful commit made true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Number of this commit: grows by one with each, and is stored with it.
    pub txn: u64,
    /// Log index of the first of its entries; the log's size when it had none.
    pub first_entry: u64,
    /// The log's head now.
    pub checkpoint: Checkpoint,
    /// The head's body text, the very bytes that are signed.
    pub body: String,
    /// The minisign signature over `body`.
    pub signature: String,
}
