//! Brings normalized batches in frame order: one thread reads and cuts, others normalize, order is kept by turns.
//!
//! Batch `k` goes to worker `k mod n` and is taken from there, so the result does not depend on the number of workers.
//! All queues are bounded: a slow engine slows the reader down.
//!
//! Plugins can be replaced while the transport stays open: what was cut before goes through the old workers, what is
//! cut behind it through the new ones, and the place where one ends and the other begins comes through the queue.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TrySendError, bounded, select};
use hb_log::hash::Hash;

use super::calls::Calls;
use super::journal::Columns;
use super::series::SeriesBook;
use super::{Cursor, Faulted, Normalized, PipelineError, Refused, Stage};
use crate::clock;
use crate::config::Config;
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

/// How long a source that is told to finish may go on with what has already arrived, ms: a flood has no end.
const FINISH_MS: u64 = 1_000;

/// Orders to a reader that wait: a change of plugins and the end. More are refused, not queued.
const QUEUE_ORDERS: usize = 2;

/// Bytes of a refused line that are kept as its sample.
const SAMPLE_BYTES: usize = 1_024;

/// How batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Frames per batch.
    pub batch_frames: u32,
    /// Bytes per batch.
    pub batch_bytes: u32,
    /// Longest line.
    pub max_line_bytes: u32,
}

impl FeedLimits {
    /// As a config says.
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        FeedLimits {
            batch_frames: limits.batch_frames,
            batch_bytes: limits.batch_bytes,
            max_line_bytes: limits.max_line_bytes,
        }
    }
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
    /// What comes from here on went through the plugins of [`Feed::swap`].
    Swapped,
    /// The source has ended.
    Ended,
    /// The source cannot go on.
    Failed(PipelineError),
}

/// A unit's plugins, configured and ready to take over.
pub struct Prepared {
    source: SourceInstance,
    workers: Vec<NormalizerInstance>,
}

impl Prepared {
    /// Starts a unit's plugins: only they can say whether their settings make sense together.
    pub fn new(unit: &Unit, book: &SeriesBook) -> Result<Prepared, PipelineError> {
        let start = |part: &Part| -> Result<NormalizerInstance, PipelineError> {
            NormalizerInstance::new(&part.loaded, &part.settings, calls(part, book))
                .map_err(|f| plugin_failed(unit, part, f))
        };
        let part = &unit.source;
        let source = SourceInstance::new(&part.loaded, &part.settings, calls(part, book))
            .map_err(|f| plugin_failed(unit, part, f))?;
        let workers = (0..unit.workers.max(1)).map(|_| start(&unit.normalizer)).collect::<Result<_, _>>()?;
        Ok(Prepared { source, workers })
    }
}

/// A running source with its normalizer workers. Dropping it ends them.
pub struct Feed {
    turns: Vec<Receiver<Message>>,
    turn: usize,
    /// Those of the plugins that are about to take over.
    next_turns: Option<Vec<Receiver<Message>>>,
    control: Sender<Vec<u8>>,
    orders: Sender<Order>,
    /// Of a subscription.
    handle: Option<MqttHandle>,
}

/// What a reader is told.
enum Order {
    /// These plugins take over with what is read next.
    Swap(Box<Incoming>),
    /// Take what has arrived, if it would be gone otherwise, and end.
    Finish,
}

/// Plugins that take over.
struct Incoming {
    /// The source plugin with its name, when it is another one.
    source: Option<(SourceInstance, String)>,
    jobs: Vec<Sender<Job>>,
    limits: FeedLimits,
}

enum Message {
    Batch(Box<Normalized>),
    Swapped,
    Ended,
    Failed(PipelineError),
}

