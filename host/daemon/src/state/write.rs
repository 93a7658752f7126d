//! Applies one commit to one write transaction; nothing here decides whether it becomes durable.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, Table, WriteTransaction};

use super::Options;
use super::block::{Packer, head_count};
use super::commit::{
    BaselineRow, Commit, DecisionRow, DeliveryRows, FrameBlock, JournalRow, QuarantineRow, SnapshotRow,
};
use super::error::StateError;
use super::host::Identity;
use super::ring::{Ring, RingCap};
use super::tables;
use super::value::{Put, Take};

/// Reasons kept apart per source as they are worded: most sources have a handful. A plugin that puts values into its
/// reasons must not fill the table; what goes beyond is counted by class, see [`class_of`].
const QUARANTINE_REASONS: usize = 256;
/// Classes kept per source beyond that: as many kinds of mistakes as anybody will read.
const QUARANTINE_CLASSES: usize = 256;
/// Where the reasons of a source are counted whose classes are too many as well.
const QUARANTINE_OTHER: &str = "other";

/// One commit on its way into one transaction.
pub(super) struct Writer<'a> {
    pub(super) txn: &'a WriteTransaction,
    pub(super) packer: &'a mut Packer,
    pub(super) identity: &'a Identity,
    pub(super) options: &'a Options,
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
        self.quarantine(&commit.quarantine)?;
        self.dead(commit)?;
        self.blobs(commit)?;
        self.counters(&commit.counters)?;
        self.custody(&commit.custody)?;
        self.baselines(&commit.baselines)?;
        self.tags(&commit.tags)?;
        self.named(tables::RUNS, &commit.runs)?;
        self.named(tables::CASES, &commit.cases)?;
        self.alerts(&commit.alerts)?;
        self.outbox(commit)?;
        self.named(tables::META, &commit.meta)?;
        self.deliveries(&commit.deliveries)?;
        self.cursors(&commit.cursors)
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
            insert_once(&mut table, "series", &(self.program, *id), &Put::new().rest(definition).done())?;
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
            insert_once(&mut table, "decisions", &(self.program, self.lane, row.seq, place), &value)?;
            let value = Put::new().u64(row.seq).u32(place).done();
            ids.insert((self.program, row.id.as_bytes(), self.lane), value.as_slice())?;
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
            if insert_once(&mut ids, "snapshots", &key, &value)? {
                let key = |fragment| (program, lane, row.asset.as_str(), row.seq, fragment);
                self.packer.write("snapshots", &mut blocks, key, 1, &row.bytes)?;
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
                    ids.remove((program, lane, asset, seq))?;
                    let fragments = (program, lane, asset, seq, 0)..=(program, lane, asset, seq, u16::MAX);
                    blocks.retain_in(fragments, |_, _| false)?;
                }
            }
        }
        Ok(())
    }

    fn quarantine(&mut self, rows: &[QuarantineRow]) -> Result<(), StateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut counts = self.txn.open_table(tables::QUARANTINE)?;
        let mut samples = self.txn.open_table(tables::SAMPLES)?;
        let mut rings = self.txn.open_table(tables::RINGS)?;
        let cap = RingCap { bytes: self.options.quarantine_cap_bytes, items: self.options.quarantine_cap_items };
        // Rows of a source, counted once per commit; and the rows that have a sample of this commit already.
        let (mut known, mut sampled) = (BTreeMap::new(), BTreeSet::new());
        for row in rows {
            let source = row.source.as_str();
            let reasons = match known.entry(source) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(count_reasons(&counts, self.program, source)?),
            };
            let mut reason = Cow::Borrowed(row.reason.as_str());
            if *reasons >= QUARANTINE_REASONS && counts.get((self.program, source, &*reason))?.is_none() {
                reason = Cow::Owned(class_of(&row.reason));
                let full = *reasons >= QUARANTINE_REASONS + QUARANTINE_CLASSES;
                if full && counts.get((self.program, source, &*reason))?.is_none() {
                    reason = Cow::Borrowed(QUARANTINE_OTHER);
                }
            }
            let key = (self.program, source, &*reason);
            let before = match counts.get(key)? {
                Some(value) => Take::new("quarantine", &key, value.value())?.u64()?,
                None => 0,
            };
            *reasons += usize::from(before == 0);
            let value = Put::new().u64(before.saturating_add(row.count)).text(&row.plugin).done();
            counts.insert(key, value.as_slice())?;
            // Many reasons of one class come together; one sample shows what they are.
            if let Some((ordinal, frame)) = &row.sample
                && sampled.insert((source, row.plugin.as_str(), reason.clone()))
            {
                let sample = Put::new().u64(*ordinal).text(source).text(&reason).rest(frame).done();
                Ring::open("quarantine_samples", &mut rings, &mut samples, self.program, &row.plugin, cap)?
                    .push(self.packer, &sample)?;
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
            Ring::open("dead_letters", &mut rings, &mut letters, self.program, &row.plugin, cap)?
                .push(self.packer, &letter)?;
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
                self.packer.write("blobs", &mut table, |fragment| (hash.as_bytes(), fragment), 1, content)?;
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

    fn custody(&self, events: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut table = self.txn.open_table(tables::CUSTODY)?;
        for (case, event) in events {
            let case = case.as_str();
            let last = table.range((self.program, case, 0)..=(self.program, case, u64::MAX))?.next_back();
            let next = last.map(|row| row.map(|(key, _)| key.value().2 + 1)).transpose()?.unwrap_or(0);
            table.insert((self.program, case, next), Put::new().rest(event).done().as_slice())?;
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
            insert_once(&mut table, "baselines", &(self.program, row.version), &value)?;
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
        for (fingerprint, value) in rows {
            let key = (self.program, fingerprint.as_str());
            match value {
                Some(value) => table.insert(key, Put::new().rest(value).done().as_slice())?,
                None => table.remove(key)?,
            };
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
            table.insert((self.program, name.as_str()), Put::new().rest(value).done().as_slice())?;
        }
        Ok(())
    }
}

/// Reasons a source has rows for.
fn count_reasons(
    counts: &Table<'_, (&'static str, &'static str, &'static str), &'static [u8]>,
    program: &str,
    source: &str,
) -> Result<usize, StateError> {
    let mut reasons = 0;
    for row in counts.range((program, source, "")..)? {
        let (key, _) = row?;
        let (owner, of, _) = key.value();
        if (owner, of) != (program, source) {
            break;
        }
        reasons += 1;
    }
    Ok(reasons)
}

