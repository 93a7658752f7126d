//! A normalizer gives frames their meaning, one frame at a time and without a memory of the others.

use std::ops::RangeInclusive;

use crate::frame::{Batch, Frame};
use crate::series::Series;
use crate::wit::normalizer::exports::hb::plugin::normalize::Outcome;
use crate::wit::types::{Attribute, Event, Fault, Frames, Reject, Samples};

/// What the author of a normalizer writes. Put it into the world with [`export_normalizer!`](crate::export_normalizer).
pub trait Normalizer: Sized {
    /// Makes the plugin of its settings, a JSON text that the manifest's schema has accepted.
    fn configure(settings: &str) -> Result<Self, Fault>;

    /// Says what one frame means. The answer may depend on settings, series ids and this frame alone: the host replays
    /// frames in other batches and treats a difference as a fault.
    fn frame(&mut self, frame: Frame<'_>, out: &mut Out);
}

/// Event times the host takes, in nanoseconds since the Unix epoch: about the years 1678 to 2261. Nearly all that 64 bits
/// can say, with room left for windows and lateness around a time.
pub const TIMES_NS: RangeInclusive<i64> = -9_200_000_000_000_000_000..=9_200_000_000_000_000_000;

/// Why a frame is rejected whose time is not among them.
const WRONG_YEAR: &str = "the time lies outside of the years 1678 to 2261";

/// Where a normalizer puts what a frame means.
pub struct Out {
    samples: Samples,
    events: Vec<Event>,
    rejects: Vec<Reject>,
    ignored: u32,
    frame: u32,
    ignore: bool,
    reject: Option<String>,
    first_sample: usize,
    first_event: usize,
}

impl Out {
    /// A sample of this frame. A value that is not finite, or a time outside of [`TIMES_NS`], turns the frame into a
    /// reject.
    pub fn sample(&mut self, series: Series, time_ns: i64, value: f64) {
        if !value.is_finite() {
            return self.reject("a value is not a finite number");
        }
        if !TIMES_NS.contains(&time_ns) {
            return self.reject(WRONG_YEAR);
        }
        self.samples.frame.push(self.frame);
        self.samples.series.push(series.0);
        self.samples.time_ns.push(time_ns);
        self.samples.value.push(value);
    }

    /// An event of this frame. A time outside of [`TIMES_NS`] turns the frame into a reject.
    pub fn event(&mut self, kind: &str, time_ns: i64, body: &[u8], attributes: &[(&str, &str)]) {
        if !TIMES_NS.contains(&time_ns) {
            return self.reject(WRONG_YEAR);
        }
        let attributes =
            attributes.iter().map(|&(key, value)| Attribute { key: key.to_owned(), value: value.to_owned() });
        self.events.push(Event {
            frame: self.frame,
            kind: kind.to_owned(),
            time_ns,
            body: body.to_vec(),
            attributes: attributes.collect(),
        });
    }

    /// The frame has no meaning. What it has put here so far is taken back; the first reason stays.
    pub fn reject(&mut self, reason: impl Into<String>) {
        if self.reject.is_none() {
            self.reject = Some(reason.into());
        }
    }

    /// Whether this frame was rejected already.
    pub fn is_rejected(&self) -> bool {
        self.reject.is_some()
    }

    /// The frame is well-formed and carries nothing of interest.
    pub fn ignore(&mut self) {
        self.ignore = true;
    }

    fn new(rows: usize) -> Self {
        Self {
            samples: Samples {
                frame: Vec::with_capacity(rows),
                series: Vec::with_capacity(rows),
                time_ns: Vec::with_capacity(rows),
                value: Vec::with_capacity(rows),
            },
            events: Vec::new(),
            rejects: Vec::new(),
            ignored: 0,
            frame: 0,
            ignore: false,
            reject: None,
            first_sample: 0,
            first_event: 0,
        }
    }

    fn begin(&mut self, frame: u32) {
        self.frame = frame;
        self.ignore = false;
        self.first_sample = self.samples.frame.len();
        self.first_event = self.events.len();
    }

