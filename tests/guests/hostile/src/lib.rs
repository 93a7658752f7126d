//! hostile is a normalizer that misbehaves as its settings tell, so that tests can watch the host cope.
//!
//! `{"mode": "...", "n": 10}`. A frame is "bad" when its payload contains the word `bad`, or for `trap_every` when it
//! contains `n` as its last number. Well-behaved frames yield one sample of `hostile_ok`.

use hb_sdk::wit::normalizer::exports::hb::plugin::normalize::{Guest, Outcome};
use hb_sdk::wit::types::{Fault, Frames, Reject, Samples};
use hb_sdk::{SeriesKind, define};
use std::cell::RefCell;
use std::hint::black_box;

/// What to do, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One sample per frame and nothing else.
    Good,
    /// Traps on each frame whose payload is a number divisible by n.
    TrapEvery,
    /// Traps on a frame with the word bad.
    TrapOnBad,
    /// Panics with a text on a frame with the word bad.
    Panic,
    /// Never returns from a frame with the word bad.
    Spin,
    /// Takes memory without end on a frame with the word bad.
    MemoryBomb,
    /// Recurses without end on a frame with the word bad.
    StackOverflow,
    /// Answers with a frame index that is out of range.
    FrameOutOfRange,
    /// Answers with frame indices that fall.
    FallingFrames,
    /// Answers with a series id that nobody defined.
    UnknownSeries,
    /// Answers with a NaN.
    NanValue,
    /// Answers with columns of different lengths.
    ColumnLengths,
    /// Loses every second frame: the sums do not agree.
    WrongSums,
    /// Answers a frame both with a sample and a reject.
    SampleAndReject,
    /// Answers with n times a million samples.
    HugeOutput,
    /// Answers with a reject whose reason has n mebibytes.
    HugeReason,
    /// The value counts the frames seen so far.
    Impure,
    /// Logs n lines per frame.
    LogFlood,
    /// Defines n series per frame, each new.
    SeriesBomb,
    /// Returns the fault `fatal`.
    ReturnFatal,
    /// Returns the fault `retry-after-ms`.
    ReturnRetry,
    /// Traps in configure.
    TrapInConfigure,
    /// Never returns from configure.
    SpinInConfigure,
}

const MODES: [(&str, Mode); 23] = [
    ("good", Mode::Good),
    ("trap_every", Mode::TrapEvery),
    ("trap_on_bad", Mode::TrapOnBad),
    ("panic", Mode::Panic),
    ("spin", Mode::Spin),
    ("memory_bomb", Mode::MemoryBomb),
    ("stack_overflow", Mode::StackOverflow),
    ("frame_out_of_range", Mode::FrameOutOfRange),
    ("falling_frames", Mode::FallingFrames),
    ("unknown_series", Mode::UnknownSeries),
    ("nan_value", Mode::NanValue),
    ("column_lengths", Mode::ColumnLengths),
    ("wrong_sums", Mode::WrongSums),
    ("sample_and_reject", Mode::SampleAndReject),
    ("huge_output", Mode::HugeOutput),
    ("huge_reason", Mode::HugeReason),
    ("impure", Mode::Impure),
    ("log_flood", Mode::LogFlood),
    ("series_bomb", Mode::SeriesBomb),
    ("return_fatal", Mode::ReturnFatal),
    ("return_retry", Mode::ReturnRetry),
    ("trap_in_configure", Mode::TrapInConfigure),
    ("spin_in_configure", Mode::SpinInConfigure),
];

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    mode: String,
    #[serde(default)]
    n: Option<u64>,
}

struct State {
    mode: Mode,
    n: u64,
    seen: u64,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// The component. It speaks the raw columns, because the SDK would not let it misbehave.
pub struct Hostile;

impl Guest for Hostile {
    fn configure(settings: String) -> Result<(), Fault> {
        // The SDK's own way in, for its panic hook.
        let slot = hb_sdk::glue::Slot::new(None);
        hb_sdk::glue::configure(&slot, || {
            serde_json::from_str(&settings).map_err(|e| Fault::BadSettings(format!("hostile: {e}")))
        })?;
        let settings: Settings = slot.into_inner().unwrap_or_default();
        let mode = MODES.iter().find(|(name, _)| *name == settings.mode).map(|(_, mode)| *mode);
        let mode = mode.ok_or_else(|| Fault::BadSettings(format!("mode: no {:?}", settings.mode)))?;
        match mode {
            Mode::TrapInConfigure => trap(),
            Mode::SpinInConfigure => spin(),
            _ => {}
        }
        STATE.set(Some(State { mode, n: settings.n.unwrap_or(10), seen: 0 }));
        Ok(())
    }

