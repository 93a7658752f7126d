//! A reader sees the state as it was at one commit, however long it looks.
//!
//! Keep it short-lived all the same: pages that a reader still sees cannot be used again.

use hb_log::hash::Hash;
use redb::{Key, ReadTransaction};

use super::block::{Block, Blocks};
use super::commit::{DecisionRow, FrameBlock, JournalRow, SnapshotRow};
use super::error::StateError;
use super::host::{self, Identity};
use super::tables;
use super::value::Take;

/// A snapshot of the state.
pub struct Reader {
    pub(super) txn: ReadTransaction,
    pub(super) identity: Identity,
}

/// Which decisions to show; an empty filter shows all, oldest first.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Only this asset.
    pub asset: Option<String>,
    /// Only this check.
    pub check: Option<String>,
    /// Only this status.
    pub status: Option<u8>,
    /// Only windows that end at or after this.
    pub from_ns: Option<i64>,
    /// Only windows that end before this.
    pub to_ns: Option<i64>,
    /// Only decisions made at or after this journal sequence number.
    pub from_seq: u64,
    /// Only decisions made at or before it.
    pub to_seq: Option<u64>,
    /// Newest first.
    pub newest_first: bool,
}

impl DecisionFilter {
    fn wants(&self, row: &DecisionRow) -> bool {
        self.asset.as_ref().is_none_or(|asset| *asset == row.asset)
            && self.check.as_ref().is_none_or(|check| *check == row.check)
            && self.status.is_none_or(|status| status == row.status)
            && self.from_ns.is_none_or(|from| row.end_ns >= from)
            && self.to_ns.is_none_or(|to| row.end_ns < to)
    }
}

/// What a decision id, or the beginning of one, stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// No decision.
    None,
    /// One decision, and the lane it was made in.
    One {
        /// The lane.
        lane: String,
        /// The decision.
        row: DecisionRow,
    },
    /// More than one; a longer prefix is needed. At most a handful are listed.
    Many(Vec<Hash>),
}

/// Ids listed when a prefix names several decisions.
const LOOKUP_MANY: usize = 8;

impl Reader {
    /// The journal from the block that holds `from_seq`, or the next one, in order.
    pub fn journal(
        &self,
        program: &str,
        lane: &str,
        from_seq: u64,
    ) -> Result<impl Iterator<Item = Result<JournalRow, StateError>> + use<>, StateError> {
        let table = self.txn.open_table(tables::JOURNAL)?;
        let before = table.range((program, lane, 0, 0)..=(program, lane, from_seq, u16::MAX))?.next_back();
        let start = match before {
            Some(row) => row?.0.value().2,
            None => from_seq,
        };
        let rows = table.range((program, lane, start, 0)..=(program, lane, u64::MAX, u16::MAX))?;
        Ok(overlapping(Blocks::new("journal", rows, |key| (key.2, key.3)), from_seq)
            .map(|block| block.map(|Block { at, count, bytes }| JournalRow { seq: at, count, bytes })))
    }

    /// The blocks that hold a source's frames `from..to`, in order; the first and last may hold more.
    pub fn frames(
        &self,
        program: &str,
        lane: &str,
        source: &str,
        from: u64,
        to: u64,
    ) -> Result<impl Iterator<Item = Result<FrameBlock, StateError>> + use<>, StateError> {
        let table = self.txn.open_table(tables::FRAMES)?;
        let before = table.range((program, lane, source, 0, 0)..=(program, lane, source, from, u16::MAX))?.next_back();
        let start = match before {
            Some(row) => row?.0.value().3,
            None => from,
        };
        // An empty range may not end before it starts.
        let rows = table.range((program, lane, source, start, 0)..(program, lane, source, to.max(start), 0))?;
        let source = source.to_owned();
        Ok(overlapping(Blocks::new("frames", rows, |key| (key.3, key.4)), from).map(move |block| {
            block.map(|Block { at, count, bytes }| FrameBlock { source: source.clone(), first: at, count, bytes })
        }))
    }

    /// Every series of a program, by id.
    pub fn series(&self, program: &str) -> Result<Vec<(u32, Vec<u8>)>, StateError> {
        let table = self.txn.open_table(tables::SERIES)?;
        let mut series = Vec::new();
        for row in table.range((program, 0)..=(program, u32::MAX))? {
            let (key, value) = row?;
            let definition = Take::new("series", &key.value(), value.value())?.rest().to_vec();
            series.push((key.value().1, definition));
        }
        Ok(series)
    }

