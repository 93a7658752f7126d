//! A transport is a way for bytes to come in; the host owns it, a source plugin only sees what it brought. Ways out,
//! for sink plugins, are [`http`] and [`send`].
//!
//! Transports form a closed set: adding one makes the compiler list every place to think about. Each hands out
//! [`RawFrames`], and [`Transport::position`] says what has been handed out, to be committed together with the samples
//! that were made of it.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use mqtt::{Delivery, Digest, MqttBatch, MqttProgress};

pub mod broker;
pub mod exec;
pub mod file;
pub mod http;
pub mod mqtt;
mod probe;
pub mod send;
pub mod socket;
mod tls;

pub use exec::{ExecError, ExecEvent, ExecOptions, ExecPosition, ExecTransport};
pub use file::{FileError, FileEvent, FileOptions, FilePosition, FileTransport};
pub use http::{HttpClient, HttpError, HttpGrant};
pub use mqtt::{MqttError, MqttEvent, MqttHandle, MqttOptions, MqttPosition, MqttTransport};
pub use send::{SendError, Sender};
pub use socket::{SocketError, SocketEvent, SocketOptions, SocketPosition, SocketTransport};

/// Frames as they came, in one piece of memory that is used again for the next batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawFrames {
    /// The bytes of all frames, one after the other, without what separated them.
    pub data: Vec<u8>,
    /// Where each frame ends in `data`.
    pub ends: Vec<u32>,
    /// Where each frame began in its origin: the byte offset in a file.
    pub offsets: Vec<u64>,
    /// Where each frame came from: the file, the peer, the command, the topic.
    pub origins: Vec<Arc<str>>,
    /// For messages of a broker, instead of offsets: what each was, and what came with them.
    pub mail: Mail,
}

/// What belongs to messages besides their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// One for each message, in order.
    pub letters: Vec<Letter>,
    /// Messages that are too long: they are no frames.
    pub oversize: Vec<Oversize>,
    /// Packet ids whose stored entries are to go before those of `letters` are written.
    pub settled: Vec<u16>,
}

/// A message as the broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number, for the acknowledgement.
    pub number: u64,
    /// How it is recognised when it comes again.
    pub delivery: Option<Delivery>,
    /// Whether it is one of the frames.
    pub is_frame: bool,
}

/// A message that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// Where it came from: the topic.
    pub origin: Arc<str>,
    /// Its length.
    pub bytes: u64,
    /// How it begins.
    pub beginning: Vec<u8>,
}

impl RawFrames {
    /// Number of frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of the frame with this index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.data.get(start..end)
    }

    /// All frames in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Forgets the frames but keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.offsets.clear();
        self.origins.clear();
        self.mail = Mail::default();
    }

    fn push(&mut self, origin: &Arc<str>, offset: u64, frame: &[u8]) {
        self.data.extend_from_slice(frame);
        self.ends.push(self.data.len() as u32);
        self.offsets.push(offset);
        self.origins.push(Arc::clone(origin));
    }
}

/// Why something did not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// It may not, or cannot: the same again would be refused again.
    Refused(String),
    /// The world outside is not ready.
    Unreachable(String),
}

/// What a call to [`Transport::read`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There are frames, or messages that are too long to be frames.
    Frames,
    /// Something happened between two frames; no frames this time.
    Event(Event),
    /// A frame that is too long is being passed over; read again.
    Skipping,
    /// Nothing now, perhaps later.
    Idle,
    /// Nothing any more.
    End,
}

/// Something that happened between two frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of a file.
    File(FileEvent),
    /// At a socket.
    Socket(SocketEvent),
    /// Of a command.
    Exec(ExecEvent),
    /// At a broker.
    Mqtt(MqttEvent),
}

impl From<FileEvent> for Event {
    fn from(event: FileEvent) -> Self {
        Event::File(event)
    }
}

impl From<SocketEvent> for Event {
    fn from(event: SocketEvent) -> Self {
        Event::Socket(event)
    }
}

impl From<ExecEvent> for Event {
    fn from(event: ExecEvent) -> Self {
        Event::Exec(event)
    }
}

