//! A pack made in memory, and every way to damage it.

use std::collections::BTreeMap;

use ciborium::Value;
use proptest::prelude::*;

use super::*;
use crate::archive::{zip_read, zip_write};
use crate::bag::Files;
use crate::cbor::{self, Bytes};
use crate::checkpoint::Checkpoint;
use crate::entry::Entry;
use crate::sign::PublicKey;
use crate::testing::Key;
use crate::tree::{Frontier, Node};

/// Entries in the log of these tests; the pack holds three of them.
const LOG_SIZE: u64 = 7;

fn decision() -> Vec<u8> {
    cbor::encode(&BTreeMap::from([("status", "FAIL"), ("check", "bus_voltage")]))
}

/// The log: entry 4 records the decision.
fn log() -> Vec<Vec<u8>> {
    let body = |seq| {
        let hash = if seq == 4 { Hash::of(&decision()) } else { Hash::of(&[seq as u8]) };
        Value::Map(vec![("decision".into(), Value::Bytes(hash.as_bytes().to_vec()))])
    };
    let kind = |seq| if seq == 2 { "mode" } else { "decision" }.to_owned();
    (0..LOG_SIZE)
        .map(|seq| Entry { seq, time_ns: 1_000 + seq as i64, kind: kind(seq), body: body(seq) }.encode())
        .collect()
}

struct Maker {
    log: Vec<Vec<u8>>,
    packed: Vec<usize>,
    key: Key,
    keys: Vec<PublicKey>,
}

impl Maker {
    fn new() -> Maker {
        let key = Key::fixed(1);
        Maker { log: log(), packed: vec![4, 2, 5], keys: vec![key.public.clone()], key }
    }

    fn payload(&self) -> Files {
        let mut frontier = Frontier::new();
        let nodes: Vec<Node> =
            self.log.iter().flat_map(|entry| frontier.append(crate::tree::leaf_hash(entry))).collect();
        let nodes = |level, index| nodes.iter().find(|n| (n.level, n.index) == (level, index)).map(|n| n.hash);
        let checkpoint = Checkpoint::of("hb.test/log/1", &frontier);
        let signature = self.key.sign(checkpoint.body().as_bytes(), "checkpoint");
        let entries: Vec<Vec<u8>> = self.packed.iter().map(|at| self.log[*at].clone()).collect();
        let mut payload = Files::new();
        put_log(&mut payload, &entries, &checkpoint, &signature, &self.keys, &nodes).unwrap();
        payload.insert(names::DECISION.to_owned(), decision());
        payload.insert(names::METRICS.to_owned(), b"t,v\n1,80.5\n".to_vec());
        payload
    }

    fn seal(&self, payload: Files) -> Files {
        let info = [(CASE_LABEL.to_owned(), "case 7".to_owned())];
        seal(payload, &info, &mut |message, comment| self.key.sign(message, comment))
    }

    fn pack(&self) -> Files {
        self.seal(self.payload())
    }
}

fn trusted() -> Vec<PublicKey> {
    vec![Key::fixed(2).public, Key::fixed(1).public]
}

#[test]
fn a_sealed_pack_verifies() {
    let files = Maker::new().pack();
    let report = verify(&files, &trusted());
    assert_eq!(report.problems, []);
    assert!(report.ok);
    assert_eq!(report.warnings, [FRESHNESS_UNPROVEN]);
    let facts = report.facts;
    assert_eq!(facts.case.as_deref(), Some("case 7"));
    assert_eq!(facts.trusted_comment.as_deref(), Some("hb evidence case_7"));
    assert_eq!((facts.log_size, facts.decision_seq), (Some(LOG_SIZE), Some(4)));
    assert_eq!((facts.decision, facts.key_id), (Some(Hash::of(&decision())), Some(Key::fixed(1).public.key_id())));
    assert_eq!(facts.log_origin.as_deref(), Some("hb.test/log/1"));
    assert_eq!(String::from_utf8_lossy(&files[names::AUDIT_LOG]).lines().count(), 3);
}

#[test]
fn trust_comes_from_outside() {
    let files = Maker::new().pack();
    let report = verify(&files, &[]);
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(report.warnings, [KEY_NOT_TRUSTED, FRESHNESS_UNPROVEN]);
    // A pack by another key is whole in itself, but not by the key the reader trusts.
    let stranger = Key::fixed(2);
    let forged = Maker { keys: vec![stranger.public.clone()], key: stranger, ..Maker::new() }.pack();
    assert!(verify(&forged, &[]).ok);
    let report = verify(&forged, &[Key::fixed(1).public]);
    assert!(report.problems.iter().any(|p| p.path == names::TAGMANIFEST_SIGNATURE && p.help.contains("operator")));
}

