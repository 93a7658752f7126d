//! What is old goes when the state nears its cap: frames, journal and decisions of all lanes together, oldest first.
//!
//! A commit that finds 80 % of the cap in use removes one slice: what lies before the oldest [`Mark`], if its lane can be
//! recovered without it. What a kept case's pack is made from stays, see [`HoldRow`]; a case that nothing keeps goes
//! whole, with its snapshot and its inputs, as soon as the first of its telemetry does. At 95 % the oldest open case
//! that has its pack is let go, and whoever records sheds what arrives. Never removed: series, blobs of generations,
//! the newest snapshots, and the journal behind the newest checkpoint.
//!
//! A slice is bounded, so that no commit waits for it: [`SLICE_ROWS`] rows, and [`RELEASED_MAX`] cases of a checkpoint's
//! worth each.

use redb::{Key, ReadableTable, Table, WriteTransaction};

use super::block::head_count;
use super::commit::NewEntry;
use super::error::StateError;
use super::holds::{self, HoldRow};
use super::lanes::{self, LaneRow, Mark};
use super::tables;
use super::usage::{Tally, Usage};
use super::value::Take;
use crate::clock;

/// Rows that one commit removes or steps over at most: 8 MiB, which is more than one brings, and some milliseconds.
const SLICE_ROWS: usize = 2_048;
/// Cases that one commit lets go at most.
const RELEASED_MAX: usize = 4;
/// Oldest marks looked at for one that may go: a lane that was never checkpointed keeps all of its own.
const MARKS_MAX: usize = 4_096;

/// One slice inside an open transaction.
pub(super) struct Slice<'a> {
    txn: &'a WriteTransaction,
    tally: &'a Tally,
    holds: Vec<(String, HoldRow)>,
    rows_left: usize,
    released: Vec<String>,
}

/// Removes a slice of what is old, when the state is tight; what must be told goes to the log.
pub(super) fn slice(txn: &WriteTransaction, before: Usage, tally: &Tally) -> Result<Vec<NewEntry>, StateError> {
    if !tally.since(before).is_tight() {
        return Ok(Vec::new());
    }
    let holds = holds::all(&txn.open_table(tables::HOLDS)?)?;
    let mut slice = Slice { txn, tally, holds, rows_left: SLICE_ROWS, released: Vec::new() };
    if tally.since(before).is_full() {
        slice.let_one_go()?;
    }
    for mark in Mark::oldest(txn, MARKS_MAX)? {
        if slice.rows_left == 0 || !tally.since(before).is_tight() {
            break;
        }
        let lane = LaneRow::load(&txn.open_table(tables::LANES)?, (&mark.program, &mark.lane))?;
        if mark.end <= lane.floor && !slice.remove_before(&mark, lane)? {
            break;
        }
    }
    let told = |case: &String| NewEntry {
        kind: "case.forgotten".to_owned(),
        time_ns: clock::now_ns(),
        body: ciborium::Value::Map(vec![
            ("case".into(), case.as_str().into()),
            ("why".into(), "limits.max_state_mb".into()),
        ]),
    };
    Ok(slice.released.iter().map(told).collect())
}

