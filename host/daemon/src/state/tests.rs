//! What a commit promises, tried on a disk in memory and on real files.

use std::sync::OnceLock;

use hb_log::hash::Hash;
use hb_log::sign::PublicKey;

use super::crash::{Dice, Disk, first_boot, open_on, other_boot};
use super::*;

pub(super) const PROGRAM: &str = "plant";
pub(super) const LANE: &str = "live";

/// One key for all tests: making one takes longer than most of them.
pub(super) fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(Signer::generate)
}

/// Bytes that only commit `n` holds; from a few to some thousand, half of them incompressible.
pub(super) fn payload(n: u64) -> Vec<u8> {
    let mut dice = Dice(n);
    let len = 10 + dice.roll(9_000);
    (0..len).map(|i| if n.is_multiple_of(2) { dice.roll(256) as u8 } else { i as u8 }).collect()
}

pub(super) fn decision(n: u64) -> DecisionRow {
    DecisionRow {
        id: Hash::of(&n.to_le_bytes()),
        asset: format!("motor-{}", n % 2),
        check: "bearing".to_owned(),
        end_ns: n as i64 * 1_000,
        seq: n * 10 - 1,
        status: (n % 5) as u8,
        bytes: format!("decision {n}").into_bytes(),
    }
}

fn entry(n: u64) -> NewEntry {
    NewEntry { kind: "decision".to_owned(), time_ns: n as i64, body: ciborium::Value::Text(format!("entry {n}")) }
}

/// Commit number `n` (from 1) of a run in which every part follows from the number.
pub(super) fn numbered_commit(n: u64) -> Commit {
    let bytes = payload(n);
    Commit {
        program: PROGRAM.to_owned(),
        lane: LANE.to_owned(),
        journal: vec![JournalRow { seq: (n - 1) * 10, count: 10, bytes: bytes.clone() }],
        frames: vec![FrameBlock { source: "plant".to_owned(), first: (n - 1) * 7, count: 7, bytes: bytes.clone() }],
        series: vec![(n as u32, format!("series {n}").into_bytes())],
        decisions: vec![decision(n)],
        entries: (n * 3..n * 3 + 3).map(entry).collect(),
        snapshots: vec![SnapshotRow { asset: "motor".to_owned(), seq: n * 10, hash: Hash::of(&bytes), bytes }],
        cursors: vec![("plant".to_owned(), n.to_le_bytes().to_vec())],
        expect_cursors: vec![("plant".to_owned(), (n > 1).then(|| (n - 1).to_le_bytes().to_vec()))],
        counters: vec![("samples".to_owned(), 10)],
        ..Commit::default()
    }
}

fn empty() -> Commit {
    Commit { program: PROGRAM.to_owned(), lane: LANE.to_owned(), ..Commit::default() }
}

fn fresh() -> State {
    open_on(&Disk::new(), first_boot).unwrap()
}

fn fill(state: &mut State, commits: std::ops::RangeInclusive<u64>) {
    for n in commits {
        state.commit(numbered_commit(n), signer()).unwrap();
    }
}

#[test]
fn a_batch_that_was_stored_before_changes_nothing() {
    let mut state = fresh();
    fill(&mut state, 1..=3);
    let error = state.commit(numbered_commit(3), signer()).unwrap_err();
    assert!(matches!(&error, StateError::Duplicate { cursor } if cursor == "plant"), "{error}");
    let reader = state.reader().unwrap();
    assert_eq!((reader.commits().unwrap(), reader.entry_count().unwrap()), (3, 9));
    fill(&mut state, 4..=4); // and the handle is as good as before
}

