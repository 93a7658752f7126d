//! What is kept for a case: the ranges its evidence pack is made from, and why they may not go.

use hb_log::hash::Hash;
use redb::{ReadableTable, WriteTransaction};

use super::error::StateError;
use super::reader::Reader;
use super::tables;
use super::usage::Tally;
use super::value::{Put, Take};

/// Why the ranges of a case stay; without any they are as old as everything else of their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its check has not judged its asset better since.
    pub open: bool,
    /// An operator pinned it.
    pub pinned: bool,
    /// Its pack is not written yet.
    pub unpacked: bool,
}

impl Kept {
    /// Whether anything keeps it.
    pub fn is_kept(self) -> bool {
        self.open || self.pinned || self.unpacked
    }

    fn to_byte(self) -> u8 {
        u8::from(self.open) | u8::from(self.pinned) << 1 | u8::from(self.unpacked) << 2
    }

    fn of_byte(byte: u8) -> Self {
        Self { open: byte & 1 != 0, pinned: byte & 2 != 0, unpacked: byte & 4 != 0 }
    }
}

/// What a case's pack is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// The case.
    pub case: String,
    /// Its lane.
    pub lane: String,
    /// Its asset.
    pub asset: String,
    /// Its check.
    pub check: String,
    /// Why it stays.
    pub kept: Kept,
    /// Journal and decisions from here.
    pub from_seq: u64,
    /// Journal and decisions up to and including this.
    pub to_seq: u64,
    /// The snapshot it starts from: with the asset, its name.
    pub snapshot_seq: u64,
    /// Blobs that belong to this case.
    pub inputs: Hash,
    /// Frames by source: the first and the last.
    pub frames: Vec<(String, u64, u64)>,
    /// Baselines it was compared with.
    pub baselines: Vec<Hash>,
    /// Log entries it is proven by.
    pub entries: Vec<u64>,
    /// Values by name that go with it.
    pub names: Vec<String>,
}

/// A change of why a case stays; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldChange {
    /// The case.
    pub case: String,
    /// Whether it is open from now on.
    pub open: Option<bool>,
    /// Whether it is pinned from now on.
    pub pinned: Option<bool>,
    /// Whether its pack is missing from now on.
    pub unpacked: Option<bool>,
    /// The size of the log that its pack is sealed with: the proofs in it are made again from the hashes there.
    pub sealed_at: Option<u64>,
}

impl HoldRow {
    fn encode(&self) -> Vec<u8> {
        let mut put = Put::new().u8(self.kept.to_byte()).text(&self.lane).text(&self.asset).text(&self.check);
        put = put.u64(self.from_seq).u64(self.to_seq).u64(self.snapshot_seq).rest(self.inputs.as_bytes());
        put = put.u32(self.frames.len() as u32);
        for (source, first, last) in &self.frames {
            put = put.text(source).u64(*first).u64(*last);
        }
        put = put.u32(self.baselines.len() as u32);
        for hash in &self.baselines {
            put = put.rest(hash.as_bytes());
        }
        put = put.u32(self.entries.len() as u32);
        for entry in &self.entries {
            put = put.u64(*entry);
        }
        put = put.u32(self.names.len() as u32);
        self.names.iter().fold(put, |put, name| put.text(name)).done()
    }

    fn decode(case: &str, value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("holds", &case, value)?;
        let kept = Kept::of_byte(take.u8()?);
        let (lane, asset, check) = (take.text()?, take.text()?, take.text()?);
        let (from_seq, to_seq, snapshot_seq, inputs) = (take.u64()?, take.u64()?, take.u64()?, take.hash()?);
        let (mut frames, mut baselines, mut entries, mut names) = (vec![], vec![], vec![], vec![]);
        for _ in 0..take.u32()? {
            frames.push((take.text()?, take.u64()?, take.u64()?));
        }
        for _ in 0..take.u32()? {
            baselines.push(take.hash()?);
        }
        for _ in 0..take.u32()? {
            entries.push(take.u64()?);
        }
        for _ in 0..take.u32()? {
            names.push(take.text()?);
        }
        take.end()?;
        let case = case.to_owned();
        Ok(Self {
            case,
            lane,
            asset,
            check,
            kept,
            from_seq,
            to_seq,
            snapshot_seq,
            inputs,
            frames,
            baselines,
            entries,
            names,
        })
    }

    /// Whether it needs journal inputs of `from..to`.
    pub(super) fn needs_inputs(&self, from: u64, to: u64) -> bool {
        self.from_seq < to && from <= self.to_seq
    }

    /// Whether it needs frames `from..to` of a source.
    pub(super) fn needs_frames(&self, source: &str, from: u64, to: u64) -> bool {
        self.frames.iter().any(|(name, first, last)| name == source && *first < to && from <= *last)
    }
}

/// Stores new holds and changes stored ones. What is not held any more cannot be pinned; every other change of it is
/// news that came too late.
pub(super) fn write(
    txn: &WriteTransaction,
    program: &str,
    rows: &[HoldRow],
    changes: &[HoldChange],
    tally: &Tally,
) -> Result<(), StateError> {
    if rows.is_empty() && changes.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(tables::HOLDS)?;
    for row in rows {
        let value = row.encode();
        let before = table.insert((program, row.case.as_str()), value.as_slice())?.map(|v| v.value().len());
        let key_bytes = program.len() + row.case.len();
        tally.add(key_bytes, value.len());
        if let Some(len) = before {
            tally.remove(key_bytes, len);
        }
    }
    for change in changes {
        let key = (program, change.case.as_str());
        let Some(mut row) = table.get(key)?.map(|v| HoldRow::decode(&change.case, v.value())).transpose()? else {
            match change.pinned {
                Some(true) => return Err(StateError::Forgotten { case: change.case.clone() }),
                _ => continue,
            }
        };
        let kept = &mut row.kept;
        kept.open = change.open.unwrap_or(kept.open);
        kept.pinned = change.pinned.unwrap_or(kept.pinned);
        kept.unpacked = change.unpacked.unwrap_or(kept.unpacked);
        row.entries.extend(change.sealed_at.and_then(|size| size.checked_sub(1)));
        table.insert(key, row.encode().as_slice())?;
    }
    Ok(())
}

/// Every hold, with its program.
pub(super) fn all(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
) -> Result<Vec<(String, HoldRow)>, StateError> {
    let mut holds = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let (program, case) = key.value();
        holds.push((program.to_owned(), HoldRow::decode(case, value.value())?));
    }
    Ok(holds)
}

impl Reader {
    /// What is kept for cases of a program, by case.
    pub fn holds(&self, program: &str) -> Result<Vec<HoldRow>, StateError> {
        let holds = all(&self.txn.open_table(tables::HOLDS)?)?;
        Ok(holds.into_iter().filter(|(owner, _)| owner == program).map(|(_, hold)| hold).collect())
    }
}
