//! The thread of an MQTT transport: connects, follows the connection, and begins anew when it ends.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{self, Client, Happening, Link};
use super::{MqttLink, Qos, Shared, tls};
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

/// The event loop's thread.
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
        let followed = match self.0.options.tls.as_ref().map(tls::client_config).transpose() {
            Ok(config) => {
                let (client, link) = Link::new(&self.0.options, config);
                self.follow(client, link, &mut since).await
            }
            Err(e) => Err(chain(&e)),
        };
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.client = None;
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
    async fn follow(&self, client: Client, mut link: Link, since: &mut Option<Instant>) -> Result<(), String> {
        let mut patience = patience(self.0.options.keep_alive_s);
        let mut farewell = None;
        loop {
            let until = farewell.unwrap_or_else(|| tokio::time::Instant::now() + patience);
            let polled = tokio::select! {
                biased;
                () = self.0.call.notified() => {
                    let state = self.0.lock();
                    if state.closing {
                        // Behind the last acknowledgements.
                        if since.is_none() || client.disconnect().is_err() {
                            return Ok(());
                        }
                        farewell = Some(tokio::time::Instant::now() + FAREWELL);
                    } else if state.broken {
                        return Err(link::NotTaken.to_string());
                    }
                    continue;
                }
                () = tokio::time::sleep_until(until) => Err("the broker is silent".to_owned()),
                polled = link.poll() => polled,
            };
            if polled.is_err() {
                self.take_rest(&mut link);
            }
            let taken = polled.and_then(|happening| {
                match happening {
                    Happening::Connected { .. } if since.is_some() => return Err("the broker greets twice".to_owned()),
                    Happening::Connected { keep_alive_s, .. } => {
                        *since = Some(Instant::now());
                        patience = keep_alive_s.map_or(patience, self::patience);
                    }
                    _ => {}
                }
                self.take(&client, happening)
            });
            match taken {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(_) if farewell.is_some() => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes the messages that came before the end of a connection: a broker that was killed may have forgotten them.
    fn take_rest(&self, link: &mut Link) {
        let mut state = self.0.lock();
        for happening in link.rest() {
            if let Happening::Message(incoming) = happening
                && state.deliveries.receive(incoming).is_err()
            {
                // The broker keeps what is not acknowledged, from here on.
                return;
            }
        }
    }

    /// Brings the state up to date with what happened on the connection. Breaks after the farewell.
    fn take(&self, client: &Client, happening: Happening) -> Result<ControlFlow<()>, String> {
        let options = &self.0.options;
        let mut guard = self.0.lock();
        let state = &mut *guard;
        match happening {
            Happening::Connected { session_present, .. } => {
                tracing::info!(broker = options.broker(), session_present, "connected to the MQTT broker");
                state.deliveries.connected(session_present);
                state.client = Some(client.clone());
                state.stale_pending = state.stale_topics.len();
                state.change(MqttLink::Connected, None);
                for topic in &state.stale_topics {
                    client.unsubscribe(topic).map_err(|e| e.to_string())?;
                }
                // At each connection: a broker that was killed may know the session and not its subscriptions.
                client.subscribe(&options.topics, options.qos).map_err(|e| e.to_string())?;
            }
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
                    self.0.send_acks(state);
                }
            }
            Happening::Unsubscribed => {
                state.deliveries.barrier_passed();
                self.0.send_acks(state);
            }
            Happening::Message(incoming) => {
                state.deliveries.receive(incoming).map_err(|e| e.to_string())?;
                self.0.send_acks(state);
            }
            Happening::Disconnected => return Ok(ControlFlow::Break(())),
            Happening::Nothing => return Ok(ControlFlow::Continue(())),
        }
        drop(guard);
        self.0.changed.notify_all();
        Ok(ControlFlow::Continue(()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Also when the thread panics: nobody should see a connection that is not there.
        let mut state = self.0.lock();
        state.client = None;
        state.deliveries.disconnected();
        if !state.closing {
            state.change(MqttLink::Down, Some("the MQTT thread has ended".into()));
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

/// How long nothing at all may happen. The library pings once in a keep-alive and gives up at the second ping without
/// an answer; longer silence means that it hangs in a write.
fn patience(keep_alive_s: u16) -> Duration {
    Duration::from_secs(2 * u64::from(keep_alive_s) + link::CONNECT_TIMEOUT_S)
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
