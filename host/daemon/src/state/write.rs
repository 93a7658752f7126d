//! Applies one commit to one write transaction; nothing here decides whether it becomes durable.

use redb::{ReadableTable, Table, WriteTransaction};

use super::Options;
use super::block::{Packer, head_count};
use super::commit::{BaselineRow, Commit, DecisionRow, DeliveryRows, FrameBlock, JournalRow, SnapshotRow};
use super::error::StateError;
use super::host::Identity;
use super::ring::{Ring, RingCap};
use super::usage::Tally;
use super::value::{Put, Take};
use super::{holds, lanes, quarantine, retain, tables};
use crate::clock;

/// One commit on its way into one transaction.
pub(super) struct Writer<'a> {
    pub(super) txn: &'a WriteTransaction,
    pub(super) packer: &'a mut Packer,
    pub(super) identity: &'a Identity,
    pub(super) options: &'a Options,
    pub(super) tally: &'a Tally,
    pub(super) program: &'a str,
    pub(super) lane: &'a str,
}

impl Writer<'_> {
    /// Writes everything but the log.
    pub(super) fn write(&mut self, commit: &Commit) -> Result<(), StateError> {
        self.check_cursors(&commit.expect_cursors)?;
        self.journal(&commit.journal)?;
        self.frames(&commit.frames)?;
        self.series(&commit.series)?;
        self.decisions(&commit.decisions)?;
        self.snapshots(&commit.snapshots, &commit.pins)?;
        quarantine::write(self, &commit.quarantine)?;
        self.dead(commit)?;
        self.blobs(commit)?;
        self.counters(&commit.counters)?;
        self.baselines(&commit.baselines)?;
        self.tags(&commit.tags)?;
        self.named(tables::RUNS, &commit.runs)?;
        self.named(tables::CASES, &commit.cases)?;
        self.alerts(&commit.alerts)?;
        self.outbox(commit)?;
        self.named(tables::META, &commit.meta)?;
        self.deliveries(&commit.deliveries)?;
        self.cursors(&commit.cursors)?;
        lanes::note(self.txn, commit, clock::now_ns())?;
        lanes::compare(self.txn, commit)?;
        holds::write(self.txn, self.program, &commit.holds, &commit.hold_changes, self.tally)?;
        retain::forget_baselines(self.txn, self.program, &commit.forget_baselines, self.tally)
    }

    fn deliveries(&self, all: &[DeliveryRows]) -> Result<(), StateError> {
        if all.is_empty() {
            return Ok(());
        }
        let (program, host) = (self.program, self.identity.host_id.as_str());
        let mut table = self.txn.open_table(tables::DELIVERIES)?;
        for DeliveryRows { source, epoch, settled, rows } in all {
            let source = source.as_str();
            table.retain_in((program, host, source, 0, 0)..(program, host, source, *epoch, 0), |_, _| false)?;
            for packet in settled {
                table.remove((program, host, source, *epoch, *packet))?;
            }
            for (packet, digest) in rows {
                let value = Put::new().rest(digest).done();
                table.insert((program, host, source, *epoch, *packet), value.as_slice())?;
            }
        }
        Ok(())
    }

    fn check_cursors(&self, expected: &[(String, Option<Vec<u8>>)]) -> Result<(), StateError> {
        if expected.is_empty() {
            return Ok(());
        }
        let table = self.txn.open_table(tables::CURSORS)?;
        for (source, before) in expected {
            let key = (self.program, self.identity.host_id.as_str(), source.as_str(), self.identity.epoch);
            let stored = table.get(key)?;
            let stored = match &stored {
                Some(value) => Some(Take::new("cursors", &key, value.value())?.rest()),
                None => None,
            };
            if stored != before.as_deref() {
                return Err(StateError::Duplicate { cursor: source.clone() });
            }
        }
        Ok(())
    }

    fn cursors(&self, cursors: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        if cursors.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::CURSORS)?;
        for (source, position) in cursors {
            let key = (self.program, self.identity.host_id.as_str(), source.as_str(), self.identity.epoch);
            table.insert(key, Put::new().rest(position).done().as_slice())?;
        }
        Ok(())
    }

    fn journal(&mut self, rows: &[JournalRow]) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let (program, lane) = (self.program, self.lane);
        let mut table = self.txn.open_table(tables::JOURNAL)?;
        let last = table.range((program, lane, 0, 0)..=(program, lane, u64::MAX, u16::MAX))?.next_back();
        let first = last.map(|row| row.map(|(key, _)| key.value().2)).transpose()?;
        let mut end = match first {
            Some(first) => {
                table.get((program, lane, first, 0))?.map(|head| first + u64::from(head_count(head.value())))
            }
            None => None,
        };
        for row in rows {
            refuse_overlap("journal", end, row.seq, row.count)?;
            end = Some(row.seq + u64::from(row.count));
            self.packer.write(
                self.tally,
                "journal",
                &mut table,
                |fragment| (program, lane, row.seq, fragment),
                row.count,
                &row.bytes,
            )?;
        }
        Ok(())
    }

    fn frames(&mut self, blocks: &[FrameBlock]) -> Result<(), StateError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let (program, lane) = (self.program, self.lane);
        let mut table = self.txn.open_table(tables::FRAMES)?;
        for block in blocks {
            let source = block.source.as_str();
            let last =
                table.range((program, lane, source, 0, 0)..=(program, lane, source, u64::MAX, u16::MAX))?.next_back();
            let first = last.map(|row| row.map(|(key, _)| key.value().3)).transpose()?;
            let end = match first {
                Some(first) => table
                    .get((program, lane, source, first, 0))?
                    .map(|head| first + u64::from(head_count(head.value()))),
                None => None,
            };
            refuse_overlap("frames", end, block.first, block.count)?;
            self.packer.write(
                self.tally,
                "frames",
                &mut table,
                |fragment| (program, lane, source, block.first, fragment),
                block.count,
                &block.bytes,
            )?;
        }
        Ok(())
    }

    fn series(&self, series: &[(u32, Vec<u8>)]) -> Result<(), StateError> {
        if series.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::SERIES)?;
        for (id, definition) in series {
            insert_once(&mut table, self.tally, "series", &(self.program, *id), &Put::new().rest(definition).done())?;
        }
        Ok(())
    }

    fn decisions(&self, rows: &[DecisionRow]) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::DECISIONS)?;
        let mut ids = self.txn.open_table(tables::DECISION_IDS)?;
        let (mut at_seq, mut place) = (None, 0);
        for row in rows {
            place = if at_seq == Some(row.seq) { place + 1 } else { 0 };
            at_seq = Some(row.seq);
            let value = Put::new()
                .u8(row.status)
                .i64(row.end_ns)
                .rest(row.id.as_bytes())
                .text(&row.asset)
                .text(&row.check)
                .rest(&row.bytes)
                .done();
            insert_once(&mut table, self.tally, "decisions", &(self.program, self.lane, row.seq, place), &value)?;
            let value = Put::new().u64(row.seq).u32(place).done();
            let before = ids.insert((self.program, row.id.as_bytes(), self.lane), value.as_slice())?;
            if before.is_none() {
                self.tally.add(self.program.len() + 32 + self.lane.len(), value.len());
            }
        }
        Ok(())
    }

    /// Stores new snapshots, pins what shall stay, and drops every other older one of the same assets.
    fn snapshots(&mut self, rows: &[SnapshotRow], pins: &[(String, u64)]) -> Result<(), StateError> {
        if rows.is_empty() && pins.is_empty() {
            return Ok(());
        }
        let (program, lane) = (self.program, self.lane);
        let mut blocks = self.txn.open_table(tables::SNAPSHOTS)?;
        let mut ids = self.txn.open_table(tables::SNAPSHOT_IDS)?;
        for row in rows {
            let key = (program, lane, row.asset.as_str(), row.seq);
            let value = Put::new().rest(row.hash.as_bytes()).done();
            if insert_once(&mut ids, self.tally, "snapshots", &key, &value)? {
                let key = |fragment| (program, lane, row.asset.as_str(), row.seq, fragment);
                self.packer.write(self.tally, "snapshots", &mut blocks, key, 1, &row.bytes)?;
            }
        }
        let mut pinned = self.txn.open_table(tables::PINS)?;
        for (asset, seq) in pins {
            let key = (program, lane, asset.as_str(), *seq);
            if ids.get(key)?.is_none() {
                return Err(refused("pins", format!("asset `{asset}` has no snapshot at {seq}")));
            }
            pinned.insert(key, Put::new().done().as_slice())?;
        }
        for row in rows {
            let asset = row.asset.as_str();
            let mut stored = Vec::new();
            for id in ids.range((program, lane, asset, 0)..=(program, lane, asset, u64::MAX))? {
                stored.push(id?.0.value().3);
            }
            stored.pop(); // the newest one stays
            for seq in stored {
                if pinned.get((program, lane, asset, seq))?.is_none() {
                    let key = (program, lane, asset, seq);
                    retain::drop_all(&mut ids, key..=key, self.tally)?;
                    let fragments = (program, lane, asset, seq, 0)..=(program, lane, asset, seq, u16::MAX);
                    retain::drop_block(&mut blocks, fragments, self.tally)?;
                }
            }
        }
        Ok(())
    }

    fn dead(&mut self, commit: &Commit) -> Result<(), StateError> {
        if commit.dead.is_empty() {
            return Ok(());
        }
        let mut letters = self.txn.open_table(tables::DEAD)?;
        let mut rings = self.txn.open_table(tables::RINGS)?;
        let cap = RingCap { bytes: self.options.dead_cap_bytes, items: u64::MAX };
        for row in &commit.dead {
            let letter = Put::new().u64(row.ordinal).text(&row.cause).rest(&row.frame).done();
            Ring::open("dead_letters", &mut rings, &mut letters, self.program, &row.plugin, cap)?.push(
                self.packer,
                self.tally,
                &letter,
            )?;
        }
        Ok(())
    }

    fn blobs(&mut self, commit: &Commit) -> Result<(), StateError> {
        if commit.blobs.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::BLOBS)?;
        for (hash, content) in &commit.blobs {
            if hb_log::hash::Hash::of(content) != *hash {
                return Err(refused("blobs", format!("the content does not hash to {hash}")));
            }
            if table.get((hash.as_bytes(), 0))?.is_none() {
                self.packer.write(
                    self.tally,
                    "blobs",
                    &mut table,
                    |fragment| (hash.as_bytes(), fragment),
                    1,
                    content,
                )?;
            }
        }
        Ok(())
    }

    fn counters(&self, counters: &[(String, u64)]) -> Result<(), StateError> {
        if counters.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::COUNTERS)?;
        for (name, add) in counters {
            let key = (self.program, self.lane, name.as_str());
            let before = match table.get(key)? {
                Some(value) => Take::new("counters", &key, value.value())?.u64()?,
                None => 0,
            };
            table.insert(key, Put::new().u64(before.saturating_add(*add)).done().as_slice())?;
        }
        Ok(())
    }

    fn baselines(&self, rows: &[BaselineRow]) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::BASELINES)?;
        for row in rows {
            let value = Put::new().rest(row.hash.as_bytes()).rest(&row.meta).done();
            insert_once(&mut table, self.tally, "baselines", &(self.program, row.version), &value)?;
        }
        Ok(())
    }

    fn tags(&self, tags: &[(String, u32)]) -> Result<(), StateError> {
        if tags.is_empty() {
            return Ok(());
        }
        let baselines = self.txn.open_table(tables::BASELINES)?;
        let mut table = self.txn.open_table(tables::TAGS)?;
        for (tag, version) in tags {
            if baselines.get((self.program, *version))?.is_none() {
                return Err(refused("tags", format!("tag `{tag}` names baseline {version}, which is not stored")));
            }
            table.insert((self.program, tag.as_str()), Put::new().u32(*version).done().as_slice())?;
        }
        Ok(())
    }

    fn alerts(&self, rows: &[(String, Option<Vec<u8>>)]) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::ALERTS)?;
        let mut outcomes = self.txn.open_table(tables::OUTBOX_OUTCOMES)?;
        for (fingerprint, value) in rows {
            let key = (self.program, fingerprint.as_str());
            if let Some(value) = value {
                table.insert(key, Put::new().rest(value).done().as_slice())?;
            } else {
                table.remove(key)?;
                let behind = format!("{fingerprint}\0");
                outcomes.retain_in((key.0, key.1, "")..(key.0, &behind, ""), |_, _| false)?;
            }
        }
        Ok(())
    }

    fn named(
        &self,
        definition: redb::TableDefinition<'_, (&'static str, &'static str), &'static [u8]>,
        rows: &[(String, Vec<u8>)],
    ) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(definition)?;
        for (name, value) in rows {
            let value = Put::new().rest(value).done();
            let before = table.insert((self.program, name.as_str()), value.as_slice())?.map(|v| v.value().len());
            let key_bytes = self.program.len() + name.len();
            self.tally.add(key_bytes, value.len());
            if let Some(len) = before {
                self.tally.remove(key_bytes, len);
            }
        }
        Ok(())
    }
}

/// Inserts a row that never changes; says whether it is new. Writing the same again is fine, something else is not.
fn insert_once<K: redb::Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    tally: &Tally,
    name: &'static str,
    key: &K::SelfType<'_>,
    value: &[u8],
) -> Result<bool, StateError> {
    let stored = table.get(key)?.map(|stored| stored.value() == value);
    match stored {
        Some(true) => Ok(false),
        Some(false) => Err(refused(name, format!("{key:?} is stored already, with another content"))),
        None => {
            table.insert(key, value)?;
            tally.add(K::as_bytes(key).as_ref().len(), value.len());
            Ok(true)
        }
    }
}

fn refuse_overlap(table: &'static str, end: Option<u64>, first: u64, count: u32) -> Result<(), StateError> {
    if count == 0 || first.checked_add(u64::from(count)).is_none() {
        return Err(refused(table, format!("a block at {first} of {count} items")));
    }
    match end {
        Some(end) if first < end => Err(refused(table, format!("a block at {first}, but {end} comes next"))),
        _ => Ok(()),
    }
}

pub(super) fn refused(table: &'static str, what: String) -> StateError {
    StateError::Refused { table, what }
}