/// The promise of the format: no byte is free. Every byte of every file is flipped, one at a time.
#[test]
fn every_flipped_byte_of_every_file_fails() {
    let files = Maker::new().pack();
    let trusted = trusted();
    let mut flips = 0;
    for (path, bytes) in &files {
        for at in 0..bytes.len() {
            let mut changed = files.clone();
            // Case, low bit and high bit in turn: three kinds of change a lenient reader forgives.
            changed.get_mut(path).unwrap()[at] ^= [0x01, 0x20, 0x80][at % 3];
            assert!(!verify(&changed, &trusted).ok, "{path} byte {at}");
            flips += 1;
        }
    }
    println!("{flips} flipped bytes in {} files, all noticed", files.len());
}

#[test]
fn every_flipped_byte_of_the_zip_fails() {
    let trusted = trusted();
    let files = Maker::new().pack();
    let zip = zip_write(&files, &root_name("case 7")).unwrap();
    assert_eq!(zip_read(&zip), Ok(("evidence_case_7".to_owned(), files.clone())));
    let report = verify_zip(&zip, &trusted);
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(report, verify(&files, &trusted));
    for at in 0..zip.len() {
        let mut changed = zip.clone();
        changed[at] ^= [0x01, 0x20, 0x80][at % 3];
        assert!(!verify_zip(&changed, &trusted).ok, "byte {at}");
    }
    // Changes that are consistent in the zip, but not in the pack.
    assert!(!verify_zip(&zip_write(&files, "evidence_8").unwrap(), &trusted).ok);
    for (path, bytes) in &files {
        let mut changed = files.clone();
        changed.insert(path.clone(), [&bytes[..], b"x"].concat());
        assert!(!verify_zip(&zip_write(&changed, "evidence_case_7").unwrap(), &trusted).ok, "{path}");
    }
}

#[test]
fn missing_added_renamed_and_swapped_files_fail() {
    let files = Maker::new().pack();
    let trusted = trusted();
    let failing = |changed: &Files, what: &str| assert!(!verify(changed, &trusted).ok, "{what}");
    for path in files.keys() {
        let mut changed = files.clone();
        let bytes = changed.remove(path).unwrap();
        assert!(verify(&changed, &trusted).problems.iter().any(|p| p.path == *path), "without {path}");
        changed.insert(format!("{path}2"), bytes);
        failing(&changed, &format!("renamed {path}"));
        for other in files.keys().filter(|other| *other > path) {
            let mut changed = files.clone();
            changed.insert(path.clone(), files[other].clone());
            changed.insert(other.clone(), files[path].clone());
            failing(&changed, &format!("swapped {path} and {other}"));
        }
    }
    for added in ["data/new.txt", "new.txt", "data/log/extra", "fetch.txt"] {
        let mut changed = files.clone();
        changed.insert(added.to_owned(), b"x".to_vec());
        failing(&changed, &format!("added {added}"));
    }
    for name in [names::MANIFEST, names::TAGMANIFEST, names::BAG_INFO, names::AUDIT_LOG, names::KEYS] {
        let mut changed = files.clone();
        let text = String::from_utf8(files[name].clone()).unwrap();
        let first = text.lines().next().unwrap();
        changed.insert(name.to_owned(), format!("{first}\n{text}").into_bytes());
        failing(&changed, &format!("first line of {name} twice"));
    }
    for len in 0..files[names::CHECKPOINT].len() {
        let mut changed = files.clone();
        changed.get_mut(names::CHECKPOINT).unwrap().truncate(len);
        failing(&changed, &format!("checkpoint cut to {len}"));
    }
    failing(&Files::new(), "nothing");
}

