//! The sending end of MQTT, for telemetry that hb makes itself: at least once, and it says when all has arrived.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{Client, Connection, Event, Packet};

/// Messages without an acknowledgement at a time: what a broker takes at once without dropping.
const IN_FLIGHT: u16 = 1_000;

/// Wait before the next connection is tried.
const RETRY: Duration = Duration::from_millis(200);

/// Longest wait for the first connection.
const GREETING: Duration = Duration::from_secs(5);

/// The broker hears from it at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Why something did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No thread.
    #[error("cannot start the MQTT thread")]
    Thread(#[from] io::Error),
    /// There was no connection to begin with.
    #[error("no connection to {broker}: {why}")]
    Connect {
        /// `HOST:PORT`.
        broker: String,
        /// What the connection says.
        why: String,
    },
    /// The last thing the connection said.
    #[error("{unacknowledged} messages were not acknowledged by {broker} within {} s: {why}", .waited.as_secs())]
    Late {
        /// `HOST:PORT`.
        broker: String,
        /// How many.
        unacknowledged: u64,
        /// How long was waited.
        waited: Duration,
        /// What the connection says.
        why: String,
    },
}

/// A client that publishes at QoS 1, as MQTT 3.1.1.
pub struct Publisher {
    client: Client,
    broker: String,
    sent: u64,
    arrived: Arc<Arrived>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Arrived {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    was_connected: bool,
    acknowledged: u64,
    /// What the connection said last, unless it is well.
    why: Option<String>,
    is_ending: bool,
}

impl Publisher {
    /// Connects to `host:port`, and on a thread of its own again when the connection is lost.
    pub fn start(host: &str, port: u16, client_id: &str) -> Result<Publisher, PublishError> {
        let mut options = rumqttc::MqttOptions::new(client_id, host, port);
        options.set_keep_alive(KEEP_ALIVE).set_inflight(IN_FLIGHT);
        let (client, connection) = Client::new(options, usize::from(IN_FLIGHT));
        let arrived = Arc::new(Arrived::default());
        let theirs = Arc::clone(&arrived);
        let thread = std::thread::Builder::new().name("hb-publish".into()).spawn(move || run(connection, &theirs))?;
        let publisher = Publisher { client, broker: format!("{host}:{port}"), sent: 0, arrived, thread: Some(thread) };
        publisher.greet()?;
        Ok(publisher)
    }

    /// Hands over a message. Waits while there are too many without an acknowledgement, as long as `patience`.
    pub fn publish(&mut self, topic: &str, payload: String, patience: Duration) -> Result<(), PublishError> {
        if self.sent.saturating_sub(self.acknowledged()) >= u64::from(IN_FLIGHT) {
            self.wait(self.sent - u64::from(IN_FLIGHT) / 2, patience)?;
        }
        let taken = self.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload);
        self.sent += 1;
        taken.map_err(|e| self.late(Duration::ZERO, &e.to_string()))
    }

    /// Messages handed over.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages the broker has.
    pub fn acknowledged(&self) -> u64 {
        self.arrived.lock().acknowledged
    }

    /// Waits until the broker has all of them.
    pub fn finish(&mut self, patience: Duration) -> Result<(), PublishError> {
        self.wait(self.sent, patience)
    }

    /// Waits for the first connection, or for the first reason why there is none.
    fn greet(&self) -> Result<(), PublishError> {
        let deadline = Instant::now() + GREETING;
        let mut state = self.arrived.lock();
        while !state.was_connected {
            let left = deadline.saturating_duration_since(Instant::now());
            let why = state.why.take().or_else(|| left.is_zero().then(|| "it does not answer".to_owned()));
            if let Some(why) = why {
                return Err(PublishError::Connect { broker: self.broker.clone(), why });
            }
            state = self.arrived.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn wait(&self, count: u64, patience: Duration) -> Result<(), PublishError> {
        let deadline = Instant::now() + patience;
        let mut state = self.arrived.lock();
        while state.acknowledged < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = state.why.clone().unwrap_or_else(|| "the connection stands".to_owned());
                drop(state);
                return Err(self.late(patience, &why));
            }
            state = self.arrived.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn late(&self, waited: Duration, why: &str) -> PublishError {
        let unacknowledged = self.sent - self.acknowledged();
        PublishError::Late { broker: self.broker.clone(), unacknowledged, waited, why: why.to_owned() }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.arrived.lock().is_ending = true;
        // Refused when the connection is gone, and then there is nothing to say good-bye to.
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Arrived {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(mut connection: Connection, arrived: &Arrived) {
    for happening in connection.iter() {
        let mut state = arrived.lock();
        match happening {
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                state.acknowledged += 1;
                state.why = None;
                arrived.news.notify_all();
            }
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                state.was_connected = true;
                state.why = None;
                arrived.news.notify_all();
            }
            Ok(_) => {}
            Err(_) if state.is_ending => return,
            Err(error) => {
                state.why = Some(error.to_string());
                arrived.news.notify_all();
                drop(state);
                std::thread::sleep(RETRY);
            }
        }
    }
}
