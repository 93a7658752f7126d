//! The thread of an MQTT transport: connects, follows the connection, and begins anew when it ends.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Happening, Link, NotTaken, Outbox};
use super::{MqttLink, Qos, Shared, State, tls};
use crate::diagnostic::chain;

/// First and longest pause between two attempts to connect. It doubles, and differs between clients: a broker that
/// comes back must not meet all of them at once.
const BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A connection that held this long begins again with the shortest pause: a broker that is started again each minute
/// has not to wait for longer and longer. One that takes connections and drops them soon has.
const STEADY: Duration = Duration::from_secs(5);

/// Nor is a connection steady before it held this many times the longest that the pause before it could be: two
/// clients of one id throw each other out, so that each holds for the pause of the other.
const STEADY_PAUSES: u32 = 3;

/// How long the last acknowledgements and the farewell may take when the transport is dropped.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection's thread.
pub(super) struct Worker(pub(super) Arc<Shared>);

/// How a connection ended.
enum Ended {
    /// The transport is being dropped.
    Closed,
    /// By an error, after it had stood so long.
    Failed { stood: Duration },
}

impl Worker {
    /// Runs until the transport is dropped.
    pub(super) async fn run(&self) {
        let mut pauses = Pauses::of(&self.0.options.client_id);
        while !self.0.lock().closing {
            let Ended::Failed { stood } = self.connection().await else { return };
            tokio::select! {
                () = tokio::time::sleep(pauses.behind(stood)) => {}
                () = self.0.call.notified() => {}
            }
        }
    }

    /// Connects, and stays until something fails or the transport is dropped.
    async fn connection(&self) -> Ended {
        let mut since = None;
        let followed = self.follow(&mut since).await;
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.outbox = None;
        state.broken = false;
        state.deliveries.disconnected();
        let ended = match followed {
            Ok(()) => {
                state.change(MqttLink::Down, None);
                Ended::Closed
            }
            Err(error) => {
                // The same again and again is told once.
                if state.link != MqttLink::Down || state.error.as_deref() != Some(&error) {
                    tracing::warn!(broker = self.0.options.broker(), error, "no connection to the MQTT broker");
                }
                state.change(MqttLink::Down, Some(error.into()));
                Ended::Failed { stood: since.map_or(Duration::ZERO, |since| since.elapsed()) }
            }
        };
        drop(guard);
        self.0.changed.notify_all();
        ended
    }

    /// Follows a connection from its first byte to its last; `since` becomes the time from which it stood.
    async fn follow(&self, since: &mut Option<Instant>) -> Result<(), String> {
        let Some((mut link, session_present)) = self.open().await? else { return Ok(()) };
        *since = Some(Instant::now());
        self.greeted(session_present).map_err(|e| e.to_string())?;
        let ended = self.exchange(&mut link).await;
        match ended {
            Ok(()) => link.farewell(FAREWELL).await,
            Err(_) => self.take_rest(&mut link).await,
        }
        ended
    }

    /// Connects, unless the transport is dropped meanwhile.
    async fn open(&self) -> Result<Option<(Link, bool)>, String> {
        let options = &self.0.options;
        let tls = options.tls.as_ref().map(tls::client_config).transpose().map_err(|e| chain(&e))?;
        let mut opened = std::pin::pin!(Link::open(options, tls));
        loop {
            tokio::select! {
                biased;
                () = self.0.call.notified() => {
                    if self.0.lock().closing {
                        return Ok(None);
                    }
                }
                opened = &mut opened => return opened.map(Some),
            }
        }
    }

