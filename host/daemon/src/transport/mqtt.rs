//! The MQTT transport subscribes to topics of a broker, and acknowledges what has been committed, not what has arrived.
//!
//! The session at the broker outlives connections and processes: a stable client id, never a clean start. What comes
//! while hb is away waits there. What was committed but not acknowledged comes again and is recognised; `delivery`
//! tells how.
//!
//! ```text
//! broker -> connection (own thread) -> queue -> read -> pipeline -> commit -> acknowledge -> broker
//! ```
//!
//! The connection never waits for the reader: where there is no room for more messages of QoS 1 it stops reading from the
//! socket, so that they wait at the broker, and goes on acknowledging and pinging. Messages of QoS 0 beyond a cap are
//! dropped and counted. Without a broker there is nothing to read, and the transport tries again: that is a state, shown
//! by [`MqttHandle::status`], and no error.
//!
//! After an error everything of the connection is thrown away and made anew, so that no acknowledgement crosses over.
//!
//! With MQTT 3.1.1 retained messages come again after each connection; MQTT 5 sends them once in a session. To the
//! transport they are messages like others.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

mod delivery;
mod link;
mod options;
pub mod publish;
mod worker;

pub use options::{MqttError, MqttOptions, MqttVersion, Qos};
pub use tls::{ClientCertificate, TlsError, TlsOptions};

use super::tls;
use delivery::{Deliveries, MAX_UNACKNOWLEDGED};
use link::Outbox;
use worker::Worker;

/// What tells a message from another: the first half of SHA-256 over topic, a zero byte and payload.
pub type Digest = [u8; 16];

/// Which session it is, to be stored with what came of it and handed back at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttPosition {
    /// Host and port.
    pub broker: String,
    /// Client id.
    pub client_id: String,
    /// Counts sessions. Stored entries of another epoch are void.
    pub epoch: u64,
    /// Filters the session may hold: a broker keeps them until told otherwise.
    pub topics: Vec<String>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published: its origin.
    pub topic: Arc<str>,
    /// Its bytes.
    pub payload: Bytes,
    /// Counts messages of this transport from 1; [`MqttHandle::acknowledge`] takes it.
    pub number: u64,
    /// The broker had kept it for new subscribers.
    pub retained: bool,
    /// It was longer than allowed, by its whole length; `payload` is only the beginning.
    pub oversize_bytes: Option<u64>,
    /// What to store with it, to recognise it when it comes again. `None` for QoS 0.
    pub delivery: Option<Delivery>,
}

/// How a message is recognised when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Session epoch. An entry of an epoch other than the newest is not worth storing.
    pub epoch: u64,
    /// Packet id; a later message of the same id replaces the entry.
    pub packet_id: u16,
    /// What it was.
    pub hash: Digest,
}

/// What a read brought, in memory that is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MqttBatch {
    /// In the order of arrival.
    pub messages: Vec<Message>,
    /// Packet ids whose stored entries are to be removed before those of `messages` are written: the broker cannot send
    /// these messages again, and a later one that looks the same must not be taken for them.
    pub settled: Vec<u16>,
}

impl MqttBatch {
    /// Forgets the content but keeps the memory.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.settled.clear();
    }
}

/// What a call to [`MqttTransport::read`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MqttProgress {
    /// There are messages.
    Messages,
    /// Something happened between two messages; none this time.
    Event(MqttEvent),
    /// Nothing now, perhaps later.
    Idle,
    /// It was stopped.
    End,
}

/// Something that happened between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttEvent {
    /// A session begins. Its epoch should be committed soon: a process that dies before may take a message of the new
    /// session for an equal one of the old.
    Session {
        /// Its epoch.
        epoch: u64,
        /// There was one before, and what it held is gone: what was not acknowledged in it may come again unnoticed,
        /// and what was published meanwhile may be missing.
        lost: bool,
    },
}

/// How it stands with the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttLink {
    /// No connection.
    Down,
    /// Connected, and not yet subscribed.
    Connected,
    /// Connected, and all topics subscribed.
    Subscribed,
    /// Connected, but the broker refused topics, or grants less than was asked; the error names them.
    Refused,
}

