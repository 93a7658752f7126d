//! Feeds frames to a normalizer and holds it to its contract.

use super::{TestFrame, columns, host};
use crate::normalizer::{Normalizer, run};
use crate::wit::types::{Event, Fault, Reject, SeriesKind};

/// One sample with its series by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Index of the frame it came from.
    pub frame: u32,
    /// Canonical metric.
    pub metric: String,
    /// Canonical unit.
    pub unit: String,
    /// What the value means.
    pub kind: SeriesKind,
    /// `key=value`, sorted, joined by commas.
    pub labels: String,
    /// Event time.
    pub time_ns: i64,
    /// The value.
    pub value: f64,
}

/// What a normalizer made of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The samples, in order.
    pub samples: Vec<Row>,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The rejects, in order.
    pub rejects: Vec<Reject>,
    /// Frames without meaning.
    pub ignored: u32,
}

/// A normalizer under test.
pub struct NormalizerKit<N> {
    plugin: N,
}

impl<N: Normalizer> NormalizerKit<N> {
    /// Configures a plugin.
    pub fn new(settings: &str) -> Result<Self, Fault> {
        Ok(Self { plugin: N::configure(settings)? })
    }

    /// Runs one batch and checks that every frame ends in exactly one way.
    ///
    /// # Panics
    /// If the outcome breaks the contract.
    pub fn run(&mut self, frames: &[TestFrame]) -> Report {
        let outcome = run(&mut self.plugin, &columns(frames));
        let s = outcome.samples;
        let rows = s.frame.len();
        assert!([s.series.len(), s.time_ns.len(), s.value.len()] == [rows; 3], "columns differ in length");
        let mut samples = Vec::new();
        for k in 0..rows {
            assert!(s.value[k].is_finite(), "row {k} is not finite");
            let def = host::series(s.series[k]);
            let labels: Vec<_> = def.labels.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
            samples.push(Row {
                frame: s.frame[k],
                metric: def.metric,
                unit: def.unit,
                kind: def.kind,
                labels: labels.join(","),
                time_ns: s.time_ns[k],
                value: s.value[k],
            });
        }
        let report = Report { samples, events: outcome.events, rejects: outcome.rejects, ignored: outcome.ignored };
        assert_sums(&report, frames.len());
        report
    }
}

/// Each frame has samples and events, or one reject, or is ignored; and every column is in order.
fn assert_sums(report: &Report, frames: usize) {
    let given: Vec<u32> = report.samples.iter().map(|r| r.frame).collect();
    let events: Vec<u32> = report.events.iter().map(|e| e.frame).collect();
    let rejected: Vec<u32> = report.rejects.iter().map(|r| r.frame).collect();
    assert!(given.is_sorted() && events.is_sorted(), "frame indices fall");
    assert!(rejected.is_sorted_by(|a, b| a < b), "rejects repeat or fall");
    let mut meant: Vec<u32> = given.into_iter().chain(events).collect();
    meant.sort_unstable();
    meant.dedup();
    assert!(meant.iter().chain(&rejected).all(|&f| (f as usize) < frames), "a frame index is out of range");
    assert!(!rejected.iter().any(|f| meant.binary_search(f).is_ok()), "a rejected frame has samples or events");
    let sum = meant.len() + rejected.len() + report.ignored as usize;
    assert_eq!(sum, frames, "{} with meaning, {} rejected, {} ignored", meant.len(), rejected.len(), report.ignored);
}

/// Sizes of the batches that a purity check tries.
const BATCHINGS: [usize; 3] = [1, 3, 7];

/// Runs the frames in one batch, in many small ones and backwards, on fresh and used instances, and demands that each
/// frame always means the same. Returns the report of the one batch.
///
/// # Panics
/// If it does not.
pub fn assert_pure<N: Normalizer>(settings: &str, frames: &[TestFrame]) -> Report {
    let fresh = || NormalizerKit::<N>::new(settings).unwrap_or_else(|fault| panic!("configure: {fault:?}"));
    let whole = fresh().run(frames);
    for size in BATCHINGS {
        let mut kit = fresh();
        let mut sum = Report { samples: vec![], events: vec![], rejects: vec![], ignored: 0 };
        for (i, batch) in frames.chunks(size).enumerate() {
            append(&mut sum, kit.run(batch), (i * size) as u32);
        }
        assert_eq!(sum, whole, "in batches of {size} frames mean something else than in one");
    }
    let mut kit = fresh();
    for (i, frame) in frames.iter().enumerate().rev() {
        let mut alone = Report { samples: vec![], events: vec![], rejects: vec![], ignored: 0 };
        append(&mut alone, kit.run(std::slice::from_ref(frame)), i as u32);
        let of = |f: u32| f as usize == i;
        assert!(
            alone.samples.iter().eq(whole.samples.iter().filter(|r| of(r.frame)))
                && alone.events.iter().eq(whole.events.iter().filter(|e| of(e.frame)))
                && alone.rejects.iter().eq(whole.rejects.iter().filter(|r| of(r.frame))),
            "backwards, frame {i} means something else: {alone:?}"
        );
    }
    whole
}

fn append(sum: &mut Report, mut part: Report, base: u32) {
    part.samples.iter_mut().for_each(|r| r.frame += base);
    part.events.iter_mut().for_each(|e| e.frame += base);
    part.rejects.iter_mut().for_each(|r| r.frame += base);
    sum.samples.append(&mut part.samples);
    sum.events.append(&mut part.events);
    sum.rejects.append(&mut part.rejects);
    sum.ignored += part.ignored;
}
