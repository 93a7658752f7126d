//! One connection to a broker: two thin adapters over the library's two protocol versions.
//!
//! The library's event loop is made anew for each connection. It would reconnect by itself, but then acknowledgements
//! meant for the old connection could go out on the new one, where their packet ids mean other messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5;
use rumqttc::v5::mqttbytes as bytes5;
use rumqttc::{NetworkOptions, TlsConfiguration, TlsError, Transport, mqttbytes};
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};

use super::delivery::{Ack, Incoming, Sent};
use super::{Digest, MqttOptions, MqttVersion, Qos, tls};

/// TCP, TLS and the broker's answer together, s.
pub(super) const CONNECT_TIMEOUT_S: u64 = 5;

/// The largest packet MQTT knows, and a little more. A smaller limit would end the connection at a larger packet, and
/// the broker would begin with the same packet on the next one: nothing would ever come again. What is too long for
/// hb is refused as a message instead.
const MAX_PACKET_BYTES: u32 = (256 << 20) + 16;

/// Requests on their way to the event loop: one acknowledgement for each packet id, which a broker cannot exceed, and
/// room for the few others.
const REQUESTS: usize = 65_536 + 1_024;

/// Own messages in flight: there are none, but the library keeps room for them.
const OUTGOING: u16 = 16;

/// What happened on the connection.
pub(super) enum Happening {
    Connected {
        session_present: bool,
        /// The broker wants another one.
        keep_alive_s: Option<u16>,
    },
    /// For each filter in their order what was granted, or why not.
    Subscribed(Vec<Result<Qos, String>>),
    Unsubscribed,
    Message(Incoming),
    /// The farewell has been sent.
    Disconnected,
    Nothing,
}

/// The receiving end.
pub(super) enum Link {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// The sending end. It never waits: a request that finds no room is an error of the connection.
#[derive(Clone, Debug)]
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A request was not taken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection takes no more requests")]
pub(super) struct NotTaken;

impl Link {
    /// Nothing is sent before the first poll.
    pub(super) fn new(options: &MqttOptions, tls: Option<Arc<ClientConfig>>) -> (Client, Link) {
        let transport = tls.map_or_else(Transport::tcp, |c| Transport::tls_with_config(TlsConfiguration::Rustls(c)));
        let keep_alive = Duration::from_secs(options.keep_alive_s.into());
        let login = options.user.clone().map(|user| (user, options.password.clone().unwrap_or_default()));
        let mut network = NetworkOptions::new();
        // Acknowledgements are small and many; waiting to fill a packet would only slow the broker down.
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        match options.version {
            MqttVersion::V3 => {
                let mut o = rumqttc::MqttOptions::new(&options.client_id, &options.host, options.port);
                o.set_transport(transport).set_keep_alive(keep_alive).set_clean_session(false).set_manual_acks(true);
                o.set_max_packet_size(MAX_PACKET_BYTES as usize, MAX_PACKET_BYTES as usize).set_inflight(OUTGOING);
                if let Some((user, password)) = login {
                    o.set_credentials(user, password);
                }
                let (client, mut event_loop) = rumqttc::AsyncClient::new(o, REQUESTS);
                event_loop.set_network_options(network);
                (Client::V3(client), Link::V3(Box::new(event_loop)))
            }
            MqttVersion::V5 => {
                let mut o = v5::MqttOptions::new(&options.client_id, &options.host, options.port);
                o.set_transport(transport).set_keep_alive(keep_alive).set_clean_start(false).set_manual_acks(true);
                o.set_connection_timeout(CONNECT_TIMEOUT_S).set_network_options(network);
                // No topic aliases are asked for: the library hands such messages out without their topic.
                o.set_max_packet_size(Some(MAX_PACKET_BYTES)).set_outgoing_inflight_upper_limit(OUTGOING);
                o.set_session_expiry_interval(Some(options.session_expiry_s));
                if let Some((user, password)) = login {
                    o.set_credentials(user, password);
                }
                let (client, event_loop) = v5::AsyncClient::new(o, REQUESTS);
                (Client::V5(client), Link::V5(Box::new(event_loop)))
            }
        }
    }

    /// Waits for what happens next. An error ends the connection; its text holds no secret and no content.
    pub(super) async fn poll(&mut self) -> Result<Happening, String> {
        match self {
            Link::V3(event_loop) => event_loop.poll().await.map(happening_v3).map_err(|e| explain_v3(&e)),
            Link::V5(event_loop) => event_loop.poll().await.map(happening_v5).map_err(|e| explain_v5(&e)),
        }
    }

