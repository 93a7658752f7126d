//! Reads a transport, lets the source plugin cut it into frames, and hands them to the normalizers in turn.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::{Cut, FeedLimits, Job, Order, refused};
use crate::clock;
use crate::pipeline::{Cursor, Faulted, PipelineError, Refused, Stage};
use crate::plugin::{Frames, Polled, SourceInstance};
use crate::state::DeliveryRows;
use crate::transport::{
    Event, ExecEvent, FileEvent, Letter, Mail, MqttEvent, Oversize, Position, Progress, RawFrames, SocketEvent,
    Transport,
};

/// How long an idle source waits before it looks for a stop again, ms.
const IDLE_MS: u64 = 100;

/// Shortest wait after a poll that took nothing and gave nothing, ms: a guest must not spin the host.
const EMPTY_POLL_MS: u64 = 10;

/// Refusals that are handed on at once, also when nothing else comes: they wait in memory, a line's beginning each.
const REFUSED_MAX: usize = 256;

/// How long a source that is told to finish may go on with what has already arrived, ms: a flood has no end.
const FINISH_MS: u64 = 1_000;

/// Faults of a source plugin in a row, each after a rebuild, that end the source until its next start: one bad batch and
/// one unlucky rebuild must not, a plugin that fails every time should within seconds.
const FAULTS_MAX: u32 = 5;

/// Runs a source: transport to plugin to jobs.
pub(super) struct Reader {
    pub(super) transport: Transport,
    pub(super) source: SourceInstance,
    pub(super) plugin: String,
    pub(super) source_name: String,
    /// Whether frames come when they happen, and not from a record of them.
    pub(super) is_live: bool,
    pub(super) limits: FeedLimits,
    pub(super) cursor: Cursor,
    pub(super) jobs: Vec<Sender<Job>>,
    pub(super) turn: usize,
    pub(super) commands: Receiver<Vec<u8>>,
    pub(super) ordered: Receiver<Order>,
    /// Until when it may go on with what has arrived, once it was told to finish.
    pub(super) finish_at: Option<Instant>,
    pub(super) inbox: Inbox,
    pub(super) refused: Vec<Refused>,
    pub(super) faults: Vec<Faulted>,
    pub(super) deliveries: DeliveryRows,
    /// Calls of the source plugin that ended in a fault since the last that did not.
    pub(super) faults_in_a_row: u32,
    /// Frames that were handed on and are not taken.
    pub(super) waiting: Arc<AtomicU64>,
}

/// Lines that are offered to the plugin, and where each lies in the transport.
#[derive(Default)]
pub(super) struct Inbox {
    frames: Frames,
    offsets: Vec<u64>,
    mail: Mail,
}

impl Reader {
    pub(super) fn run(mut self) {
        loop {
            let step = self.step();
            match step {
                Ok(ControlFlow::Continue(wait_ms)) => match self.listen(wait_ms) {
                    Ok(ControlFlow::Continue(())) => {}
                    // Nobody listens any more.
                    Ok(ControlFlow::Break(())) => return,
                    Err(e) => {
                        self.close(Job::Failed(e));
                        return;
                    }
                },
                Ok(ControlFlow::Break(())) => {
                    self.close(Job::Ended);
                    return;
                }
                Err(e) => {
                    self.close(Job::Failed(e));
                    return;
                }
            }
        }
    }

