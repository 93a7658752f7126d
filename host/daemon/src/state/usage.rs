//! What the rows of the store really need, counted as they come and go.
//!
//! The file never shrinks by itself, so its length says nothing about what is in it; and the store's own statistics
//! walk every page, which takes more than a second per GiB. So each row is counted with what it costs in pages, in the
//! transaction that writes or removes it. Small tables of a fixed size (cursors, counters, tags) are not counted.

use std::cell::Cell;

use redb::{Key, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::error::StateError;
use super::tables;
use super::value::{Put, Take};

/// Bytes of a page of the store.
const PAGE_BYTES: u64 = 4_096;
/// Rows up to this many bytes share a page with others.
const SHARED_BYTES_MAX: u64 = 2_000;
/// Bytes the store keeps beside each row.
const ROW_BYTES: u64 = 8;
/// Share of the cap, in percent, at which what is old goes.
const TIGHT_PERCENT: u64 = 80;
/// Share of the cap, in percent, at which samples are shed.
const FULL_PERCENT: u64 = 95;

/// What the state needs, and may need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes needed, in pages: of everything, the log included.
    pub bytes: u64,
    /// Bytes allowed.
    pub cap_bytes: u64,
    /// Bytes the log needs.
    pub log_bytes: u64,
    /// Bytes the log is allowed.
    pub log_cap_bytes: u64,
    /// The log is over its cap, and nothing of it may go.
    pub is_log_full: bool,
}

impl Usage {
    /// Whether what is old goes: 80 % of the cap are needed.
    pub fn is_tight(&self) -> bool {
        self.reaches(TIGHT_PERCENT)
    }

    /// Whether nothing more may come: 95 % of the cap are needed.
    pub fn is_full(&self) -> bool {
        self.reaches(FULL_PERCENT)
    }

    fn reaches(&self, percent: u64) -> bool {
        u128::from(self.bytes) * 100 >= u128::from(self.cap_bytes) * u128::from(percent)
    }
}

/// Counts what one transaction adds and removes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: Cell<i64>,
    log: Cell<i64>,
}

impl Tally {
    /// A row came.
    pub(super) fn add(&self, key_bytes: usize, value_bytes: usize) {
        self.rows.set(self.rows.get() + cost(key_bytes, value_bytes));
    }

    /// A row went.
    pub(super) fn remove(&self, key_bytes: usize, value_bytes: usize) {
        self.rows.set(self.rows.get() - cost(key_bytes, value_bytes));
    }

    /// A fragment of a block came.
    pub(super) fn add_fragment(&self, key: &[u8], value_bytes: usize) {
        self.rows.set(self.rows.get() + fragment_cost(key, value_bytes));
    }

    /// A fragment of a block went.
    pub(super) fn remove_fragment<K: Key + 'static>(&self, key: &K::SelfType<'_>, value: &[u8]) {
        self.rows.set(self.rows.get() - fragment_cost(K::as_bytes(key).as_ref(), value.len()));
    }

    /// Like [`Tally::remove`], for a row at hand.
    pub(super) fn remove_row<K: Key + 'static>(&self, key: &K::SelfType<'_>, value: &[u8]) {
        self.remove(K::as_bytes(key).as_ref().len(), value.len());
    }

    /// A row of the log came.
    pub(super) fn add_log(&self, value_bytes: usize) {
        self.log.set(self.log.get() + cost(8, value_bytes));
    }

    /// A row of the log went.
    pub(super) fn remove_log(&self, value_bytes: usize) {
        self.log.set(self.log.get() - cost(8, value_bytes));
    }

    /// What is needed now, with what was needed `before`.
    pub(super) fn since(&self, before: Usage) -> Usage {
        let log_bytes = before.log_bytes.saturating_add_signed(self.log.get());
        let bytes = before.bytes.saturating_add_signed(self.rows.get() + self.log.get());
        Usage { bytes, log_bytes, ..before }
    }
}

/// Bytes of pages that a row takes: its own pages when it is long, its share of one when it is short. Pages of short
/// rows are filled to about four fifths.
fn cost(key_bytes: usize, value_bytes: usize) -> i64 {
    let bytes = (key_bytes + value_bytes) as u64 + ROW_BYTES;
    let cost = match bytes {
        0..=SHARED_BYTES_MAX => bytes + bytes / 4,
        _ => bytes.div_ceil(PAGE_BYTES).next_power_of_two() * PAGE_BYTES,
    };
    cost.cast_signed()
}

/// Bytes of pages that a fragment takes. The last of several stands alone between full pages, however short it is; the
/// number of a fragment is the last part of its key.
fn fragment_cost(key: &[u8], value_bytes: usize) -> i64 {
    let is_first = key.last_chunk::<2>().is_none_or(|number| *number == [0, 0]);
    if is_first { cost(key.len(), value_bytes) } else { PAGE_BYTES.cast_signed() }
}

/// What is needed as it was stored last. A state of before this was counted is walked once.
pub(super) fn load(txn: &WriteTransaction) -> Result<(u64, u64), StateError> {
    let stored = {
        let table = txn.open_table(tables::USAGE)?;
        number(&table, "rows")?.zip(number(&table, "log")?)
    };
    match stored {
        Some(found) => Ok(found),
        None => measure(txn),
    }
}

/// Stores what is needed now.
pub(super) fn store(txn: &WriteTransaction, usage: Usage) -> Result<(), StateError> {
    set(txn, "rows", usage.bytes)?;
    set(txn, "log", usage.log_bytes)
}

/// A number by name; none when it was never set.
pub(super) fn number(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<u64>, StateError> {
    let Some(value) = table.get(name)? else { return Ok(None) };
    let mut take = Take::new("usage", &name, value.value())?;
    let number = take.u64()?;
    take.end()?;
    Ok(Some(number))
}

/// Sets a number.
pub(super) fn set(txn: &WriteTransaction, name: &'static str, value: u64) -> Result<(), StateError> {
    txn.open_table(tables::USAGE)?.insert(name, Put::new().u64(value).done().as_slice())?;
    Ok(())
}

/// Walks every page: seconds for a large state, once.
fn measure(txn: &WriteTransaction) -> Result<(u64, u64), StateError> {
    let stats = txn.stats()?;
    let entries = txn.open_table(tables::ENTRIES)?;
    if entries.is_empty()? {
        return Ok((0, 0));
    }
    let log = entries.stats()?;
    let tiles = txn.open_table(tables::TILES)?.stats()?;
    let log = log.stored_bytes() + log.fragmented_bytes() + tiles.stored_bytes() + tiles.fragmented_bytes();
    Ok((stats.allocated_pages() * PAGE_BYTES, log))
}