/// What a transport is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportOptions {
    /// Lines of a file.
    File(FileOptions),
    /// Frames that peers send.
    Socket(SocketOptions),
    /// Lines that a command writes.
    Exec(ExecOptions),
    /// Messages of a broker.
    Mqtt(MqttOptions),
}

/// An open transport.
#[derive(Debug)]
pub enum Transport {
    /// Lines of a file.
    File(FileTransport),
    /// Frames that peers send.
    Socket(SocketTransport),
    /// Lines that a command writes.
    Exec(ExecTransport),
    /// Messages of a broker, and room for them.
    Mqtt(Box<(MqttTransport, MqttBatch)>),
}

/// How far a transport has been read. It is stored with the samples and handed back at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Of a file.
    File(FilePosition),
    /// Of a socket.
    Socket(SocketPosition),
    /// Of a command.
    Exec(ExecPosition),
    /// Of a subscription.
    Mqtt(MqttPosition),
}

/// Why a transport cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A command.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A broker.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// What it is told cannot be.
    #[error("{what}")]
    Setting {
        /// What is wrong.
        what: String,
        /// The way out.
        help: &'static str,
    },
}

impl TransportError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            TransportError::File(e) => e.help(),
            TransportError::Socket(e) => e.help(),
            TransportError::Exec(e) => e.help(),
            TransportError::Mqtt(e) => e.help(),
            TransportError::Setting { help, .. } => help,
        }
    }
}

/// A stored position that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// It was written by a newer hb.
    #[error("the resume position has version {0}; this hb reads up to {POSITION_VERSION}")]
    Version(u32),
    /// It is damaged.
    #[error("the resume position is damaged")]
    Damaged(#[from] serde_json::Error),
}

/// Version of a stored position.
const POSITION_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    v: u32,
    at: P,
}

impl Position {
    /// The bytes that are stored: JSON, since they also go into readable exports.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain structs of numbers and texts always serialise.
        serde_json::to_vec(&Stored { v: POSITION_VERSION, at: self }).unwrap_or_default()
    }

    /// Reads stored bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Position, PositionError> {
        let stored: Stored<serde_json::Value> = serde_json::from_slice(bytes)?;
        if stored.v != POSITION_VERSION {
            return Err(PositionError::Version(stored.v));
        }
        Ok(serde_json::from_value(stored.at)?)
    }
}

impl Transport {
    /// Opens a transport at its start, or where it was left. A position of another kind of transport is none;
    /// `delivered` is what was stored of a broker's messages.
    pub fn open(
        options: TransportOptions,
        resume: Option<&Position>,
        delivered: Vec<(u16, Digest)>,
    ) -> Result<Transport, TransportError> {
        Ok(match (options, resume) {
            (TransportOptions::File(options), resume) => {
                let resume = if let Some(Position::File(p)) = resume { Some(p) } else { None };
                Transport::File(FileTransport::open(options, resume)?)
            }
            (TransportOptions::Socket(options), resume) => {
                let resume = if let Some(Position::Socket(p)) = resume { Some(p) } else { None };
                Transport::Socket(SocketTransport::open(options, resume)?)
            }
            (TransportOptions::Exec(options), resume) => {
                let resume = if let Some(Position::Exec(p)) = resume { Some(p) } else { None };
                Transport::Exec(ExecTransport::open(options, resume)?)
            }
            (TransportOptions::Mqtt(options), resume) => {
                let resume = if let Some(Position::Mqtt(p)) = resume { Some(p) } else { None };
                Transport::Mqtt(Box::new((MqttTransport::open(options, resume, delivered)?, MqttBatch::default())))
            }
        })
    }

    /// Replaces the content of `out` with the next frames: at most `max_frames`, and at most `max_bytes` unless a single
    /// frame has more. It never waits.
    pub fn read(
        &mut self,
        max_frames: usize,
        max_bytes: usize,
        out: &mut RawFrames,
    ) -> Result<Progress, TransportError> {
        Ok(match self {
            Transport::File(file) => file.read(max_frames, max_bytes, out)?,
            Transport::Socket(socket) => socket.read(max_frames, max_bytes, out)?,
            Transport::Exec(exec) => exec.read(max_frames, max_bytes, out)?,
            Transport::Mqtt(mqtt) => read_mail(&mut mqtt.0, &mut mqtt.1, max_frames, max_bytes, out),
        })
    }

