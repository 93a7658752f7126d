//! Brings normalized batches in frame order: one thread reads and cuts, others normalize, order is kept by turns.
//!
//! Batch `k` goes to worker `k mod n` and is taken from there, so the result does not depend on the number of workers.
//! All queues are bounded: a slow engine slows the reader down.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TrySendError, bounded};
use hb_log::hash::Hash;

use super::calls::Calls;
use super::journal::Columns;
use super::series::SeriesBook;
use super::{Cursor, Faulted, Normalized, PipelineError, Refused, Stage};
use crate::clock;
use crate::generation::{Part, Unit, transport_options};
use crate::plugin::{Breaker, Frames, HostCalls, NormalizerInstance, PluginFault, Polled, SourceInstance};
use crate::state::DeliveryRows;
use crate::transport::mqtt::Digest;
use crate::transport::{
    Event, ExecEvent, FileEvent, Mail, MqttEvent, MqttHandle, Position, Progress, RawFrames, SocketEvent, Transport,
    TransportOptions,
};

/// Batches between two threads: one being worked on, one waiting.
const QUEUE_BATCHES: usize = 2;

/// How long an idle source waits before it looks for a stop again, ms.
const IDLE_MS: u64 = 100;

/// Shortest wait after a poll that took nothing and gave nothing, ms: a guest must not spin the host.
const EMPTY_POLL_MS: u64 = 10;

/// Of this many frames one is normalized again, alone and on a fresh instance, to see that it gives the same.
const PROBE_EVERY: u64 = 65_536;

/// Bytes of a refused line that are kept as its sample.
const SAMPLE_BYTES: usize = 1_024;

/// How batches are cut.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Frames per batch.
    pub batch_frames: u32,
    /// Bytes per batch.
    pub batch_bytes: u32,
    /// Longest line.
    pub max_line_bytes: u32,
}

/// Where a source goes on.
#[derive(Debug)]
pub struct Resume<'c> {
    /// Where it stood.
    pub cursor: &'c Cursor,
    /// What is stored of a broker's messages, by packet id.
    pub delivered: Vec<(u16, Digest)>,
}

/// What a feed has to say.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Batch(Box<Normalized>),
    /// Nothing within the time given.
    Idle,
    /// The source has ended.
    Ended,
    /// The source cannot go on.
    Failed(PipelineError),
}

/// A running source with its normalizer workers. Dropping it ends them.
pub struct Feed {
    turns: Vec<Receiver<Message>>,
    turn: usize,
    control: Sender<Vec<u8>>,
    /// Of a subscription.
    handle: Option<MqttHandle>,
    _threads: Vec<JoinHandle<()>>,
}

enum Message {
    Batch(Box<Normalized>),
    Ended,
    Failed(PipelineError),
}

/// A batch on its way to a normalizer.
enum Job {
    Batch(Box<Cut>),
    Ended,
    Failed(PipelineError),
}

/// What a source plugin cut, with all that belongs to it.
struct Cut {
    first: u64,
    frames: Frames,
    refused: Vec<Refused>,
    faults: Vec<Faulted>,
    deliveries: DeliveryRows,
    cursor: Cursor,
}

impl Feed {
    /// Starts a unit's plugins and lets them go: only they can say whether their settings make sense together.
    pub fn check(unit: &Unit) -> Result<(), PipelineError> {
        let book = SeriesBook::default();
        start_source(unit, &book)?;
        start_normalizer(unit, &book)?;
        Ok(())
    }

