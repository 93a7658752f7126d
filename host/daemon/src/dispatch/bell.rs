//! The bell rings when documents are durable; who waits for work waits for it, and it knows who found none.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest rest without a ring, s: whoever rests looks into the outbox now and then all the same.
const REST_S_MAX: u64 = 60;

/// One bell for all workers of a dispatcher; clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    rings: u64,
    /// By sink: who works for it now.
    seats: BTreeMap<String, Seat>,
    /// Number of the next worker.
    next: u64,
}

/// One worker's place.
#[derive(Debug, Default)]
struct Seat {
    worker: u64,
    /// The ring after which it found nothing to do at once.
    rested: u64,
    /// Why the sink took nothing, the last time it did not.
    trouble: Option<String>,
}

impl Bell {
    /// Wakes all workers.
    pub fn ring(&self) {
        self.desk().rings += 1;
        self.0.changed.notify_all();
    }

    /// Gives the seat of a sink to a new worker, and returns its number; one that sat there is told to leave.
    pub(super) fn seat(&self, sink: &str) -> u64 {
        let mut desk = self.desk();
        desk.next += 1;
        let worker = desk.next;
        desk.seats.insert(sink.to_owned(), Seat { worker, ..Seat::default() });
        drop(desk);
        self.0.changed.notify_all();
        worker
    }

    /// Takes the seats of all sinks away but of those `kept`.
    pub(super) fn clear(&self, kept: &dyn Fn(&str) -> bool) {
        self.desk().seats.retain(|sink, _| kept(sink));
        self.0.changed.notify_all();
    }

    /// The newest ring, or nothing when the worker is to leave.
    pub(super) fn listen(&self, sink: &str, worker: u64) -> Option<u64> {
        let desk = self.desk();
        desk.seats.get(sink).filter(|seat| seat.worker == worker).map(|_| desk.rings)
    }

    /// Notes that a worker found nothing to do after ring `heard`, and waits for the next one, or until `until`.
    pub(super) fn rest(&self, sink: &str, worker: u64, heard: u64, until: Option<Instant>) {
        let longest = Instant::now() + Duration::from_secs(REST_S_MAX);
        let until = until.map_or(longest, |until| until.min(longest));
        let mut desk = self.desk();
        let Some(seat) = desk.seats.get_mut(sink).filter(|seat| seat.worker == worker) else { return };
        seat.rested = seat.rested.max(heard);
        self.0.changed.notify_all();
        while desk.rings == heard && desk.seats.get(sink).is_some_and(|seat| seat.worker == worker) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.0.changed.wait_timeout(desk, left);
            desk = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes why a sink takes nothing, or that it does.
    pub(super) fn tell(&self, sink: &str, worker: u64, trouble: Option<String>) {
        if let Some(seat) = self.desk().seats.get_mut(sink).filter(|seat| seat.worker == worker) {
            seat.trouble = trouble;
        }
    }

    /// Why a sink took nothing, the last time it did not.
    pub(super) fn trouble(&self, sink: &str) -> Option<String> {
        self.desk().seats.get(sink).and_then(|seat| seat.trouble.clone())
    }

    /// Rings, and waits until every worker has looked since and found nothing to do at once, but not beyond `deadline`.
    pub(super) fn wait_until_quiet(&self, deadline: Instant) {
        self.ring();
        let mut desk = self.desk();
        let rung = desk.rings;
        while desk.seats.values().any(|seat| seat.rested < rung) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.0.changed.wait_timeout(desk, left);
            desk = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Numbers and texts are whole at any moment, whoever panicked.
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn quiet_is_when_each_worker_has_looked_since() {
        let bell = Bell::default();
        let worker = bell.seat("out");
        let looked = std::thread::scope(|threads| {
            let looker = threads.spawn(|| {
                let mut looked = 0;
                while let Some(heard) = bell.listen("out", worker) {
                    looked += 1;
                    bell.rest("out", worker, heard, None);
                }
                looked
            });
            for _ in 0..20 {
                let deadline = Instant::now() + SOON;
                bell.wait_until_quiet(deadline);
                assert!(Instant::now() < deadline);
            }
            bell.clear(&|_| false);
            looker.join().unwrap()
        });
        assert!(looked >= 20, "{looked}");
        // Nobody works any more, so nobody is waited for.
        bell.wait_until_quiet(Instant::now() + SOON);
    }

    #[test]
    fn a_new_worker_takes_the_seat_of_the_old_one() {
        let bell = Bell::default();
        let (old, other) = (bell.seat("out"), bell.seat("pager"));
        bell.tell("out", old, Some("full".into()));
        let new = bell.seat("out");
        assert_eq!((bell.listen("out", old), bell.trouble("out")), (None, None));
        assert!(bell.listen("out", new).is_some() && bell.listen("pager", other).is_some());
        // It neither rests nor speaks for its successor.
        bell.rest("out", old, 0, None);
        bell.tell("out", old, Some("full".into()));
        assert_eq!(bell.trouble("out"), None);
        let begin = Instant::now();
        bell.rest("out", new, 0, Some(begin));
        bell.wait_until_quiet(begin);
    }
}