/// Counts since the transport was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MqttCounters {
    /// Messages that came, repeated and dropped ones too.
    pub received: u64,
    /// Repetitions that were recognised.
    pub duplicates: u64,
    /// Messages of QoS 0 that found the queue full.
    pub dropped_qos0: u64,
    /// Messages longer than allowed.
    pub oversize: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Sessions the broker no longer knew: messages may be missing or doubled.
    pub sessions_lost: u64,
}

/// What health and metrics show.
#[derive(Clone, Debug)]
pub struct MqttStatus {
    /// How it stands.
    pub link: MqttLink,
    /// Since when.
    pub since: Instant,
    /// What went wrong last; a subscription that stands clears it.
    pub error: Option<Arc<str>>,
    /// Counts.
    pub counters: MqttCounters,
    /// Messages the broker waits for.
    pub unacknowledged: u32,
    /// How many it sends before it waits, as configured.
    pub window: u32,
}

/// A subscription that is being read. Dropping it says farewell to the broker; the session stays.
pub struct MqttTransport {
    shared: Arc<Shared>,
    position: MqttPosition,
    thread: Option<JoinHandle<()>>,
}

/// What other threads may ask of a transport and do to it.
#[derive(Clone)]
pub struct MqttHandle(Arc<Shared>);

struct Shared {
    options: MqttOptions,
    state: Mutex<State>,
    /// Something in the state changed.
    changed: Condvar,
    /// Calls the connection's thread.
    call: Notify,
}

struct State {
    deliveries: Deliveries,
    link: MqttLink,
    since: Instant,
    error: Option<Arc<str>>,
    /// There is one as long as a connection stands.
    outbox: Option<Outbox>,
    /// Filters of an earlier configuration, until the broker has confirmed that they are gone.
    stale_topics: Vec<String>,
    /// Answers to come for them on this connection, before those to barriers.
    stale_pending: usize,
    /// Nothing more is handed out.
    stopped: bool,
    /// The thread ends.
    closing: bool,
    /// The connection must not go on.
    broken: bool,
}

impl MqttTransport {
    /// Opens the transport; connecting goes on beside. `delivered` are the stored entries of the position's epoch. When
    /// broker or client id have changed, they are void, and a new epoch begins.
    pub fn open(
        options: MqttOptions,
        resume: Option<&MqttPosition>,
        delivered: impl IntoIterator<Item = (u16, Digest)>,
    ) -> Result<Self, MqttError> {
        options.check()?;
        let position = resume.cloned().unwrap_or_default();
        let same = position.epoch > 0 && position.broker == options.broker() && position.client_id == options.client_id;
        // What is stored says nothing about another session.
        let unmarked = options.unmarked.then(|| options.window());
        let session = same.then_some(delivered);
        let deliveries = Deliveries::new(position.epoch, session, options.max_payload_bytes, unmarked);
        let stale_topics = position.topics.iter().filter(|t| same && !options.topics.contains(t)).cloned().collect();
        let state = State {
            deliveries,
            link: MqttLink::Down,
            since: Instant::now(),
            error: None,
            outbox: None,
            stale_topics,
            stale_pending: 0,
            stopped: false,
            closing: false,
            broken: false,
        };
        let (changed, call) = (Condvar::new(), Notify::new());
        let shared = Arc::new(Shared { options, state: Mutex::new(state), changed, call });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(MqttError::Thread)?;
        let worker = Worker(Arc::clone(&shared));
        let run = move || {
            runtime.block_on(worker.run());
            // A name that is still being looked up must not hold the thread.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("hb-mqtt".into()).spawn(run).map_err(MqttError::Thread)?;
        Ok(MqttTransport { shared, position, thread: Some(thread) })
    }

    /// Replaces the content of `out` with the next messages: at most `max_messages`, and at most `max_bytes` of payload
    /// unless a single message has more. Never waits.
    pub fn read(&mut self, max_messages: usize, max_bytes: usize, out: &mut MqttBatch) -> MqttProgress {
        let mut state = self.shared.lock();
        if state.stopped {
            out.clear();
            return MqttProgress::End;
        }
        let was_full = state.deliveries.room(0) == 0;
        let progress = state.deliveries.read(max_messages, max_bytes, out);
        if was_full && state.deliveries.room(0) > 0 {
            self.shared.call.notify_one();
        }
        if let MqttProgress::Event(MqttEvent::Session { epoch, .. }) = progress {
            let options = &self.shared.options;
            self.position.epoch = epoch;
            self.position.broker = options.broker();
            self.position.client_id.clone_from(&options.client_id);
        }
        progress
    }

    /// Waits until there may be something to read, or the transport is stopped; false when the deadline came first.
    pub fn wait(&mut self, deadline: Instant) -> bool {
        self.shared.wait(deadline, |state| state.stopped || !state.deliveries.is_empty())
    }

    /// The session of what has been handed out.
    pub fn position(&self) -> MqttPosition {
        let mut topics = self.shared.options.topics.clone();
        topics.extend(self.shared.lock().stale_topics.iter().cloned());
        MqttPosition { topics, ..self.position.clone() }
    }

    /// For other threads.
    pub fn handle(&self) -> MqttHandle {
        MqttHandle(Arc::clone(&self.shared))
    }
}

impl Drop for MqttTransport {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            (state.stopped, state.closing) = (true, true);
        }
        self.shared.changed.notify_all();
        self.shared.call.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been told on stderr.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MqttTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttTransport").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl MqttHandle {
    /// Tells the broker that everything up to this number is committed. Never waits, and may be called by the thread
    /// that commits: a broker whose window is full sends nothing until it hears of it.
    pub fn acknowledge(&self, up_to: u64) {
        let mut state = self.0.lock();
        let was_full = state.deliveries.room(0) == 0;
        state.deliveries.commit(up_to);
        let has_acks = self.0.send_acks(&mut state);
        // The connection sends them, and reads on where it had no room.
        if has_acks || (was_full && state.deliveries.room(0) > 0) {
            self.0.call.notify_one();
        }
    }