    /// The decision whose id begins with these hex digits. The same decision in two lanes counts as one, and the lane
    /// first by name is shown.
    pub fn decision(&self, program: &str, id_prefix: &str) -> Result<Lookup, StateError> {
        let Some((low, high)) = hash_range(id_prefix) else { return Ok(Lookup::None) };
        let ids = self.txn.open_table(tables::DECISION_IDS)?;
        let mut found: Vec<(Hash, String, u64, u32)> = Vec::new();
        for row in ids.range((program, &low, "")..)? {
            let (key, value) = row?;
            let (owner, id, lane) = key.value();
            if owner != program || *id > high || found.len() >= LOOKUP_MANY {
                break;
            }
            let id = Hash::from_bytes(*id);
            if found.iter().all(|(other, ..)| *other != id) {
                let mut take = Take::new("decision_ids", &id_prefix, value.value())?;
                found.push((id, lane.to_owned(), take.u64()?, take.u32()?));
                take.end()?;
            }
        }
        match found.as_slice() {
            [] => Ok(Lookup::None),
            [(id, lane, seq, place)] => {
                let table = self.txn.open_table(tables::DECISIONS)?;
                let key = (program, lane.as_str(), *seq, *place);
                let value = table.get(key)?.ok_or_else(|| corrupt("decisions", &key, "the indexed row is missing"))?;
                let row = decode_decision(key, value.value())?;
                if row.id != *id {
                    return Err(corrupt("decisions", &key, "the row has another id than the index says"));
                }
                Ok(Lookup::One { lane: lane.clone(), row })
            }
            many => Ok(Lookup::Many(many.iter().map(|(id, ..)| *id).collect())),
        }
    }

    /// The decisions of a lane that pass the filter, in the order they were made, or newest first.
    pub fn decisions(
        &self,
        program: &str,
        lane: &str,
        filter: DecisionFilter,
    ) -> Result<impl Iterator<Item = Result<DecisionRow, StateError>> + use<>, StateError> {
        let table = self.txn.open_table(tables::DECISIONS)?;
        let mut rows = table.range(
            (program, lane, filter.from_seq, 0)..=(program, lane, filter.to_seq.unwrap_or(u64::MAX), u32::MAX),
        )?;
        Ok(std::iter::from_fn(move || {
            loop {
                let row = if filter.newest_first { rows.next_back() } else { rows.next() }?;
                let row =
                    row.map_err(StateError::from).and_then(|(key, value)| decode_decision(key.value(), value.value()));
                match row {
                    Ok(row) if !filter.wants(&row) => {}
                    other => return Some(other),
                }
            }
        }))
    }

    /// The newest snapshot of each asset of a lane.
    pub fn latest_snapshots(&self, program: &str, lane: &str) -> Result<Vec<SnapshotRow>, StateError> {
        let ids = self.txn.open_table(tables::SNAPSHOT_IDS)?;
        let mut newest: Vec<(String, u64)> = Vec::new();
        for row in ids.range((program, lane, "", 0)..)? {
            let (key, _) = row?;
            let key = key.value();
            if (key.0, key.1) != (program, lane) {
                break;
            }
            match newest.last_mut() {
                Some((asset, seq)) if asset == key.2 => *seq = key.3,
                _ => newest.push((key.2.to_owned(), key.3)),
            }
        }
        let mut snapshots = Vec::with_capacity(newest.len());
        for (asset, seq) in newest {
            snapshots.extend(self.snapshot(program, lane, &asset, seq)?);
        }
        Ok(snapshots)
    }

    /// One snapshot, if it is still kept.
    pub fn snapshot(
        &self,
        program: &str,
        lane: &str,
        asset: &str,
        seq: u64,
    ) -> Result<Option<SnapshotRow>, StateError> {
        let ids = self.txn.open_table(tables::SNAPSHOT_IDS)?;
        let key = (program, lane, asset, seq);
        let Some(id) = ids.get(key)? else { return Ok(None) };
        let mut take = Take::new("snapshot_ids", &key, id.value())?;
        let hash = take.hash()?;
        take.end()?;
        let table = self.txn.open_table(tables::SNAPSHOTS)?;
        let rows = table.range((program, lane, asset, seq, 0)..=(program, lane, asset, seq, u16::MAX))?;
        let block = only(Blocks::new("snapshots", rows, |key| (key.3, key.4)))?
            .ok_or_else(|| corrupt("snapshots", &key, "the indexed snapshot is missing"))?;
        Ok(Some(SnapshotRow { asset: asset.to_owned(), seq, hash, bytes: block.bytes }))
    }