    /// Starts a unit where `resume` says, or at its beginning.
    pub fn start(
        unit: &Unit,
        book: &SeriesBook,
        resume: Option<Resume<'_>>,
        limits: FeedLimits,
    ) -> Result<Feed, PipelineError> {
        let (resume, delivered) = resume.map_or((None, Vec::new()), |r| (Some(r.cursor), r.delivered));
        let position = match resume {
            Some(cursor) => {
                Some(Position::from_bytes(&cursor.transport).map_err(|e| PipelineError::corrupt("cursor", e))?)
            }
            None => None,
        };
        let options = transport_options(&unit.transport, unit.whole, limits.max_line_bytes as usize)?;
        let is_live = !matches!(&options, TransportOptions::File(file) if !file.follow);
        let transport = Transport::open(options, position.as_ref(), delivered)?;
        let handle = transport.handle();
        let mut source = start_source(unit, book)?;
        // What comes now is behind the end of the last run: the source ends anew, and is sealed again.
        let cursor = Cursor { ended: false, ..resume.cloned().unwrap_or(Cursor { v: 1, ..Cursor::default() }) };
        source.open(cursor.plugin.as_deref()).map_err(|f| plugin_failed(unit, &unit.source, f))?;
        let name: Arc<str> = unit.name.as_str().into();
        let record = Hash::of(&unit.record());
        let (mut jobs, mut turns, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..unit.workers.max(1) {
            let (to_worker, inbox) = bounded::<Job>(QUEUE_BATCHES);
            let (to_taker, turn) = bounded::<Message>(QUEUE_BATCHES);
            let instance = start_normalizer(unit, book)?;
            let plugin = unit.normalizer.record.plugin.clone();
            let worker = Worker { source: Arc::clone(&name), unit: record, plugin, instance };
            threads.push(spawn("hb-normalize", move || worker.run(&inbox, &to_taker))?);
            jobs.push(to_worker);
            turns.push(turn);
        }
        let (control, commands) = bounded(1);
        let reader = Reader {
            transport,
            source,
            plugin: unit.source.record.plugin.clone(),
            source_name: unit.name.clone(),
            is_live,
            limits,
            cursor,
            jobs,
            turn: 0,
            commands,
            inbox: Inbox::default(),
            refused: Vec::new(),
            faults: Vec::new(),
            deliveries: DeliveryRows::default(),
            breaker: Breaker::default(),
        };
        tracing::debug!(source = unit.name, "reading");
        threads.push(spawn("hb-source", move || reader.run())?);
        Ok(Feed { turns, turn: 0, control, handle, _threads: threads })
    }

    /// The next batch in frame order, waiting at most until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Next {
        match self.turns[self.turn].recv_deadline(deadline) {
            Ok(Message::Batch(batch)) => {
                self.turn = (self.turn + 1) % self.turns.len();
                Next::Batch(batch)
            }
            Ok(Message::Ended) => Next::Ended,
            Ok(Message::Failed(e)) => Next::Failed(e),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            // A thread that panicked has said so on stderr; nothing more will come.
            Err(RecvTimeoutError::Disconnected) => Next::Failed(PipelineError::corrupt("source", "its thread ended")),
        }
    }

