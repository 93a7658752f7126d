//! How long something took: counts by size since the start, and quantiles over the last minutes. One thread writes, any
//! thread reads, none waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::metric::Value;

/// Upper bounds of the counts, seconds: from what memory takes to what a broken disk takes.
const BOUNDS_SEC: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Quantiles that are shown.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// Minutes that quantiles look back.
const MINUTES: usize = 5;

/// Steps in each doubling: a quantile is at most a quarter too high.
const STEPS: usize = 4;

/// Doublings above a microsecond: the last is more than an hour.
const DOUBLINGS: usize = 32;

/// A latency.
#[derive(Debug)]
pub(super) struct Latency {
    begin: Instant,
    /// By bound; the last is beyond all of them.
    counts: [AtomicU64; BOUNDS_SEC.len() + 1],
    sum_ns: AtomicU64,
    minutes: [Minute; MINUTES],
}

/// The sizes of one minute.
#[derive(Debug)]
struct Minute {
    /// Which minute since the beginning, from 1 on; 0 when it was never used.
    number: AtomicU64,
    sizes: [AtomicU64; DOUBLINGS * STEPS],
}

impl Latency {
    pub(super) fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        let minute = |_| Minute { number: AtomicU64::new(0), sizes: std::array::from_fn(zero) };
        Latency {
            begin: Instant::now(),
            counts: std::array::from_fn(zero),
            sum_ns: AtomicU64::new(0),
            minutes: std::array::from_fn(minute),
        }
    }

    /// `n` things took this long each.
    pub(super) fn add(&self, took: Duration, n: u64) {
        self.add_at(self.minute(), took, n);
    }

    fn add_at(&self, number: u64, took: Duration, n: u64) {
        let sec = took.as_secs_f64();
        let at = BOUNDS_SEC.iter().position(|&bound| sec <= bound).unwrap_or(BOUNDS_SEC.len());
        self.counts[at].fetch_add(n, Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns.saturating_mul(n), Relaxed);
        let minute = &self.minutes[(number % MINUTES as u64) as usize];
        if minute.number.load(Relaxed) != number {
            minute.sizes.iter().for_each(|size| size.store(0, Relaxed));
            minute.number.store(number, Relaxed);
        }
        minute.sizes[place(took)].fetch_add(n, Relaxed);
    }

    /// Counts by size since the start.
    pub(super) fn buckets(&self) -> Value {
        let bounds = BOUNDS_SEC.into_iter().chain([f64::INFINITY]);
        let counts = bounds.zip(&self.counts).map(|(bound, n)| (bound, n.load(Relaxed))).collect();
        Value::Buckets { sum: self.sum_ns.load(Relaxed) as f64 / 1e9, counts }
    }

    /// What is shown as quantiles, in seconds; nothing when nothing happened lately.
    pub(super) fn quantiles(&self) -> Vec<(&'static str, f64)> {
        self.quantiles_at(self.minute())
    }

    fn quantiles_at(&self, now: u64) -> Vec<(&'static str, f64)> {
        let mut sizes = [0_u64; DOUBLINGS * STEPS];
        for minute in &self.minutes {
            let number = minute.number.load(Relaxed);
            if number > 0 && number + MINUTES as u64 > now {
                sizes.iter_mut().zip(&minute.sizes).for_each(|(sum, n)| *sum += n.load(Relaxed));
            }
        }
        let all: u64 = sizes.iter().sum();
        if all == 0 {
            return Vec::new();
        }
        let at = |quantile: f64| {
            let rank = (quantile * all as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            let place = sizes.iter().position(|n| {
                below += n;
                below >= rank
            });
            upper_sec(place.unwrap_or(sizes.len() - 1))
        };
        QUANTILES.iter().map(|&(quantile, name)| (name, at(quantile))).collect()
    }

    fn minute(&self) -> u64 {
        self.begin.elapsed().as_secs() / 60 + 1
    }
}

/// Where a duration is counted: four even steps in each doubling of microseconds.
fn place(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = us.ilog2() as usize;
    let step =
        if doubling >= 2 { (us >> (doubling - 2)) as usize - STEPS } else { (us as usize) << (2 - doubling) & 3 };
    (doubling * STEPS + step).min(DOUBLINGS * STEPS - 1)
}

/// The upper end of what is counted at a place.
fn upper_sec(place: usize) -> f64 {
    let (doubling, step) = (place / STEPS, place % STEPS);
    (STEPS + step + 1) as f64 / STEPS as f64 * (1_u64 << doubling) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_place_that_is_at_most_a_quarter_above() {
        for us in (1..5_000).chain([123_456, 7_890_123, 3_599_999_999]) {
            let (took, upper) = (Duration::from_micros(us), upper_sec(place(Duration::from_micros(us))));
            // What is counted in whole microseconds may be nearly one more.
            let (low, high) = (us as f64 / 1e6, (us + 1) as f64 / 1e6);
            assert!(upper >= low && upper <= high * 1.25, "{took:?} {upper}");
        }
        assert_eq!(place(Duration::MAX), DOUBLINGS * STEPS - 1);
    }

    #[test]
    fn quantiles_forget_and_counts_do_not() {
        let latency = Latency::new();
        assert_eq!(latency.quantiles_at(1), []);
        latency.add_at(1, Duration::from_millis(900), 1);
        latency.add_at(3, Duration::from_millis(4), 98);
        latency.add_at(4, Duration::from_millis(40), 2);
        let near = |found: f64, sec: f64| found >= sec && found <= sec * 1.26;
        let now = latency.quantiles_at(4);
        assert!(near(now[0].1, 0.004) && near(now[1].1, 0.004) && near(now[2].1, 0.04), "{now:?}");
        let later = latency.quantiles_at(8);
        assert!(later.len() == 3 && later.iter().all(|q| near(q.1, 0.04)), "{later:?}");
        assert_eq!(latency.quantiles_at(60), []);
        let Value::Buckets { sum, counts } = latency.buckets() else { panic!() };
        assert_eq!(counts.iter().map(|c| c.1).sum::<u64>(), 101);
        assert!((sum - (0.9 + 0.392 + 0.08)).abs() < 1e-9, "{sum}");
    }
}