    /// Whether half of the broker's window, or of what hb takes, is used up: it should hear of a commit before it stops
    /// sending.
    pub fn wants_commit(&self) -> bool {
        let window = self.0.options.window().min(MAX_UNACKNOWLEDGED as u32);
        self.0.lock().deliveries.unacknowledged().saturating_mul(2) >= window
    }

    /// How it stands.
    pub fn status(&self) -> MqttStatus {
        self.0.status(&self.0.lock())
    }

    /// Ends reading: waiting returns, and nothing more is handed out. The connection stays until the transport is
    /// dropped, so that what was handed out can still be acknowledged.
    pub fn stop(&self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for MqttHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MqttHandle").field(&self.0.options).finish()
    }
}

impl State {
    fn change(&mut self, link: MqttLink, error: Option<Arc<str>>) {
        if self.link != link {
            (self.link, self.since) = (link, Instant::now());
        }
        self.error = error;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, even if a thread died holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, state: &State) -> MqttStatus {
        MqttStatus {
            link: state.link,
            since: state.since,
            error: state.error.clone(),
            counters: state.deliveries.counters,
            unacknowledged: state.deliveries.unacknowledged(),
            window: self.options.window(),
        }
    }

    fn wait(&self, deadline: Instant, ready: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        while !ready(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Puts into the outbox what is due; whether there was anything.
    fn send_acks(&self, state: &mut State) -> bool {
        let State { outbox: Some(outbox), deliveries, .. } = state else { return false };
        let (mut taken, mut any) = (Ok(()), false);
        while let Some(ack) = deliveries.next_ack() {
            taken = taken.and_then(|()| outbox.acknowledge(ack));
            any = true;
        }
        // Answers come without names, in order.
        if state.stale_pending == 0 && deliveries.barrier_due() {
            taken = taken.and_then(|()| outbox.unsubscribe(&self.barrier()));
        }
        state.broken |= taken.is_err();
        any
    }

    /// A filter nobody subscribes to.
    fn barrier(&self) -> String {
        let mut filter = "hb/nothing".to_owned();
        while self.options.topics.contains(&filter) {
            filter.push('-');
        }
        filter
    }
}

#[cfg(test)]
mod tests;