    /// Begins with a connection that stands.
    fn greeted(&self, session_present: bool) -> Result<(), NotTaken> {
        let options = &self.0.options;
        tracing::info!(broker = options.broker(), session_present, "connected to the MQTT broker");
        let mut outbox = Outbox::new(options.version);
        let mut guard = self.0.lock();
        let state = &mut *guard;
        for topic in &state.stale_topics {
            outbox.unsubscribe(topic)?;
        }
        // At each connection: a broker that was killed may know the session and not its subscriptions.
        outbox.subscribe(&options.topics, options.qos)?;
        state.deliveries.connected(session_present);
        state.outbox = Some(outbox);
        state.stale_pending = state.stale_topics.len();
        state.change(MqttLink::Connected, None);
        drop(guard);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Takes what comes and sends what is due, until the transport is dropped.
    async fn exchange(&self, link: &mut Link) -> Result<(), String> {
        let mut happenings = Vec::new();
        loop {
            let room = {
                let mut state = self.0.lock();
                if state.broken {
                    return Err(NotTaken.to_string());
                }
                if let Some(outbox) = &mut state.outbox {
                    link.send(outbox);
                }
                if state.closing {
                    return Ok(());
                }
                state.deliveries.room(link.unsent())
            };
            let read = link.packets(room, &mut happenings);
            if !happenings.is_empty() {
                self.take(happenings.drain(..))?;
                read?;
                continue;
            }
            read?;
            tokio::select! {
                biased;
                () = self.0.call.notified() => {}
                moved = link.transfer(room > 0) => moved?,
            }
        }
    }

    /// Takes the messages that came before the end of a connection: a broker that was killed may have forgotten them.
    /// What there is no room for is lost with such a broker, as is what had not left it.
    async fn take_rest(&self, link: &mut Link) {
        let room = self.0.lock().deliveries.room_for_rest();
        let rest = link.rest(room).await;
        let mut state = self.0.lock();
        for happening in rest {
            if let Happening::Message(incoming) = happening {
                state.deliveries.receive(incoming);
            }
        }
    }

    /// Brings the state up to date with what happened on the connection.
    fn take(&self, happenings: impl Iterator<Item = Happening>) -> Result<(), String> {
        let mut state = self.0.lock();
        for happening in happenings {
            self.take_one(&mut state, happening)?;
        }
        self.0.send_acks(&mut state);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    fn take_one(&self, state: &mut State, happening: Happening) -> Result<(), String> {
        let options = &self.0.options;
        match happening {
            Happening::Connected { .. } => return Err("the broker greets twice".to_owned()),
            Happening::Subscribed(answers) => {
                let refused: Vec<String> = options
                    .topics
                    .iter()
                    .zip(answers)
                    .filter_map(|(topic, answer)| match answer {
                        Ok(Qos::AtMostOnce) if options.qos != Qos::AtMostOnce => {
                            Some(format!("`{topic}` (only at QoS 0)"))
                        }
                        Ok(_) => None,
                        Err(why) => Some(format!("`{topic}` ({why})")),
                    })
                    .collect();
                if refused.is_empty() {
                    state.change(MqttLink::Subscribed, None);
                } else {
                    let error = format!("the broker refused to subscribe {}", refused.join(", "));
                    tracing::warn!(broker = options.broker(), error, "not all topics are subscribed");
                    state.change(MqttLink::Refused, Some(error.into()));
                }
            }
            Happening::Unsubscribed if state.stale_pending > 0 => {
                state.stale_pending -= 1;
                if state.stale_pending == 0 {
                    state.stale_topics.clear();
                }
            }
            Happening::Unsubscribed => state.deliveries.barrier_passed(),
            Happening::Message(incoming) => state.deliveries.receive(incoming),
            Happening::Released(packet_id) => {
                if let Some(outbox) = &mut state.outbox {
                    outbox.complete(packet_id).map_err(|e| e.to_string())?;
                }
            }
            Happening::Nothing => {}
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Also when the thread panics: nobody should see a connection that is not there.
        let mut state = self.0.lock();
        state.outbox = None;
        state.deliveries.disconnected();
        if !state.closing {
            state.change(MqttLink::Down, Some("the MQTT thread has ended".into()));
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

/// The pauses of one client between its attempts to connect.
pub(super) struct Pauses {
    client_id: String,
    /// Pauses since the last steady connection.
    in_a_row: u32,
}

impl Pauses {
    /// Begins with the shortest.
    pub(super) fn of(client_id: &str) -> Pauses {
        Pauses { client_id: client_id.to_owned(), in_a_row: 0 }
    }

    /// The pause behind a connection that stood so long; not at all where there was none.
    pub(super) fn behind(&mut self, stood: Duration) -> Duration {
        let before = self.in_a_row.checked_sub(1).map_or(Duration::ZERO, longest);
        if stood >= STEADY.max(before * STEADY_PAUSES) {
            self.in_a_row = 0;
        }
        let pause = self.between_half_and_all(longest(self.in_a_row));
        self.in_a_row = self.in_a_row.saturating_add(1);
        pause
    }

    /// The same client pauses the same way, others differently.
    fn between_half_and_all(&self, longest: Duration) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.client_id, self.in_a_row).hash(&mut hasher);
        let half_ms = longest.as_millis() as u64 / 2;
        Duration::from_millis(half_ms + hasher.finish() % (half_ms + 1))
    }
}

/// How long the pause may be behind so many others.
fn longest(in_a_row: u32) -> Duration {
    BACKOFF.saturating_mul(1 << in_a_row.min(16)).min(MAX_BACKOFF)
}
