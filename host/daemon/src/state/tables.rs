//! The tables of the store: typed keys, the program first, the value behind a version byte.
//!
//! Two kinds of table have no program in their key. The log is one per host, because its signed head vouches for the
//! host as a whole. Blobs are named by their content: what a hash may be used for is said by the program's row that
//! names it.

use redb::TableDefinition;

type Bytes = &'static [u8];
type Text = &'static str;
/// A SHA-256 as part of a key.
type HashKey = &'static [u8; 32];

/// (program, lane, first seq, fragment) -> fragment of a block of inputs.
pub(super) const JOURNAL: TableDefinition<'_, (Text, Text, u64, u16), Bytes> = TableDefinition::new("journal");
/// (program, lane, source, first ordinal, fragment) -> fragment of a block of frames.
pub(super) const FRAMES: TableDefinition<'_, (Text, Text, Text, u64, u16), Bytes> = TableDefinition::new("frames");
/// (program, id) -> canonical definition.
pub(super) const SERIES: TableDefinition<'_, (Text, u32), Bytes> = TableDefinition::new("series");
/// (program, lane, seq, place among the decisions of that seq) -> status, end, id, asset, check, bytes.
pub(super) const DECISIONS: TableDefinition<'_, (Text, Text, u64, u32), Bytes> = TableDefinition::new("decisions");
/// (program, id, lane) -> seq, place.
pub(super) const DECISION_IDS: TableDefinition<'_, (Text, HashKey, Text), Bytes> = TableDefinition::new("decision_ids");
/// index -> entry, verbatim.
pub(super) const ENTRIES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("log_entries");
/// (level, tile) -> up to 32 node hashes.
pub(super) const TILES: TableDefinition<'_, (u8, u64), Bytes> = TableDefinition::new("log_tiles");
/// (program, lane, asset, seq, fragment) -> fragment of a snapshot.
pub(super) const SNAPSHOTS: TableDefinition<'_, (Text, Text, Text, u64, u16), Bytes> =
    TableDefinition::new("snapshots");
/// (program, lane, asset, seq) -> hash of the snapshot.
pub(super) const SNAPSHOT_IDS: TableDefinition<'_, (Text, Text, Text, u64), Bytes> =
    TableDefinition::new("snapshot_ids");
/// (program, lane, asset, seq) -> nothing: the snapshot is kept.
pub(super) const PINS: TableDefinition<'_, (Text, Text, Text, u64), Bytes> = TableDefinition::new("pins");
/// (program, case) -> what its pack is made from, and why that stays.
pub(super) const HOLDS: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("holds");
/// (program, lane) -> where its journal, frames and decisions begin, end and may be cut.
pub(super) const LANES: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("lanes");
/// (time, program, lane) -> where journal and frames of the lane stood.
pub(super) const MARKS: TableDefinition<'_, (u64, Text, Text), Bytes> = TableDefinition::new("marks");
/// (program, lane, hash of a baseline) -> until which input it was compared with.
pub(super) const COMPARED: TableDefinition<'_, (Text, Text, HashKey), Bytes> = TableDefinition::new("compared");
/// name -> bytes needed, and how far the log is pruned.
pub(super) const USAGE: TableDefinition<'_, Text, Bytes> = TableDefinition::new("usage");
/// (program, host id, source, epoch) -> resume position.
pub(super) const CURSORS: TableDefinition<'_, (Text, Text, Text, u32), Bytes> = TableDefinition::new("cursors");
/// (program, host id, source, session epoch, packet id) -> digest of the message.
pub(super) const DELIVERIES: TableDefinition<'_, (Text, Text, Text, u64, u16), Bytes> =
    TableDefinition::new("deliveries");
/// (program, source, reason) -> count, plugin.
pub(super) const QUARANTINE: TableDefinition<'_, (Text, Text, Text), Bytes> = TableDefinition::new("quarantine");
/// (program, plugin, number, fragment) -> fragment of a refused frame.
pub(super) const SAMPLES: TableDefinition<'_, (Text, Text, u64, u16), Bytes> =
    TableDefinition::new("quarantine_samples");
/// (program, plugin, number, fragment) -> fragment of a dead letter.
pub(super) const DEAD: TableDefinition<'_, (Text, Text, u64, u16), Bytes> = TableDefinition::new("dead_letters");
/// (program, table, plugin) -> first, next, bytes, dropped of a ring.
pub(super) const RINGS: TableDefinition<'_, (Text, Text, Text), Bytes> = TableDefinition::new("rings");
/// (hash, fragment) -> fragment of the content.
pub(super) const BLOBS: TableDefinition<'_, (HashKey, u16), Bytes> = TableDefinition::new("blobs");
/// (program, lane, name) -> sum.
pub(super) const COUNTERS: TableDefinition<'_, (Text, Text, Text), Bytes> = TableDefinition::new("counters");
/// (program, run id) -> JSON.
pub(super) const RUNS: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("runs");
/// (program, case id) -> CBOR.
pub(super) const CASES: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("cases");
/// (program, version) -> hash, meta.
pub(super) const BASELINES: TableDefinition<'_, (Text, u32), Bytes> = TableDefinition::new("baselines");
/// (program, tag) -> version.
pub(super) const TAGS: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("tags");
/// (program, fingerprint) -> CBOR.
pub(super) const ALERTS: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("alerts");
/// (program, sink, number) -> rank, queued, attempts, next attempt, bytes, kind, id, subject of a document.
pub(super) const OUTBOX: TableDefinition<'_, (Text, Text, u64), Bytes> = TableDefinition::new("outbox");
/// (program, sink, number, fragment) -> fragment of a document.
pub(super) const OUTBOX_DOCUMENTS: TableDefinition<'_, (Text, Text, u64, u16), Bytes> =
    TableDefinition::new("outbox_documents");
/// (program, sink) -> rows, bytes, dropped, next number of a queue.
pub(super) const OUTBOX_SUMS: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("outbox_sums");
/// (program, fingerprint of an alert, sink) -> what became of the document that was settled last, its id.
pub(super) const OUTBOX_OUTCOMES: TableDefinition<'_, (Text, Text, Text), Bytes> =
    TableDefinition::new("outbox_outcomes");
/// (program, name) -> bytes.
pub(super) const META: TableDefinition<'_, (Text, Text), Bytes> = TableDefinition::new("meta");
/// name -> a fact about the whole file: schema, host id, epoch, boot, commits, the log's head.
pub(super) const HOST: TableDefinition<'_, Text, Bytes> = TableDefinition::new("host");

/// Creates every table that is not there, so that a reader never meets an absent one.
pub(super) fn create_all(txn: &redb::WriteTransaction) -> Result<(), redb::TableError> {
    macro_rules! create {
        ($($table:ident)*) => { $(txn.open_table($table)?;)* };
    }
    create!(JOURNAL FRAMES SERIES DECISIONS DECISION_IDS ENTRIES TILES SNAPSHOTS SNAPSHOT_IDS PINS CURSORS DELIVERIES QUARANTINE
        SAMPLES DEAD RINGS BLOBS COUNTERS RUNS CASES BASELINES TAGS ALERTS OUTBOX OUTBOX_DOCUMENTS
        OUTBOX_SUMS OUTBOX_OUTCOMES META HOST HOLDS LANES MARKS COMPARED USAGE);
    Ok(())
}
