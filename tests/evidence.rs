//! A FAIL proves itself to somebody who has nothing but the pack, the host's key and stock tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hb::keys::Signer;
use hb_log::archive::zip_write;
use hb_log::bag::Files;
use hb_log::pack::{self, names};
use hb_log::sign::PublicKey;

use crate::support::hb::{Dice, Hb, Output, Plant, Running, telemetry};

/// Simulated seconds: long enough for a FAIL, short enough for small packs.
const SECONDS: u64 = 480;

/// Bytes of a whole archive that are flipped, one at a time; of a small one, all are.
const ZIP_FLIPS: usize = 200;

/// Bytes that are left of a file in a small pack.
const CUT_BYTES: usize = 64;

/// The case of a small pack.
const CASE: &str = "case-small";

/// Exit code of data that is not what it claims.
const DATA: i32 = 65;

#[test]
fn a_fail_packs_itself_and_the_pack_proves_it() {
    let hb = failed();
    let pack = first_pack(&hb);
    let shown = pack.to_str().unwrap();
    let verified = hb.json(&["verify", shown, "--key", "state/keys/host.pub"]);
    assert_eq!(verified["ok"], true, "{verified:#}");
    assert_eq!(verified["problems"].as_array().map(Vec::len), Some(0), "{verified:#}");

    // Nothing but the pack: an empty directory, no state, no config, no plugins, no policies.
    let empty = tempfile::tempdir().unwrap();
    let mut replay = Command::new(env!("CARGO_BIN_EXE_hb"));
    replay.arg("replay").arg(&pack).current_dir(empty.path()).env_clear();
    let replayed = Output::of(&mut replay);
    assert_eq!(replayed.code, 0, "{replayed:#?}");
    assert!(replayed.stdout.starts_with("reproduced: decision "), "{replayed:#?}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "replay left something behind");
}

#[test]
fn the_pack_of_an_asset_at_its_cap_of_series_is_replayed() {
    // A third reading on each line: of each asset one of three series is shed before the journal.
    let text = telemetry(4, SECONDS).replace("\"temp_f\"", "\"load\":1,\"temp_f\"");
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &text);
    let config = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("limits: { ", "limits: { max_series: 2, "));
    hb.done(&["daemon", "--once"]);
    let quarantine = hb.json(&["quarantine", "list"]);
    let refused = quarantine["refused"].as_array().unwrap();
    let shed = refused.iter().find(|r| r["reason"] == "cap").map_or(0, |r| r["count"].as_u64().unwrap());
    assert!(shed >= SECONDS, "{shed} samples were shed: {quarantine:#}");
    let pack = first_pack(&hb);
    let replayed = hb.done(&["replay", pack.to_str().unwrap()]);
    assert!(replayed.stdout.starts_with("reproduced: decision "), "{replayed:#?}");
}

