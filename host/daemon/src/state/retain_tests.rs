//! What a cap promises, on a disk that loses power at any moment.

use std::collections::BTreeSet;

use hb_log::hash::Hash;
use hb_log::sign::PublicKey;
use redb::ReadableTable as _;

use super::crash::{Dice, Disk, Fault, open_with, other_boot};
use super::tests::{LANE, PROGRAM, decision, signer};
use super::*;

/// Small enough that a hundred commits are far too many for it.
const CAP_BYTES: u64 = 1 << 20;
/// Inputs of one commit.
const STEP: u64 = 10;
/// Bytes of journal, and of frames, of one commit: no compressor makes them less.
const BYTES: u64 = 12_000;

fn options() -> Options {
    Options { cache_bytes: 1 << 20, cap_bytes: CAP_BYTES, log_cap_bytes: 200_000, ..Options::default() }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..BYTES).map(|_| dice.roll(256) as u8).collect()
}

/// Commit number `n` (from 1): inputs, frames, a decision, log entries, a checkpoint each time, and a case at the 5th.
fn commit(n: u64) -> Commit {
    let seq = (n - 1) * STEP;
    let inputs = noise(n + 1_000_000);
    let hold = HoldRow {
        case: "case-1".to_owned(),
        lane: LANE.to_owned(),
        asset: decision(n).asset,
        check: decision(n).check,
        kept: Kept { open: false, pinned: true, unpacked: false },
        from_seq: seq + 3,
        to_seq: seq + STEP - 1,
        snapshot_seq: seq + STEP,
        inputs: Hash::of(&inputs),
        frames: vec![("plant".to_owned(), seq + 2, seq + 5)],
        baselines: vec![],
        entries: vec![0],
        names: vec!["held/case-1".to_owned()],
    };
    let entry = |i: u64| NewEntry {
        kind: "decision".to_owned(),
        time_ns: i.cast_signed(),
        body: ciborium::Value::Text(format!("entry {i} {}", "x".repeat(300))),
    };
    let opens = n == 5;
    Commit {
        program: PROGRAM.to_owned(),
        lane: LANE.to_owned(),
        journal: vec![JournalRow { seq, count: STEP as u32, bytes: noise(n) }],
        frames: vec![FrameBlock { source: "plant".into(), first: seq, count: STEP as u32, bytes: noise(n + 500_000) }],
        decisions: vec![decision(n)],
        entries: (n * 8..n * 8 + 8).map(entry).collect(),
        snapshots: vec![SnapshotRow {
            asset: decision(n).asset,
            seq: seq + STEP,
            hash: Hash::of(&n.to_le_bytes()),
            bytes: noise(n)[..500].to_vec(),
        }],
        pins: if opens { vec![(decision(n).asset, seq + STEP)] } else { vec![] },
        blobs: if opens { vec![(Hash::of(&inputs), inputs)] } else { vec![] },
        meta: if opens { vec![("held/case-1".to_owned(), vec![1])] } else { vec![] },
        cases: if opens { vec![("case-1".to_owned(), vec![1])] } else { vec![] },
        holds: if opens { vec![hold] } else { vec![] },
        floor: Some(seq + STEP),
        cursors: vec![("plant".to_owned(), n.to_le_bytes().to_vec())],
        ..Commit::default()
    }
}

