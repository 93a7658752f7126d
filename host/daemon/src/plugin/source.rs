//! Sources: what a transport received, or a pull of their own, becomes frames.
//!
//! A source may keep state between polls (a decoder's buffer, a file position), so its work is not repeatable as a
//! normalizer's is. On a fault the instance is opened again at the last cursor whose frames were handed on; an inbox
//! is then offered in halves until only the guilty inbox frame is left over.

use std::ops::Range;

use wasmtime::Store;
use wasmtime::component::{Instance as Component, InstancePre};

use super::Reject;
use super::bindings::exports::hb::plugin::produce;
use super::fault::{PluginFault, reason};
use super::frames::Frames;
use super::guest::{Counters, Guest, HostCalls};
use super::instance::{Answer, Exports, Instance};
use super::limits::Budget;
use super::load::Loaded;

/// Bytes of a cursor: a position, not a store.
const MAX_CURSOR_BYTES: usize = 64 << 10;

/// Frames of one poll: as many as a batch has room for origins, if each came from another.
const MAX_POLL_FRAMES: u32 = 65_536;

/// Bytes of one poll: far below the 4 GiB a batch can address.
const MAX_POLL_BYTES: u32 = 1 << 30;

/// How much shorter the deadline is while the guilty frame of a batch is searched.
const HALVING_SPEED_UP: u32 = 10;

/// What a poll gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polled {
    /// New frames.
    pub frames: Frames,
    /// Inbox frames the plugin could not read, with its reason (neutralised).
    pub rejects: Vec<Reject>,
    /// Bytes taken of each inbox frame; what is left is offered again with what follows.
    pub consumed: Vec<u64>,
    /// Where to resume once these frames are committed (pull sources).
    pub cursor: Option<Vec<u8>>,
    /// When to poll again, in milliseconds, if nothing arrives before.
    pub next_poll_ms: u32,
    /// Guilty inbox frames: for the dead-letter store. They count as consumed.
    pub faults: Vec<(u32, PluginFault)>,
}

impl Polled {
    fn has_progress(&self) -> bool {
        !self.frames.is_empty() || !self.faults.is_empty() || self.consumed.iter().any(|&c| c > 0)
    }
}

/// A source at work.
pub struct SourceInstance {
    instance: Instance<produce::Guest>,
    // The last cursor whose frames were handed on: where a fresh instance resumes.
    cursor: Option<Vec<u8>>,
    open: bool,
}

impl SourceInstance {
    /// Starts a source with settings (JSON) that its schema has accepted.
    pub fn new(loaded: &Loaded, settings_json: &str, calls: Box<dyn HostCalls>) -> Result<Self, PluginFault> {
        let instance = Instance::start(loaded, settings_json, calls)?;
        Ok(SourceInstance { instance, cursor: None, open: false })
    }

    /// Opens it where the committed state ends; `None` is the beginning.
    pub fn open(&mut self, resume: Option<&[u8]>) -> Result<(), PluginFault> {
        self.cursor = resume.map(<[u8]>::to_vec);
        self.open = false;
        self.ensure_open()
    }

    /// Offers `inbox` (empty for a pull source) and takes at most `max_frames` frames of together `max_bytes`, or one
    /// longer frame.
    ///
    /// An error is a fault that no single inbox frame is guilty of; nothing was consumed then. The caller decides when
    /// to try again.
    pub fn poll(&mut self, inbox: &Frames, max_frames: u32, max_bytes: u32) -> Result<Polled, PluginFault> {
        let mut out = Polled { consumed: vec![0; inbox.len()], ..Polled::default() };
        let mut room = Room { frames: max_frames.min(MAX_POLL_FRAMES), bytes: max_bytes.min(MAX_POLL_BYTES) };
        self.ensure_open()?;
        if inbox.is_empty() {
            let part = self.call(inbox, 0..0, false, room)?;
            self.take(part, 0..0, inbox, &mut out, &mut room);
        } else {
            let polled = self.poll_range(inbox, 0..inbox.len(), false, &mut out, &mut room);
            // What was taken before the fault is taken: the same fault shows again with the next poll.
            if let Err(fault) = polled
                && !out.has_progress()
            {
                return Err(fault);
            }
        }
        Ok(out)
    }

