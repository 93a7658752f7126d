//! Rows as the first release wrote them must be read for ever.
//!
//! `golden.txt` holds one line per row: table, key and value in hex. A change of a layout raises the value version
//! and adds a file beside it; this one stays.

use std::fmt::Write;

use hb_log::hash::Hash;
use redb::{Key, ReadTransaction, TableDefinition};

use super::crash::{Disk, first_boot, open_on};
use super::host::Identity;
use super::tests::signer;
use super::*;

const GOLDEN: &str = include_str!("golden.txt");
const HOST_ID: &str = "00112233445566aa";
/// A row that holds a signature, and so differs each time.
const HEAD_KEY: &str = "log_head";

macro_rules! tables {
    ($each:ident) => {
        $each!(JOURNAL FRAMES SERIES DECISIONS DECISION_IDS ENTRIES TILES SNAPSHOTS SNAPSHOT_IDS PINS CURSORS DELIVERIES QUARANTINE
            SAMPLES DEAD RINGS BLOBS COUNTERS RUNS CASES BASELINES TAGS ALERTS OUTBOX
            OUTBOX_DOCUMENTS OUTBOX_SUMS META HOST)
    };
}

type Rows<K> = TableDefinition<'static, K, &'static [u8]>;

fn dump<K: Key + 'static>(txn: &ReadTransaction, table: Rows<K>, lines: &mut String) {
    let rows = txn.open_table(table).unwrap();
    for row in redb::ReadableTable::iter(&rows).unwrap() {
        let (key, value) = row.unwrap();
        let key = data_encoding::HEXLOWER.encode(K::as_bytes(&key.value()).as_ref());
        writeln!(lines, "{} {key} {}", redb::TableHandle::name(&table), data_encoding::HEXLOWER.encode(value.value()))
            .unwrap();
    }
}

fn load<K: Key + 'static>(txn: &WriteTransaction, table: Rows<K>) -> usize {
    let mut rows = txn.open_table(table).unwrap();
    let mine = GOLDEN.lines().filter_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some(redb::TableHandle::name(&table))).then(|| {
            let mut word = || data_encoding::HEXLOWER.decode(words.next().unwrap().as_bytes()).unwrap();
            (word(), word())
        })
    });
    mine.map(|(key, value)| rows.insert(K::from_bytes(&key), value.as_slice()).unwrap().is_none()).count()
}

fn name_of(n: u64) -> (String, Vec<u8>) {
    (format!("name-{n}"), format!("value {n}").into_bytes())
}

fn document(id: &str, subject: &str) -> OutboxDocument {
    OutboxDocument {
        sink: "pager".to_owned(),
        kind: "alert".to_owned(),
        id: id.to_owned(),
        subject: subject.to_owned(),
        rank: 2,
        queued_ns: 11,
        json: b"{\"v\":1}".to_vec(),
    }
}

/// One commit that writes to every table.
fn golden_commit() -> Commit {
    let text = |text: &str| text.as_bytes().to_vec();
    Commit {
        program: "plant".to_owned(),
        lane: "live".to_owned(),
        journal: vec![
            JournalRow { seq: 0, count: 2, bytes: text("two inputs") },
            JournalRow { seq: 2, count: 1, bytes: vec![7; 5_000] },
        ],
        frames: vec![FrameBlock { source: "mqtt".to_owned(), first: 5, count: 3, bytes: text("three frames") }],
        series: vec![(4, text("speed rpm"))],
        decisions: vec![DecisionRow {
            id: Hash::of(b"decision"),
            asset: "motor".to_owned(),
            check: "bearing".to_owned(),
            end_ns: -5,
            seq: 2,
            status: 3,
            bytes: text("decided"),
        }],
        entries: vec![NewEntry { kind: "start".to_owned(), time_ns: 9, body: ciborium::Value::Text("up".to_owned()) }],
        snapshots: vec![SnapshotRow {
            asset: "motor".to_owned(),
            seq: 3,
            hash: Hash::of(b"snap"),
            bytes: text("snap"),
        }],
        pins: vec![("motor".to_owned(), 3)],
        deliveries: vec![DeliveryRows {
            source: "live/s".to_owned(),
            epoch: 3,
            settled: vec![1],
            rows: vec![(7, [0xab; 16])],
        }],
        cursors: vec![("mqtt".to_owned(), text("at 8"))],
        expect_cursors: vec![("mqtt".to_owned(), None)],
        quarantine: vec![QuarantineRow {
            source: "mqtt".to_owned(),
            plugin: "json".to_owned(),
            reason: "unit".to_owned(),
            count: 12,
            sample: Some((6, text("{bad}"))),
        }],
        dead: vec![DeadRow { plugin: "json".to_owned(), ordinal: 7, cause: "trap".to_owned(), frame: text("{dead}") }],
        blobs: vec![(Hash::of(b"blob"), text("blob"))],
        counters: vec![("samples".to_owned(), 300)],
        runs: vec![name_of(1)],
        cases: vec![name_of(2)],
        baselines: vec![BaselineRow { version: 2, hash: Hash::of(b"base"), meta: text("meta") }],
        tags: vec![("golden".to_owned(), 2)],
        alerts: vec![("00112233aabbccdd".to_owned(), Some(text("alert"))), ("gone".to_owned(), None)],
        outbox: vec![document("a-1", "00112233aabbccdd"), document("a-2", "")],
        settled: vec![
            Settled { sink: "pager".to_owned(), seq: 0, what: Settlement::Delivered },
            Settled { sink: "pager".to_owned(), seq: 1, what: Settlement::Later { attempts: 2, next_attempt_ns: 12 } },
        ],
        meta: vec![name_of(4)],
        ..Commit::default()
    }
}