/// Whatever was removed: the newest is there without a gap, the case has all it needs, and the log verifies.
fn check(state: &State, count: u64) {
    let reader = state.reader().unwrap();
    let blocks: BTreeSet<u64> =
        reader.journal(PROGRAM, LANE, 0).unwrap().map(|row| row.unwrap().seq / STEP + 1).collect();
    let frames: BTreeSet<u64> = reader
        .frames(PROGRAM, LANE, "plant", 0, u64::MAX)
        .unwrap()
        .map(|block| block.unwrap().first / STEP + 1)
        .collect();
    let decisions: BTreeSet<u64> = reader
        .decisions(PROGRAM, LANE, DecisionFilter::default())
        .unwrap()
        .map(|row| row.unwrap().seq / STEP + 1)
        .collect();
    for (name, kept) in [("journal", &blocks), ("frames", &frames), ("decisions", &decisions)] {
        let apart = |n: &&u64| **n != 5;
        let first = kept.iter().find(apart).copied().unwrap_or(count + 1);
        let newest: BTreeSet<u64> = (first..=count).filter(|n| *n != 5).collect();
        assert_eq!(kept.iter().filter(apart).copied().collect::<BTreeSet<_>>(), newest, "{name} has a gap");
        assert!(count < 5 || kept.contains(&5), "{name} of the case is gone");
    }
    if count >= 5 {
        let hold = &reader.holds(PROGRAM).unwrap()[0];
        assert!(reader.blob(&hold.inputs).unwrap().is_some());
        assert!(reader.snapshot(PROGRAM, LANE, &hold.asset, hold.snapshot_seq).unwrap().is_some());
        assert!(reader.entry(hold.entries[0]).unwrap().is_some(), "the log entry of the case is gone");
    }
    if count > 0 {
        let key = PublicKey::parse(&signer().public_text()).unwrap();
        reader.verify_log(&key).unwrap();
    }
}

#[test]
fn a_cap_holds_and_a_kept_case_stays_whole_wherever_the_power_goes() {
    let (mut cuts, mut removed) = (0, 0);
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut disk = Disk::new();
        let mut state = open_with(&disk, other_boot, options()).unwrap();
        let mut count = 0;
        while count < 120 {
            disk.set_fault(Fault::PowerCut { at: 1 + dice.roll(1_500) });
            let mut done = count;
            while done < 120 && state.commit(commit(done + 1), signer()).is_ok() {
                done += 1;
                assert!(state.usage().bytes <= CAP_BYTES, "{:?} after {done} commits", state.usage());
            }
            let next = disk.after_power_cut(&mut dice);
            cuts += u64::from(disk.fault_hit());
            disk.set_fault(Fault::PowerCut { at: 0 });
            drop(state);
            disk = next;
            state = open_with(&disk, other_boot, options()).unwrap();
            count = state.reader().unwrap().commits().unwrap();
            assert!(count >= done && count <= done + 1, "seed {seed}: {done} acknowledged, {count} found");
            check(&state, count);
        }
        let left = state.reader().unwrap().journal(PROGRAM, LANE, 0).unwrap().count() as u64;
        removed += count - left;
    }
    assert!(cuts > 12 && removed > 600, "{cuts} cuts and {removed} removed blocks prove little");
}

#[test]
fn an_unpinned_case_goes_whole() {
    let state = open_with(&Disk::new(), other_boot, options()).unwrap();
    (1..=60).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    check(&state, 60);
    let hold = state.reader().unwrap().holds(PROGRAM).unwrap().remove(0);
    let unpin = HoldChange { case: "case-1".to_owned(), pinned: Some(false), ..HoldChange::default() };
    let program = PROGRAM.to_owned();
    state.commit(Commit { program, hold_changes: vec![unpin.clone()], ..Commit::default() }, signer()).unwrap();
    (61..=80).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    let reader = state.reader().unwrap();
    assert_eq!(reader.holds(PROGRAM).unwrap(), []);
    assert_eq!(reader.cases(PROGRAM).unwrap(), []);
    assert_eq!(reader.meta(PROGRAM, "held/case-1").unwrap(), None);
    assert_eq!(reader.blob(&hold.inputs).unwrap(), None);
    assert_eq!(reader.snapshot(PROGRAM, LANE, &hold.asset, hold.snapshot_seq).unwrap(), None);
    assert!(reader.journal(PROGRAM, LANE, 0).unwrap().next().unwrap().unwrap().seq > 50);
    // News of it that come too late change nothing; only a pin that keeps nothing is refused.
    let program = || PROGRAM.to_owned();
    let late = HoldChange { open: Some(false), pinned: None, ..unpin.clone() };
    state.commit(Commit { program: program(), hold_changes: vec![late], ..Commit::default() }, signer()).unwrap();
    let pin = HoldChange { pinned: Some(true), ..unpin };
    let refused = state.commit(Commit { program: program(), hold_changes: vec![pin], ..Commit::default() }, signer());
    assert!(matches!(refused, Err(StateError::Forgotten { .. })));
}