    /// What had come before an error and was not handed out: the library reads several packets at once.
    pub(super) fn rest(&mut self) -> Vec<Happening> {
        match self {
            Link::V3(event_loop) => event_loop.state.events.drain(..).map(happening_v3).collect(),
            Link::V5(event_loop) => event_loop.state.events.drain(..).map(happening_v5).collect(),
        }
    }
}

impl Client {
    pub(super) fn acknowledge(&self, ack: Ack) -> Result<(), NotTaken> {
        let taken = match self {
            Client::V3(client) => {
                let qos = if ack.exactly_once { mqttbytes::QoS::ExactlyOnce } else { mqttbytes::QoS::AtLeastOnce };
                let mut publish = mqttbytes::v4::Publish::from_bytes(String::new(), qos, Bytes::new());
                publish.pkid = ack.packet_id;
                client.try_ack(&publish).is_ok()
            }
            Client::V5(client) => {
                let qos = if ack.exactly_once { bytes5::QoS::ExactlyOnce } else { bytes5::QoS::AtLeastOnce };
                let publish = bytes5::v5::Publish { qos, pkid: ack.packet_id, ..Default::default() };
                client.try_ack(&publish).is_ok()
            }
        };
        taken.then_some(()).ok_or(NotTaken)
    }

    pub(super) fn subscribe(&self, topics: &[String], qos: Qos) -> Result<(), NotTaken> {
        let taken = match self {
            Client::V3(client) => {
                let qos = match qos {
                    Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
                    Qos::AtLeastOnce | Qos::ExactlyOnce => mqttbytes::QoS::AtLeastOnce,
                };
                let filters = topics.iter().map(|t| mqttbytes::v4::SubscribeFilter::new(t.clone(), qos));
                client.try_subscribe_many(filters).is_ok()
            }
            Client::V5(client) => {
                let qos = match qos {
                    Qos::AtMostOnce => bytes5::QoS::AtMostOnce,
                    Qos::AtLeastOnce | Qos::ExactlyOnce => bytes5::QoS::AtLeastOnce,
                };
                let filters = topics.iter().map(|topic| {
                    let mut filter = bytes5::v5::Filter::new(topic, qos);
                    // Retained messages would double at every connection; MQTT 3.1.1 cannot ask for this.
                    filter.retain_forward_rule = bytes5::v5::RetainForwardRule::OnNewSubscribe;
                    filter
                });
                client.try_subscribe_many(filters).is_ok()
            }
        };
        taken.then_some(()).ok_or(NotTaken)
    }

    pub(super) fn unsubscribe(&self, topic: &str) -> Result<(), NotTaken> {
        let taken = match self {
            Client::V3(client) => client.try_unsubscribe(topic).is_ok(),
            Client::V5(client) => client.try_unsubscribe(topic).is_ok(),
        };
        taken.then_some(()).ok_or(NotTaken)
    }

    pub(super) fn disconnect(&self) -> Result<(), NotTaken> {
        let taken = match self {
            Client::V3(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
        taken.then_some(()).ok_or(NotTaken)
    }
}

fn happening_v3(event: rumqttc::Event) -> Happening {
    use rumqttc::{Event, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::ConnAck(ack)) => {
            Happening::Connected { session_present: ack.session_present, keep_alive_s: None }
        }
        Event::Incoming(Packet::Publish(publish)) => {
            let sent = (publish.qos != mqttbytes::QoS::AtMostOnce).then(|| Sent {
                packet_id: publish.pkid,
                dup: publish.dup,
                exactly_once: publish.qos == mqttbytes::QoS::ExactlyOnce,
                hash: digest(publish.topic.as_bytes(), &publish.payload),
            });
            let topic = publish.topic.into();
            Happening::Message(Incoming { topic, payload: publish.payload, retained: publish.retain, sent })
        }
        Event::Incoming(Packet::SubAck(ack)) => Happening::Subscribed(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(mqttbytes::QoS::AtMostOnce) => Ok(Qos::AtMostOnce),
                    SubscribeReasonCode::Success(_) => Ok(Qos::AtLeastOnce),
                    SubscribeReasonCode::Failure => Err("no reason given".into()),
                })
                .collect(),
        ),
        Event::Incoming(Packet::UnsubAck(_)) => Happening::Unsubscribed,
        Event::Outgoing(Outgoing::Disconnect) => Happening::Disconnected,
        _ => Happening::Nothing,
    }
}

