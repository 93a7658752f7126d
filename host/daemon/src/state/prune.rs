//! The log keeps within its quota: a signed entry says how far bodies were removed, and the tree stays whole.
//!
//! A removed entry's hash stays, by itself or in that of its neighbours, so the root and its signature and the proofs of
//! what is left are as good as before. What made generations and baselines active stays readable, and so do the keys, the
//! newest prune, and what proves a kept case. Of a tag that rolls only what a kept case was compared with stays, and
//! the newest.

use std::collections::{BTreeMap, BTreeSet};

use hb_log::entry::Entry;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::commit::NewEntry;
use super::error::StateError;
use super::usage::{self, Tally, Usage};
use super::value::Take;
use super::{holds, host, log, tables};
use crate::clock;
use crate::diagnostic::chain;

/// Kind of the entry that records a prune.
const PRUNE_KIND: &str = "log.prune";
/// Field of such an entry: bodies may be missing below this index.
const PRUNE_TO: &str = "to";
/// Field of such an entry: how many bodies are missing since it was written.
const PRUNE_TOTAL: &str = "total";
/// Kinds whose entries stay: what a decision is read with, however old they are. Few come, as people make them.
const KINDS_KEPT: [&str; 5] = ["generation", ACTIVE, "baseline.created", "baseline.promoted", "key"];
/// Kind of the entry that says which baseline a tag names from then on.
const ACTIVE: &str = "baseline.active";
/// The tag, and the author, of baselines that are made again and again.
const ROLLING: &str = "rolling";
/// Beginning of the kinds of a case's custody; they name it in their field `case`.
const CUSTODY: &str = "custody.";
/// Entries that one commit looks at for removal at most: more than one brings, and a few milliseconds.
const SLICE_ENTRIES: usize = 1_024;
/// Share of the quota that stays free for what the next commit brings: without it the log would be over its quota until
/// the commit behind. A sixteenth of a MiB is a hundred entries.
const SPARE: u64 = 16;
/// Newest entries that always stay: what happened last can be read.
const NEWEST_KEPT: u64 = 256;

/// Removes a slice of old bodies when the log comes to its quota. Returns the entry that records it, and whether
/// nothing is left that may go.
pub(super) fn slice(
    txn: &WriteTransaction,
    before: Usage,
    tally: &Tally,
) -> Result<(Option<NewEntry>, bool), StateError> {
    let (needed, quota) = (tally.since(before).log_bytes, before.log_cap_bytes);
    if needed <= quota - quota / SPARE {
        return Ok((None, false));
    }
    let size = host::log_head(&txn.open_table(tables::HOST)?)?.map_or(0, |head| head.size);
    let limit = size.saturating_sub(NEWEST_KEPT);
    let numbers = txn.open_table(tables::USAGE)?;
    let number = |name| Ok::<u64, StateError>(usage::number(&numbers, name)?.unwrap_or(0));
    let (pruned_to, total) = (number("log_pruned_to")?, number("log_pruned")?);
    let (scan, idle) = (number("log_scan")?, number("log_idle")?);
    drop(numbers);
    let keeps = Keeps::load(txn, total)?;
    let mut table = txn.open_table(tables::ENTRIES)?;
    // From the beginning again once the end is reached: a case that was kept may not be any more.
    let from = if scan >= limit { 0 } else { scan };
    let (mut gone, mut seen, mut next) = (Vec::new(), 0, limit);
    let mut rolling = BTreeMap::new();
    for row in table.range(from..limit)? {
        let (key, value) = row?;
        let index = key.value();
        if seen == SLICE_ENTRIES {
            next = index;
            break;
        }
        seen += 1;
        let bytes = Take::new("log_entries", &index, value.value())?.rest();
        let entry = decode(index, bytes)?;
        let len = value.value().len();
        if let Some(lane) = rolling_lane(&entry) {
            // The one before goes when this one follows it and nothing kept lies between.
            if let Some((before, len)) = rolling.insert(lane.to_owned(), (index, len))
                && keeps.entries.range(before..index).next().is_none()
            {
                gone.push((before, len));
            }
        } else if !keeps.keeps(&entry) {
            gone.push((index, len));
        }
    }
    for (index, len) in &gone {
        table.remove(index)?;
        tally.remove_log(*len);
    }
    let idle = if gone.is_empty() { idle + seen as u64 } else { 0 };
    let has_all_seen = idle > 0 && idle >= table.len()?.saturating_sub(NEWEST_KEPT) || limit == 0;
    let is_full = needed > quota && has_all_seen;
    drop(table);
    log::fold_tiles(txn, gone.iter().map(|(index, _)| *index), size, tally)?;
    usage::set(txn, "log_scan", next)?;
    usage::set(txn, "log_idle", idle)?;
    let Some(last) = gone.iter().map(|(index, _)| *index).max() else { return Ok((None, is_full)) };
    let to = pruned_to.max(last + 1);
    usage::set(txn, "log_pruned_to", to)?;
    let total = total + gone.len() as u64;
    usage::set(txn, "log_pruned", total)?;
    let bytes = gone.iter().map(|(_, len)| *len as u64).sum::<u64>();
    let body = ciborium::Value::Map(vec![
        (PRUNE_TO.into(), to.into()),
        ("removed".into(), (gone.len() as u64).into()),
        (PRUNE_TOTAL.into(), total.into()),
        ("bytes".into(), bytes.into()),
        ("why".into(), "limits.max_audit_log_mb".into()),
    ]);
    Ok((Some(NewEntry { kind: PRUNE_KIND.to_owned(), time_ns: clock::now_ns(), body }), false))
}