#[test]
fn a_pruned_log_verifies_says_what_is_missing_and_hides_nothing_else() {
    let state = open_with(&Disk::new(), other_boot, options()).unwrap();
    (1..=150).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    let key = PublicKey::parse(&signer().public_text()).unwrap();
    let summary = state.reader().unwrap().verify_log(&key).unwrap();
    let (entry, to) = summary.prune.unwrap();
    assert!(summary.pruned > 100 && to < entry && !state.usage().is_log_full, "{summary:?}");
    assert!(state.usage().log_bytes <= 200_000 + 100_000, "{:?}", state.usage());
    // One more that is missing is found, below the prune and behind it.
    let stored = |from| state.reader().unwrap().entries(from, u64::MAX).unwrap().next().unwrap().unwrap().0;
    for index in [stored(0), stored(to + 1)] {
        let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
        let bytes = txn.open_table(tables::ENTRIES).unwrap().remove(index).unwrap().unwrap().value().to_vec();
        txn.commit().unwrap();
        assert!(state.reader().unwrap().verify_log(&key).is_err(), "entry {index}");
        let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
        txn.open_table(tables::ENTRIES).unwrap().insert(index, bytes.as_slice()).unwrap();
        txn.commit().unwrap();
    }
    state.reader().unwrap().verify_log(&key).unwrap();
}

/// Commits entries in numbers: a kept case stands in the first, a rolling baseline becomes active in each, and in each
/// tenth somebody makes a baseline.
fn commit_many(state: &State, commits: std::ops::Range<u64>) {
    let text = |value: &str| ciborium::Value::Text(value.to_owned());
    let map = |fields: &[(&str, &str)]| {
        ciborium::Value::Map(fields.iter().map(|(name, value)| (text(name), text(value))).collect())
    };
    for n in commits {
        let entry = |kind: &str, body| NewEntry { kind: kind.to_owned(), time_ns: n.cast_signed(), body };
        let mut entries = vec![
            entry("baseline.active", map(&[("tag", "rolling"), ("lane", LANE)])),
            entry("baseline.created", map(&[("by", "rolling")])),
        ];
        if n % 10 == 0 {
            entries.push(entry("baseline.created", map(&[("by", "somebody")])));
        }
        entries.extend((0..500).map(|i| entry("decisions.pass", ciborium::Value::Integer(i.into()))));
        let holds = if n == 0 { commit(5).holds } else { Vec::new() };
        let program = PROGRAM.to_owned();
        state.commit(Commit { program, entries, holds, ..Commit::default() }, signer()).unwrap();
    }
}

#[test]
fn what_a_pruned_log_keeps_for_ever_is_little_and_proves_what_is_left() {
    // The hashes of 100,000 entries alone would need 4 MB.
    let small = Options { log_cap_bytes: 400_000, ..options() };
    let state = open_with(&Disk::new(), other_boot, small).unwrap();
    commit_many(&state, 0..1);
    let sealed_at = state.reader().unwrap().entry_count().unwrap();
    let root = state.reader().unwrap().root_at(sealed_at).unwrap();
    let seal = HoldChange { case: "case-1".to_owned(), sealed_at: Some(sealed_at), ..HoldChange::default() };
    let (program, hold_changes) = (PROGRAM.to_owned(), vec![seal]);
    state.commit(Commit { program, hold_changes, ..Commit::default() }, signer()).unwrap();
    commit_many(&state, 1..200);
    // What one commit brings may be above.
    assert!(!state.usage().is_log_full && state.usage().log_bytes <= 460_000, "{:?}", state.usage());
    let reader = state.reader().unwrap();
    let key = PublicKey::parse(&signer().public_text()).unwrap();
    let summary = reader.verify_log(&key).unwrap();
    assert!(summary.size > 100_000 && summary.pruned > 95_000, "{summary:?}");
    // What a kept case is proven by can be proven at the size it was sealed with, and at that of today.
    let leaf = hb_log::tree::leaf_hash(&reader.entry(0).unwrap().unwrap());
    assert_eq!(reader.root_at(sealed_at).unwrap(), root);
    for (size, root) in [(sealed_at, root), (summary.size, summary.root)] {
        let proof = reader.inclusion_proof(0, size).unwrap();
        hb_log::tree::verify_inclusion(&leaf, 0, size, &proof, &root).unwrap();
    }
    // Of what rolls the newest stays, and what the case was compared with; all that somebody made stays.
    let kinds: Vec<String> = reader
        .entries(0, u64::MAX)
        .unwrap()
        .map(|item| hb_log::entry::Entry::decode(&item.unwrap().1).unwrap())
        .map(|entry| format!("{} {}", entry.kind, entry.field("by").and_then(|by| by.as_text()).unwrap_or("")))
        .collect();
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!(count("baseline.created somebody"), 20);
    // The last that a look sees stays too, until the log has been gone through: here two commits are a look.
    assert!(count("baseline.active ") <= 101 && count("baseline.created rolling") < 10, "{kinds:?}");
    drop(reader);
    // A hash that stands for many is held against the root like any other.
    let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
    let mut tiles = txn.open_table(tables::TILES).unwrap();
    let mut row = tiles.get((1, 1)).unwrap().unwrap().value().to_vec();
    *row.last_mut().unwrap() ^= 1;
    tiles.insert((1, 1), row.as_slice()).unwrap();
    drop(tiles);
    txn.commit().unwrap();
    assert!(state.reader().unwrap().verify_log(&key).is_err());
}

