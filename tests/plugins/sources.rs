//! Sources and sinks: what is taken, what is left, and where a fresh instance resumes.

use hb::plugin::{
    Capability, Delivered, Document, Frames, Grants, PluginFault, Polled, SamplesParam, SeriesDef, SeriesKind,
    SinkInstance, SourceInstance,
};

use crate::support::guests::{FakeHost, guest, plugin};

const MAX_FRAMES: u32 = 100;
const MAX_BYTES: u32 = 10_000;

#[test]
fn a_guilty_inbox_frame_is_isolated_and_the_rest_passes() {
    for (mode, kind) in [("panic", "trap"), ("spin", "deadline"), ("eat_too_much", "bad-output")] {
        let polled = poll(mode, &["a", "bad", "b", "c", "bad", "d"]).unwrap();
        let faults: Vec<_> = polled.faults.iter().map(|(i, fault)| (*i, fault.kind())).collect();
        assert_eq!(faults, [(1, kind), (4, kind)], "{mode}");
        assert_eq!(texts(&polled.frames), ["a", "b", "c", "d"], "{mode}");
        // Guilty frames count as taken, or they would come back for ever.
        assert_eq!(polled.consumed, [1, 3, 1, 1, 3, 1], "{mode}");
    }
}

#[test]
fn malformed_frames_are_the_sources_fault() {
    let polled = poll("falling_ends", &["a", "bad", "b"]).unwrap();
    assert_eq!(polled.faults.len(), 1);
    assert!(
        polled.faults[0].1.to_string().contains("the end of frame 1 falls from 1000 to 3"),
        "{}",
        polled.faults[0].1
    );
    assert_eq!(texts(&polled.frames), ["a", "b"]);
}

#[test]
fn what_is_left_is_left_with_all_that_follows() {
    let polled = poll("partly", &["a", "bad", "b"]).unwrap();
    assert_eq!(polled.consumed, [1, 1, 0]);
    assert_eq!(texts(&polled.frames), ["a"]);
    // To take what follows a gap is against the contract in a batch; alone the frame is merely taken in part, and
    // what follows waits for its rest.
    let polled = poll("skip", &["a", "bad", "b"]).unwrap();
    assert_eq!(polled.consumed, [1, 1, 0]);
}

#[test]
fn rejects_name_their_inbox_frame_and_are_neutralised() {
    let polled = poll("reject", &["a", "bad", "b", "bad"]).unwrap();
    let rejects: Vec<_> = polled.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect();
    assert_eq!(rejects, [(1, "bad\\u{1b}"), (3, "bad\\u{1b}")]);
}

#[test]
fn patience_is_no_guilt() {
    match poll("retry", &["a", "bad"]) {
        Err(PluginFault::Returned { retry_after_ms: Some(70), text }) => assert_eq!(text, "the world is not ready"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pull_source_resumes_at_the_last_cursor_it_handed_on() {
    let mut source = start("panic");
    source.open(Some(b"0")).unwrap();
    for n in ["1", "2"] {
        let polled = source.poll(&Frames::new(), MAX_FRAMES, MAX_BYTES).unwrap();
        assert_eq!(texts(&polled.frames), [n]);
        assert_eq!(polled.cursor.as_deref(), Some(n.as_bytes()));
        source.committed(n.as_bytes()).unwrap();
    }
    // It crashes on its way to 3, each time anew: it was opened again at 2.
    for _ in 0..2 {
        let fault = source.poll(&Frames::new(), MAX_FRAMES, MAX_BYTES).unwrap_err();
        assert_eq!(fault.kind(), "trap");
    }
    source.open(Some(b"3")).unwrap();
    assert_eq!(texts(&source.poll(&Frames::new(), MAX_FRAMES, MAX_BYTES).unwrap().frames), ["4"]);
}

#[test]
fn a_source_that_answers_too_much_is_refused() {
    for (mode, text) in [("too_many", "1000 frames; at most 100"), ("huge_cursor", "a cursor of 1048576 bytes")] {
        let fault = poll(mode, &[]).unwrap_err();
        assert!(fault.to_string().contains(text), "{fault}");
    }
}

#[test]
fn a_sink_writes_where_it_may_and_answers_for_each_document() {
    let host = FakeHost::default();
    let loaded = plugin("jsonl").load_with(&Grants([Capability::Output].into()));
    let mut sink = SinkInstance::new(&loaded, "{}", host.calls()).unwrap();
    let documents = [
        Document { id: "1", kind: "alert", json: br#"{"severity":"FAIL"}"# },
        Document { id: "2", kind: "decision", json: br#"{"status":"PASS"}"# },
    ];
    let defs = [SeriesDef { id: 7, metric: "power", unit: "W", kind: SeriesKind::Gauge, labels: &[] }];
    let points = SamplesParam { frame: &[0], series: &[7], time_ns: &[5], value: &[1.5] };
    let delivery = sink.deliver(1, &documents, &defs, points).unwrap();
    assert_eq!(delivery.documents, [Delivered::Delivered, Delivered::Delivered]);
    assert_eq!(delivery.points, Delivered::Delivered);
    let output = String::from_utf8(host.0.lock().unwrap().output.clone()).unwrap();
    assert!(output.contains("FAIL") && output.contains("PASS"), "{output}");
}

fn start(mode: &str) -> SourceInstance {
    let loaded = guest("hostile-source").load();
    SourceInstance::new(&loaded, &format!("\"{mode}\""), FakeHost::default().calls()).unwrap()
}

fn poll(mode: &str, inbox: &[&str]) -> Result<Polled, PluginFault> {
    let mut frames = Frames::new();
    for (i, text) in inbox.iter().enumerate() {
        frames.push(text.as_bytes(), i as i64, "a").unwrap();
    }
    let mut source = start(mode);
    source.open(None)?;
    source.poll(&frames, MAX_FRAMES, MAX_BYTES)
}

fn texts(frames: &Frames) -> Vec<String> {
    frames.iter().map(|f| String::from_utf8_lossy(f.bytes).into_owned()).collect()
}