    fn run(batch: Frames) -> Result<Outcome, Fault> {
        STATE.with_borrow_mut(|state| match state {
            Some(state) => state.run(&batch),
            None => Err(Fault::Fatal("called before configure".to_owned())),
        })
    }
}

impl State {
    fn run(&mut self, batch: &Frames) -> Result<Outcome, Fault> {
        match self.mode {
            Mode::ReturnFatal => return Err(Fault::Fatal("as told".to_owned())),
            Mode::ReturnRetry => return Err(Fault::RetryAfterMs((50, "as told".to_owned()))),
            _ => {}
        }
        let ok = define("hostile_ok", "", SeriesKind::Gauge, &[]).map_err(Fault::Fatal)?.raw();
        let mut out = Outcome {
            samples: Samples { frame: vec![], series: vec![], time_ns: vec![], value: vec![] },
            events: vec![],
            rejects: vec![],
            ignored: 0,
        };
        let mut start = 0;
        for (i, &end) in batch.ends.iter().enumerate() {
            let payload = &batch.data[start..end as usize];
            start = end as usize;
            self.seen += 1;
            let value = self.misbehave_before(payload, i as u64);
            let s = &mut out.samples;
            s.frame.push(i as u32);
            s.series.push(ok);
            s.time_ns.push(batch.received_ns[i]);
            s.value.push(value);
        }
        self.misbehave_after(&mut out, batch.ends.len() as u32);
        Ok(out)
    }

    /// Misbehaves on one frame, or says which value it gets.
    fn misbehave_before(&self, payload: &[u8], index: u64) -> f64 {
        let text = String::from_utf8_lossy(payload);
        let bad = text.contains("bad");
        match self.mode {
            Mode::TrapEvery if text.trim().parse::<u64>().is_ok_and(|x| x % self.n == 0) => trap(),
            Mode::TrapOnBad if bad => trap(),
            Mode::Panic if bad => panic!("hostile panic on {text:?}"),
            Mode::Spin if bad => spin(),
            Mode::MemoryBomb if bad => memory_bomb(),
            Mode::StackOverflow if bad => recurse(index) as f64,
            Mode::Impure => self.seen as f64,
            Mode::LogFlood => {
                for i in 0..self.n {
                    hb_sdk::log::info(&format!("flood {i}"));
                }
                1.0
            }
            Mode::SeriesBomb => {
                for i in 0..self.n {
                    let label = format!("{}", self.seen * self.n + i);
                    // The host is expected to refuse at its cap; the answer does not matter here.
                    let _ = define("hostile_bomb", "", SeriesKind::Gauge, &[("i", &label)]);
                }
                1.0
            }
            _ => 1.0,
        }
    }

    /// Spoils the answer as a whole.
    fn misbehave_after(&self, out: &mut Outcome, frames: u32) {
        let s = &mut out.samples;
        match self.mode {
            Mode::FrameOutOfRange => s.frame.iter_mut().for_each(|f| *f += frames),
            Mode::FallingFrames => s.frame.reverse(),
            Mode::UnknownSeries => s.series.fill(u32::MAX - 1),
            Mode::NanValue => s.value.fill(f64::NAN),
            Mode::ColumnLengths => s.value.push(1.0),
            Mode::WrongSums => {
                let half = s.frame.len() / 2;
                s.frame.truncate(half);
                s.series.truncate(half);
                s.time_ns.truncate(half);
                s.value.truncate(half);
            }
            Mode::SampleAndReject => {
                out.rejects = (0..frames).map(|frame| Reject { frame, reason: "both".to_owned() }).collect();
            }
            Mode::HugeOutput => {
                let (series, time_ns) = (s.series.first().copied(), s.time_ns.first().copied());
                if let (Some(series), Some(time_ns)) = (series, time_ns) {
                    let rows = self.n as usize * 1_000_000;
                    *s = Samples {
                        frame: vec![0; rows],
                        series: vec![series; rows],
                        time_ns: vec![time_ns; rows],
                        value: vec![1.0; rows],
                    };
                }
            }
            Mode::HugeReason => {
                *s = Samples { frame: vec![], series: vec![], time_ns: vec![], value: vec![] };
                let reason = "x".repeat(self.n as usize * 1_048_576);
                out.rejects = (0..frames).map(|frame| Reject { frame, reason: reason.clone() }).collect();
            }
            _ => {}
        }
    }
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("trap");
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = black_box(x.wrapping_add(1));
    }
}

fn memory_bomb() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "the point of it")]
fn recurse(depth: u64) -> u64 {
    // The black boxes keep the compiler from making a loop of it.
    let frame = black_box([depth; 64]);
    black_box(recurse(frame[0] + 1)) + frame[63]
}

#[cfg(target_arch = "wasm32")]
hb_sdk::wit::normalizer::export!(Hostile with_types_in hb_sdk::wit::normalizer);