#[test]
fn contradictions_are_refused_and_change_nothing() {
    let mut state = fresh();
    fill(&mut state, 1..=2);
    let series = |bytes: &[u8]| Commit { series: vec![(1, bytes.to_vec())], ..empty() };
    let journal = |seq, count| Commit { journal: vec![JournalRow { seq, count, bytes: vec![1] }], ..empty() };
    let refused = [
        series(b"another series"),
        journal(19, 1),
        journal(20, 0),
        journal(u64::MAX, 1),
        Commit {
            frames: vec![FrameBlock { source: "plant".to_owned(), first: 13, count: 1, bytes: vec![] }],
            ..empty()
        },
        Commit { blobs: vec![(Hash::of(b"x"), b"y".to_vec())], ..empty() },
        Commit { tags: vec![("golden".to_owned(), 1)], ..empty() },
        Commit { pins: vec![("motor".to_owned(), 10)], ..empty() },
        Commit { journal: vec![JournalRow { seq: 20, count: 1, bytes: vec![0; (64 << 20) + 1] }], ..empty() },
    ];
    for commit in refused {
        let error = state.commit(commit, signer()).unwrap_err();
        assert!(matches!(error, StateError::Refused { .. }), "{error}");
    }
    assert_eq!(state.reader().unwrap().commits().unwrap(), 2);
    state.commit(series(b"series 1"), signer()).unwrap(); // the same again is fine
    state.commit(journal(20, 1), signer()).unwrap();
}

#[test]
fn the_journal_is_read_from_the_block_that_holds_the_number() {
    let mut state = fresh();
    fill(&mut state, 1..=5);
    let mut other = numbered_commit(1);
    other.lane = "shadow".to_owned();
    other.expect_cursors.clear();
    state.commit(other, signer()).unwrap();
    let reader = state.reader().unwrap();
    let seqs = |from| -> Vec<u64> {
        reader.journal(PROGRAM, LANE, from).unwrap().map(|row| row.map(|row| row.seq).unwrap()).collect()
    };
    assert_eq!(seqs(0), [0, 10, 20, 30, 40]);
    assert_eq!(seqs(10), [10, 20, 30, 40]);
    assert_eq!(seqs(29), [20, 30, 40]);
    assert_eq!(seqs(50), [] as [u64; 0]);
    let firsts = |from, to| -> Vec<u64> {
        reader.frames(PROGRAM, LANE, "plant", from, to).unwrap().map(|row| row.map(|row| row.first).unwrap()).collect()
    };
    assert_eq!(firsts(6, 8), [0, 7]);
    assert_eq!(firsts(7, 8), [7]);
    assert_eq!(firsts(7, 7), [] as [u64; 0]);
    assert_eq!(firsts(14, 15), [14]);
    assert_eq!(firsts(35, 40), [] as [u64; 0]);
}

#[test]
fn decisions_are_found_by_prefix_filter_and_order() {
    let mut state = fresh();
    fill(&mut state, 1..=40);
    let reader = state.reader().unwrap();
    let id = decision(7).id.to_string();
    assert_eq!(reader.decision(PROGRAM, &id[..10]).unwrap(), Lookup::One { lane: LANE.to_owned(), row: decision(7) });
    assert_eq!(reader.decision("other", &id).unwrap(), Lookup::None);
    assert_eq!(reader.decision(PROGRAM, "no hex").unwrap(), Lookup::None);
    assert!(matches!(reader.decision(PROGRAM, "").unwrap(), Lookup::Many(ids) if ids.len() == 8));

    let list = |filter| -> Vec<i64> {
        let rows = reader.decisions(PROGRAM, LANE, filter).unwrap();
        rows.map(|row| row.map(|row| row.end_ns / 1_000).unwrap()).collect()
    };
    assert_eq!(list(DecisionFilter { newest_first: true, ..Default::default() })[..3], [40, 39, 38]);
    let filter = DecisionFilter { asset: Some("motor-1".into()), status: Some(3), ..Default::default() };
    assert_eq!(list(filter), [3, 13, 23, 33]);
    let filter = DecisionFilter { from_ns: Some(5_000), to_ns: Some(8_000), ..Default::default() };
    assert_eq!(list(filter), [5, 6, 7]);
    assert_eq!(list(DecisionFilter { from_seq: 380, ..Default::default() }), [39, 40]);
}

