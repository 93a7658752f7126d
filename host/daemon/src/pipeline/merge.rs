//! Brings sources that end, such as files, into one order of event time: what two files say of one second is judged
//! together, whichever was read first.
//!
//! The order depends on the frames alone, never on how they were cut into batches: by second of event time, then by
//! the sources' order in the config. Where it stands in each source is part of the cursor, so a run that was killed
//! goes on in the same order.

use hb_engine::NS_PER_SEC;
use serde::{Deserialize, Serialize};

use super::journal::Columns;
use super::{Cursor, Normalized};
use crate::plugin::Frames;

/// How far ahead a time may leap before a second one must say the same: one wrong clock reading shall not make its
/// source wait for the end of all others, ns.
const LEAP_NS: i64 = 86_400 * NS_PER_SEC;

/// A source's place in the common order: the second its newest frame belongs to. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Second of event time; none before the first sample.
    second: Option<i64>,
    /// A second that leapt and is not confirmed.
    leapt: Option<i64>,
}

impl Place {
    /// The place of a frame whose first sample has this event time, ns.
    fn next(self, time_ns: i64) -> Place {
        let second = time_ns.div_euclid(NS_PER_SEC);
        let near = |a: i64, b: i64| a.abs_diff(b) <= (LEAP_NS / NS_PER_SEC).unsigned_abs();
        match (self.second, self.leapt) {
            (None, _) => Place { second: Some(second), leapt: None },
            (Some(now), _) if second <= now => self,
            (Some(now), _) if near(second, now) => Place { second: Some(second), leapt: None },
            (Some(_), Some(leapt)) if near(second, leapt) => Place { second: Some(second), leapt: None },
            (Some(_), _) => Place { leapt: Some(second), ..self },
        }
    }
}

/// The batch of one source that is being taken, frame by frame.
pub struct Taking {
    batch: Normalized,
    /// Where the source resumed before this batch.
    before: Cursor,
    place: Place,
}

impl Taking {
    /// Begins to take `batch`, which follows what `before` is the end of. `None` when all of it was taken before.
    pub fn begin(batch: Normalized, before: &Cursor) -> Option<Taking> {
        let place = before.place;
        let mut taking = Taking { batch, before: before.clone(), place };
        let done = before.taken.saturating_sub(taking.batch.first).min(taking.batch.frames.len() as u64);
        if done > 0 {
            // These are durable; only their source could not be told where to go on in the middle of a batch.
            taking.split(done as usize);
        }
        (done == 0 || !taking.batch.frames.is_empty()).then_some(taking)
    }

    /// The second its next frame belongs to; frames without samples go with those before them.
    pub fn second(&self) -> Option<i64> {
        let columns = &self.batch.columns;
        let first = columns.ordinal.first().filter(|&&ordinal| ordinal == self.batch.first);
        first.map_or(self.place, |_| self.place.next(columns.time_ns[0])).second
    }

    /// Takes the frames that belong to seconds for which `may` holds; the rest stays. `None` rest: all were taken.
    pub fn take(mut self, may: impl Fn(Option<i64>) -> bool) -> (Normalized, Option<Taking>) {
        let columns = &self.batch.columns;
        let (mut place, mut frames, mut row) = (self.place, 0, 0);
        for ordinal in self.batch.first..self.batch.first + self.batch.frames.len() as u64 {
            let mut next = place;
            if columns.ordinal.get(row) == Some(&ordinal) {
                next = place.next(columns.time_ns[row]);
                row += columns.ordinal[row..].iter().take_while(|&&o| o == ordinal).count();
            }
            if !may(next.second) {
                break;
            }
            place = next;
            frames += 1;
        }
        self.place = place;
        if frames == self.batch.frames.len() {
            let mut batch = self.batch;
            batch.cursor.place = place;
            batch.cursor.taken = batch.cursor.ordinal;
            return (batch, None);
        }
        let mut part = self.split(frames);
        part.cursor = Cursor { taken: self.batch.first, place, ended: false, ..self.before.clone() };
        (part, Some(self))
    }