/// A careless or lying host: the bag is sealed and signed with the right key over a wrong payload. What the bag
/// cannot see, the log's own checks must.
#[test]
fn a_well_sealed_pack_with_a_wrong_payload_fails() {
    let maker = Maker::new();
    let good = maker.payload();
    let fails = |change: &dyn Fn(&mut Files), path: &str, what: &str| {
        let mut payload = good.clone();
        change(&mut payload);
        let report = verify(&maker.seal(payload), &trusted());
        let found = report.problems.iter().any(|p| p.path == path && p.what.contains(what));
        assert!(found && !report.ok, "{path} {what}: {:?}", report.problems);
    };
    let put = |name: &'static str, bytes: Vec<u8>| {
        move |files: &mut Files| drop(files.insert(name.to_owned(), bytes.clone()))
    };
    for name in [
        names::ENTRIES,
        names::PROOFS,
        names::CHECKPOINT,
        names::CHECKPOINT_SIGNATURE,
        names::DECISION,
        names::AUDIT_LOG,
        names::KEYS,
    ] {
        fails(&|files| drop(files.remove(name)), name, "missing");
    }
    fails(&put(names::DECISION, cbor::encode("another")), names::DECISION, "no entry of the log records");
    fails(&put(names::DECISION, vec![0xff]), names::DECISION, "not canonical");
    fails(&put(names::AUDIT_LOG, b"{}\n".to_vec()), names::AUDIT_LOG, "does not say");
    fails(&put(names::KEYS, b"".to_vec()), names::KEYS, "public keys");
    fails(&put(names::KEYS, vec![0xff]), names::KEYS, "not text");
    fails(&put(names::ENTRIES, cbor::encode(&[1])), names::ENTRIES, "unexpected content");
    let entries = |order: &[usize]| cbor::encode(&order.iter().map(|at| Bytes(log()[*at].clone())).collect::<Vec<_>>());
    fails(&put(names::ENTRIES, entries(&[2, 5, 4])), names::ENTRIES, "does not follow");
    fails(&put(names::ENTRIES, entries(&[2, 4, 4, 5])), names::ENTRIES, "does not follow");
    fails(&put(names::ENTRIES, entries(&[2, 4])), names::PROOFS, "3 proofs for 2 entries");
    fails(&put(names::ENTRIES, entries(&[1, 4, 5])), names::PROOFS, "entry 1 is not proven");
    fails(&put(names::PROOFS, cbor::encode(&BTreeMap::from([("size", 7)]))), names::PROOFS, "unexpected content");
    fails(
        &|files| {
            let old = Checkpoint::parse("hb.test/log/1\n6\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n").unwrap();
            let signature = maker.key.sign(old.body().as_bytes(), "checkpoint");
            files.insert(names::CHECKPOINT.to_owned(), old.body().into_bytes());
            files.insert(names::CHECKPOINT_SIGNATURE.to_owned(), signature.into_bytes());
        },
        names::PROOFS,
        "proofs for a log of 7 entries",
    );
    let stranger = Key::fixed(2).sign(&good[names::CHECKPOINT], "checkpoint").into_bytes();
    let report = verify(
        &maker.seal(good.clone().into_iter().chain([(names::CHECKPOINT_SIGNATURE.to_owned(), stranger)]).collect()),
        &[Key::fixed(1).public],
    );
    assert!(report.problems.iter().any(|p| p.path == names::CHECKPOINT_SIGNATURE));
}

#[test]
fn a_decision_is_recorded_once() {
    let mut maker = Maker::new();
    let twin = Entry { seq: 5, ..Entry::decode(&maker.log[4]).unwrap() };
    maker.log[5] = twin.encode();
    let report = verify(&maker.pack(), &trusted());
    assert!(report.problems.iter().any(|p| p.what.contains("2 entries record this decision")), "{:?}", report.problems);
    // Of another kind it is no decision.
    let other = Entry { kind: "note".into(), ..twin };
    maker.log[5] = other.encode();
    assert!(verify(&maker.pack(), &trusted()).ok);
}

/// The limit of what a pack can show, written down as a test: a log cut short and signed anew by its own key gives
/// packs that verify. The only trace is the warning.
#[test]
fn a_log_cut_and_signed_anew_needs_a_witness() {
    let mut maker = Maker::new();
    maker.log.truncate(6);
    let report = verify(&maker.pack(), &trusted());
    assert!(report.ok && report.warnings.contains(&FRESHNESS_UNPROVEN.to_owned()));
    assert_eq!(report.facts.log_size, Some(6));
}

#[test]
fn any_name_of_a_case_makes_a_pack() {
    for case in ["", " case\r\n7 ", "Ausfall Süd/Nord \u{202e}x", "..", &"long ".repeat(200)] {
        let maker = Maker::new();
        let info = [(CASE_LABEL.to_owned(), case.to_owned())];
        let files = seal(maker.payload(), &info, &mut |message, comment| maker.key.sign(message, comment));
        let report = verify_zip(&zip_write(&files, &root_name(case)).unwrap(), &trusted());
        assert!(report.ok, "{case:?}: {:?}", report.problems);
    }
}

#[test]
fn a_rotated_key_is_found_among_the_keys() {
    let maker = Maker::new();
    let keys = vec![Key::fixed(2).public, Key::fixed(1).public];
    assert!(verify(&Maker { keys, ..maker }.pack(), &[]).ok);
}

#[test]
fn what_cannot_be_packed_is_said() {
    let checkpoint = Checkpoint { origin: "x".into(), size: 2, root: Hash::ZERO };
    let put = |entry: Vec<u8>| put_log(&mut Files::new(), &[entry], &checkpoint, "", &[], &|_, _| None);
    assert!(matches!(put(vec![0]), Err(PackError::Entry(_))));
    assert!(matches!(put(log()[1].clone()), Err(PackError::Proof { seq: 1, .. })));
    assert!(matches!(put(log()[3].clone()), Err(PackError::Proof { seq: 3, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_packs_never_panic(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 0..50)), 1..6),
    ) {
        let maker = Maker::new();
        let mut payload = maker.payload();
        let paths: Vec<String> = payload.keys().cloned().collect();
        for (at, bytes) in picks {
            payload.insert(at.get(&paths).clone(), bytes);
        }
        // Sealed and unsealed: the inner checks see hostile bytes either way.
        let _ = verify(&payload, &[]);
        let _ = verify(&maker.seal(payload), &trusted());
    }
}
