//! One connection to a broker: bytes on a socket, and the packets in them.
//!
//! ```text
//! request -> outbox -> outgoing -> socket -> incoming -> happening
//! ```
//!
//! The packets are the library's, the loop is not: that of the library cannot stop reading while it goes on writing,
//! and reads up to ten packets for each acknowledgement that it sends.
//!
//! **What is due is written before more is read**, as much at once as there is. **Reading stops where there is no room**
//! for what may come: the buffers on the way fill up, and the broker keeps the rest. Acknowledgements and pings go on
//! meanwhile, and the broker's silence is not held against it, as nobody listens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::tokio_rustls::TlsConnector;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::delivery::{Ack, Incoming};
use super::{Digest, MqttOptions, MqttVersion, Qos, tls};

mod v3;
mod v5;

/// TCP, TLS and the broker's answer together, s.
const CONNECT_TIMEOUT_S: u64 = 5;

/// The largest packet MQTT knows, and a little more. A smaller limit would end the connection at a larger packet, and
/// the broker would begin with the same packet on the next one: nothing would ever come again. What is too long for
/// hb is refused as a message instead.
const MAX_PACKET_BYTES: u32 = (256 << 20) + 16;

/// Read at once: as much as a record of TLS holds. A message that waits may hold the whole of it.
const READ_BYTES: usize = 16 << 10;

/// With less room than this new memory is taken for reading.
const MIN_READ_BYTES: usize = 2 << 10;

/// Room in the kernel for what is written: 2,000 acknowledgements, enough for 20,000 a second on a way of 100 ms. What the
/// broker does not take stays where it is counted.
const SEND_BUFFER_BYTES: usize = 8 << 10;

/// An acknowledgement on the wire.
const ACK_BYTES: usize = 4;

/// The same in both versions.
const PING: [u8; 2] = [0xc0, 0];
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What happened on the connection.
pub(super) enum Happening {
    /// The greeting.
    Connected {
        session_present: bool,
        /// The broker wants another one.
        keep_alive_s: Option<u16>,
    },
    /// For each filter in their order what was granted, or why not.
    Subscribed(Vec<Result<Qos, String>>),
    Unsubscribed,
    Message(Incoming),
    /// The broker knows that a message of QoS 2 has arrived, and wants to hear that hb knows it.
    Released(u16),
    Nothing,
}

/// Requests on their way to the link. They never wait: of acknowledgements there are never more than messages that the
/// broker waits for, and of others few.
#[derive(Debug)]
pub(super) struct Outbox {
    version: MqttVersion,
    bytes: BytesMut,
    last_packet_id: u16,
}

/// A request was not taken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a request to the broker is longer than MQTT allows")]
pub(super) struct NotTaken;

impl Outbox {
    pub(super) fn new(version: MqttVersion) -> Outbox {
        Outbox { version, bytes: BytesMut::new(), last_packet_id: 0 }
    }

    pub(super) fn acknowledge(&mut self, ack: Ack) -> Result<(), NotTaken> {
        match self.version {
            MqttVersion::V3 => v3::acknowledge(ack, &mut self.bytes),
            MqttVersion::V5 => v5::acknowledge(ack, &mut self.bytes),
        }
    }

    /// The last of the four packets of a message of QoS 2.
    pub(super) fn complete(&mut self, packet_id: u16) -> Result<(), NotTaken> {
        match self.version {
            MqttVersion::V3 => v3::complete(packet_id, &mut self.bytes),
            MqttVersion::V5 => v5::complete(packet_id, &mut self.bytes),
        }
    }