#[test]
fn the_commands_of_verify_md_succeed() {
    let minisign = Command::new("minisign").arg("-v").stdin(Stdio::null()).output();
    assert!(minisign.is_ok(), "minisign is not installed: apt-get install minisign, or cargo xtask test");
    let hb = failed();
    let pack = first_pack(&hb);
    let guide = std::fs::read_to_string(pack.join("data/VERIFY.md")).unwrap();
    // As the guide says, the key comes from elsewhere and is put beside the directory.
    std::fs::copy(hb.path("state/keys/host.pub"), pack.with_file_name("hb.pub")).unwrap();

    let blocks: Vec<&str> = guide.split("```sh\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert_eq!(blocks.len(), 2, "{guide}");
    let stock = shell(&pack, blocks[0]);
    assert_eq!(stock.code, 0, "{stock:#?}");
    let last = stock.stdout.lines().last().unwrap();
    let hash = last.split_whitespace().next().unwrap();
    assert!(guide.contains(&format!("SHA-256 `{hash}`")), "{last} is not what the guide promises");
    let with_hb = shell(&pack, blocks[1]);
    assert_eq!(with_hb.code, 0, "{with_hb:#?}");

    // The same commands refuse a pack that was touched.
    let decision = pack.join("data/decision.cbor");
    flip(&decision, 0);
    assert_ne!(shell(&pack, blocks[0]).code, 0, "stock tools accept a changed decision");
}

#[test]
fn a_case_exported_twice_gives_the_same_bytes() {
    let hb = failed();
    let pack = first_pack(&hb);
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let case = name.strip_prefix("evidence_").unwrap();
    for out in ["a", "b", "a.zip", "b.zip"] {
        hb.done(&["export", "evidence-pack", "--case", case, "--out", out]);
    }
    let read = |dir: &str| read_dir(&hb.path(dir).join(&name));
    assert_eq!(read("a"), read("b"));
    assert_eq!(read("a"), read_dir(&pack), "the pack the daemon made");
    let zip = |name: &str| std::fs::read(hb.path(name)).unwrap();
    assert_eq!(zip("a.zip"), zip("b.zip"));
    hb.done(&["verify", "a.zip", "--key", "state/keys/host.pub"]);
    hb.done(&["replay", "a.zip"]);
}

#[test]
fn a_case_sealed_under_an_earlier_key_is_exported_as_it_was_sealed() {
    let hb = failed();
    let pack = first_pack(&hb);
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let case = name.strip_prefix("evidence_").unwrap();
    let old = std::fs::read_to_string(hb.path("state/keys/host.pub")).unwrap();
    hb.write("old.pub", &old);
    // All of the old key is gone from the state: who sealed what is known there besides.
    std::fs::remove_dir_all(hb.path("state/keys")).unwrap();
    hb.done(&["keys", "init"]);
    assert_ne!(std::fs::read_to_string(hb.path("state/keys/host.pub")).unwrap(), old);
    hb.done(&["export", "evidence-pack", "--case", case, "--out", "again"]);
    let again = hb.path("again").join(&name);
    assert_eq!(read_dir(&again), read_dir(&pack));
    let again = again.to_str().unwrap();
    hb.done(&["verify", again, "--key", "old.pub"]);
    hb.done(&["verify", again, "--key", "state/keys/host.pub", "--key", "old.pub"]);
    let stranger = hb.run(&["verify", again, "--key", "state/keys/host.pub"]);
    assert_eq!(stranger.code, DATA, "the new key sealed nothing of it: {stranger:#?}");
    hb.done(&["replay", again]);
    hb.done(&["log", "verify", "--key", "state/keys/host.pub", "--key", "old.pub"]);
}

/// The same files as in a pack of the daemon, the long ones cut, so that every single byte can be tried.
#[test]
fn no_byte_of_a_pack_is_free() {
    let hb = failed();
    let key = host_key(&hb);
    let files = small_pack(&hb);
    let report = pack::verify(&files, &key);
    assert!(report.ok, "{:?}", report.problems);
    let zip = zip_write(&files, &pack::root_name(CASE)).unwrap();
    assert!(pack::verify_zip(&zip, &key).ok);
    // Case, low bit and high bit in turn: three kinds of change that a lenient reader forgives.
    let bit = |at: usize| [0x01, 0x20, 0x80][at % 3];
    let mut flips = 0;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut damaged = zip.clone();
            for at in 0..zip.len() {
                damaged[at] ^= bit(at);
                assert!(!pack::verify_zip(&damaged, &key).ok, "byte {at} of the archive");
                damaged[at] ^= bit(at);
            }
        });
        let mut damaged = files.clone();
        for (path, bytes) in &files {
            for at in 0..bytes.len() {
                damaged.get_mut(path).unwrap()[at] ^= bit(at);
                assert!(!pack::verify(&damaged, &key).ok, "byte {at} of {path}");
                damaged.get_mut(path).unwrap()[at] ^= bit(at);
                flips += 1;
            }
        }
    });
    println!("{flips} bytes in {} files and {} of the archive, all noticed", files.len(), zip.len());
    assert!(flips > 5_000 && files.len() > 20, "{flips} bytes in {} files prove little", files.len());
}

#[test]
fn a_flipped_byte_of_a_pack_on_disk_is_noticed() {
    let hb = failed();
    let pack = first_pack(&hb);
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    hb.done(&["export", "evidence-pack", "--case", name.strip_prefix("evidence_").unwrap(), "--out", "pack.zip"]);
    let key = host_key(&hb);
    let files = read_dir(&pack);
    assert!(pack::verify(&files, &key).ok);

    let mut dice = Dice(3);
    for (path, bytes) in &files {
        let at = dice.below(bytes.len().max(1) as u64) as usize;
        let mut damaged = files.clone();
        let content = damaged.get_mut(path).unwrap();
        match content.get_mut(at) {
            Some(byte) => *byte ^= 1 << dice.below(8),
            None => content.push(0),
        }
        assert!(!pack::verify(&damaged, &key).ok, "byte {at} of {path}");
    }

    let zip = std::fs::read(hb.path("pack.zip")).unwrap();
    assert!(pack::verify_zip(&zip, &key).ok);
    for _ in 0..ZIP_FLIPS {
        let (at, bit) = (dice.below(zip.len() as u64) as usize, dice.below(8));
        let mut damaged = zip.clone();
        damaged[at] ^= 1 << bit;
        assert!(!pack::verify_zip(&damaged, &key).ok, "bit {bit} of byte {at} of the archive");
    }

    // And through the face.
    let verify = ["verify", pack.to_str().unwrap(), "--key", "state/keys/host.pub"];
    assert_eq!(hb.run(&verify).code, 0);
    for file in ["data/decision.cbor", "bagit.txt", "tagmanifest-sha256.txt.minisig"] {
        let at = flip(&pack.join(file), dice.next());
        assert_eq!(hb.run(&verify).code, DATA, "byte {at} of {file}");
        assert_eq!(hb.run(&["verify", pack.to_str().unwrap()]).code, DATA, "byte {at} of {file}, without a key");
        std::fs::write(pack.join(file), &files[file]).unwrap();
    }
    flip(&hb.path("pack.zip"), dice.next());
    assert_eq!(hb.run(&["verify", "pack.zip", "--key", "state/keys/host.pub"]).code, DATA);
}