impl Slice<'_> {
    /// Ends what keeps the oldest case that is only open: its pack is written.
    fn let_one_go(&mut self) -> Result<(), StateError> {
        let only_open = |hold: &HoldRow| hold.kept.open && !hold.kept.pinned && !hold.kept.unpacked;
        let oldest = self.holds.iter_mut().filter(|(_, hold)| only_open(hold)).min_by_key(|(_, hold)| hold.from_seq);
        let Some((program, hold)) = oldest else { return Ok(()) };
        hold.kept.open = false;
        let change = holds::HoldChange { case: hold.case.clone(), open: Some(false), ..Default::default() };
        holds::write(self.txn, program, &[], &[change], self.tally)
    }

    /// Removes what lies before a mark; whether all of it is gone.
    fn remove_before(&mut self, mark: &Mark, mut lane: LaneRow) -> Result<bool, StateError> {
        if !self.release_before(mark, &lane)? {
            return Ok(false);
        }
        for (source, end) in &mark.sources {
            let Some(known) = lane.sources.iter_mut().find(|(name, ..)| name == source) else { continue };
            known.2 = self.remove_frames(mark, source, known.2, *end)?;
        }
        lane.journal_from = self.remove_journal(mark, lane.journal_from, mark.end)?;
        lane.decisions_from = self.remove_decisions(mark, lane.decisions_from, mark.end)?;
        lane.store(self.txn, (&mark.program, &mark.lane))?;
        let done = self.rows_left > 0;
        if done {
            mark.remove(self.txn)?;
        }
        Ok(done)
    }

    fn of_lane<'s>(&'s self, mark: &'s Mark) -> impl Iterator<Item = &'s HoldRow> {
        let mine = |(program, hold): &&(String, HoldRow)| *program == mark.program && hold.lane == mark.lane;
        self.holds.iter().filter(mine).map(|(_, hold)| hold)
    }

    /// Lets go the cases that nothing keeps and whose telemetry would be cut; whether none is left.
    fn release_before(&mut self, mark: &Mark, lane: &LaneRow) -> Result<bool, StateError> {
        let due = |hold: &&HoldRow| !hold.kept.is_kept() && hold.from_seq < mark.end;
        let due: Vec<HoldRow> = self.of_lane(mark).filter(due).cloned().collect();
        for hold in &due {
            if self.released.len() == RELEASED_MAX {
                return Ok(false);
            }
            self.holds.retain(|(program, other)| *program != mark.program || other.case != hold.case);
            self.release(mark, lane, hold)?;
            self.released.push(hold.case.clone());
        }
        Ok(true)
    }

    /// Removes a case, and what of its telemetry was left when its time was cut.
    fn release(&mut self, mark: &Mark, lane: &LaneRow, hold: &HoldRow) -> Result<(), StateError> {
        let (txn, tally, program) = (self.txn, self.tally, mark.program.as_str());
        // What is not cut yet goes in its turn; a case has a checkpoint's worth at most.
        let rows_left = std::mem::replace(&mut self.rows_left, usize::MAX);
        for (source, first, last) in &hold.frames {
            let cut = lane.sources.iter().find(|(name, ..)| name == source).map_or(0, |known| known.2);
            self.remove_frames(mark, source, *first, cut.min(last + 1))?;
        }
        self.remove_journal(mark, hold.from_seq, lane.journal_from.min(hold.to_seq + 1))?;
        self.remove_decisions(mark, hold.from_seq, lane.decisions_from.min(hold.to_seq + 1))?;
        self.rows_left = rows_left;

        let asset = hold.asset.as_str();
        let same = |other: &&HoldRow| other.asset == hold.asset && other.snapshot_seq == hold.snapshot_seq;
        if self.of_lane(mark).find(same).is_none() {
            let key = (program, mark.lane.as_str(), asset, hold.snapshot_seq);
            txn.open_table(tables::PINS)?.remove(key)?;
            remove_old_snapshot(txn, tally, key)?;
        }
        if !self.holds.iter().any(|(_, other)| other.inputs == hold.inputs) {
            remove_blob(txn, tally, &hold.inputs)?;
        }
        let key_bytes = |name: &str| program.len() + name.len();
        let mut meta = txn.open_table(tables::META)?;
        for name in &hold.names {
            let gone = meta.remove((program, name.as_str()))?.map(|v| v.value().len());
            if let Some(len) = gone {
                tally.remove(key_bytes(name), len);
            }
        }
        for table in [tables::CASES, tables::HOLDS] {
            let gone = txn.open_table(table)?.remove((program, hold.case.as_str()))?.map(|v| v.value().len());
            if let Some(len) = gone {
                tally.remove(key_bytes(&hold.case), len);
            }
        }
        Ok(())
    }

    /// Removes the frames `from..to` of a source that no case needs; returns where it came to.
    fn remove_frames(&mut self, mark: &Mark, source: &str, from: u64, to: u64) -> Result<u64, StateError> {
        let (program, lane) = (mark.program.as_str(), mark.lane.as_str());
        let mut table = self.txn.open_table(tables::FRAMES)?;
        // A case may begin within a block.
        let before = table.range((program, lane, source, 0, 0)..=(program, lane, source, from, u16::MAX))?.next_back();
        let start = before.transpose()?.map_or(from, |(key, _)| key.value().3);
        let range = (program, lane, source, start, 0)..(program, lane, source, to.max(start), 0);
        let (blocks, reached) = blocks(&table, range, to.max(from), &mut self.rows_left, |key| (key.3, key.4))?;
        for (at, count) in blocks {
            if !self.of_lane(mark).any(|hold| hold.needs_frames(source, at, at + u64::from(count))) {
                let fragments = (program, lane, source, at, 0)..=(program, lane, source, at, u16::MAX);
                drop_block(&mut table, fragments, self.tally)?;
            }
        }
        Ok(reached)
    }

    /// Removes the journal `from..to` of a lane that no case needs; returns where it came to.
    fn remove_journal(&mut self, mark: &Mark, from: u64, to: u64) -> Result<u64, StateError> {
        let (program, lane) = (mark.program.as_str(), mark.lane.as_str());
        let mut table = self.txn.open_table(tables::JOURNAL)?;
        let before = table.range((program, lane, 0, 0)..=(program, lane, from, u16::MAX))?.next_back();
        let start = before.transpose()?.map_or(from, |(key, _)| key.value().2);
        let range = (program, lane, start, 0)..(program, lane, to.max(start), 0);
        let (blocks, reached) = blocks(&table, range, to.max(from), &mut self.rows_left, |key| (key.2, key.3))?;
        for (at, count) in blocks {
            if !self.of_lane(mark).any(|hold| hold.needs_inputs(at, at + u64::from(count))) {
                let fragments = (program, lane, at, 0)..=(program, lane, at, u16::MAX);
                drop_block(&mut table, fragments, self.tally)?;
            }
        }
        Ok(reached)
    }

    /// Removes the decisions `from..to` of a lane that no case needs; returns where it came to.
    fn remove_decisions(&mut self, mark: &Mark, from: u64, to: u64) -> Result<u64, StateError> {
        let (program, lane) = (mark.program.as_str(), mark.lane.as_str());
        let mut table = self.txn.open_table(tables::DECISIONS)?;
        let mut ids = self.txn.open_table(tables::DECISION_IDS)?;
        let (mut gone, mut reached) = (Vec::new(), to.max(from));
        for row in table.range((program, lane, from, 0)..(program, lane, to.max(from), 0))? {
            let (key, value) = row?;
            let (_, _, seq, place) = key.value();
            if self.rows_left == 0 {
                reached = seq;
                break;
            }
            self.rows_left -= 1;
            let place_of = key.value();
            let mut take = Take::new("decisions", &place_of, value.value())?;
            let (_, _, id) = (take.u8()?, take.i64()?, take.hash()?);
            let (asset, check) = (take.text()?, take.text()?);
            let needs = |hold: &HoldRow| hold.needs_inputs(seq, seq + 1) && hold.asset == asset && hold.check == check;
            if !self.of_lane(mark).any(needs) {
                gone.push((seq, place, id, value.value().len()));
            }
        }
        for (seq, place, id, len) in gone {
            table.remove((program, lane, seq, place))?;
            self.tally.remove(program.len() + lane.len() + 12, len);
            let value = ids.remove((program, id.as_bytes(), lane))?.map_or(0, |v| v.value().len());
            self.tally.remove(program.len() + lane.len() + 32, value);
        }
        Ok(reached)
    }
}

