//! A store that fails, by a full or broken disk, stops the daemon's work and not the daemon.
//!
//! Sources stay as they are and are not read: their queues are bounded, so streams stall, brokers wait for
//! acknowledgements, and files wait anyway. What came over datagrams meanwhile the kernel keeps or counts as dropped.
//!
//! A log that is full is one too, though the store itself works: what is taken must be recorded. A config that allows
//! more ends it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Daemon, Order, Swap, TURN_MS};
use crate::diagnostic::{Area, Diagnostic, chain};
use crate::pipeline::PipelineError;
use crate::state::StateError;

/// First wait before the store is opened again, ms; it doubles with each attempt in a row.
const RETRY_MS: u64 = 100;

/// Longest wait, ms: each attempt reads what recovery reads, and whoever frees space sees soon that it helped. There is
/// no last attempt: without a store a daemon has nothing else to do.
const RETRY_MS_MAX: u64 = 5_000;

/// A store that worked for this long begins again with the shortest wait, s: one that is nearly full takes a little now
/// and then.
const STEADY_SEC: u64 = 30;

/// A failure of the store that was outlasted, or is being so.
pub(super) struct Outage {
    /// Attempts in a row.
    attempts: u32,
    /// When it ended.
    over: Instant,
}

impl Daemon<'_> {
    /// Opens the store again and again until it works, and goes on from what is stored. Told to stop meanwhile it tries
    /// for as long as a stop may take.
    pub(super) fn outlast(&mut self, mut error: StateError, orders: &Receiver<Order>) -> Result<(), PipelineError> {
        let (began, mut attempts) = (Instant::now(), 0);
        let before = self.outage.take().filter(|o| o.over.elapsed() < Duration::from_secs(STEADY_SEC));
        let mut in_a_row = before.map_or(0, |o| o.attempts);
        self.say_why(&error);
        if let Some(swap) = self.put_off.take() {
            self.put_off(Order::Swap(swap));
        }
        let active = self.generations.active();
        loop {
            let wait_ms = (RETRY_MS << in_a_row.min(16)).min(RETRY_MS_MAX);
            if let Some(why) = self.idle_until(Instant::now() + Duration::from_millis(wait_ms), orders) {
                return Err(PipelineError::NotStored { why, taken: self.recorder.taken(), source: error });
            }
            (attempts, in_a_row) = (attempts + 1, in_a_row + 1);
            match self.recorder.recover(&active.generation) {
                Ok(()) => break,
                Err(PipelineError::State(e)) if e.is_outage() => {
                    tracing::debug!(error = chain(&e), attempts, "the state store still fails");
                    if what_of(&e) != what_of(&error) {
                        self.say_why(&e);
                    }
                    error = e;
                }
                Err(e) => return Err(e),
            }
        }
        let stood_ms = began.elapsed().as_millis() as u64;
        tracing::warn!(stood_ms, attempts, "the state store works again; nothing that was taken is lost");
        self.release();
        self.recorder.tell_usage();
        self.live.stalled(None);
        self.outage = Some(Outage { attempts: in_a_row, over: Instant::now() });
        Ok(())
    }

    /// Says why nothing is read, to whoever asks or reads the lines.
    fn say_why(&mut self, error: &StateError) {
        let (what, why) = (what_of(error), chain(error));
        if what == LOG {
            tracing::error!(error = why, "the audit log is full; nothing is read until it has room");
        } else {
            tracing::error!(error = why, "the state store failed; nothing is read until it works again");
        }
        self.release();
        self.recorder.vitals().hold(what, &why);
        self.recorder.tell_usage();
        self.live.stalled(Some(error));
    }

    /// Nothing of the store holds the daemon up any more.
    fn release(&self) {
        for what in [STORE, LOG] {
            self.recorder.vitals().release(what);
        }
    }

    /// Answers orders until then; says why the daemon has to end, when its time is up.
    fn idle_until(&mut self, deadline: Instant, orders: &Receiver<Order>) -> Option<String> {
        loop {
            let now = Instant::now();
            if let Some((why, _)) = self.stop.take_if(|stop| stop.1 <= now) {
                return Some(why);
            }
            if now >= deadline {
                return None;
            }
            // What comes last is tried at once.
            let was_told = self.stop.is_some();
            let slice = (deadline - now).min(Duration::from_millis(TURN_MS));
            match orders.recv_timeout(slice) {
                Ok(order) => self.put_off(order),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can order anything any more, not even the end.
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(slice),
            }
            // A loop that waits for a disk lives.
            self.recorder.vitals().turn();
            self.live.turn(self.recorder);
            if self.put_off.is_some() || self.stop.is_some() && !was_told {
                return None;
            }
        }
    }

    fn put_off(&mut self, order: Order) {
        match order {
            Order::Stop(why) => self.stop(why),
            Order::Swap(swap) if self.recorder.blocked().is_some() => self.make_room(swap),
            Order::Swap(swap) => {
                let d = Diagnostic::error(Area::State, "the state store fails, so that no change can be recorded");
                // Whoever asked may have gone.
                let _ = swap.reply.send(Err(d.help("free space or mend the disk, then reload again")));
            }
            // Whoever was refused has been told; there is no log to note it in.
            Order::Refused { .. } => {}
            // What the tags name is read when the store works again.
            Order::Baselines(reply) => drop(reply),
        }
    }

    /// Lets the limits of a change hold at once, when they give a full log room: then the change can be recorded, and is
    /// obeyed as soon as the log takes something again.
    fn make_room(&mut self, swap: Box<Swap>) {
        self.recorder.keep_within(&swap.built.file.config);
        let Some(full) = self.recorder.blocked() else {
            self.put_off = Some(swap);
            return;
        };
        self.recorder.keep_within(&self.generations.active().file.config);
        // Whoever asked may have gone.
        let _ = swap.reply.send(Err(Diagnostic::error(Area::State, chain(&full))));
    }
}

/// What holds a daemon up, as its health names it.
const STORE: &str = "state";
const LOG: &str = "audit log";

fn what_of(error: &StateError) -> &'static str {
    if matches!(error, StateError::LogFull { .. }) { LOG } else { STORE }
}
