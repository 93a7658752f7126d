//! Several sources in one daemon: none speaks for another, and what two say of one asset is judged together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hb::config::{ConfigFile, Surroundings};
use hb::generation::Generation;
use hb::keys::Signer;
use hb::pipeline::feed::{Feed, FeedLimits, Next};
use hb::pipeline::record::{CommitLimits, LIVE, Recorder, cursor_name};
use hb::pipeline::series::SeriesBook;
use hb::pipeline::{Cursor, PipelineError};
use hb::state::{Commit, Options, State, StateError};
use hb_engine::decision::Decision;

use crate::hostile::copy_folder;
use crate::support::guests::{guest, plugin};
use crate::support::hb::{Hb, PROGRAM, Plant, SCHEMA, at, config, repository, telemetry};

/// Simulated seconds.
const SECONDS: u64 = 480;

/// Batches that wait, fewer than a feed has room for, and the frames of each.
const BATCHES: u64 = 3;
const BATCH: u64 = 4;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Two files of one plant: speeds in one, everything else in the other.
fn split(hb: &Hb) {
    let (mut speeds, mut temps) = (String::new(), String::new());
    for line in telemetry(1, SECONDS).lines() {
        let Ok(mut record) = serde_json::from_str::<serde_json::Value>(line) else {
            temps.push_str(&format!("{line}\n"));
            continue;
        };
        if let Some(rpm) = record.as_object_mut().and_then(|r| r.remove("rpm")) {
            let (time, asset) = (&record["timestamp"], &record["asset"]);
            speeds.push_str(&format!("{}\n", serde_json::json!({"timestamp": time, "asset": asset, "rpm": rpm})));
        }
        temps.push_str(&format!("{record}\n"));
    }
    hb.write("speeds.jsonl", &speeds);
    hb.write("temps.jsonl", &temps);
}

/// A second source for the plant's config, before or after the one that is there.
fn two_sources(text: &str) -> String {
    let second = "  - name: speeds
    plugin: file-replay
    transport: { file: { path: speeds.jsonl } }
    settings: { format: jsonl }
    normalizer: plant
";
    text.replace("path: telemetry.jsonl", "path: temps.jsonl")
        .replace("normalizers:\n", &format!("{second}normalizers:\n"))
}

fn decoded(hb: &Hb) -> Vec<Decision> {
    hb.decisions(PROGRAM).iter().map(|d| hb_log::cbor::decode(d).unwrap()).collect()
}

#[test]
fn two_files_of_one_asset_are_judged_like_one() {
    let one = Hb::plant(Plant::default(), &telemetry(1, SECONDS));
    one.done(&["daemon", "--once"]);
    let mut whole: Option<Vec<Vec<u8>>> = None;
    for batch_frames in [1, 64, 4_096] {
        let plant = Plant { batch_frames, ..Plant::default() };
        let two = Hb::plant(plant, &telemetry(1, SECONDS));
        split(&two);
        two.write("hb.yaml", &two_sources(&config(plant)));
        two.done(&["daemon", "--once"]);
        let outline = |hb: &Hb| {
            let list = decoded(hb).into_iter().map(|d| (d.end_ns, d.asset, d.status, d.counts.samples));
            let mut list: Vec<_> = list.collect();
            list.sort();
            list
        };
        assert_eq!(outline(&one), outline(&two), "batches of {batch_frames}");
        let bytes = two.decisions(PROGRAM);
        assert_eq!(whole.get_or_insert(bytes.clone()), &bytes, "batches of {batch_frames}");
    }
}

#[test]
fn a_missing_file_stops_nobody_else() {
    let hb = Hb::plant(Plant::default(), &telemetry(1, SECONDS));
    split(&hb);
    std::fs::remove_file(hb.path("speeds.jsonl")).unwrap();
    hb.write("hb.yaml", &two_sources(&config(Plant::default())));
    let output = hb.run(&["daemon", "--once"]);
    assert_eq!(output.code, 74, "{output:#?}");
    assert!(output.stderr.contains("speeds.jsonl"), "{output:#?}");
    let newest = decoded(&hb).iter().map(|d| d.end_ns).max();
    assert_eq!(newest.map(hb::clock::rfc3339), Some(at(SECONDS - 10)), "the other one is read to its end");
}

#[test]
fn a_pack_reproduces_across_a_change_of_the_schema() {
    // The first part is read with one schema, the rest with another; both parts feed the failing window's range.
    let plant = Plant { evidence: true, ..Plant::default() };
    let text = telemetry(1, SECONDS);
    let hb = Hb::plant(plant, &text);
    let cut = text.match_indices('\n').nth(1_500).unwrap().0;
    hb.write("telemetry.jsonl", &text[..=cut]);
    hb.done(&["daemon", "--once"]);
    hb.write("telemetry_schema.yaml", &SCHEMA.replace("temp_f: {", "temp_x: { metric: spare }\n  temp_f: {"));
    hb.write("telemetry.jsonl", &text);
    hb.done(&["daemon", "--once"]);
    let packs = packs(&hb);
    assert!(!packs.is_empty(), "nothing failed");
    for pack in packs {
        let output = hb.done(&["replay", pack.to_str().unwrap()]);
        assert!(output.stdout.starts_with("reproduced"), "{output:#?}");
    }
}

