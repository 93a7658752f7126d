//! Where each lane's telemetry begins and ends: what retention goes by.

use hb_log::hash::Hash;
use redb::{ReadableTable, WriteTransaction};

use super::block::head_count;
use super::commit::Commit;
use super::error::StateError;
use super::tables;
use super::value::{Put, Take};

/// Bytes of a lane's blocks between two marks: what goes at once is about this much.
const MARK_BYTES: u64 = 256 << 10;
/// Nanoseconds between two marks of a lane that little comes to: a day has 1,440.
const MARK_NS: u64 = 60_000_000_000;
/// Until when a baseline is compared with that still is.
const NOW: u64 = u64::MAX;

/// How one lane stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LaneRow {
    /// The first input a recovery needs.
    pub(super) floor: u64,
    /// The input that comes next.
    pub(super) end: u64,
    /// Journal inputs before this are gone, but for those of cases.
    pub(super) journal_from: u64,
    /// Decisions before this are gone, but for those of cases.
    pub(super) decisions_from: u64,
    /// When the newest mark was made, and bytes since.
    marked_ns: u64,
    unmarked_bytes: u64,
    /// By source: the frame that comes next, and the frame before which all are gone but those of cases.
    pub(super) sources: Vec<(String, u64, u64)>,
}

/// Where a lane stood at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) time: u64,
    pub(super) program: String,
    pub(super) lane: String,
    /// The input that came next.
    pub(super) end: u64,
    /// By source: the frame that came next.
    pub(super) sources: Vec<(String, u64)>,
}

impl LaneRow {
    fn encode(&self) -> Vec<u8> {
        let put = Put::new().u64(self.floor).u64(self.end).u64(self.journal_from).u64(self.decisions_from);
        let put = put.u64(self.marked_ns).u64(self.unmarked_bytes).u32(self.sources.len() as u32);
        self.sources.iter().fold(put, |put, (source, end, from)| put.text(source).u64(*end).u64(*from)).done()
    }

    fn decode(key: (&str, &str), value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("lanes", &key, value)?;
        let mut row = Self {
            floor: take.u64()?,
            end: take.u64()?,
            journal_from: take.u64()?,
            decisions_from: take.u64()?,
            marked_ns: take.u64()?,
            unmarked_bytes: take.u64()?,
            sources: Vec::new(),
        };
        for _ in 0..take.u32()? {
            row.sources.push((take.text()?, take.u64()?, take.u64()?));
        }
        take.end()?;
        Ok(row)
    }

    /// The lane's row; a fresh one for a lane without any.
    pub(super) fn load(
        table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
        key: (&str, &str),
    ) -> Result<Self, StateError> {
        let Some(value) = table.get(key)? else { return Ok(Self::default()) };
        Self::decode(key, value.value())
    }

    pub(super) fn store(&self, txn: &WriteTransaction, key: (&str, &str)) -> Result<(), StateError> {
        txn.open_table(tables::LANES)?.insert(key, self.encode().as_slice())?;
        Ok(())
    }
}

impl Mark {
    fn decode(key: (u64, &str, &str), value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("marks", &key, value)?;
        let end = take.u64()?;
        let mut sources = Vec::new();
        for _ in 0..take.u32()? {
            sources.push((take.text()?, take.u64()?));
        }
        take.end()?;
        Ok(Self { time: key.0, program: key.1.to_owned(), lane: key.2.to_owned(), end, sources })
    }

    /// The oldest marks, `count` at most.
    pub(super) fn oldest(txn: &WriteTransaction, count: usize) -> Result<Vec<Self>, StateError> {
        let table = txn.open_table(tables::MARKS)?;
        let mut marks = Vec::new();
        for row in table.iter()?.take(count) {
            let (key, value) = row?;
            marks.push(Self::decode(key.value(), value.value())?);
        }
        Ok(marks)
    }

    pub(super) fn remove(&self, txn: &WriteTransaction) -> Result<(), StateError> {
        txn.open_table(tables::MARKS)?.remove((self.time, self.program.as_str(), self.lane.as_str()))?;
        Ok(())
    }
}

