//! The same telemetry gives the same decisions, byte for byte, however it was cut into batches and spread over workers.

use hb_engine::decision::Decision;

use hb::state::{DecisionFilter, Options, State};

use crate::support::hb::{Hb, PROGRAM, Plant, at, config, telemetry};

/// Simulated seconds: with four pumps about 4,000 lines.
const SECONDS: u64 = 1_000;

#[test]
fn batches_and_workers_change_no_byte() {
    let telemetry = telemetry(1, SECONDS);
    let mut first: Option<Run> = None;
    for batch_frames in [1, 64, 4_096] {
        for workers in [1, 2] {
            let run = Run::of(Plant { batch_frames, workers, ..Plant::default() }, &telemetry);
            let Some(first) = &first else {
                assert!(run.decisions.len() > 300, "{} decisions", run.decisions.len());
                first = Some(run);
                continue;
            };
            let shown = format!("batch_frames {batch_frames}, workers {workers}");
            let differs = first.decisions.iter().zip(&run.decisions).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{shown}: first decision that differs");
            assert_eq!(first.decisions.len(), run.decisions.len(), "{shown}: decisions");
            assert_eq!(first.counters, run.counters, "{shown}: counters");
        }
    }
}

#[test]
fn a_file_that_grows_between_two_runs_is_judged_to_its_end_each_time() {
    let (short, long) = (telemetry(1, 502), telemetry(1, 1_002));
    assert!(long.starts_with(&short), "the second run goes on where the first ended");
    let hb = Hb::plant(Plant::default(), &short);
    hb.write("hb.yaml", &(config(Plant::default()) + "event_time: { lateness_sec: 5 }\n"));
    for (text, end) in [(short, 500), (long, 1_000)] {
        hb.write("telemetry.jsonl", &text);
        hb.done(&["daemon", "--once"]);
        let ends = hb.decisions(PROGRAM).into_iter().map(|d| hb_log::cbor::decode::<Decision>(&d).unwrap().end_ns);
        // Samples that are late within the allowance might still have come, had the source not ended.
        assert_eq!(ends.max().map(hb::clock::rfc3339), Some(at(end)), "the newest whole window is judged");
    }
}

#[test]
fn every_kind_of_trouble_was_there() {
    let run = Run::of(Plant::default(), &telemetry(1, SECONDS));
    let count = |name: &str| run.counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1);
    for name in ["frames", "samples", "rejects", "decisions.pass", "decisions.drift", "decisions.fail", "cases"] {
        assert!(count(name) > 0, "no {name}: {:?}", run.counters);
    }
}

#[derive(Debug)]
struct Run {
    /// With the numbers of the inputs that closed their windows.
    decisions: Vec<(u64, Vec<u8>)>,
    counters: Vec<(String, u64)>,
}

impl Run {
    fn of(plant: Plant, telemetry: &str) -> Run {
        let hb = Hb::plant(plant, telemetry);
        hb.done(&["daemon", "--once"]);
        let state = State::open(&hb.path("state"), Options::default()).unwrap();
        let rows = state.reader().unwrap().decisions(PROGRAM, "live", DecisionFilter::default()).unwrap();
        let decisions = rows.map(Result::unwrap).map(|row| (row.seq, row.bytes)).collect();
        drop(state);
        Run { decisions, counters: hb.counters(PROGRAM) }
    }
}