#[test]
fn only_the_newest_and_pinned_snapshots_stay() {
    let mut state = fresh();
    fill(&mut state, 1..=2);
    state.commit(Commit { pins: vec![("motor".to_owned(), 20)], ..empty() }, signer()).unwrap();
    fill(&mut state, 3..=5);
    let reader = state.reader().unwrap();
    let kept: Vec<u64> = (1..=5)
        .map(|n| n * 10)
        .filter(|seq| reader.snapshot(PROGRAM, LANE, "motor", *seq).unwrap().is_some())
        .collect();
    assert_eq!(kept, [20, 50]);
    let latest = reader.latest_snapshots(PROGRAM, LANE).unwrap();
    assert_eq!(latest.len(), 1);
    assert_eq!((latest[0].seq, &latest[0].bytes), (50, &payload(5)));
    assert_eq!(latest[0].hash, Hash::of(&payload(5)));
}

#[test]
fn dead_letters_and_samples_keep_the_newest_and_count_the_rest() {
    let disk = Disk::new();
    let state = open_on(&disk, first_boot).unwrap();
    state.limit(Options { dead_cap_bytes: 20_000, quarantine_cap_items: 3, ..state.options() });
    let dead = |n: u64| DeadRow {
        plugin: "modbus".to_owned(),
        ordinal: n,
        cause: "trap".to_owned(),
        frame: (0..5_000).map(|i| Dice(n * 10_000 + i).roll(256) as u8).collect(),
    };
    let refused = |n: u64| QuarantineRow {
        source: "plant".to_owned(),
        plugin: "modbus".to_owned(),
        reason: if n < 2 { "unit" } else { "late" }.to_owned(),
        count: 2,
        sample: Some((n, vec![n as u8])),
    };
    for n in 0..5 {
        state.commit(Commit { dead: vec![dead(n)], quarantine: vec![refused(n)], ..empty() }, signer()).unwrap();
    }
    let reader = state.reader().unwrap();
    assert_eq!(reader.dead(PROGRAM, "modbus").unwrap(), [dead(2), dead(3), dead(4)]);
    let counts = reader.dead_counts(PROGRAM).unwrap();
    assert_eq!((counts.len(), counts[0].kept, counts[0].dropped), (1, 3, 2));
    assert!(counts[0].bytes <= 20_000);

    let counts = reader.quarantine(PROGRAM).unwrap();
    let counts: Vec<_> = counts.iter().map(|row| (row.reason.as_str(), row.count, row.plugin.as_str())).collect();
    assert_eq!(counts, [("late", 6, "modbus"), ("unit", 4, "modbus")]);
    let samples = reader.quarantine_samples(PROGRAM, "modbus").unwrap();
    assert_eq!(samples.iter().map(|sample| sample.ordinal).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((samples[0].source.as_str(), samples[0].frame.as_slice()), ("plant", &[2][..]));

    let huge = DeadRow { frame: (0..50_000).map(|i| Dice(i).roll(256) as u8).collect(), ..dead(9) };
    state.commit(Commit { dead: vec![huge], ..empty() }, signer()).unwrap();
    let counts = state.reader().unwrap().dead_counts(PROGRAM).unwrap();
    assert_eq!((counts[0].kept, counts[0].dropped, counts[0].bytes), (0, 6, 0));
}

fn refused(source: &str, n: u64, reason: String) -> QuarantineRow {
    let sample = Some((n, format!("frame {n}").into_bytes()));
    QuarantineRow { source: source.to_owned(), plugin: "modbus".to_owned(), reason, count: 1, sample }
}

/// Counts by reason of one source.
fn reasons(state: &State, source: &str) -> Vec<(String, u64)> {
    let rows = state.reader().unwrap().quarantine(PROGRAM).unwrap();
    rows.into_iter().filter(|row| row.source == source).map(|row| (row.reason, row.count)).collect()
}

#[test]
fn reasons_with_values_in_them_are_counted_by_class_beyond_a_cap() {
    let state = fresh();
    let bad = |n: u64| refused("plant", n, format!("field `v`: `{n}x` is no number"));
    for from in [0, 100, 200, 300] {
        let rows = (from..from + 100).map(bad).collect();
        state.commit(Commit { quarantine: rows, ..empty() }, signer()).unwrap();
    }
    let counts = reasons(&state, "plant");
    assert_eq!((counts.len(), counts.iter().map(|c| c.1).sum::<u64>()), (257, 400));
    let class = "field `…`: `…` is no number";
    assert_eq!(counts.iter().find(|c| c.0 == class).unwrap().1, 144);

    // Reasons that have a row of their own go on there, and another source has its own count.
    let rows = vec![bad(7), refused("other", 500, "field `v`: `500x` is no number".to_owned())];
    state.commit(Commit { quarantine: rows, ..empty() }, signer()).unwrap();
    assert!(reasons(&state, "plant").contains(&("field `v`: `7x` is no number".to_owned(), 2)));
    assert_eq!(reasons(&state, "other"), [("field `v`: `500x` is no number".to_owned(), 1)]);

    // Each commit left one sample of the class, under the very name it is counted by.
    let samples = state.reader().unwrap().quarantine_samples(PROGRAM, "modbus").unwrap();
    let of_class: Vec<&[u8]> = samples.iter().filter(|s| s.reason == class).map(|s| s.frame.as_slice()).collect();
    assert_eq!(of_class, [b"frame 256", b"frame 300"]);
}

#[test]
fn classes_have_a_cap_too() {
    let state = fresh();
    let letters = |n: u64| -> String { n.to_string().chars().map(|c| (c as u8 - b'0' + b'a') as char).collect() };
    let rows = (0..600).map(|n| refused("plant", n, letters(n))).collect();
    state.commit(Commit { quarantine: rows, ..empty() }, signer()).unwrap();
    let counts = reasons(&state, "plant");
    assert_eq!((counts.len(), counts.iter().find(|c| c.0 == "other").unwrap().1), (513, 600 - 512));
    let samples = state.reader().unwrap().quarantine_samples(PROGRAM, "modbus").unwrap();
    assert_eq!(samples.iter().filter(|s| s.reason == "other").map(|s| s.ordinal).collect::<Vec<_>>(), [512]);
}

#[test]
fn small_tables_come_back_per_program() {
    let state = fresh();
    let pair = |name: &str, value: &[u8]| vec![(name.to_owned(), value.to_vec())];
    let baseline = BaselineRow { version: 3, hash: Hash::of(b"stats"), meta: b"why".to_vec() };
    state
        .commit(
            Commit {
                runs: pair("r1", b"{}"),
                cases: pair("c1", b"case"),
                baselines: vec![baseline.clone()],
                tags: vec![("golden".to_owned(), 3)],
                blobs: vec![(Hash::of(b"stats"), b"stats".to_vec()), (Hash::of(b""), Vec::new())],
                meta: pair("mode", b"nominal"),
                ..empty()
            },
            signer(),
        )
        .unwrap();
    let reader = state.reader().unwrap();
    assert_eq!(reader.runs(PROGRAM).unwrap(), pair("r1", b"{}"));
    assert_eq!(reader.run(PROGRAM, "r1").unwrap().unwrap(), b"{}");
    assert_eq!(reader.cases(PROGRAM).unwrap(), pair("c1", b"case"));
    assert_eq!(reader.case("other", "c1").unwrap(), None);
    assert_eq!(reader.baselines(PROGRAM).unwrap(), std::slice::from_ref(&baseline));
    assert_eq!(reader.baseline(PROGRAM, 3).unwrap(), Some(baseline));
    assert_eq!(reader.tags(PROGRAM).unwrap(), [("golden".to_owned(), 3)]);
    assert_eq!(reader.blob(&Hash::of(b"stats")).unwrap().unwrap(), b"stats");
    assert_eq!(reader.blob(&Hash::of(b"")).unwrap().unwrap(), b"");
    assert_eq!(reader.blob(&Hash::of(b"none")).unwrap(), None);
    assert_eq!(reader.meta(PROGRAM, "mode").unwrap().unwrap(), b"nominal");
    assert_eq!(reader.meta("other", "mode").unwrap(), None);
    assert!(reader.cases("plan").unwrap().is_empty(), "a program's name is no prefix of another's");
}

#[test]
fn the_log_proves_every_entry_at_every_size() {
    let state = fresh();
    let mut roots = vec![];
    for n in 0..75_u64 {
        let entries = (n * 31..n * 31 + 31).map(entry).collect();
        let committed = state.commit(Commit { entries, ..empty() }, signer()).unwrap();
        assert_eq!((committed.first_entry, committed.checkpoint.size), (n * 31, n * 31 + 31));
        roots.push((committed.checkpoint.size, committed.checkpoint.root));
    }
    let key = PublicKey::parse(&signer().public_text()).unwrap();
    let reader = state.reader().unwrap();
    let summary = reader.verify_log(&key).unwrap();
    assert_eq!((summary.size, summary.origin), (75 * 31, state.origin()));
    for (size, root) in &roots {
        assert_eq!(reader.root_at(*size).unwrap(), *root);
    }
    let size = summary.size;
    for index in (0..size).step_by(97).chain([size - 1]) {
        let bytes = reader.entry(index).unwrap().unwrap();
        let leaf = hb_log::tree::leaf_hash(&bytes);
        let proof = reader.inclusion_proof(index, size).unwrap();
        hb_log::tree::verify_inclusion(&leaf, index, size, &proof, &summary.root).unwrap();
    }
    assert!(reader.inclusion_proof(size, size).is_err());

    let other = PublicKey::parse(&Signer::generate().public_text()).unwrap();
    assert!(matches!(reader.verify_log(&other), Err(LogProblem::Mismatch { .. })));
    let quiet = state.commit(empty(), signer()).unwrap();
    assert_eq!((quiet.first_entry, quiet.checkpoint.size), (size, size), "no entries, no new head");
}

#[test]
fn an_edited_log_is_found_by_place() {
    let mut state = fresh();
    fill(&mut state, 1..=30);
    let key = PublicKey::parse(&signer().public_text()).unwrap();
    let edit = |change: &dyn Fn(&WriteTransaction)| {
        let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
        state.reader().unwrap().verify_log(&key)
    };
    let place = |result: Result<LogSummary, LogProblem>| match result {
        Err(LogProblem::Mismatch { place, .. }) => place,
        other => panic!("{other:?}"),
    };
    let reader = state.reader().unwrap();
    let tile = reader.txn.open_table(tables::TILES).unwrap().get((0, 1)).unwrap().unwrap().value().to_vec();
    drop(reader);
    let set_tile = |txn: &WriteTransaction, bytes: &[u8]| {
        txn.open_table(tables::TILES).unwrap().insert((0, 1), bytes).unwrap();
    };
    let mut wrong = tile.clone();
    wrong[40] ^= 1;
    assert_eq!(place(edit(&|txn| set_tile(txn, &wrong))), "tile (0, 1)");
    assert!(edit(&|txn| set_tile(txn, &tile)).is_ok());
    let drop_entry = |index| {
        move |txn: &WriteTransaction| {
            txn.open_table(tables::ENTRIES).unwrap().remove(index).unwrap();
        }
    };
    assert_eq!(place(edit(&drop_entry(89))), "entry 89");
    assert_eq!(place(edit(&drop_entry(40))), "entry 40");
}

#[test]
fn a_flipped_byte_is_named_with_table_and_key() {
    let disk = Disk::new();
    let mut state = open_on(&disk, first_boot).unwrap();
    fill(&mut state, 1..=2);
    let marker = b"a text that stands in the file once, and is not compressed: 0123456789".to_vec();
    state
        .commit(Commit { journal: vec![JournalRow { seq: 20, count: 1, bytes: marker.clone() }], ..empty() }, signer())
        .unwrap();
    drop(state);
    disk.edit(|image| {
        let at = image.windows(marker.len()).position(|window| window == marker).unwrap();
        image[at + 5] ^= 1;
    });
    let state = open_on(&disk, first_boot).unwrap();
    let reader = state.reader().unwrap();
    let rows: Vec<_> = reader.journal(PROGRAM, LANE, 0).unwrap().collect();
    let Some(Err(StateError::Corrupt { table: "journal", key, .. })) = rows.last() else { panic!("{rows:?}") };
    assert_eq!(key, "(\"plant\", \"live\", 20, 0)");
    assert_eq!(rows.len(), 3);
}

#[test]
fn a_directory_holds_one_state_for_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut state = State::open(&path, Options::default()).unwrap();
    assert_eq!(state.opened(), Opened { created: true, unclean: false, verified: Verified::NotNeeded });
    let id = state.host_id().to_owned();
    assert_eq!((id.len(), state.epoch(), state.origin()), (16, 1, format!("hb/{id}/1")));
    fill(&mut state, 1..=2);
    assert!(matches!(State::open(&path, Options::default()), Err(StateError::Locked { .. })));
    assert!(state.disk_bytes().unwrap() > 0);
    drop(state);

    fs::write(path.join(NEW_FILE_NAME), b"left over").unwrap();
    let state = State::open(&path, Options::default()).unwrap();
    assert_eq!(state.opened(), Opened { created: false, unclean: false, verified: Verified::NotNeeded });
    assert_eq!(state.host_id(), id);
    assert_eq!(state.reader().unwrap().commits().unwrap(), 2);
    assert_eq!(state.reader().unwrap().series(PROGRAM).unwrap().len(), 2);
}