    /// Tells the source that everything up to `cursor` is committed.
    pub fn committed(&mut self, cursor: &[u8]) -> Result<(), PluginFault> {
        self.ensure_open()?;
        let (answer, _) = self.instance.call(self.budget(), |e, store| e.call_committed(store, cursor));
        self.watch(answer)
    }

    /// Calls, faults, rebuilds.
    pub fn counters(&self) -> Counters {
        self.instance.counters()
    }

    // Returns whether everything in `range` was consumed; if not, what follows must not be offered before the rest.
    fn poll_range(
        &mut self,
        inbox: &Frames,
        range: Range<usize>,
        fresh: bool,
        out: &mut Polled,
        room: &mut Room,
    ) -> Result<bool, PluginFault> {
        if fresh {
            self.retire();
            self.ensure_open()?;
        }
        if room.is_full() {
            return Ok(false);
        }
        let fault = match self.call(inbox, range.clone(), fresh, *room) {
            Ok(part) => return Ok(self.take(part, range, inbox, out, room)),
            // The world outside is not ready: nobody is guilty, the same input is offered again.
            Err(fault @ PluginFault::Returned { retry_after_ms: Some(_), .. }) => return Err(fault),
            Err(fault) => fault,
        };
        match range.len() {
            1 if fresh => {
                out.consumed[range.start] = inbox.frame_len(range.start) as u64;
                out.faults.push((range.start as u32, fault));
                // The guest may be damaged by the guilty frame; the next call starts afresh.
                self.retire();
                self.ensure_open()?;
                Ok(true)
            }
            1 => self.poll_range(inbox, range, true, out, room),
            n => {
                let mid = range.start + n / 2;
                Ok(self.poll_range(inbox, range.start..mid, true, out, room)?
                    && self.poll_range(inbox, mid..range.end, true, out, room)?)
            }
        }
    }

    fn call(&mut self, inbox: &Frames, range: Range<usize>, halved: bool, room: Room) -> Result<Polled, PluginFault> {
        // While a batch is being halved, a short deadline loses nothing: only a frame that fails alone, with the whole
        // deadline, is guilty. Without it one frame that hangs would cost the deadline once per halving.
        let budget = match self.budget() {
            Budget::Ms(ms) if halved && range.len() > 1 => Budget::Ms(ms.div_ceil(HALVING_SPEED_UP)),
            whole => whole,
        };
        let (answer, _) = inbox.view(range.clone(), |view| {
            self.instance.call(budget, |e, store| e.call_poll(store, view, room.frames, room.bytes))
        });
        let part = self.watch(answer)?;
        check(&part, inbox, range, room).map_err(|text| self.bad_output(text))?;
        let frames = Frames::from_guest(part.batch).map_err(|text| self.bad_output(text))?;
        let produce::Polled { rejects, consumed, cursor, next_poll_ms, .. } = part;
        Ok(Polled { frames, rejects, consumed, cursor, next_poll_ms, faults: Vec::new() })
    }

    // Adds a good part to what the poll gave so far; returns whether it took all of its range.
    fn take(&mut self, part: Polled, range: Range<usize>, inbox: &Frames, out: &mut Polled, room: &mut Room) -> bool {
        room.frames = room.frames.saturating_sub(part.frames.len() as u32);
        room.bytes = room.bytes.saturating_sub(part.frames.data_len() as u32);
        if out.frames.append(part.frames).is_err() {
            // Ruled out by MAX_POLL_FRAMES and MAX_POLL_BYTES; what is not taken is offered again.
            return false;
        }
        let offset = range.start as u32;
        out.rejects
            .extend(part.rejects.into_iter().map(|r| Reject { frame: r.frame + offset, reason: reason(&r.reason) }));
        let all = range.clone().zip(&part.consumed).all(|(i, &c)| c == inbox.frame_len(i) as u64);
        out.consumed[range].copy_from_slice(&part.consumed);
        if let Some(cursor) = part.cursor {
            self.cursor = Some(cursor.clone());
            out.cursor = Some(cursor);
        }
        out.next_poll_ms = part.next_poll_ms;
        all
    }