/// The blocks of a range, first number and count, as far as the slice goes; and the number it came to.
fn blocks<K: Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    range: std::ops::Range<K::SelfType<'_>>,
    to: u64,
    rows_left: &mut usize,
    place: fn(K::SelfType<'_>) -> (u64, u16),
) -> Result<(Vec<(u64, u32)>, u64), StateError> {
    let mut found = Vec::new();
    let mut reached = to;
    for row in table.range(range)? {
        let (key, value) = row?;
        let (at, fragment) = place(key.value());
        if fragment == 0 {
            if *rows_left == 0 {
                reached = at;
                break;
            }
            found.push((at, head_count(value.value())));
        }
        *rows_left = rows_left.saturating_sub(1);
    }
    Ok((found, reached))
}

/// Removes every row of a range.
pub(super) fn drop_all<K: Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    range: std::ops::RangeInclusive<K::SelfType<'_>>,
    tally: &Tally,
) -> Result<(), StateError> {
    table.retain_in(range, |key, value| {
        tally.remove_row::<K>(&key, value);
        false
    })?;
    Ok(())
}

/// Removes every fragment of a block.
pub(super) fn drop_block<K: Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    range: std::ops::RangeInclusive<K::SelfType<'_>>,
    tally: &Tally,
) -> Result<(), StateError> {
    table.retain_in(range, |key, value| {
        tally.remove_fragment::<K>(&key, value);
        false
    })?;
    Ok(())
}