/// A batch on its way to a normalizer.
enum Job {
    Batch(Box<Cut>),
    Swapped,
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
        let Prepared { mut source, workers } = Prepared::new(unit, book)?;
        // What comes now is behind the end of the last run: the source ends anew, and is sealed again.
        let cursor = Cursor { ended: false, ..resume.cloned().unwrap_or(Cursor { v: 1, ..Cursor::default() }) };
        source.open(cursor.plugin.as_deref()).map_err(|f| plugin_failed(unit, &unit.source, f))?;
        let (jobs, turns) = start_workers(unit, workers)?;
        let (control, commands) = bounded(1);
        let (orders, ordered) = bounded(QUEUE_ORDERS);
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
            ordered,
            finish_at: None,
            inbox: Inbox::default(),
            refused: Vec::new(),
            faults: Vec::new(),
            deliveries: DeliveryRows::default(),
            breaker: Breaker::default(),
        };
        tracing::debug!(source = unit.name, "reading");
        spawn("hb-source", move || reader.run())?;
        Ok(Feed { turns, turn: 0, next_turns: None, control, orders, handle })
    }

    /// Lets other plugins take over while the transport stays as it is; [`Next::Swapped`] says when they have. The
    /// source plugin is kept where `keeps_source` says that it is the same.
    pub fn swap(
        &mut self,
        unit: &Unit,
        prepared: Prepared,
        keeps_source: bool,
        limits: FeedLimits,
    ) -> Result<(), PipelineError> {
        let (jobs, turns) = start_workers(unit, prepared.workers)?;
        let source = (!keeps_source).then(|| (prepared.source, unit.source.record.plugin.clone()));
        let order = Order::Swap(Box::new(Incoming { source, jobs, limits }));
        let busy = |_| PipelineError::corrupt("source", "it has not done what it was told before");
        self.orders.try_send(order).map_err(busy)?;
        self.next_turns = Some(turns);
        Ok(())
    }

    /// Ends the source: what would be gone with its transport still comes, then [`Next::Ended`].
    pub fn finish(&self) {
        // Whoever was told so before need not be told again.
        let _ = self.orders.try_send(Order::Finish);
    }

    /// The next batch in frame order, waiting at most until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Next {
        match self.turns[self.turn].recv_deadline(deadline) {
            Ok(Message::Batch(batch)) => {
                self.turn = (self.turn + 1) % self.turns.len();
                Next::Batch(batch)
            }
            Ok(Message::Swapped) => {
                self.turns = self.next_turns.take().unwrap_or_default();
                self.turn = 0;
                Next::Swapped
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
    ordered: Receiver<Order>,
    /// Until when it may go on with what has arrived, once it was told to finish.
    finish_at: Option<Instant>,
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
        if self.finish_at.is_some_and(|at| at <= Instant::now()) {
            return Ok(ControlFlow::Break(()));
        }
        if self.inbox.frames.is_empty() {
            let mut raw = RawFrames::default();
            let (frames, bytes) = (self.limits.batch_frames as usize, self.limits.batch_bytes as usize);
            match self.transport.read(frames, bytes, &mut raw)? {
                Progress::Frames => self.fill(raw),
                Progress::Event(event) => self.note(event)?,
                Progress::Skipping => return Ok(ControlFlow::Continue(0)),
                Progress::Idle if self.finish_at.is_some() => return Ok(ControlFlow::Break(())),
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
                    self.breaker = Breaker::default();
                }
            }
        }
        Ok(())
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
                Job::Swapped => Message::Swapped,
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

/// Gives each normalizer instance a thread with a queue before and one behind it.
fn start_workers(
    unit: &Unit,
    instances: Vec<NormalizerInstance>,
) -> Result<(Vec<Sender<Job>>, Vec<Receiver<Message>>), PipelineError> {
    let (source, record): (Arc<str>, _) = (unit.name.as_str().into(), Hash::of(&unit.record()));
    let (mut jobs, mut turns) = (Vec::new(), Vec::new());
    for instance in instances {
        let (to_worker, inbox) = bounded::<Job>(QUEUE_BATCHES);
        let (to_taker, turn) = bounded::<Message>(QUEUE_BATCHES);
        let plugin = unit.normalizer.record.plugin.clone();
        let worker = Worker { source: Arc::clone(&source), unit: record, plugin, instance };
        spawn("hb-normalize", move || worker.run(&inbox, &to_taker))?;
        jobs.push(to_worker);
        turns.push(turn);
    }
    Ok((jobs, turns))
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

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), PipelineError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|e| PipelineError::corrupt("thread", e))
}
