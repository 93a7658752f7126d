//! Normalizers: which frames are guilty, what they are guilty of, and that nothing else is lost.

use std::ops::Range;

use hb::plugin::limits::{DEFAULT_FUEL_PER_FRAME, LOG_LINES_PER_CALL, MAX_FUEL_PER_FRAME};
use hb::plugin::{Frames, NormalizerInstance, Outcome, PluginFault};

use crate::support::guests::{FAKE_SERIES_CAP, FakeHost, guest};

#[test]
fn guilty_frames_are_isolated_whatever_the_batching() {
    let total = 4_100;
    let mut expected = None;
    for batch in [1, 7, 64, 4_096] {
        let mut plugin = hostile("trap_every", 10, &FakeHost::default());
        let got = run_in_batches(&mut plugin, total, batch);
        let guilty: Vec<u32> = got.faults.iter().map(|(frame, _)| *frame).collect();
        assert_eq!(guilty, (0..total).step_by(10).collect::<Vec<_>>(), "batches of {batch}");
        assert!(got.faults.iter().all(|(_, fault)| fault.kind() == "trap"));
        assert_eq!(got.frame, (0..total).filter(|i| i % 10 != 0).collect::<Vec<_>>(), "batches of {batch}");
        let expected = expected.get_or_insert_with(|| got.clone());
        assert!(*expected == got, "batches of {batch} give another result");
    }
}

#[test]
fn isolating_one_frame_costs_a_logarithm_of_rebuilds() {
    let mut plugin = hostile("trap_on_bad", 1, &FakeHost::default());
    let out = plugin.run(&frames_with_bad(4_096, &[3_000]));
    assert_eq!((out.faults.len(), out.frame.len()), (1, 4_095));
    let rebuilds = plugin.counters().rebuilds;
    assert!(rebuilds <= 26, "{rebuilds} rebuilds");
}

#[test]
fn each_way_to_die_is_told_apart() {
    for (mode, kind) in [
        ("trap_on_bad", &["trap"][..]),
        ("panic", &["trap"]),
        ("spin", &["fuel"]),
        ("memory_bomb", &["memory"]),
        // The guest's own stack in its memory may end before wasm's.
        ("stack_overflow", &["stack", "trap"]),
    ] {
        let mut plugin = hostile(mode, 1, &FakeHost::default());
        let out = plugin.run(&frames_with_bad(40, &[5, 17]));
        let guilty: Vec<_> = out.faults.iter().map(|(frame, _)| *frame).collect();
        assert_eq!(guilty, [5, 17], "{mode}");
        for (_, fault) in &out.faults {
            assert!(kind.contains(&fault.kind()), "{mode}: {fault}");
        }
        assert_eq!(out.frame.len(), 38, "{mode}");
        assert_eq!(plugin.run(&numbers(0..40)).frame.len(), 40, "{mode}: the next batch is whole");
    }
}

#[test]
fn a_panic_keeps_its_text() {
    let mut plugin = hostile("panic", 1, &FakeHost::default());
    let out = plugin.run(&frames_with_bad(3, &[1]));
    let text = out.faults[0].1.to_string();
    assert!(text.contains("hostile panic on \"bad\""), "{text}");
}

#[test]
fn malformed_answers_are_named() {
    for (mode, n, text) in [
        ("frame_out_of_range", 1, "names frame 1 of 1"),
        ("unknown_series", 1, "was not defined by this plugin"),
        ("nan_value", 1, "the value is NaN"),
        ("column_lengths", 1, "columns of unequal length"),
        ("wrong_sums", 1, "neither rows nor a reject"),
        ("sample_and_reject", 1, "rejected and also gave rows"),
        ("huge_output", 1, "1000000 rows; at most 10000"),
        ("huge_reason", 40, "too much data"),
    ] {
        let mut plugin = hostile(mode, n, &FakeHost::default());
        let out = plugin.run(&numbers(0..3));
        assert_eq!(out.faults.len(), 3, "{mode}: {out:?}");
        for (_, fault) in &out.faults {
            assert!(matches!(fault, PluginFault::BadOutput(t) if t.contains(text)), "{mode}: {fault}");
        }
        assert_eq!((out.frame.len(), out.rejects.len()), (0, 0), "{mode}");
    }
}

#[test]
fn what_is_wrong_only_in_a_batch_is_no_fault_of_a_frame() {
    // Reversed frame indices are in order again when a frame is alone.
    let mut plugin = hostile("falling_frames", 1, &FakeHost::default());
    let out = plugin.run(&numbers(0..16));
    assert_eq!((out.faults.len(), out.frame), (0, (0..16).collect()));
    assert!(plugin.counters().faults > 0);
}

#[test]
fn words_of_the_guest_are_faults_of_its_frames() {
    for (mode, text) in [("return_fatal", "as told"), ("return_retry", "as told")] {
        let mut plugin = hostile(mode, 1, &FakeHost::default());
        let out = plugin.run(&numbers(0..2));
        assert_eq!(out.faults.len(), 2, "{mode}");
        assert!(out.faults[0].1.to_string().contains(text), "{mode}");
    }
}