    pub(super) fn subscribe(&mut self, topics: &[String], qos: Qos) -> Result<(), NotTaken> {
        let packet_id = self.next_packet_id();
        match self.version {
            MqttVersion::V3 => v3::subscribe(packet_id, topics, qos, &mut self.bytes),
            MqttVersion::V5 => v5::subscribe(packet_id, topics, qos, &mut self.bytes),
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: &str) -> Result<(), NotTaken> {
        let packet_id = self.next_packet_id();
        match self.version {
            MqttVersion::V3 => v3::unsubscribe(packet_id, topic, &mut self.bytes),
            MqttVersion::V5 => v5::unsubscribe(packet_id, topic, &mut self.bytes),
        }
    }

    /// Requests are few, and answered before their ids come again.
    fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id % u16::MAX + 1;
        self.last_packet_id
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that stands.
pub(super) struct Link {
    version: MqttVersion,
    reads: ReadHalf<Box<dyn Stream>>,
    writes: WriteHalf<Box<dyn Stream>>,
    /// Read, and not yet taken apart.
    incoming: BytesMut,
    /// What comes is no MQTT.
    garbled: bool,
    outgoing: BytesMut,
    /// TLS may hold back what was written.
    unflushed: bool,
    pings: Interval,
    since_ping: SincePing,
}

/// Signs of life since the last ping.
struct SincePing {
    /// Something came, or nobody listened.
    heard: bool,
    /// Something was written: the ping at least.
    written: bool,
}

impl Link {
    /// Connects and greets. The session at the broker, and whether it had one. An error's text holds no secret.
    pub(super) async fn open(options: &MqttOptions, tls: Option<Arc<ClientConfig>>) -> Result<(Link, bool), String> {
        let greeted = async {
            let mut link = Link::over(connect(options, tls).await?, options)?;
            let session_present = link.greet(options.keep_alive_s).await?;
            Ok((link, session_present))
        };
        let no_answer = |_| Err(format!("no answer within {CONNECT_TIMEOUT_S} s"));
        timeout(Duration::from_secs(CONNECT_TIMEOUT_S), greeted).await.unwrap_or_else(no_answer)
    }

    fn over(stream: Box<dyn Stream>, options: &MqttOptions) -> Result<Link, String> {
        let mut outgoing = BytesMut::new();
        let greeting = match options.version {
            MqttVersion::V3 => v3::connect(options, &mut outgoing),
            MqttVersion::V5 => v5::connect(options, &mut outgoing),
        };
        greeting.map_err(|e| e.to_string())?;
        let (reads, writes) = tokio::io::split(stream);
        Ok(Link {
            version: options.version,
            reads,
            writes,
            incoming: BytesMut::new(),
            garbled: false,
            outgoing,
            unflushed: false,
            pings: pings(options.keep_alive_s),
            since_ping: SincePing { heard: true, written: true },
        })
    }

    async fn greet(&mut self, keep_alive_s: u16) -> Result<bool, String> {
        loop {
            match self.next()? {
                Some(Happening::Connected { session_present, keep_alive_s: wanted }) => {
                    self.pings = pings(wanted.filter(|s| *s > 0).unwrap_or(keep_alive_s));
                    return Ok(session_present);
                }
                Some(_) => return Err(NO_BROKER.to_owned()),
                None => self.transfer(true).await?,
            }
        }
    }

    /// Takes what waits to be sent.
    pub(super) fn send(&mut self, outbox: &mut Outbox) {
        self.outgoing.extend_from_slice(&outbox.bytes);
        outbox.bytes.clear();
    }

    /// Acknowledgements that are not written yet.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len().div_ceil(ACK_BYTES)
    }

    /// Takes apart what was read, at most so many packets. An error ends the connection, and comes behind what was right.
    pub(super) fn packets(&mut self, at_most: usize, out: &mut Vec<Happening>) -> Result<(), String> {
        while out.len() < at_most {
            match self.next()? {
                Some(happening) => out.push(happening),
                None => break,
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Happening>, String> {
        let next = match self.version {
            MqttVersion::V3 => v3::read(&mut self.incoming),
            MqttVersion::V5 => v5::read(&mut self.incoming),
        };
        self.garbled |= next.is_err();
        next
    }

    /// Waits until something was written, or something was read if anybody listens, or a ping is due.
    pub(super) async fn transfer(&mut self, listens: bool) -> Result<(), String> {
        self.since_ping.heard |= !listens;
        if listens {
            self.make_room();
        }
        let has_to_write = self.has_to_write();
        let Link { reads, writes, incoming, outgoing, unflushed, pings, .. } = self;
        tokio::select! {
            biased;
            _ = pings.tick() => self.ping(listens).await,
            written = write(writes, outgoing, unflushed), if has_to_write => {
                self.since_ping.written = true;
                written.map_err(explain)
            }
            read = reads.read_buf(incoming), if listens => {
                self.since_ping.heard = true;
                match read {
                    Ok(0) => Err(CLOSED.to_owned()),
                    Ok(_) => Ok(()),
                    Err(e) => Err(explain(e)),
                }
            }
        }
    }

    async fn ping(&mut self, listens: bool) -> Result<(), String> {
        if !self.since_ping.written {
            return Err("the broker takes nothing more".to_owned());
        }
        // Where hb itself stood still the answer has been here for long.
        let has_heard = self.since_ping.heard || listens && self.read_at_once().await;
        if !has_heard {
            return Err("the broker does not answer pings".to_owned());
        }
        self.since_ping = SincePing { heard: false, written: false };
        self.outgoing.extend_from_slice(&PING);
        Ok(())
    }

    /// What had come before an error, at most so many packets: what was read, and what the socket still holds.
    pub(super) async fn rest(&mut self, at_most: usize) -> Vec<Happening> {
        let mut rest = Vec::new();
        while !self.garbled && self.packets(at_most, &mut rest).is_ok() && rest.len() < at_most {
            if !self.read_at_once().await {
                break;
            }
        }
        rest
    }

    /// Sends what is due and says farewell, in so much time. What comes meanwhile comes again, as nobody acknowledges it;
    /// it is read because a socket that is closed with bytes unread takes from the broker what it has not read either.
    pub(super) async fn farewell(&mut self, patience: Duration) {
        self.outgoing.extend_from_slice(&DISCONNECT);
        let to_the_end = async {
            let mut said = false;
            loop {
                self.incoming.clear();
                if !said && !self.has_to_write() {
                    said = true;
                    if self.writes.shutdown().await.is_err() {
                        return;
                    }
                }
                if self.transfer(true).await.is_err() {
                    return;
                }
            }
        };
        // Its session stays with the broker, whether it has heard this or not.
        let _ = timeout(patience, to_the_end).await;
    }

    fn has_to_write(&self) -> bool {
        !self.outgoing.is_empty() || self.unflushed
    }

    /// Reads without waiting; whether something came.
    async fn read_at_once(&mut self) -> bool {
        self.make_room();
        matches!(timeout(Duration::ZERO, self.reads.read_buf(&mut self.incoming)).await, Ok(Ok(1..)))
    }

    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < MIN_READ_BYTES {
            self.incoming.reserve(READ_BYTES);
        }
    }
}

async fn connect(options: &MqttOptions, tls: Option<Arc<ClientConfig>>) -> Result<Box<dyn Stream>, String> {
    let tcp = TcpStream::connect(options.broker()).await.map_err(explain)?;
    // Acknowledgements are small and many; waiting to fill a packet would only slow the broker down.
    tcp.set_nodelay(true).map_err(explain)?;
    set_socket_send_buffer_size(&tcp, SEND_BUFFER_BYTES).map_err(|e| explain(e.into()))?;
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let Ok(name) = ServerName::try_from(options.host.clone()) else {
        return Err("the host is no name that a certificate can be for".to_owned());
    };
    Ok(Box::new(TlsConnector::from(config).connect(name, tcp).await.map_err(explain)?))
}

/// Sees to it that something of what is due has gone.
async fn write(
    writes: &mut WriteHalf<Box<dyn Stream>>,
    outgoing: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if outgoing.is_empty() {
        writes.flush().await?;
        *unflushed = false;
    } else if writes.write_buf(outgoing).await? > 0 {
        *unflushed = true;
    } else {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// One in each keep-alive; not several at once after hb itself stood still.
fn pings(keep_alive_s: u16) -> Interval {
    let period = Duration::from_secs(keep_alive_s.into());
    let mut pings = interval_at(Instant::now() + period, period);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

fn digest(topic: &[u8], payload: &[u8]) -> Digest {
    let whole = Sha256::new().chain_update(topic).chain_update([0]).chain_update(payload).finalize();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..size_of::<Digest>()]);
    half
}

const CLOSED: &str = "the broker closed the connection";
const NO_BROKER: &str = "the other side is no MQTT broker";

/// Brokers do not say which of the two it was.
const CREDENTIALS: &str = "not authorized; check user, password and client id";

fn explain(error: io::Error) -> String {
    tls::explain_io("the broker", &error)
}

fn refused(why: &str) -> String {
    format!("the broker refused the connection: {why}")
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