#[test]
fn a_kill_before_the_packing_leaves_no_case_without_a_pack() {
    let plant = Plant { evidence: true, batch_frames: 64, commit_samples: 200, ..Plant::default() };
    let hb = Hb::plant(plant, &telemetry(4, SECONDS));
    let mut cases = 0;
    // One more commit each time, until one of them opened a case.
    for nth in 4.. {
        until(&hb, &["daemon", "--once"], "committed", nth);
        cases = hb.json(&["status"])["cases"].as_array().unwrap().len();
        if cases > 0 {
            break;
        }
    }
    assert!(cases > 0 && !hb.path("evidence_packs").exists(), "the kill came too late");
    hb.done(&["daemon", "--once"]);
    assert_eq!(packs(&hb), hb.json(&["status"])["counters"]["cases"].as_u64().unwrap() as usize);
    let again = hb.done(&["daemon", "--once"]);
    assert!(!again.stderr.contains("evidence: "), "packed twice: {again:#?}");
}

#[test]
fn a_daemon_without_end_packs_at_once() {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(4, SECONDS));
    let config = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("path: telemetry.jsonl", "path: telemetry.jsonl, follow: true"));
    until(&hb, &["daemon"], "evidence: ", 1);
    assert!(packs(&hb) > 0);
    let pack = first_pack(&hb);
    hb.done(&["verify", pack.to_str().unwrap(), "--key", "state/keys/host.pub"]);
}

/// Runs `hb` and kills it when a word came for the nth time.
fn until(hb: &Hb, args: &[&str], word: &str, nth: usize) {
    let mut running = Running::start(hb.command(args).env("RUST_LOG", "hb::pipeline::record=debug"));
    running.wait_for(word, nth);
    running.kill();
}

/// The files of the first pack, cut to a size at which each byte can be flipped, and sealed anew by the host's key.
fn small_pack(hb: &Hb) -> Files {
    let whole = read_dir(&first_pack(hb));
    // What the verifier reads, besides hashing it, stays as it is.
    let read = |path: &str| path.starts_with("data/log/") || [names::DECISION, names::AUDIT_LOG].contains(&path);
    let mut payload: Files = whole.into_iter().filter(|(path, _)| path.starts_with("data/")).collect();
    payload.remove(names::MANIFEST_JSON);
    for (path, bytes) in &mut payload {
        if !read(path) {
            bytes.truncate(CUT_BYTES);
        }
    }
    let signer = Signer::load(&hb.path("state")).unwrap();
    pack::seal(payload, &[(pack::CASE_LABEL.to_owned(), CASE.to_owned())], &mut |bytes, comment| {
        signer.sign(bytes, comment)
    })
}

/// The host's public key, as an auditor has it.
fn host_key(hb: &Hb) -> [PublicKey; 1] {
    [PublicKey::parse(&std::fs::read_to_string(hb.path("state/keys/host.pub")).unwrap()).unwrap()]
}

fn packs(hb: &Hb) -> usize {
    std::fs::read_dir(hb.path("evidence_packs")).unwrap().count()
}

/// A plant in which something failed and was packed.
fn failed() -> Hb {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(4, SECONDS));
    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stderr.contains("evidence: "), "nothing was packed: {output:#?}");
    hb
}

/// The first pack by name.
fn first_pack(hb: &Hb) -> PathBuf {
    let entries = std::fs::read_dir(hb.path("evidence_packs")).unwrap();
    entries.map(|e| e.unwrap().path()).min().expect("a pack")
}

/// Runs lines of a shell as somebody who types them, stopping at the first that fails.
fn shell(dir: &Path, lines: &str) -> Output {
    let hb_dir = Path::new(env!("CARGO_BIN_EXE_hb")).parent().unwrap();
    let path = format!("{}:{}", hb_dir.display(), std::env::var("PATH").unwrap_or_default());
    Output::of(Command::new("sh").args(["-e", "-c", lines]).current_dir(dir).env("PATH", path).stdin(Stdio::null()))
}

/// Flips the lowest bit of one byte of a file, and says which.
fn flip(path: &Path, seed: u64) -> usize {
    let mut bytes = std::fs::read(path).unwrap();
    let at = (seed % bytes.len() as u64) as usize;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    at
}

/// All files below a directory.
fn read_dir(root: &Path) -> Files {
    let (mut files, mut left) = (Files::new(), vec![root.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}