/// Removes a snapshot that is not the newest of its asset.
fn remove_old_snapshot(
    txn: &WriteTransaction,
    tally: &Tally,
    (program, lane, asset, seq): (&str, &str, &str, u64),
) -> Result<(), StateError> {
    let mut ids = txn.open_table(tables::SNAPSHOT_IDS)?;
    let last = ids.range((program, lane, asset, 0)..=(program, lane, asset, u64::MAX))?.next_back().transpose()?;
    let newest = last.map(|(key, _)| key.value().3);
    if newest.is_none_or(|newest| newest == seq) {
        return Ok(());
    }
    drop_all(&mut ids, (program, lane, asset, seq)..=(program, lane, asset, seq), tally)?;
    let mut blocks = txn.open_table(tables::SNAPSHOTS)?;
    drop_block(&mut blocks, (program, lane, asset, seq, 0)..=(program, lane, asset, seq, u16::MAX), tally)
}

fn remove_blob(txn: &WriteTransaction, tally: &Tally, hash: &hb_log::hash::Hash) -> Result<(), StateError> {
    let mut blobs = txn.open_table(tables::BLOBS)?;
    drop_block(&mut blobs, (hash.as_bytes(), 0)..=(hash.as_bytes(), u16::MAX), tally)
}

/// Removes baseline versions that no tag, no case and no lane names.
pub(super) fn forget_baselines(
    txn: &WriteTransaction,
    program: &str,
    versions: &[u32],
    tally: &Tally,
) -> Result<(), StateError> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(tables::BASELINES)?;
    let mut tagged = Vec::new();
    for row in txn.open_table(tables::TAGS)?.range((program, "")..)? {
        let (key, value) = row?;
        if key.value().0 != program {
            break;
        }
        tagged.push(Take::new("tags", &key.value(), value.value())?.u32()?);
    }
    let holds = holds::all(&txn.open_table(tables::HOLDS)?)?;
    for version in versions.iter().filter(|version| !tagged.contains(version)) {
        let key = (program, *version);
        let Some(value) = table.get(key)?.map(|v| v.value().to_vec()) else { continue };
        let hash = Take::new("baselines", &key, &value)?.hash()?;
        let held = holds.iter().any(|(_, hold)| hold.baselines.contains(&hash));
        if held || lanes::is_compared(txn, program, &hash)? {
            continue;
        }
        drop_all(&mut table, key..=key, tally)?;
        let mut shared = false;
        for row in table.iter()? {
            let (key, value) = row?;
            shared |= Take::new("baselines", &key.value(), value.value())?.hash()? == hash;
        }
        if !shared {
            remove_blob(txn, tally, &hash)?;
        }
    }
    Ok(())
}