    /// Cuts the first `n` frames off, with all that belongs to them. What never became a frame goes with the first.
    fn split(&mut self, n: usize) -> Normalized {
        let batch = &mut self.batch;
        let at = batch.first + n as u64;
        let row = batch.columns.ordinal.partition_point(|&o| o < at);
        let event = batch.events.partition_point(|e| (e.frame as usize) < n);
        let fault = batch.faults.partition_point(|f| f.ordinal < at);
        let (mut first, mut rest) = (Frames::new(), Frames::new());
        for (i, frame) in batch.frames.iter().enumerate() {
            let side = if i < n { &mut first } else { &mut rest };
            // What fitted into one batch fits into its parts.
            let _ = side.push(frame.bytes, frame.received_ns, frame.origin);
        }
        let mut later = batch.events.split_off(event);
        for event in &mut later {
            event.frame -= n as u32;
        }
        let faults = batch.faults.split_off(fault);
        let columns = Columns {
            source: batch.columns.source.clone(),
            ordinal: batch.columns.ordinal.split_off(row),
            series: batch.columns.series.split_off(row),
            time_ns: batch.columns.time_ns.split_off(row),
            value: batch.columns.value.split_off(row),
        };
        let part = Normalized {
            source: batch.source.clone(),
            unit: batch.unit,
            first: batch.first,
            frames: first,
            columns: std::mem::replace(&mut batch.columns, columns),
            events: std::mem::replace(&mut batch.events, later),
            ignored: std::mem::take(&mut batch.ignored),
            refused: std::mem::take(&mut batch.refused),
            faults: std::mem::replace(&mut batch.faults, faults),
            deliveries: std::mem::take(&mut batch.deliveries),
            cursor: batch.cursor.clone(),
        };
        batch.first = at;
        batch.frames = rest;
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::DeliveryRows;

    fn batch(first: u64, seconds: &[i64]) -> Normalized {
        let mut frames = Frames::new();
        let mut columns = Columns { source: "s".into(), ..Columns::default() };
        for (i, second) in seconds.iter().enumerate() {
            frames.push(b"x", 0, "o").unwrap();
            // A negative second is a frame without samples.
            if *second >= 0 {
                columns.ordinal.push(first + i as u64);
                columns.series.push(0);
                columns.time_ns.push(second * NS_PER_SEC);
                columns.value.push(*second as f64);
            }
        }
        let ordinal = first + seconds.len() as u64;
        let cursor = Cursor { v: 1, ordinal, line: ordinal, ..Cursor::default() };
        Normalized {
            source: "s".into(),
            unit: hb_log::hash::Hash::ZERO,
            first,
            frames,
            columns,
            events: vec![],
            ignored: 0,
            refused: vec![],
            faults: vec![],
            deliveries: DeliveryRows::default(),
            cursor,
        }
    }

    /// Frames taken up to each second in turn, as (first, count), in batches of `n`.
    fn parts(seconds: &[i64], n: usize, limits: &[i64]) -> Vec<u64> {
        let mut before = Cursor { v: 1, ..Cursor::default() };
        let mut left: Vec<Normalized> = seconds.chunks(n).enumerate().map(|(i, s)| batch((i * n) as u64, s)).collect();
        let (mut taking, mut taken) = (None, Vec::new());
        for limit in limits {
            loop {
                let now = match taking.take() {
                    Some(taking) => taking,
                    None if left.is_empty() => break,
                    None => Taking::begin(left.remove(0), &before).unwrap(),
                };
                let (part, rest) = now.take(|second| second.is_none_or(|s| s <= *limit));
                before = part.cursor.clone();
                taking = rest;
                if taking.is_some() {
                    break;
                }
            }
            taken.push(before.taken);
        }
        taken
    }

    #[test]
    fn batches_do_not_change_the_order() {
        let seconds = [1, 1, 2, -1, 1, 3, 900_000, 4, 5, 900_001, 900_002, 6, -1, 900_003];
        let limits = [0, 1, 2, 3, 4, 5, 6, 900_002, 900_003];
        let whole = parts(&seconds, seconds.len(), &limits);
        // A leap alone stays with its neighbours; the second one is believed.
        assert_eq!(whole, [0, 2, 5, 7, 8, 10, 10, 13, 14]);
        for n in 1..seconds.len() {
            assert_eq!(parts(&seconds, n, &limits), whole, "batches of {n}");
        }
    }

    #[test]
    fn what_was_taken_is_not_taken_again() {
        let before = Cursor { v: 1, taken: 3, ..Cursor::default() };
        let taking = Taking::begin(batch(0, &[1, 2, 3, 4]), &before).unwrap();
        let (part, rest) = taking.take(|_| true);
        assert_eq!((part.first, part.frames.len(), part.columns.value.as_slice()), (3, 1, &[4.0][..]));
        assert!(rest.is_none());
        assert!(Taking::begin(batch(0, &[1, 2]), &before).is_none());
    }
}