fn all_rows<T>(rows: impl Iterator<Item = Result<T, StateError>>) -> Vec<T> {
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn rows_of_the_first_release_are_still_read() {
    let disk = Disk::new();
    let database = Builder::new().create_with_backend(disk).unwrap();
    let txn = database.begin_write().unwrap();
    let mut loaded = 0;
    macro_rules! load_all {
        ($($table:ident)*) => { $(loaded += load(&txn, tables::$table);)* };
    }
    tables!(load_all);
    txn.commit().unwrap();
    assert_eq!(loaded, GOLDEN.lines().count(), "every line belongs to a table");

    let txn = database.begin_read().unwrap();
    let (identity, last) = host::load(&txn.open_table(tables::HOST).unwrap()).unwrap();
    assert_eq!(identity, Identity { host_id: HOST_ID.to_owned(), epoch: 1 });
    assert_eq!(last, LastRun { boot_id: "first".to_owned(), clean: false });
    let reader = Reader { txn, identity };
    let want = golden_commit();
    let all = |rows: &mut dyn Iterator<Item = _>| rows.collect::<Result<Vec<_>, StateError>>().unwrap();
    assert_eq!(all(&mut reader.journal("plant", "live", 0).unwrap()), want.journal);
    let frames: Result<Vec<_>, _> = reader.frames("plant", "live", "mqtt", 0, 9).unwrap().collect();
    assert_eq!(frames.unwrap(), want.frames);
    assert_eq!(reader.series("plant").unwrap(), want.series);
    let id = want.decisions[0].id.to_string();
    let found = Lookup::One { lane: "live".to_owned(), row: want.decisions[0].clone() };
    assert_eq!(reader.decision("plant", &id[..6]).unwrap(), found);
    assert_eq!(reader.latest_snapshots("plant", "live").unwrap(), want.snapshots);
    assert_eq!(reader.cursors("plant").unwrap(), want.cursors);
    let count = &reader.quarantine("plant").unwrap()[0];
    assert_eq!(
        (count.source.as_str(), count.plugin.as_str(), count.reason.as_str(), count.count),
        ("mqtt", "json", "unit", 12)
    );
    let sample = reader.quarantine_samples("plant", "json").unwrap().remove(0);
    assert_eq!(Some((sample.ordinal, sample.frame)), want.quarantine[0].sample);
    assert_eq!(reader.dead("plant", "json").unwrap(), want.dead);
    assert_eq!(reader.dead_counts("plant").unwrap()[0].kept, 1);
    assert_eq!(reader.blob(&want.blobs[0].0).unwrap(), Some(want.blobs[0].1.clone()));
    assert_eq!(reader.counters("plant", "live").unwrap(), want.counters);
    assert_eq!(reader.runs("plant").unwrap(), want.runs);
    assert_eq!(reader.cases("plant").unwrap(), want.cases);
    assert_eq!(reader.baselines("plant").unwrap(), want.baselines);
    assert_eq!(reader.tags("plant").unwrap(), want.tags);
    assert_eq!(reader.alerts("plant").unwrap(), [("00112233aabbccdd".to_owned(), b"alert".to_vec())]);
    let waiting = all_rows(reader.outbox("plant", "pager").unwrap());
    let [row] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!((row.seq, row.rank, row.queued_ns, row.attempts, row.next_attempt_ns), (1, 2, 11, 2, 12));
    assert_eq!((row.kind.as_str(), row.id.as_str(), row.subject.as_str()), ("alert", "a-2", ""));
    assert_eq!(reader.outbox_document("plant", "pager", 1).unwrap(), Some(want.outbox[1].json.clone()));
    assert_eq!(reader.outbox_document("plant", "pager", 0).unwrap(), None);
    let sum = OutboxSum { rows: 1, bytes: row.bytes, dropped: 0, next: 2 };
    assert_eq!(reader.outbox_sums("plant").unwrap(), [("pager".to_owned(), sum)]);
    assert_eq!(reader.meta("plant", "name-4").unwrap(), Some(want.meta[0].1.clone()));
    assert_eq!(reader.commits().unwrap(), 1);
    assert_eq!(reader.entry_count().unwrap(), 1);
    let head = reader.checkpoint().unwrap().unwrap();
    assert_eq!(reader.root_at(1).unwrap(), head.checkpoint.root);
    assert_eq!(head.checkpoint.origin, format!("hb/{HOST_ID}/1"));
}

#[test]
fn rows_are_written_as_the_first_release_wrote_them() {
    let disk = Disk::new();
    drop(open_on(&disk, first_boot).unwrap());
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let txn = database.begin_write().unwrap();
    let value = value::Put::new().text(HOST_ID).done();
    txn.open_table(tables::HOST).unwrap().insert("host_id", value.as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let state = open_on(&disk, first_boot).unwrap();
    state.commit(golden_commit(), signer()).unwrap();

    let reader = state.reader().unwrap();
    let mut lines = String::new();
    macro_rules! dump_all {
        ($($table:ident)*) => { $(dump(&reader.txn, tables::$table, &mut lines);)* };
    }
    tables!(dump_all);
    let head = format!("host {} ", data_encoding::HEXLOWER.encode(HEAD_KEY.as_bytes()));
    // What zstd makes of a block may change with its version; what it reads may not, and that is tested above.
    let fixed = |line: &&str| !(line.starts_with(&head) || line.starts_with("journal") && line.contains(" 0101"));
    let ours: Vec<&str> = lines.lines().filter(fixed).collect();
    let golden: Vec<&str> = GOLDEN.lines().filter(fixed).collect();
    assert!(ours == golden, "the layout changed; if that is meant, raise its version and add a golden file:\n{lines}");
}