/// What a prune entry says: below which index bodies may be missing, and how many are.
pub(super) fn said(entry: &Entry) -> Option<(u64, u64)> {
    let number = |name| u64::try_from(entry.field(name)?.as_integer()?).ok();
    (entry.kind == PRUNE_KIND).then(|| number(PRUNE_TO).zip(number(PRUNE_TOTAL))).flatten()
}

/// What stays.
struct Keeps {
    entries: BTreeSet<u64>,
    cases: BTreeSet<String>,
    total: u64,
}

impl Keeps {
    fn load(txn: &WriteTransaction, total: u64) -> Result<Self, StateError> {
        let holds = holds::all(&txn.open_table(tables::HOLDS)?)?;
        let mut keeps = Self { entries: BTreeSet::new(), cases: BTreeSet::new(), total };
        for (_, hold) in holds.into_iter().filter(|(_, hold)| hold.kept.is_kept()) {
            keeps.entries.extend(hold.entries);
            keeps.cases.insert(hold.case);
        }
        Ok(keeps)
    }

    fn keeps(&self, entry: &Entry) -> bool {
        let of_case = || text(entry, "case").is_some_and(|case| self.cases.contains(case));
        KINDS_KEPT.contains(&entry.kind.as_str()) && text(entry, "by") != Some(ROLLING)
            || self.entries.contains(&entry.seq)
            || entry.kind.starts_with(CUSTODY) && of_case()
            || said(entry).is_some_and(|(_, total)| total >= self.total)
    }
}

/// The lane in which an entry made a rolling baseline active.
fn rolling_lane(entry: &Entry) -> Option<&str> {
    let rolls = entry.kind == ACTIVE && text(entry, "tag") == Some(ROLLING);
    text(entry, "lane").filter(|_| rolls)
}

fn text<'e>(entry: &'e Entry, field: &str) -> Option<&'e str> {
    entry.field(field)?.as_text()
}

fn decode(index: u64, bytes: &[u8]) -> Result<Entry, StateError> {
    Entry::decode(bytes).map_err(|error| StateError::Corrupt {
        table: "log_entries",
        key: index.to_string(),
        what: chain(&error),
    })
}