#[test]
fn a_baseline_goes_when_nothing_names_it() {
    let state = open_with(&Disk::new(), other_boot, options()).unwrap();
    let content = |n: u32| n.to_le_bytes().to_vec();
    let row = |n: u32| BaselineRow { version: n, hash: Hash::of(&content(n)), meta: vec![] };
    let made = Commit {
        program: PROGRAM.to_owned(),
        blobs: (1..=3).map(|n| (row(n).hash, content(n))).collect(),
        baselines: (1..=3).map(row).collect(),
        tags: vec![("golden".to_owned(), 1)],
        ..Commit::default()
    };
    state.commit(made, signer()).unwrap();
    // The second is compared with up to the 20th commit.
    state.commit(Commit { compared: Some(vec![row(2).hash]), ..commit(1) }, signer()).unwrap();
    (2..=19).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    state.commit(Commit { compared: Some(vec![]), ..commit(20) }, signer()).unwrap();
    let forget = || {
        let program = PROGRAM.to_owned();
        state.commit(Commit { program, forget_baselines: vec![1, 2, 3], ..Commit::default() }, signer()).unwrap();
        let left = state.reader().unwrap().baselines(PROGRAM).unwrap();
        left.iter().map(|row| row.version).collect::<Vec<_>>()
    };
    assert_eq!(forget(), [1, 2], "one is tagged, one was compared with");
    assert_eq!(state.reader().unwrap().blob(&row(3).hash).unwrap(), None);
    (21..=80).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    assert_eq!(forget(), [1], "what was compared with it is gone");
}

#[test]
fn a_log_of_which_nothing_may_go_is_full() {
    let small = Options { log_cap_bytes: 20_000, ..options() };
    let state = open_with(&Disk::new(), other_boot, small).unwrap();
    (1..=20).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    assert!(state.usage().is_log_full, "the newest entries stay: {:?}", state.usage());
    // A cap that is not high enough changes nothing; one that is holds at once and stays.
    let log_bytes = state.usage().log_bytes;
    state.limit(Options { log_cap_bytes: log_bytes - 1, ..small });
    assert!(state.usage().is_log_full, "{:?}", state.usage());
    state.limit(Options { log_cap_bytes: 10 * log_bytes, ..small });
    assert!(!state.usage().is_log_full, "{:?}", state.usage());
    state.commit(commit(21), signer()).unwrap();
    assert!(!state.usage().is_log_full && state.usage().log_cap_bytes == 10 * log_bytes, "{:?}", state.usage());
}

#[test]
fn what_is_counted_is_what_the_pages_say() {
    let state = open_with(&Disk::new(), other_boot, Options { cap_bytes: u64::MAX, ..options() }).unwrap();
    (1..=200).for_each(|n| drop(state.commit(commit(n), signer()).unwrap()));
    let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
    let pages = txn.stats().unwrap().allocated_pages() * 4_096;
    let counted = state.usage().bytes;
    println!("counted {counted}, in pages {pages}");
    assert!(counted.abs_diff(pages) < pages / 8, "counted {counted}, in pages {pages}");
}