/// What a reason is about, without its values: text between backticks becomes `…`, a run of digits `N`.
fn class_of(reason: &str) -> String {
    let mut class = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(at) = rest.find(|c: char| c == '`' || c.is_ascii_digit()) {
        class.push_str(&rest[..at]);
        rest = &rest[at..];
        let quoted = rest.strip_prefix('`').and_then(|inner| inner.split_once('`'));
        if let Some((_, behind)) = quoted {
            class.push_str("`…`");
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('`') {
            class.push('`');
            rest = behind;
        } else {
            class.push('N');
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
    }
    class + rest
}

/// Inserts a row that never changes; says whether it is new. Writing the same again is fine, something else is not.
fn insert_once<K: redb::Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
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

#[cfg(test)]
mod tests {
    use super::class_of;

    #[test]
    fn a_class_has_no_values() {
        for (reason, class) in [
            ("", ""),
            ("late", "late"),
            ("field `v`: `1e999` is too large", "field `…`: `…` is too large"),
            ("csv row: 2 cells, but the header names 13 columns", "csv row: N cells, but the header names N columns"),
            ("at 1.5 s, x2y", "at N.N s, xNy"),
            ("`ä` and ü7", "`…` and üN"),
            ("an open ` and 12", "an open ` and N"),
            ("``", "`…`"),
        ] {
            assert_eq!(class_of(reason), class);
            assert_eq!(class_of(class), class, "a class is its own class");
        }
    }
}
