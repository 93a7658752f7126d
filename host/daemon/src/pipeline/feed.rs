//! Brings normalized batches in frame order: one thread reads and cuts, others normalize, order is kept by turns.
//!
//! Batch `k` goes to worker `k mod n` and is taken from there, so the result does not depend on the number of workers.
//! All queues are bounded: a slow engine slows the reader down.
//!
//! Plugins can be replaced while the transport stays open: what was cut before goes through the old workers, what is
//! cut behind it through the new ones, and the place where one ends and the other begins comes through the queue.

mod reader;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TrySendError, bounded};
use hb_log::hash::Hash;

use super::calls::Calls;
use super::series::SeriesBook;
use super::{Cursor, Faulted, Normalized, PipelineError, Refused};
use crate::config::Config;
use crate::generation::{Part, Unit, transport_options};
use crate::plugin::{Frames, HostCalls, NormalizerInstance, PluginFault, SourceInstance};
use crate::state::DeliveryRows;
use crate::telemetry::{Probe, Reading};
use crate::transport::mqtt::Digest;
use crate::transport::{MqttHandle, Position, Transport, TransportOptions};

use reader::{Inbox, Reader};
use worker::Worker;

/// Bytes of a refused line that are kept as its sample.
const SAMPLE_BYTES: usize = 1_024;

/// Batches between two threads: one being worked on, one waiting.
const QUEUE_BATCHES: usize = 2;

/// Orders to a reader that wait: a change of plugins and the end. More are refused, not queued.
const QUEUE_ORDERS: usize = 2;

/// How batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Frames per batch.
    pub batch_frames: u32,
    /// Bytes per batch.
    pub batch_bytes: u32,
    /// Longest line.
    pub max_line_bytes: u32,
    /// Frames of the source, after which it ends.
    pub max_frames: u64,
}

impl FeedLimits {
    /// As a config says.
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        FeedLimits {
            batch_frames: limits.batch_frames,
            batch_bytes: limits.batch_bytes,
            max_line_bytes: limits.max_line_bytes,
            max_frames: u64::MAX,
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
    probe: Option<Probe>,
    /// Frames that were cut and not taken.
    waiting: Arc<AtomicU64>,
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
        let waiting = Arc::new(AtomicU64::new(0));
        let (handle, probe) = (transport.handle(), with_waiting(transport.probe(), Arc::clone(&waiting)));
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
            faults_in_a_row: 0,
            waiting: Arc::clone(&waiting),
        };
        tracing::debug!(source = unit.name, "reading");
        spawn("hb-source", move || reader.run())?;
        Ok(Feed { turns, turn: 0, next_turns: None, control, orders, handle, probe: Some(probe), waiting })
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
                self.waiting.fetch_sub(batch.frames.len() as u64, Relaxed);
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

    /// How to ask its transport how it stands; whoever takes it asks.
    pub fn take_probe(&mut self) -> Option<Probe> {
        self.probe.take()
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

/// What a transport says of itself, with the frames that wait behind it.
fn with_waiting(transport: Option<Probe>, waiting: Arc<AtomicU64>) -> Probe {
    Box::new(move || {
        let reading = transport.as_ref().map(|probe| probe()).unwrap_or_default();
        Reading { waiting: waiting.load(Relaxed), ..reading }
    })
}

/// The queues before and behind the workers of a unit, in their order.
type Workers = (Vec<Sender<Job>>, Vec<Receiver<Message>>);

/// Gives each normalizer instance a thread with a queue before and one behind it.
fn start_workers(unit: &Unit, instances: Vec<NormalizerInstance>) -> Result<Workers, PipelineError> {
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

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), PipelineError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|e| PipelineError::corrupt("thread", e))
}

fn refused(plugin: &str, reason: &str, ordinal: u64, frame: &[u8]) -> Refused {
    let frame = frame[..frame.len().min(SAMPLE_BYTES)].to_vec();
    Refused { plugin: plugin.to_owned(), reason: reason.to_owned(), ordinal, frame }
}