    /// Waits until there may be something to read; false when the deadline came first.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, TransportError> {
        Ok(match self {
            Transport::File(file) => file.wait_growth(deadline)?,
            Transport::Socket(socket) => socket.wait(deadline)?,
            Transport::Exec(exec) => exec.wait(deadline)?,
            Transport::Mqtt(mqtt) => mqtt.0.wait(deadline),
        })
    }

    /// Bytes at the end that are no whole frame yet, and are left for the next time.
    pub fn rest_bytes(&self) -> usize {
        match self {
            Transport::File(file) => file.rest_bytes(),
            Transport::Socket(_) | Transport::Exec(_) | Transport::Mqtt(_) => 0,
        }
    }

    /// The position behind everything that has been handed out.
    pub fn position(&self) -> Position {
        match self {
            Transport::File(file) => Position::File(file.position()),
            Transport::Socket(socket) => Position::Socket(socket.position()),
            Transport::Exec(exec) => Position::Exec(exec.position()),
            Transport::Mqtt(mqtt) => Position::Mqtt(mqtt.0.position()),
        }
    }

    /// Whether what it has not handed out is gone when it is closed: nobody can be asked for it again.
    pub fn forgets(&self) -> bool {
        matches!(self, Transport::Socket(_) | Transport::Exec(_))
    }

    /// What other threads may ask of a subscription.
    pub fn handle(&self) -> Option<MqttHandle> {
        match self {
            Transport::Mqtt(mqtt) => Some(mqtt.0.handle()),
            Transport::File(_) | Transport::Socket(_) | Transport::Exec(_) => None,
        }
    }
}

/// Messages as frames: the topic is the origin.
fn read_mail(
    mqtt: &mut MqttTransport,
    batch: &mut MqttBatch,
    max_frames: usize,
    max_bytes: usize,
    out: &mut RawFrames,
) -> Progress {
    out.clear();
    batch.clear();
    match mqtt.read(max_frames, max_bytes, batch) {
        MqttProgress::Messages => {}
        MqttProgress::Event(event) => return Progress::Event(Event::Mqtt(event)),
        MqttProgress::Idle => return Progress::Idle,
        MqttProgress::End => return Progress::End,
    }
    out.mail.settled.append(&mut batch.settled);
    for message in batch.messages.drain(..) {
        let is_frame = message.oversize_bytes.is_none();
        out.mail.letters.push(Letter { number: message.number, delivery: message.delivery, is_frame });
        match message.oversize_bytes {
            None => out.push(&message.topic, message.number, &message.payload),
            // Its beginning is shown, and means nothing.
            Some(bytes) => {
                let beginning = message.payload.to_vec();
                out.mail.oversize.push(Oversize { origin: message.topic, bytes, beginning });
            }
        }
    }
    Progress::Frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_position_is_read_by_later_versions() {
        let stored = br#"{"v":1,"at":{"file":{"dev":65024,"ino":131,"head_len":3,"head":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","offset":18446744073709551615,"epoch":2}}}"#;
        let position = Position::from_bytes(stored).unwrap();
        let Position::File(p) = &position else { panic!("{position:?}") };
        assert_eq!((p.identity.dev, p.identity.ino, p.offset, p.epoch), (65024, 131, u64::MAX, 2));
        assert_eq!(position.to_bytes(), stored);
        let newer = br#"{"v":2,"at":{"file":{}}}"#;
        assert!(matches!(Position::from_bytes(newer), Err(PositionError::Version(2))));
        assert!(matches!(Position::from_bytes(b"{"), Err(PositionError::Damaged(_))));
    }

    #[test]
    fn frames_lie_one_after_the_other() {
        let mut frames = RawFrames::default();
        let origin: Arc<str> = "o".into();
        for (offset, bytes) in [(0, &b"ab"[..]), (3, b""), (4, b"c")] {
            frames.push(&origin, offset, bytes);
        }
        assert_eq!(frames.iter().collect::<Vec<_>>(), [b"ab".as_slice(), b"", b"c"]);
        assert_eq!((frames.get(3), frames.len(), frames.is_empty()), (None, 3, false));
        frames.clear();
        assert!(frames.is_empty() && frames.data.capacity() > 0);
    }
}