/// Notes where the commit's lane stands behind it; `now_ns` orders the marks of all lanes.
pub(super) fn note(txn: &WriteTransaction, commit: &Commit, now_ns: i64) -> Result<(), StateError> {
    if commit.journal.is_empty() && commit.frames.is_empty() && commit.floor.is_none() {
        return Ok(());
    }
    let key = (commit.program.as_str(), commit.lane.as_str());
    let lanes = txn.open_table(tables::LANES)?;
    let stored = lanes.get(key)?.map(|value| LaneRow::decode(key, value.value())).transpose()?;
    drop(lanes);
    // A lane of before this was noted has all of its past.
    let mut row = match stored {
        Some(row) => row,
        None => LaneRow { sources: sources_of(txn, key)?, ..LaneRow::default() },
    };
    row.floor = commit.floor.unwrap_or(row.floor);
    if let Some(last) = commit.journal.last() {
        row.end = last.seq + u64::from(last.count);
    }
    for block in &commit.frames {
        let end = block.first + u64::from(block.count);
        match row.sources.iter_mut().find(|(source, ..)| *source == block.source) {
            Some(known) => known.1 = end,
            None => row.sources.push((block.source.clone(), end, 0)),
        }
    }
    let bytes = commit.journal.iter().map(|r| r.bytes.len()).chain(commit.frames.iter().map(|b| b.bytes.len()));
    row.unmarked_bytes += bytes.sum::<usize>() as u64;
    let now = u64::try_from(now_ns).unwrap_or(0);
    if row.unmarked_bytes >= MARK_BYTES || now.saturating_sub(row.marked_ns) >= MARK_NS {
        let mut marks = txn.open_table(tables::MARKS)?;
        let newest = marks.last()?.map_or(0, |(key, _)| key.value().0);
        // A clock that was set back must not let the newest look old.
        let time = now.max(newest + 1);
        let put = Put::new().u64(row.end).u32(row.sources.len() as u32);
        let value = row.sources.iter().fold(put, |put, (source, end, _)| put.text(source).u64(*end)).done();
        marks.insert((time, key.0, key.1), value.as_slice())?;
        (row.marked_ns, row.unmarked_bytes) = (now, 0);
    }
    row.store(txn, key)
}

/// The sources whose frames a lane has, and where they end.
fn sources_of(txn: &WriteTransaction, (program, lane): (&str, &str)) -> Result<Vec<(String, u64, u64)>, StateError> {
    let table = txn.open_table(tables::FRAMES)?;
    let mut sources: Vec<(String, u64, u64)> = Vec::new();
    let mut from = String::new();
    loop {
        let next = table.range((program, lane, from.as_str(), 0, 0)..)?.next().transpose()?;
        let Some((key, _)) = next.filter(|(key, _)| (key.value().0, key.value().1) == (program, lane)) else {
            return Ok(sources);
        };
        let source = key.value().2.to_owned();
        let all = (program, lane, source.as_str(), 0, 0)..=(program, lane, source.as_str(), u64::MAX, u16::MAX);
        let last = table.range(all)?.next_back().transpose()?.map_or(0, |(key, _)| key.value().3);
        let head = table.get((program, lane, source.as_str(), last, 0))?;
        let end = last + head.map_or(0, |value| u64::from(head_count(value.value())));
        // The least text above it.
        from = format!("{source}\0");
        sources.push((source, end, 0));
    }
}

/// Notes which baselines a lane compares with from now on, and until where it compared with the others.
pub(super) fn compare(txn: &WriteTransaction, commit: &Commit) -> Result<(), StateError> {
    let Some(now) = &commit.compared else { return Ok(()) };
    let (program, lane) = (commit.program.as_str(), commit.lane.as_str());
    let end = LaneRow::load(&txn.open_table(tables::LANES)?, (program, lane))?.end;
    let mut table = txn.open_table(tables::COMPARED)?;
    let mut past = Vec::new();
    for row in table.range((program, lane, &[0; 32])..=(program, lane, &[0xff; 32]))? {
        let (key, value) = row?;
        let hash = Hash::from_bytes(*key.value().2);
        if until(&hash, value.value())? == NOW && !now.contains(&hash) {
            past.push(hash);
        }
    }
    for hash in past {
        table.insert((program, lane, hash.as_bytes()), Put::new().u64(end).done().as_slice())?;
    }
    for hash in now {
        table.insert((program, lane, hash.as_bytes()), Put::new().u64(NOW).done().as_slice())?;
    }
    Ok(())
}

/// Whether a lane of the program compares with a baseline, or still has inputs that were compared with it.
pub(super) fn is_compared(txn: &WriteTransaction, program: &str, hash: &Hash) -> Result<bool, StateError> {
    let table = txn.open_table(tables::COMPARED)?;
    let lanes = txn.open_table(tables::LANES)?;
    for row in table.range((program, "", &[0; 32])..)? {
        let (key, value) = row?;
        let (owner, lane, of) = key.value();
        if owner != program {
            break;
        }
        if of == hash.as_bytes() && until(hash, value.value())? > LaneRow::load(&lanes, (program, lane))?.journal_from {
            return Ok(true);
        }
    }
    Ok(false)
}

fn until(hash: &Hash, value: &[u8]) -> Result<u64, StateError> {
    let mut take = Take::new("compared", hash, value)?;
    let until = take.u64()?;
    take.end()?;
    Ok(until)
}