#[test]
fn only_an_unclean_end_under_another_boot_is_verified() {
    let disk = Disk::new();
    let open = |boot: fn() -> String| open_on(&disk, boot).unwrap();
    let kill = |state: State| state.0.writing().poisoned = true; // a killed process writes no farewell
    let opened = |unclean, verified| Opened { created: false, unclean, verified };
    drop(open(first_boot));
    let state = open(other_boot);
    assert_eq!(state.opened(), opened(false, Verified::NotNeeded));
    kill(state);
    let state = open(other_boot);
    assert_eq!(state.opened(), opened(true, Verified::NotNeeded));
    kill(state);
    assert_eq!(open(first_boot).opened(), opened(true, Verified::Sound));
}

#[test]
fn another_schema_is_refused() {
    let disk = Disk::new();
    let state = open_on(&disk, first_boot).unwrap();
    let txn = state.0.database().as_ref().unwrap().begin_write().unwrap();
    txn.open_table(tables::HOST).unwrap().insert("schema", value::Put::new().u32(9).done().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(state);
    let error = open_on(&disk, first_boot).err().unwrap();
    assert!(matches!(error, StateError::Version { found: 9, supported: 1 }), "{error}");
}

#[test]
fn the_state_and_its_readers_move_between_threads() {
    fn moves<T: Send>() {}
    moves::<State>();
    moves::<Reader>();
}

#[test]
fn a_reader_sees_one_commit_and_nothing_later() {
    let mut state = fresh();
    fill(&mut state, 1..=1);
    let reader = state.reader().unwrap();
    fill(&mut state, 2..=20);
    assert_eq!(reader.commits().unwrap(), 1);
    assert_eq!(reader.journal(PROGRAM, LANE, 0).unwrap().count(), 1);
    // In another thread too.
    let newest = state.reader().unwrap();
    let count = std::thread::spawn(move || newest.commits().unwrap()).join().unwrap();
    assert_eq!((count, reader.commits().unwrap()), (20, 1));
}

fn document(sink: &str, n: u64, rank: u8, bytes: usize) -> OutboxDocument {
    let mut dice = Dice(n);
    OutboxDocument {
        sink: sink.to_owned(),
        kind: "alert".to_owned(),
        id: format!("id-{n}"),
        subject: String::new(),
        rank,
        queued_ns: n as i64,
        json: (0..bytes).map(|_| dice.roll(256) as u8).collect(),
    }
}

fn waiting(state: &State, sink: &str) -> Vec<u64> {
    state.reader().unwrap().outbox(PROGRAM, sink).unwrap().map(|row| row.unwrap().seq).collect()
}

#[test]
fn a_full_outbox_drops_the_oldest_of_the_lowest_rank_and_counts_them() {
    let mut state = fresh();
    let cap = Options::default();
    let queue = |state: &mut State, sink: &str, numbers: std::ops::Range<u64>, rank: u8, bytes: usize| {
        let outbox = numbers.map(|n| document(sink, n, rank, bytes)).collect();
        state.commit(Commit { outbox, ..empty() }, signer()).unwrap();
    };
    queue(&mut state, "rows", 0..10, 2, 10);
    queue(&mut state, "rows", 10..cap.outbox_cap_rows, 0, 10);
    assert_eq!(waiting(&state, "rows").len() as u64, cap.outbox_cap_rows);
    queue(&mut state, "rows", cap.outbox_cap_rows..cap.outbox_cap_rows + 1, 0, 10);
    let left = waiting(&state, "rows");
    assert_eq!(left[..10], (0..10).collect::<Vec<_>>(), "alerts stay while there is anything else");
    assert_eq!(*left.last().unwrap(), cap.outbox_cap_rows, "the newest stays");
    let sums = |state: &State| state.reader().unwrap().outbox_sums(PROGRAM).unwrap();
    let [(_, sum)] = sums(&state).try_into().unwrap();
    assert_eq!((sum.rows, sum.dropped), (left.len() as u64, cap.outbox_cap_rows + 1 - left.len() as u64));

    // By bytes too, each sink for itself; when there are only alerts, the oldest go.
    let size = 1 << 20;
    queue(&mut state, "bytes", 0..20, 2, size);
    let left = waiting(&state, "bytes");
    assert!(left.len() < 16 && *left.last().unwrap() == 19 && left[0] > 0, "{left:?}");
    assert_eq!(sums(&state).len(), 2);
    let gone = left.iter().map(|seq| Settled { sink: "bytes".to_owned(), seq: *seq, what: Settlement::Dead });
    let mut settled: Vec<Settled> = gone.collect();
    // One that was dropped is no surprise.
    settled.push(Settled { sink: "bytes".to_owned(), seq: 0, what: Settlement::Dead });
    state.commit(Commit { settled, ..empty() }, signer()).unwrap();
    let (_, sum) = sums(&state).into_iter().find(|(sink, _)| sink == "bytes").unwrap();
    assert_eq!((sum.rows, sum.bytes, sum.next), (0, 0, 20));
    assert_eq!(state.reader().unwrap().outbox_document(PROGRAM, "bytes", 19).unwrap(), None);
}

#[test]
fn what_became_of_an_alert_stays_as_long_as_the_alert() {
    let state = fresh();
    let of = |n: u64, subject: &str| OutboxDocument { subject: subject.to_owned(), ..document("pager", n, 0, 10) };
    let outcomes = |state: &State| state.reader().unwrap().outbox_outcomes(PROGRAM).unwrap();
    let kept = |fingerprint: &str| (fingerprint.to_owned(), Some(b"alert".to_vec()));
    let key = |fingerprint: &str| (fingerprint.to_owned(), "pager".to_owned());
    let commit = Commit {
        alerts: vec![kept("a"), kept("ab"), kept("b")],
        outbox: vec![of(0, "a"), of(1, "ab"), of(2, "b"), of(3, "not remembered"), of(4, "")],
        ..empty()
    };
    state.commit(commit, signer()).unwrap();
    assert!(outcomes(&state).is_empty(), "all of them wait");
    let settled = |seq: u64, what: Settlement| Settled { sink: "pager".to_owned(), seq, what };
    let later = Settlement::Later { attempts: 1, next_attempt_ns: 9 };
    let settled = vec![
        settled(0, Settlement::Delivered),
        settled(1, Settlement::Dead),
        settled(2, later),
        settled(3, Settlement::Delivered),
        settled(4, Settlement::Delivered),
    ];
    state.commit(Commit { settled, ..empty() }, signer()).unwrap();
    let (delivered, dead) =
        ((DocumentOutcome::Delivered, "id-0".to_owned()), (DocumentOutcome::Dead, "id-1".to_owned()));
    assert_eq!(outcomes(&state), [(key("a"), delivered), (key("ab"), dead.clone())].into());

    // The third is the oldest that waits: it goes when the queue is full, and nobody says that it was delivered.
    let full = Options::default().outbox_cap_rows;
    let outbox = (5..6 + full).map(|n| of(n, "")).collect();
    state.commit(Commit { outbox, ..empty() }, signer()).unwrap();
    assert_eq!(outcomes(&state)[&key("b")], (DocumentOutcome::Dropped, "id-2".to_owned()));

    // It goes with its alert, and with no other.
    let alerts = vec![("a".to_owned(), None), ("b".to_owned(), None)];
    state.commit(Commit { alerts, ..empty() }, signer()).unwrap();
    assert_eq!(outcomes(&state), [(key("ab"), dead)].into());
}
