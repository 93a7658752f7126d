//! Bad plugins: what is no plugin does not start, and a plugin that dies of frames loses those frames only.

use super::{Counts, config, copy_folder, line, list, once, refused_start};
use crate::support::guests::{guest, plugin};
use crate::support::hb::Hb;

/// Frames for the guest that dies of every tenth.
const FRAMES: u64 = 1_000;

#[test]
fn what_is_no_component_is_refused() {
    let hb = with_plugins("{ version: 1 }");
    hb.write("plugins/subject/plugin.wasm", "this is no component");
    let message = refused_start(&hb, &["check"]);
    assert!(message.contains("is not a WebAssembly component"), "{message}");
    assert!(message.contains("plugins/subject/plugin.wasm"), "{message}");
    assert_eq!(refused_start(&hb, &["daemon", "--once"]), message, "the daemon says the same");
}

#[test]
fn a_component_of_another_world_is_refused() {
    let hb = with_plugins("{}");
    copy_folder(&guest("wrong-world").folder, &hb.path("plugins/subject"));
    let message = refused_start(&hb, &["check"]);
    assert!(message.contains("does not export `hb:plugin/normalize@"), "{message}");
    assert_eq!(refused_start(&hb, &["daemon", "--once"]), message, "the daemon says the same");
}

#[test]
fn a_guest_that_dies_of_every_tenth_frame_loses_just_those() {
    let hb = with_plugins("{ mode: trap_every, n: 10 }");
    copy_folder(&guest("hostile").folder, &hb.path("plugins/subject"));
    hb.write("in.jsonl", &(0..FRAMES).map(|i| format!("{i}\n")).collect::<String>());
    assert_eq!(once(&hb), Counts { samples: FRAMES * 9 / 10, rejects: 0, refused: 0, faults: FRAMES / 10 });

    let quarantine = hb.json(&["quarantine", "list"]);
    let dead: Vec<&str> = list(&quarantine, "dead_letters").iter().map(|d| d["frame"].as_str().unwrap()).collect();
    let guilty: Vec<String> = (0..FRAMES).step_by(10).map(|i| i.to_string()).collect();
    assert_eq!(dead, guilty);
    assert!(list(&quarantine, "dead_letters").iter().all(|d| d["cause"].as_str().unwrap().contains("crashed")));
}

#[test]
fn a_frame_that_came_out_otherwise_alone_gives_nothing() {
    // Of this many frames one is looked at again; this guest is a function of the frame for its first one alone.
    const PROBE_EVERY: u64 = 65_536;
    let hb = with_plugins("{ mode: impure }");
    copy_folder(&guest("hostile").folder, &hb.path("plugins/subject"));
    let frames = PROBE_EVERY + 64;
    hb.write("in.jsonl", &(0..frames).map(|i| format!("{i}\n")).collect::<String>());
    assert_eq!(once(&hb), Counts { samples: frames - 1, rejects: 0, refused: 0, faults: 1 });
    let quarantine = hb.json(&["quarantine", "list"]);
    let [dead] = list(&quarantine, "dead_letters") else { panic!("{quarantine:#}") };
    assert_eq!(dead["frame"], PROBE_EVERY.to_string());
    assert!(dead["cause"].as_str().unwrap().contains("not a function of the frame"), "{dead:#}");
}

/// An instance with its own plugins: `subject` is its normalizer, at first the shipped one.
fn with_plugins(settings: &str) -> Hb {
    let hb = Hb::new();
    hb.write("hb.yaml", &(config("in.jsonl", "jsonl", "subject", settings) + "plugins_dir: ./plugins\n"));
    hb.write("in.jsonl", &line(0, 1));
    copy_folder(&plugin("file-replay").folder, &hb.path("plugins/file-replay"));
    copy_folder(&plugin("schema-map").folder, &hb.path("plugins/subject"));
    hb
}