    /// Sees to it that the frame ends in exactly one way.
    fn end(&mut self) {
        let silent = self.samples.frame.len() == self.first_sample && self.events.len() == self.first_event;
        if silent && !self.ignore && self.reject.is_none() {
            self.reject = Some("the plugin said nothing about this frame".to_owned());
        }
        if let Some(reason) = self.reject.take() {
            self.samples.frame.truncate(self.first_sample);
            self.samples.series.truncate(self.first_sample);
            self.samples.time_ns.truncate(self.first_sample);
            self.samples.value.truncate(self.first_sample);
            self.events.truncate(self.first_event);
            self.rejects.push(Reject { frame: self.frame, reason });
        } else if silent {
            self.ignored += 1;
        }
    }
}

/// Rows per frame to make room for at first; a column grows by doubling beyond it.
const ROWS_PER_FRAME: usize = 4;

#[doc(hidden)]
pub fn run<N: Normalizer>(plugin: &mut N, frames: &Frames) -> Outcome {
    let batch = Batch::new(frames);
    let mut out = Out::new(batch.len() * ROWS_PER_FRAME);
    for frame in &batch {
        out.begin(frame.index);
        plugin.frame(frame, &mut out);
        out.end();
    }
    Outcome { samples: out.samples, events: out.events, rejects: out.rejects, ignored: out.ignored }
}

/// Exports a type that implements [`Normalizer`] as the component's normalizer. Once per crate.
#[macro_export]
macro_rules! export_normalizer {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::glue::Slot<$plugin> = const { $crate::glue::Slot::new(None) };
            }
            struct Component;
            impl $crate::wit::normalizer::exports::hb::plugin::normalize::Guest for Component {
                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), $crate::Fault> {
                    SLOT.with(|slot| {
                        $crate::glue::configure(slot, || <$plugin as $crate::Normalizer>::configure(&settings))
                    })
                }
                fn run(
                    batch: $crate::wit::types::Frames,
                ) -> ::std::result::Result<
                    $crate::wit::normalizer::exports::hb::plugin::normalize::Outcome,
                    $crate::Fault,
                > {
                    SLOT.with(|slot| {
                        $crate::glue::with(slot, |plugin| Ok($crate::glue::normalizer_run(plugin, &batch)))
                    })
                }
            }
            // The names of the component ABI mean nothing to a native linker.
            #[cfg(target_arch = "wasm32")]
    $crate::wit::normalizer::export!(Component with_types_in $crate::wit::normalizer);
        };
    };
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::testkit::{NormalizerKit, TestFrame, assert_pure};
    use crate::{SeriesKind, define};

    /// Does what each frame's letters say: s sample, n NaN, e event, r reject, i ignore.
    struct Puppet(Series);

    impl Normalizer for Puppet {
        fn configure(_: &str) -> Result<Self, Fault> {
            define("m", "", SeriesKind::Gauge, &[]).map(Self).map_err(Fault::Fatal)
        }

        fn frame(&mut self, frame: Frame<'_>, out: &mut Out) {
            for letter in frame.bytes {
                match letter {
                    b's' => out.sample(self.0, frame.received_ns, 1.0),
                    b'n' => out.sample(self.0, frame.received_ns, f64::NAN),
                    b'e' => out.event("test", frame.received_ns, b"body", &[("k", "v")]),
                    b'r' => out.reject(format!("at {}", frame.index)),
                    _ => out.ignore(),
                }
            }
        }
    }

    #[test]
    fn each_frame_ends_in_exactly_one_way() {
        let frames = ["ss", "sr", "er", "i", "", "se", "n", "si", "ri"].map(Into::into);
        let report = NormalizerKit::<Puppet>::new("").unwrap().run(&frames);
        let rejects: Vec<_> = report.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect();
        assert_eq!(
            rejects,
            [
                (1, "at 1"),
                (2, "at 2"),
                (4, "the plugin said nothing about this frame"),
                (6, "a value is not a finite number"),
                (8, "at 8"),
            ]
        );
        assert_eq!(report.samples.iter().map(|r| r.frame).collect::<Vec<_>>(), [0, 0, 5, 7]);
        assert_eq!((report.events.len(), report.events[0].frame, report.ignored), (1, 5, 1));
    }

    #[test]
    fn a_time_that_no_clock_shows_is_a_reject() {
        let (first, last) = (*TIMES_NS.start(), *TIMES_NS.end());
        let times = [i64::MIN, first - 1, first, 0, last, last + 1, i64::MAX];
        for letter in ["s", "e"] {
            let frames = times.map(|received_ns| TestFrame { received_ns, ..TestFrame::from(letter) });
            let report = NormalizerKit::<Puppet>::new("").unwrap().run(&frames);
            let rejects: Vec<_> = report.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect();
            assert_eq!(rejects, [0, 1, 5, 6].map(|frame| (frame, "the time lies outside of the years 1678 to 2261")));
            assert_eq!(report.samples.len() + report.events.len(), 3, "{letter}");
        }
    }

    #[test]
    #[should_panic(expected = "means something else")]
    fn an_answer_that_counts_frames_is_found_out() {
        struct Counter(Puppet, f64);
        impl Normalizer for Counter {
            fn configure(settings: &str) -> Result<Self, Fault> {
                Ok(Self(Puppet::configure(settings)?, 0.0))
            }

            fn frame(&mut self, frame: Frame<'_>, out: &mut Out) {
                self.1 += 1.0;
                out.sample(self.0.0, frame.received_ns, self.1);
            }
        }
        assert_pure::<Counter>("", &["a".into(), "b".into()]);
    }
}