    /// Reads, polls and hands on one batch. Continues after some ms, or breaks at the end of the source.
    fn step(&mut self) -> Result<ControlFlow<(), u64>, PipelineError> {
        let frames_left = self.limits.max_frames.saturating_sub(self.cursor.ordinal);
        if frames_left == 0 || self.finish_at.is_some_and(|at| at <= Instant::now()) {
            return Ok(ControlFlow::Break(()));
        }
        if self.inbox.frames.is_empty() {
            let mut raw = RawFrames::default();
            let (frames, bytes) = (self.limits.batch_frames as usize, self.limits.batch_bytes as usize);
            match self.transport.read(frames, bytes, &mut raw)? {
                Progress::Frames => {
                    self.fill(raw);
                    if self.inbox.frames.is_empty() {
                        return Ok(ControlFlow::Continue(0));
                    }
                }
                Progress::Event(event) => {
                    self.note(event)?;
                    if self.refused.len() >= REFUSED_MAX {
                        self.send(Frames::new());
                    }
                    return Ok(ControlFlow::Continue(0));
                }
                Progress::Skipping => return Ok(ControlFlow::Continue(0)),
                Progress::Idle if self.finish_at.is_some() => return Ok(ControlFlow::Break(())),
                Progress::Idle => {
                    if !self.refused.is_empty() {
                        self.send(Frames::new());
                    }
                    self.transport.wait(Instant::now() + Duration::from_millis(IDLE_MS))?;
                    return Ok(ControlFlow::Continue(0));
                }
                Progress::End => {
                    let bytes = self.transport.rest_bytes();
                    if bytes > 0 {
                        let source = &self.source_name;
                        tracing::warn!(source, bytes, "the last line has no line feed and is left for the next run");
                    }
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        let frames_max = self.limits.batch_frames.min(u32::try_from(frames_left).unwrap_or(u32::MAX));
        let polled = match self.source.poll(&self.inbox.frames, frames_max, self.limits.batch_bytes) {
            Ok(polled) => {
                self.faults_in_a_row = 0;
                polled
            }
            Err(fault) => {
                tracing::warn!(source = self.source_name, plugin = self.plugin, %fault, "source plugin failed");
                self.faults_in_a_row += 1;
                if self.faults_in_a_row >= FAULTS_MAX {
                    let (source_name, plugin) = (self.source_name.clone(), self.plugin.clone());
                    return Err(PipelineError::Plugin { source_name, plugin, fault });
                }
                return Ok(ControlFlow::Continue(EMPTY_POLL_MS));
            }
        };
        let wait = u64::from(polled.next_poll_ms);
        let taken = self.take(polled);
        // A poll that neither took nor gave anything waits, whatever the guest says.
        Ok(ControlFlow::Continue(if taken { wait } else { wait.max(EMPTY_POLL_MS) }))
    }

    fn fill(&mut self, raw: RawFrames) {
        let received_ns = if self.is_live { clock::now_ns() } else { 0 };
        self.inbox.frames.clear();
        for (frame, origin) in raw.iter().zip(&raw.origins) {
            // Limits keep a batch far below what a `Frames` can hold.
            let _ = self.inbox.frames.push(frame, received_ns, origin);
        }
        self.inbox.offsets = raw.offsets;
        self.inbox.mail = raw.mail;
        let oversize = std::mem::take(&mut self.inbox.mail.oversize);
        for Oversize { origin, bytes, beginning } in &oversize {
            self.refuse_long("message", &format!("{bytes} bytes from {origin}"), beginning);
        }
        if self.inbox.frames.is_empty() && !oversize.is_empty() {
            // No frame takes them along, and the broker waits for its acknowledgement.
            self.take_mail(0);
            self.cursor.transport = self.transport.position().to_bytes();
            self.send(Frames::new());
        }
    }

    /// Refuses what is too long to be a frame; `what` it is, and `which`.
    fn refuse_long(&mut self, what: &str, which: &str, beginning: &[u8]) {
        let reason = format!("{what} longer than {} bytes", self.limits.max_line_bytes);
        let sample = [which.as_bytes(), b": ", beginning].concat();
        self.refused.push(refused("transport", &reason, self.cursor.line, &sample));
        self.cursor.line += 1;
    }

    /// Counts what the plugin made of the inbox, sends it on, and keeps what it left.
    fn take(&mut self, polled: Polled) -> bool {
        let first_line = self.cursor.line;
        for reject in &polled.rejects {
            let frame = self.inbox.frames.get(reject.frame as usize).map_or(&[][..], |f| f.bytes);
            self.refused.push(refused(&self.plugin, &reject.reason, first_line + u64::from(reject.frame), frame));
        }
        for (frame, fault) in &polled.faults {
            let bytes = self.inbox.frames.get(*frame as usize).map_or(&[][..], |f| f.bytes);
            self.faults.push(Faulted {
                plugin: self.plugin.clone(),
                stage: Stage::Source,
                ordinal: self.cursor.ordinal,
                cause: format!("line {}: {fault}", first_line + u64::from(*frame)),
                frame: bytes.to_vec(),
            });
        }
        let n = self.inbox.frames.len();
        // An empty line has nothing to take: it counts as taken with what stands before it.
        let left = (0..n).find(|&i| {
            let whole = self.inbox.frames.get(i).map_or(0, |f| f.bytes.len() as u64);
            polled.consumed.get(i).copied().unwrap_or(0) < whole
        });
        let taken = left.unwrap_or(n);
        let mut position = self.transport.position();
        self.take_mail(taken);
        if let Some(i) = left {
            let part = polled.consumed.get(i).copied().unwrap_or(0);
            if let Position::File(position) = &mut position {
                position.offset = self.inbox.offsets[i] + part;
            }
            self.keep_from(i, part as usize);
        } else {
            self.inbox.frames.clear();
            self.inbox.offsets.clear();
        }
        // A command knows only where all that was handed out ends.
        if left.is_none() || !matches!(position, Position::Exec(_)) {
            self.cursor.transport = position.to_bytes();
        }
        self.cursor.line += taken as u64;
        if polled.cursor.is_some() {
            self.cursor.plugin = polled.cursor;
        }
        let gave = !polled.frames.is_empty();
        if gave || taken > 0 {
            self.send(polled.frames);
        }
        gave || taken > 0
    }

    /// Notes the messages up to the first `n` frames of the inbox, and those behind them that are no frames: they are
    /// durable together.
    fn take_mail(&mut self, n: usize) {
        let mail = &mut self.inbox.mail;
        self.deliveries.settled.append(&mut mail.settled);
        let next = mail.letters.iter().enumerate().filter(|(_, letter)| letter.is_frame).nth(n);
        let end = next.map_or(mail.letters.len(), |(at, _)| at);
        for Letter { number, delivery, .. } in mail.letters.drain(..end) {
            self.cursor.message = Some(number);
            if let Some(d) = delivery {
                if self.deliveries.epoch != d.epoch {
                    // What was of an older session is void.
                    self.deliveries = DeliveryRows { epoch: d.epoch, ..DeliveryRows::default() };
                }
                self.deliveries.rows.push((d.packet_id, d.hash));
            }
        }
    }

    /// Keeps the inbox from frame `from`, of which `part` bytes were taken.
    fn keep_from(&mut self, from: usize, part: usize) {
        let old = std::mem::take(&mut self.inbox);
        self.inbox.mail = old.mail;
        for (i, frame) in old.frames.iter().enumerate().skip(from) {
            let skip = if i == from { part } else { 0 };
            let _ = self.inbox.frames.push(&frame.bytes[skip..], frame.received_ns, frame.origin);
            self.inbox.offsets.push(old.offsets[i] + skip as u64);
        }
    }

    /// Something happened between two frames.
    fn note(&mut self, event: Event) -> Result<(), PipelineError> {
        let source = &self.source_name;
        self.cursor.transport = self.transport.position().to_bytes();
        match event {
            Event::File(FileEvent::Oversize { bytes, .. }) | Event::Exec(ExecEvent::Oversize { bytes, .. }) => {
                self.refuse_long("line", &format!("{bytes} bytes"), b"");
            }
            Event::Socket(SocketEvent::Oversize { origin, bytes, .. }) => {
                self.refuse_long("line", &format!("{bytes} bytes from {origin}"), b"");
            }
            Event::Socket(SocketEvent::Truncated { origin, beginning }) => {
                self.refuse_long("datagram", &format!("from {origin}"), &beginning);
            }
            Event::File(event) => {
                tracing::warn!(source, ?event, "the file begins anew");
                // What the plugin learned of the old file, a header for example, is void.
                self.cursor.plugin = None;
                self.source.open(None).map_err(|fault| PipelineError::Plugin {
                    source_name: self.source_name.clone(),
                    plugin: self.plugin.clone(),
                    fault,
                })?;
            }
            // Peers come and go, and may do so a thousand times a second.
            Event::Socket(event) => tracing::debug!(source, ?event, "a connection was closed"),
            Event::Exec(event) => tracing::warn!(source, ?event, "the command ended"),
            Event::Mqtt(MqttEvent::Session { epoch, lost }) => {
                if lost {
                    tracing::warn!(source, epoch, "the broker lost the session: messages may be missing or doubled");
                }
                // The new epoch is to be durable before its messages are taken for those of the old one.
                self.send(Frames::new());
            }
        }
        Ok(())
    }

    fn send(&mut self, frames: Frames) {
        let first = self.cursor.ordinal;
        self.cursor.ordinal += frames.len() as u64;
        self.cursor.taken = self.cursor.ordinal;
        let cut = Cut {
            first,
            frames,
            refused: std::mem::take(&mut self.refused),
            faults: std::mem::take(&mut self.faults),
            deliveries: self.take_deliveries(),
            cursor: self.cursor.clone(),
        };
        let turn = self.turn;
        self.turn = (turn + 1) % self.jobs.len();
        self.waiting.fetch_add(cut.frames.len() as u64, Relaxed);
        // When nobody takes it any more, `listen` will end this thread.
        let _ = self.jobs[turn].send(Job::Batch(Box::new(cut)));
    }

    fn take_deliveries(&mut self) -> DeliveryRows {
        let empty = DeliveryRows { epoch: self.deliveries.epoch, ..DeliveryRows::default() };
        let rows = std::mem::replace(&mut self.deliveries, empty);
        let is_idle = rows.rows.is_empty() && rows.settled.is_empty();
        // Without a source there is nothing to write.
        if is_idle { rows } else { DeliveryRows { source: self.source_name.clone(), ..rows } }
    }

    /// What is left over is sent, then the end is told, to the worker whose turn it is.
    fn close(&mut self, end: Job) {
        if !self.refused.is_empty() || !self.faults.is_empty() {
            self.send(Frames::new());
        }
        let turn = self.turn;
        let _ = self.jobs[turn].send(end);
    }

    /// Waits, hears what was committed meanwhile and what is ordered, and breaks when the feed is gone.
    fn listen(&mut self, wait_ms: u64) -> Result<ControlFlow<()>, PipelineError> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            select! {
                recv(self.commands) -> cursor => {
                    let Ok(cursor) = cursor else { return Ok(ControlFlow::Break(())) };
                    if let Err(fault) = self.source.committed(&cursor) {
                        tracing::warn!(source = self.source_name, %fault, "source plugin failed on a commit");
                    }
                }
                recv(self.ordered) -> order => {
                    let Ok(order) = order else { return Ok(ControlFlow::Break(())) };
                    self.obey(order)?;
                }
                default(deadline.saturating_duration_since(Instant::now())) => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), PipelineError> {
        match order {
            Order::Finish => {
                let more = if self.transport.forgets() { Duration::from_millis(FINISH_MS) } else { Duration::ZERO };
                self.finish_at = Some(Instant::now() + more);
            }
            Order::Swap(incoming) => {
                if !self.refused.is_empty() || !self.faults.is_empty() {
                    self.send(Frames::new());
                }
                let turn = self.turn;
                let _ = self.jobs[turn].send(Job::Swapped);
                self.jobs = incoming.jobs;
                self.limits = incoming.limits;
                self.turn = 0;
                if let Some((mut source, plugin)) = incoming.source {
                    // Another plugin cannot read what the old one noted.
                    if plugin != self.plugin {
                        self.cursor.plugin = None;
                    }
                    source.open(self.cursor.plugin.as_deref()).map_err(|fault| PipelineError::Plugin {
                        source_name: self.source_name.clone(),
                        plugin: plugin.clone(),
                        fault,
                    })?;
                    self.source = source;
                    self.plugin = plugin;
                    self.faults_in_a_row = 0;
                }
            }
        }
        Ok(())
    }
}