    /// Where a source resumes.
    pub fn cursor(&self, program: &str, source: &str) -> Result<Option<Vec<u8>>, StateError> {
        let table = self.txn.open_table(tables::CURSORS)?;
        let key = (program, self.identity.host_id.as_str(), source, self.identity.epoch);
        let Some(value) = table.get(key)? else { return Ok(None) };
        Ok(Some(Take::new("cursors", &key, value.value())?.rest().to_vec()))
    }

    /// What is known of a source's messages in a session: packet ids and digests.
    pub fn deliveries(&self, program: &str, source: &str, epoch: u64) -> Result<Vec<(u16, [u8; 16])>, StateError> {
        let table = self.txn.open_table(tables::DELIVERIES)?;
        let host = self.identity.host_id.as_str();
        let mut rows = Vec::new();
        for row in table.range((program, host, source, epoch, 0)..=(program, host, source, epoch, u16::MAX))? {
            let (key, value) = row?;
            let key = key.value();
            let digest = Take::new("deliveries", &key, value.value())?.rest();
            let digest = digest.try_into().map_err(|_| corrupt("deliveries", &key, "not 16 bytes"))?;
            rows.push((key.4, digest));
        }
        Ok(rows)
    }

    /// Every cursor of a program, by source.
    pub fn cursors(&self, program: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let table = self.txn.open_table(tables::CURSORS)?;
        let host_id = self.identity.host_id.as_str();
        let mut cursors = Vec::new();
        for row in table.range((program, host_id, "", 0)..)? {
            let (key, value) = row?;
            let key = key.value();
            if (key.0, key.1) != (program, host_id) {
                break;
            }
            if key.3 == self.identity.epoch {
                cursors.push((key.2.to_owned(), Take::new("cursors", &key, value.value())?.rest().to_vec()));
            }
        }
        Ok(cursors)
    }

    /// How many commits the state took since it was created.
    pub fn commits(&self) -> Result<u64, StateError> {
        host::commits(&self.txn.open_table(tables::HOST)?)
    }
}

/// Leaves out blocks that end before `from`: the one found by looking back may.
fn overlapping<K: Key + 'static>(blocks: Blocks<K>, from: u64) -> impl Iterator<Item = Result<Block, StateError>> {
    blocks.filter(move |block| match block {
        Ok(block) => block.at + u64::from(block.count) > from,
        Err(_) => true,
    })
}

pub(super) fn only<K: Key + 'static>(mut blocks: Blocks<K>) -> Result<Option<Block>, StateError> {
    blocks.next().transpose()
}

fn decode_decision(key: (&str, &str, u64, u32), value: &[u8]) -> Result<DecisionRow, StateError> {
    let mut take = Take::new("decisions", &key, value)?;
    Ok(DecisionRow {
        status: take.u8()?,
        end_ns: take.i64()?,
        id: take.hash()?,
        asset: take.text()?,
        check: take.text()?,
        seq: key.2,
        bytes: take.rest().to_vec(),
    })
}

/// The smallest and largest hash that begin with these hex digits.
fn hash_range(prefix: &str) -> Option<([u8; 32], [u8; 32])> {
    let bound = |fill: &str| {
        let digits = 64_usize.checked_sub(prefix.len())?;
        let text = format!("{}{}", prefix.to_ascii_lowercase(), fill.repeat(digits));
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
    };
    Some((bound("0")?, bound("f")?))
}

pub(super) fn corrupt(table: &'static str, key: &dyn std::fmt::Debug, what: &str) -> StateError {
    StateError::Corrupt { table, key: format!("{key:?}"), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_its_hashes() {
        let (low, high) = hash_range("aB1").unwrap();
        assert_eq!((low[0], low[1], low[31]), (0xab, 0x10, 0));
        assert_eq!((high[0], high[1], high[31]), (0xab, 0x1f, 0xff));
        assert!(hash_range("xy").is_none());
        assert!(hash_range(&"0".repeat(65)).is_none());
    }
}
