//! What was refused: counted by source and reason, with a few samples.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, Table};

use super::commit::QuarantineRow;
use super::error::StateError;
use super::ring::{Ring, RingCap};
use super::tables;
use super::value::{Put, Take};
use super::write::Writer;

/// Reasons kept apart per source as they are worded: most sources have a handful. A plugin that puts values into its
/// reasons must not fill the table; what goes beyond is counted by class, see [`class_of`].
const QUARANTINE_REASONS: usize = 256;
/// Classes kept per source beyond that: as many kinds of mistakes as anybody will read.
const QUARANTINE_CLASSES: usize = 256;
/// Where the reasons of a source are counted whose classes are too many as well.
const QUARANTINE_OTHER: &str = "other";

/// Counts what was refused, and keeps one sample of each kind.
pub(super) fn write(writer: &mut Writer<'_>, rows: &[QuarantineRow]) -> Result<(), StateError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut counts = writer.txn.open_table(tables::QUARANTINE)?;
    let mut samples = writer.txn.open_table(tables::SAMPLES)?;
    let mut rings = writer.txn.open_table(tables::RINGS)?;
    let cap = RingCap { bytes: writer.options.quarantine_cap_bytes, items: writer.options.quarantine_cap_items };
    // Rows of a source, counted once per commit; and the rows that have a sample of this commit already.
    let (mut known, mut sampled) = (BTreeMap::new(), BTreeSet::new());
    for row in rows {
        let source = row.source.as_str();
        let reasons = match known.entry(source) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(count_reasons(&counts, writer.program, source)?),
        };
        let mut reason = Cow::Borrowed(row.reason.as_str());
        if *reasons >= QUARANTINE_REASONS && counts.get((writer.program, source, &*reason))?.is_none() {
            reason = Cow::Owned(class_of(&row.reason));
            let full = *reasons >= QUARANTINE_REASONS + QUARANTINE_CLASSES;
            if full && counts.get((writer.program, source, &*reason))?.is_none() {
                reason = Cow::Borrowed(QUARANTINE_OTHER);
            }
        }
        let key = (writer.program, source, &*reason);
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
            Ring::open("quarantine_samples", &mut rings, &mut samples, writer.program, &row.plugin, cap)?.push(
                writer.packer,
                writer.tally,
                &sample,
            )?;
        }
    }
    Ok(())
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