    fn budget(&self) -> Budget {
        Budget::Ms(self.instance.loaded().inner.limits.deadline_ms)
    }

    fn ensure_open(&mut self) -> Result<(), PluginFault> {
        if self.open {
            return Ok(());
        }
        let cursor = self.cursor.clone();
        let (answer, _) = self.instance.call(self.budget(), |e, store| e.call_open(store, cursor.as_deref()));
        self.open = answer.is_ok();
        self.watch(answer)
    }

    fn retire(&mut self) {
        self.instance.retire();
        self.open = false;
    }

    // After any fault but a wish for patience the source is opened again, on a fresh instance: its state may be half of something.
    fn watch<R>(&mut self, answer: Result<R, PluginFault>) -> Result<R, PluginFault> {
        match &answer {
            Ok(_) | Err(PluginFault::Returned { retry_after_ms: Some(_), .. }) => {}
            Err(_) => self.retire(),
        }
        answer
    }

    fn bad_output(&mut self, text: String) -> PluginFault {
        self.instance.count_fault();
        self.retire();
        PluginFault::BadOutput(text)
    }
}

/// What may still be taken in this poll.
#[derive(Clone, Copy)]
struct Room {
    frames: u32,
    bytes: u32,
}

impl Room {
    fn is_full(self) -> bool {
        self.frames == 0 || self.bytes == 0
    }
}

impl Exports for produce::Guest {
    fn find(store: &mut Store<Guest>, instance: &Component, pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        produce::GuestIndices::new(pre)?.load(store, instance)
    }

    fn configure(&self, store: &mut Store<Guest>, settings: &str) -> Answer<()> {
        self.call_configure(store, settings)
    }
}

// What the contract demands of an answer, besides the shape of its frames.
fn check(part: &produce::Polled, inbox: &Frames, range: Range<usize>, room: Room) -> Result<(), String> {
    let offered = range.len();
    if part.batch.ends.len() > room.frames as usize {
        return Err(format!("{} frames; at most {} were asked for", part.batch.ends.len(), room.frames));
    }
    // One frame may be longer than asked for: it cannot come in any other way.
    if part.batch.ends.len() > 1 && part.batch.data.len() > room.bytes as usize {
        return Err(format!("{} bytes of frames; at most {} were asked for", part.batch.data.len(), room.bytes));
    }
    if part.consumed.len() != offered {
        return Err(format!("{offered} inbox frames were offered, {} are reported as consumed", part.consumed.len()));
    }
    let mut open = None;
    for (i, &consumed) in range.zip(&part.consumed) {
        let len = inbox.frame_len(i) as u64;
        match open {
            _ if consumed > len => {
                return Err(format!("{consumed} bytes consumed of inbox frame {i}, which has {len}"));
            }
            Some(first) if consumed > 0 => {
                return Err(format!("inbox frame {i} is consumed although frame {first} before it is not, or in part"));
            }
            None if consumed < len => open = Some(i),
            _ => {}
        }
    }
    if let Some(w) = part.rejects.windows(2).find(|w| w[0].frame >= w[1].frame) {
        return Err(format!("reject of inbox frame {} after that of frame {}", w[1].frame, w[0].frame));
    }
    if let Some(reject) = part.rejects.iter().find(|r| r.frame as usize >= offered) {
        return Err(format!("a reject names inbox frame {} of {offered}", reject.frame));
    }
    match &part.cursor {
        Some(c) if c.len() > MAX_CURSOR_BYTES => {
            Err(format!("a cursor of {} bytes; at most {MAX_CURSOR_BYTES} are allowed", c.len()))
        }
        _ => Ok(()),
    }
}