fn happening_v5(event: v5::Event) -> Happening {
    use bytes5::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            let keep_alive_s = ack.properties.and_then(|p| p.server_keep_alive);
            Happening::Connected { session_present: ack.session_present, keep_alive_s }
        }
        v5::Event::Incoming(Packet::Publish(publish)) => {
            let sent = (publish.qos != bytes5::QoS::AtMostOnce).then(|| Sent {
                packet_id: publish.pkid,
                dup: publish.dup,
                exactly_once: publish.qos == bytes5::QoS::ExactlyOnce,
                hash: digest(&publish.topic, &publish.payload),
            });
            // A topic that is no UTF-8 is the broker's fault; the message is still somebody's.
            let topic = String::from_utf8_lossy(&publish.topic).into();
            Happening::Message(Incoming { topic, payload: publish.payload, retained: publish.retain, sent })
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => Happening::Subscribed(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(bytes5::QoS::AtMostOnce) => Ok(Qos::AtMostOnce),
                    SubscribeReasonCode::Success(_) => Ok(Qos::AtLeastOnce),
                    refused => Err(words(refused)),
                })
                .collect(),
        ),
        v5::Event::Incoming(Packet::UnsubAck(_)) => Happening::Unsubscribed,
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Happening::Disconnected,
        _ => Happening::Nothing,
    }
}

fn digest(topic: &[u8], payload: &[u8]) -> Digest {
    let whole = Sha256::new().chain_update(topic).chain_update([0]).chain_update(payload).finalize();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..size_of::<Digest>()]);
    half
}

const CLOSED: &str = "the broker closed the connection";
const NO_PONG: &str = "the broker does not answer pings";
const NO_BROKER: &str = "the other side is no MQTT broker";

fn explain_v3(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
    match error {
        ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(mqttbytes::Error::Io(e))) => {
            tls::explain_io("the broker", e)
        }
        ConnectionError::Tls(e) => explain_tls(e),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => NO_PONG.into(),
        ConnectionError::MqttState(e) => format!("MQTT failed: {e}"),
        ConnectionError::NetworkTimeout => no_answer(),
        ConnectionError::FlushTimeout => "the broker takes nothing more".into(),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion => refused("it does not speak MQTT 3.1.1"),
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => refused(CREDENTIALS),
            other => refused(&words(other)),
        },
        ConnectionError::NotConnAck(_) => NO_BROKER.into(),
        ConnectionError::RequestsDone => "closed".into(),
    }
}

fn explain_v5(error: &v5::ConnectionError) -> String {
    use bytes5::v5::ConnectReturnCode;
    use v5::{ConnectionError, StateError};
    match error {
        ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(bytes5::Error::Io(e))) => {
            tls::explain_io("the broker", e)
        }
        ConnectionError::Tls(e) => explain_tls(e),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => NO_PONG.into(),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            format!("{CLOSED}: {}", words(reason_code))
        }
        ConnectionError::MqttState(e) => format!("MQTT failed: {e}"),
        ConnectionError::Timeout(_) => no_answer(),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                refused("it does not speak MQTT 5")
            }
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => refused(CREDENTIALS),
            other => refused(&words(other)),
        },
        ConnectionError::NotConnAck(_) => NO_BROKER.into(),
        ConnectionError::RequestsDone => "closed".into(),
    }
}

/// Brokers do not say which of the two it was.
const CREDENTIALS: &str = "not authorized; check user, password and client id";

fn refused(why: &str) -> String {
    format!("the broker refused the connection: {why}")
}

fn no_answer() -> String {
    format!("no answer within {CONNECT_TIMEOUT_S} s")
}

fn explain_tls(error: &TlsError) -> String {
    match error {
        TlsError::Io(e) => tls::explain_io("the broker", e),
        TlsError::TLS(e) => tls::explain("the broker", e),
        TlsError::DNSName(_) => "the host is no name that a certificate can be for".into(),
        e => format!("TLS failed: {e}"),
    }
}

/// A code's name in words: `SessionTakenOver` as `session taken over`.
fn words(code: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(c.to_lowercase());
    }
    text
}
