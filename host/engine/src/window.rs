//! Event-time windows: samples fall into buckets of one grid step, a window is the last few buckets.
//!
//! A snapshot is mostly this. Fields stand in canonical order (short names first, then by letters), because an encoder
//! that has to sort them copies all that is in them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::judge::WindowRow;
use crate::stats::{Moments, Quantiles, joint_quantiles};

/// What one bucket knows of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    moments: Moments,
    quantiles: Quantiles,
}

impl Cell {
    #[inline]
    fn push(&mut self, value: f64) {
        self.moments.push(value);
        self.quantiles.push(value);
    }

    fn clear(&mut self) {
        self.moments = Moments::default();
        self.quantiles.clear();
    }
}

/// All series of one grid step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bucket {
    /// By local series number; shorter than the series table when later series are absent.
    cells: Vec<Cell>,
    start_ns: i64,
}

/// Buckets of `step_ns`, aligned to the epoch, as many as the longest window on this grid needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    keep: usize,
    /// Sorted by start; gaps are left out.
    buckets: VecDeque<Bucket>,
    step_ns: i64,
    /// Emptied buckets, reused so that steady running does not allocate.
    #[serde(skip)]
    spare: Vec<Bucket>,
}

impl Grid {
    /// A grid of `step_ns` that keeps `keep` steps behind the newest window end.
    pub fn new(step_ns: i64, keep: usize) -> Self {
        assert!(step_ns > 0 && keep > 0, "a grid has a step and a length");
        Grid { step_ns, keep, buckets: VecDeque::new(), spare: Vec::new() }
    }

    /// The step, ns.
    pub fn step_ns(&self) -> i64 {
        self.step_ns
    }

    /// Steps kept behind the newest window end.
    pub fn keep(&self) -> usize {
        self.keep
    }

    /// Keeps so many steps from now on.
    pub fn keep_steps(&mut self, keep: usize) {
        self.keep = keep;
    }

    /// First grid end strictly after `t`: the end of the bucket that holds `t`.
    pub fn end_after(&self, t: i64) -> i64 {
        t.div_euclid(self.step_ns).saturating_add(1).saturating_mul(self.step_ns)
    }

    /// Files a value of local series `local` at `t`. The caller keeps the number of buckets within its cap.
    #[inline]
    pub fn push(&mut self, local: usize, t: i64, value: f64) {
        let newest = self.buckets.len().wrapping_sub(1);
        let at = match self.buckets.get(newest) {
            Some(b) if t >= b.start_ns && t.saturating_sub(b.start_ns) < self.step_ns => newest,
            _ => self.seek(t),
        };
        let cells = &mut self.buckets[at].cells;
        if cells.len() <= local {
            cells.resize_with(local + 1, Cell::default);
        }
        cells[local].push(value);
    }

    /// Whether there is a bucket for `t` already.
    pub fn holds(&self, t: i64) -> bool {
        let start_ns = t.div_euclid(self.step_ns).saturating_mul(self.step_ns);
        self.buckets.binary_search_by_key(&start_ns, |b| b.start_ns).is_ok()
    }

    /// Number of buckets held.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no bucket is held.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Start of the oldest bucket that could still hold a sample no window judged up to `judged_ns` has closed over.
    pub fn oldest_kept(&self, judged_ns: i64) -> i64 {
        judged_ns.saturating_sub(self.step_ns.saturating_mul(self.keep as i64))
    }

    /// Start of the first bucket at or after `t`.
    pub fn first_from(&self, t: i64) -> Option<i64> {
        let at = self.buckets.partition_point(|b| b.start_ns < t);
        self.buckets.get(at).map(|b| b.start_ns)
    }

    /// The columns of [`crate::judge::WINDOW_FIELDS`] for series `local` over `[start_ns, end_ns)`. `keys` is room to
    /// work in, kept by the caller from series to series.
    pub fn row(&self, local: usize, start_ns: i64, end_ns: i64, keys: &mut Vec<i64>) -> WindowRow {
        let from = self.buckets.partition_point(|b| b.start_ns < start_ns);
        let buckets = self.buckets.iter().skip(from).take_while(|b| b.start_ns < end_ns);
        let cells = buckets.filter_map(|b| b.cells.get(local));
        let mut m = Moments::default();
        cells.clone().for_each(|c| m.merge(&c.moments));
        let [p05, median, p95] = joint_quantiles(cells.map(|c| &c.quantiles), [0.05, 0.5, 0.95], keys);
        [m.count() as f64, m.mean(), m.sd(), m.min(), m.max(), median, p05, p95, m.last()]
    }

    /// Drops buckets that start before `t`.
    pub fn forget_before(&mut self, t: i64) {
        while self.buckets.front().is_some_and(|b| b.start_ns < t) {
            if let Some(mut bucket) = self.buckets.pop_front()
                && self.spare.len() < 2
            {
                bucket.cells.iter_mut().for_each(Cell::clear);
                self.spare.push(bucket);
            }
        }
    }

    /// Finds or inserts the bucket of `t`.
    #[cold]
    fn seek(&mut self, t: i64) -> usize {
        let start_ns = t.div_euclid(self.step_ns).saturating_mul(self.step_ns);
        let at = self.buckets.partition_point(|b| b.start_ns < start_ns);
        if self.buckets.get(at).is_none_or(|b| b.start_ns != start_ns) {
            let mut fresh = self.spare.pop().unwrap_or_default();
            fresh.start_ns = start_ns;
            self.buckets.insert(at, fresh);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_merge_of_its_buckets() {
        let mut grid = Grid::new(10, 3);
        for t in 0..40 {
            grid.push(0, t, t as f64);
        }
        let row = grid.row(0, 10, 40, &mut Vec::new());
        assert_eq!(row[0], 30.0);
        assert_eq!(row[1], 24.5);
        assert_eq!((row[3], row[4], row[5], row[8]), (10.0, 39.0, 24.5, 39.0));
        assert_eq!(grid.row(1, 0, 40, &mut Vec::new())[0], 0.0);
    }

    #[test]
    fn late_and_negative_times_find_their_bucket() {
        let mut grid = Grid::new(10, 3);
        for t in [25, 5, -5, 15, -10] {
            grid.push(0, t, 1.0);
        }
        assert_eq!(grid.len(), 4);
        assert_eq!(grid.row(0, -10, 0, &mut Vec::new())[0], 2.0);
        assert_eq!(grid.end_after(-5), 0);
        assert_eq!(grid.end_after(10), 20);
        grid.forget_before(0);
        assert_eq!(grid.first_from(i64::MIN), Some(0));
    }

    #[test]
    fn a_reused_bucket_is_empty() {
        let mut grid = Grid::new(10, 1);
        grid.push(0, 5, 7.0);
        grid.forget_before(10);
        grid.push(0, 15, 1.0);
        assert_eq!(grid.row(0, 10, 20, &mut Vec::new())[1], 1.0);
    }
}