#[test]
fn a_fault_of_one_source_is_no_fault_of_another() {
    let plant = Plant { evidence: true, ..Plant::default() };
    let hb = Hb::plant(plant, &telemetry(1, SECONDS));
    // The second source's normalizer dies of every second frame; their numbers are those of good frames of the first.
    hb.write("speeds.jsonl", &(0..2_000).map(|i| format!("{i}\n")).collect::<String>());
    std::fs::rename(hb.path("telemetry.jsonl"), hb.path("temps.jsonl")).unwrap();
    for built in [plugin("file-replay"), plugin("schema-map"), guest("hostile")] {
        copy_folder(&built.folder, &hb.path("plugins").join(built.folder.file_name().unwrap()));
    }
    let text = two_sources(&config(plant)) + "plugins_dir: ./plugins\n";
    let text = text.replace(
        "speeds.jsonl } }\n    settings: { format: jsonl }\n    normalizer: plant",
        "speeds.jsonl } }\n    settings: { format: jsonl }\n    normalizer: bad",
    );
    let bad = "normalizers:\n  - { name: bad, plugin: hostile, settings: { mode: trap_every, n: 2 } }\n";
    hb.write("hb.yaml", &text.replace("normalizers:\n", bad));
    hb.done(&["daemon", "--once"]);
    let faults = hb.counters(PROGRAM).into_iter().find(|c| c.0 == "faults").map_or(0, |c| c.1);
    assert!(faults >= 1_000, "{faults} faults");
    let packs = packs(&hb);
    assert!(!packs.is_empty(), "nothing failed");
    for pack in packs {
        let output = hb.done(&["replay", pack.to_str().unwrap()]);
        assert!(output.stdout.starts_with("reproduced: "), "{output:#?}");
    }
}

#[test]
fn frames_that_wait_in_front_of_the_engine_are_counted() {
    let hb = Hb::new();
    let lines: String =
        (0..BATCHES * BATCH).map(|s| format!("{{\"timestamp\":\"{}\",\"asset\":\"a\"}}\n", at(s))).collect();
    hb.write("telemetry.jsonl", &lines);
    hb.write("telemetry_schema.yaml", SCHEMA);
    hb.write("hb.yaml", &config(Plant::default()));
    let file = ConfigFile::load(&hb.path("hb.yaml"), &surroundings()).unwrap();
    let unit = Generation::build(&file).unwrap().units.remove(0);
    let limits = FeedLimits { batch_frames: BATCH as u32, ..FeedLimits::of(&file.config) };
    let mut feed = Feed::start(&unit, &SeriesBook::default(), None, limits).unwrap();
    let probe = feed.take_probe().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while probe().waiting < BATCHES * BATCH {
        assert!(Instant::now() < deadline, "{} frames wait", probe().waiting);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    for left in (0..BATCHES).rev() {
        let Next::Batch(batch) = feed.next(deadline) else { panic!("{left} batches are missing") };
        assert_eq!((batch.frames.len() as u64, probe().waiting), (BATCH, left * BATCH));
    }
}

#[test]
fn what_another_hand_has_moved_on_is_not_stored_again() {
    let hb = Hb::new();
    hb.write("telemetry.jsonl", "");
    hb.write("telemetry_schema.yaml", SCHEMA);
    hb.write("hb.yaml", &config(Plant::default()));
    let file = ConfigFile::load(&hb.path("hb.yaml"), &surroundings()).unwrap();
    let generation = Generation::build(&file).unwrap();
    let signer = Arc::new(Signer::init(&hb.path("state")).unwrap());
    let state = State::open(&hb.path("state"), Options::default()).unwrap();
    let limits = CommitLimits::of(&file.config, true);
    let mut recorder = Recorder::open(state.clone(), Arc::clone(&signer), &generation, LIVE, limits).unwrap();
    let at = |ordinal: u64| Cursor { v: 1, ordinal, ..Cursor::default() };
    for ordinal in 1..4 {
        recorder.seal("plant", at(ordinal));
        recorder.commit().unwrap();
    }
    let cursors = vec![(cursor_name(LIVE, "plant"), hb_log::cbor::encode(&at(9)))];
    state.commit(Commit { program: PROGRAM.into(), lane: LIVE.into(), cursors, ..Commit::default() }, &signer).unwrap();
    recorder.seal("plant", at(4));
    let error = recorder.commit().unwrap_err();
    assert!(matches!(error, PipelineError::State(StateError::Duplicate { .. })), "{error}");
    let stored = state.reader().unwrap().cursor(PROGRAM, &cursor_name(LIVE, "plant")).unwrap();
    assert_eq!(stored, Some(hb_log::cbor::encode(&at(9))), "nothing was overwritten");
    // Whoever starts again takes what is stored for the truth.
    recorder.recover(&generation).unwrap();
}

fn surroundings() -> Surroundings {
    Surroundings {
        plugins_dir: plugin("schema-map").folder.parent().map(PathBuf::from),
        policies_dir: Some(repository().join("policies")),
        ..Surroundings::default()
    }
}

fn packs(hb: &Hb) -> Vec<PathBuf> {
    let dir = hb.path("evidence_packs");
    std::fs::read_dir(dir).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
}