#[test]
fn a_guest_that_cannot_start_says_why() {
    for (mode, kind) in [("trap_in_configure", "trap"), ("spin_in_configure", "fuel"), ("no such mode", "returned")] {
        let loaded = guest("hostile").load();
        let settings = format!("{{\"mode\":\"{mode}\"}}");
        let fault = NormalizerInstance::new(&loaded, &settings, FakeHost::default().calls()).err();
        assert_eq!(fault.as_ref().map(PluginFault::kind), Some(kind), "{mode}: {fault:?}");
    }
}

#[test]
fn the_probe_finds_a_memory_of_earlier_frames() {
    let frames = numbers(1..101);
    let mut plugin = hostile("impure", 1, &FakeHost::default());
    let out = plugin.run(&frames);
    let fault = plugin.probe(&frames, &out, (0..100).step_by(32)).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "the plugin is not a function of the frame: frame 32: sample 0 is 33 in its batch, 1 alone"
    );
    let mut plugin = hostile("good", 1, &FakeHost::default());
    let out = plugin.run(&frames);
    assert_eq!(plugin.probe(&frames, &out, 0..100), Ok(()));
}

#[test]
fn a_flood_of_log_lines_is_cut_and_the_cut_is_told() {
    let host = FakeHost::default();
    let mut plugin = hostile("log_flood", 100, &host);
    let out = plugin.run(&numbers(0..10));
    assert_eq!(out.frame.len(), 10);
    let log = host.0.lock().unwrap().log.clone();
    assert_eq!(log.len(), LOG_LINES_PER_CALL as usize + 1);
    let told: Vec<usize> = (0..log.len()).filter(|&i| log[i].1.contains("are left out")).collect();
    assert_eq!(told, [LOG_LINES_PER_CALL as usize], "once, at the end");
}

#[test]
fn a_cap_on_series_is_an_answer_not_a_fault() {
    let host = FakeHost::default();
    let mut plugin = hostile("series_bomb", 500, &host);
    let out = plugin.run(&numbers(0..10));
    assert_eq!((out.frame.len(), out.faults.len()), (10, 0));
    assert_eq!(host.0.lock().unwrap().series.len(), FAKE_SERIES_CAP);
}

#[test]
fn a_call_never_spends_more_than_its_smallest_frame_may() {
    // 2,000 frames in one batch: the budget holds for each call, so a spinning one costs one budget per halving.
    let mut plugin = hostile_with_fuel("spin", 1, DEFAULT_FUEL_PER_FRAME, &FakeHost::default());
    let out = plugin.run(&frames_with_bad(2_000, &[999]));
    assert_eq!(out.faults.len(), 1);
    assert!(plugin.counters().fuel < 30 * DEFAULT_FUEL_PER_FRAME, "{:?}", plugin.counters());
}

// The larger budget lets bombs reach the limit under test before their fuel ends.
fn hostile(mode: &str, n: u64, host: &FakeHost) -> NormalizerInstance {
    hostile_with_fuel(mode, n, if mode == "spin" { DEFAULT_FUEL_PER_FRAME } else { MAX_FUEL_PER_FRAME }, host)
}

fn hostile_with_fuel(mode: &str, n: u64, fuel: u64, host: &FakeHost) -> NormalizerInstance {
    let mut built = guest("hostile");
    built.manifest.limits.fuel_per_frame = fuel;
    if mode == "huge_reason" {
        built.manifest.limits.memory_bytes = 256 << 20;
    }
    let settings = format!("{{\"mode\":\"{mode}\",\"n\":{n}}}");
    NormalizerInstance::new(&built.load(), &settings, host.calls()).expect("starts")
}

fn numbers(range: Range<u32>) -> Frames {
    let mut frames = Frames::new();
    for i in range {
        frames.push(i.to_string().as_bytes(), i64::from(i), if i % 3 == 0 { "a" } else { "b" }).unwrap();
    }
    frames
}

fn frames_with_bad(total: u32, bad: &[u32]) -> Frames {
    let mut frames = Frames::new();
    for i in 0..total {
        let text = if bad.contains(&i) { "bad".to_owned() } else { i.to_string() };
        frames.push(text.as_bytes(), i64::from(i), "a").unwrap();
    }
    frames
}

// The outcomes of all batches as if they had been one.
fn run_in_batches(plugin: &mut NormalizerInstance, total: u32, batch: u32) -> Outcome {
    let mut all = Outcome::default();
    for start in (0..total).step_by(batch as usize) {
        let out = plugin.run(&numbers(start..total.min(start + batch)));
        all.frame.extend(out.frame.iter().map(|f| f + start));
        all.series.extend(out.series);
        all.time_ns.extend(out.time_ns);
        all.value.extend(out.value);
        all.ignored += out.ignored;
        all.faults.extend(out.faults.into_iter().map(|(f, fault)| (f + start, fault)));
    }
    all
}