    /// Makes `select` wait for the next batch too.
    pub fn select<'a>(&'a self, select: &mut Select<'a>) {
        select.recv(&self.turns[self.turn]);
    }

    /// Whether the transport waits for a commit: a broker sends only so much without an acknowledgement.
    pub fn wants_commit(&self) -> bool {
        self.handle.as_ref().is_some_and(MqttHandle::wants_commit)
    }

    /// Tells transport and source plugin that everything up to `cursor` is durable.
    pub fn committed(&self, cursor: &Cursor) {
        if let (Some(handle), Some(number)) = (&self.handle, cursor.message) {
            // From here and not from the reader, which may be waiting for the very message this makes room for.
            handle.acknowledge(number);
            tracing::debug!(number, "acknowledged");
        }
        let Some(position) = cursor.plugin.clone() else { return };
        match self.control.try_send(position) {
            // A later one will say more.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Runs a source: transport to plugin to jobs.
struct Reader {
    transport: Transport,
    source: SourceInstance,
    plugin: String,
    source_name: String,
    /// Whether frames come when they happen, and not from a record of them.
    is_live: bool,
    limits: FeedLimits,
    cursor: Cursor,
    jobs: Vec<Sender<Job>>,
    turn: usize,
    commands: Receiver<Vec<u8>>,
    inbox: Inbox,
    refused: Vec<Refused>,
    faults: Vec<Faulted>,
    deliveries: DeliveryRows,
    breaker: Breaker,
}

/// Lines that are offered to the plugin, and where each lies in the transport.
#[derive(Default)]
struct Inbox {
    frames: Frames,
    offsets: Vec<u64>,
    mail: Mail,
}

impl Reader {
    fn run(mut self) {
        loop {
            let step = self.step();
            match step {
                Ok(ControlFlow::Continue(wait_ms)) => {
                    if self.listen(wait_ms).is_break() {
                        return;
                    }
                }
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
        if self.inbox.frames.is_empty() {
            let mut raw = RawFrames::default();
            let (frames, bytes) = (self.limits.batch_frames as usize, self.limits.batch_bytes as usize);
            match self.transport.read(frames, bytes, &mut raw)? {
                Progress::Frames => self.fill(raw),
                Progress::Event(event) => self.note(event)?,
                Progress::Skipping => return Ok(ControlFlow::Continue(0)),
                Progress::Idle => {
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
        let polled = match self.source.poll(&self.inbox.frames, self.limits.batch_frames, self.limits.batch_bytes) {
            Ok(polled) => {
                self.breaker.succeeded();
                polled
            }
            Err(fault) => {
                tracing::warn!(source = self.source_name, plugin = self.plugin, %fault, "source plugin failed");
                if self.breaker.faulted(&fault) {
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
        for (bytes, beginning) in std::mem::take(&mut self.inbox.mail.oversize) {
            self.refuse_long(bytes, &beginning);
        }
    }

    fn refuse_long(&mut self, bytes: u64, beginning: &[u8]) {
        let reason = format!("line longer than {} bytes", self.limits.max_line_bytes);
        let mut sample = format!("{bytes} bytes: ").into_bytes();
        sample.extend_from_slice(beginning);
        self.refused.push(refused("transport", &reason, self.cursor.line, &sample));
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

    /// Notes the messages behind the first `n` frames of the inbox: they are durable together.
    fn take_mail(&mut self, n: usize) {
        let mail = &mut self.inbox.mail;
        self.deliveries.settled.append(&mut mail.settled);
        let n = n.min(mail.letters.len());
        for (number, delivery) in mail.letters.drain(..n) {
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
            Event::File(FileEvent::Oversize { bytes, .. })
            | Event::Socket(SocketEvent::Oversize { bytes, .. })
            | Event::Exec(ExecEvent::Oversize { bytes, .. }) => {
                self.refuse_long(bytes, b"");
                self.cursor.line += 1;
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

    /// Waits, hears what was committed meanwhile, and breaks when the feed is gone.
    fn listen(&mut self, wait_ms: u64) -> ControlFlow<()> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            match self.commands.recv_deadline(deadline) {
                Ok(cursor) => {
                    if let Err(fault) = self.source.committed(&cursor) {
                        tracing::warn!(source = self.source_name, %fault, "source plugin failed on a commit");
                    }
                }
                Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
    }
}

/// Runs one normalizer instance.
struct Worker {
    source: Arc<str>,
    unit: Hash,
    plugin: String,
    instance: NormalizerInstance,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>, out: &Sender<Message>) {
        for job in jobs {
            let message = match job {
                Job::Batch(cut) => Message::Batch(Box::new(self.normalize(*cut))),
                Job::Ended => Message::Ended,
                Job::Failed(e) => Message::Failed(e),
            };
            if out.send(message).is_err() {
                return;
            }
        }
    }

    fn normalize(&mut self, cut: Cut) -> Normalized {
        let Cut { first, frames, refused: mut refused_so_far, mut faults, deliveries, cursor } = cut;
        let mut outcome = self.instance.run(&frames);
        let probe = first.next_multiple_of(PROBE_EVERY).wrapping_sub(first);
        if probe < frames.len() as u64
            && let Err(fault) = self.instance.probe(&frames, &outcome, [probe as usize])
        {
            outcome.faults.push((probe as u32, fault));
            outcome.faults.sort_by_key(|f| f.0);
        }
        let bytes = |i: u32| frames.get(i as usize).map_or(&[][..], |f| f.bytes);
        for reject in &outcome.rejects {
            let ordinal = first + u64::from(reject.frame);
            refused_so_far.push(refused(&self.plugin, &reject.reason, ordinal, bytes(reject.frame)));
        }
        for (frame, fault) in &outcome.faults {
            faults.push(Faulted {
                plugin: self.plugin.clone(),
                stage: Stage::Normalizer,
                ordinal: first + u64::from(*frame),
                cause: fault.to_string(),
                frame: bytes(*frame).to_vec(),
            });
        }
        let columns = Columns {
            source: self.source.to_string(),
            ordinal: outcome.frame.iter().map(|&f| first + u64::from(f)).collect(),
            series: outcome.series,
            time_ns: outcome.time_ns,
            value: outcome.value,
        };
        Normalized {
            source: Arc::clone(&self.source),
            unit: self.unit,
            first,
            columns,
            events: outcome.events,
            ignored: outcome.ignored.into(),
            refused: refused_so_far,
            faults,
            deliveries,
            cursor,
            frames,
        }
    }
}

fn start_source(unit: &Unit, book: &SeriesBook) -> Result<SourceInstance, PipelineError> {
    let part = &unit.source;
    SourceInstance::new(&part.loaded, &part.settings, calls(part, book)).map_err(|f| plugin_failed(unit, part, f))
}

fn start_normalizer(unit: &Unit, book: &SeriesBook) -> Result<NormalizerInstance, PipelineError> {
    let part = &unit.normalizer;
    NormalizerInstance::new(&part.loaded, &part.settings, calls(part, book)).map_err(|f| plugin_failed(unit, part, f))
}

fn calls(part: &Part, book: &SeriesBook) -> Box<dyn HostCalls> {
    Box::new(Calls { plugin: part.record.plugin.clone(), book: book.clone() })
}

fn plugin_failed(unit: &Unit, part: &Part, fault: PluginFault) -> PipelineError {
    PipelineError::Plugin { source_name: unit.name.clone(), plugin: part.record.plugin.clone(), fault }
}

fn refused(plugin: &str, reason: &str, ordinal: u64, frame: &[u8]) -> Refused {
    let frame = frame[..frame.len().min(SAMPLE_BYTES)].to_vec();
    Refused { plugin: plugin.to_owned(), reason: reason.to_owned(), ordinal, frame }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PipelineError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|e| PipelineError::corrupt("thread", e))
}
