//! The socket transport takes what peers send: datagrams over UDP and Unix sockets, streams over TCP and Unix sockets.
//!
//! A socket cannot be asked again for what it gave, so delivery is at most once across a crash. Short of that nothing
//! is lost without being counted: what the kernel drops is read from the kernel, and a stream that is not read fills
//! its window until the sender waits.
//!
//! One thread reads all connections in turn, at most one chunk each; the frames of one connection keep their order. A
//! transport is an owned value: a reload moves it to the next reader, and no connection notices.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::{Progress, RawFrames};

mod bind;
mod counters;
mod datagram;
pub(super) mod framing;
mod stream;

pub use counters::{SocketCounters, SocketStatus};
pub use framing::Framing;

use datagram::Datagrams;
use stream::Streams;

/// Most bytes of one batch, whatever is asked for: ends are kept as u32.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Room the kernel is asked for UDP datagrams. It holds about 20,000 short messages, for the time a commit or a reload
/// may take.
pub const DEFAULT_RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// Who may write to a Unix socket: the user hb runs as and its group.
pub const DEFAULT_MODE: u32 = 0o660;

/// Where to listen. It is written as `udp://127.0.0.1:5514`, `tcp://[::]:5514`, `unix:///run/hb/syslog.sock` (datagrams,
/// as syslog(3) sends them) or `unix-stream:///run/hb/lines.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Datagrams from the network.
    Udp(SocketAddr),
    /// Streams from the network.
    Tcp(SocketAddr),
    /// Datagrams from this machine.
    UnixDatagram(PathBuf),
    /// Streams from this machine.
    UnixStream(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Udp(address) => write!(f, "udp://{address}"),
            Listen::Tcp(address) => write!(f, "tcp://{address}"),
            Listen::UnixDatagram(path) => write!(f, "unix://{}", path.display()),
            Listen::UnixStream(path) => write!(f, "unix-stream://{}", path.display()),
        }
    }
}

/// An address that cannot be listened on, with the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// It has no known scheme.
    #[error("`{0}` does not begin with udp://, tcp://, unix:// or unix-stream://")]
    Scheme(String),
    /// It has no IP address and port.
    #[error("`{0}` is not an IP address and a port, such as 127.0.0.1:5514 or [::]:5514; a name is not looked up")]
    Address(String),
    /// The path does not begin at the root, or names no file.
    #[error("the path `{0}` is not the whole path of a file; write unix:///run/hb/syslog.sock with three slashes")]
    Path(String),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| ListenError::Scheme(text.to_owned()))?;
        let address = || rest.parse().map_err(|_| ListenError::Address(rest.to_owned()));
        let path = || {
            let names_file = rest.starts_with('/') && !rest.ends_with('/') && !rest.contains('\0');
            if names_file { Ok(PathBuf::from(rest)) } else { Err(ListenError::Path(rest.to_owned())) }
        };
        match scheme {
            "udp" => address().map(Listen::Udp),
            "tcp" => address().map(Listen::Tcp),
            "unix" => path().map(Listen::UnixDatagram),
            "unix-stream" => path().map(Listen::UnixStream),
            _ => Err(ListenError::Scheme(text.to_owned())),
        }
    }
}

/// What the transport is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Where to listen.
    pub listen: Listen,
    /// How streams are cut; a datagram is one frame.
    pub framing: Framing,
    /// Longest frame in bytes.
    pub max_frame_bytes: usize,
    /// Most connections at a time; half of the files hb may open is a limit too.
    pub max_connections: usize,
    /// Room the kernel is asked for UDP datagrams.
    pub receive_buffer_bytes: usize,
    /// Permission bits of a Unix socket.
    pub mode: u32,
}

impl SocketOptions {
    /// Everything else as it suits most.
    pub fn new(listen: Listen, max_frame_bytes: usize, max_connections: usize) -> Self {
        SocketOptions {
            listen,
            framing: Framing::default(),
            max_frame_bytes,
            max_connections,
            receive_buffer_bytes: DEFAULT_RECEIVE_BUFFER_BYTES,
            mode: DEFAULT_MODE,
        }
    }
}

/// How far a socket has been read. It cannot be gone back to: it says which life of the socket frames came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPosition {
    /// Frames handed out since the socket was opened.
    pub frames: u64,
    /// How often the socket was opened after the first time.
    pub epoch: u64,
}

/// Something that happened between two frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A frame of a stream was longer than the limit and was passed over.
    Oversize {
        /// Who sent it.
        origin: Arc<str>,
        /// Where it begins in the stream of its connection.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// A datagram was longer than the limit; the kernel threw its end away.
    Truncated {
        /// Who sent it.
        origin: Arc<str>,
        /// How it begins.
        beginning: Vec<u8>,
    },
    /// A connection was closed because nothing more can be made of it; an unfinished frame went with it.
    Closed {
        /// Who is at its other end.
        origin: Arc<str>,
        /// Why.
        reason: &'static str,
    },
}

/// Why a socket cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process has the port or the path.
    #[error("{0} is in use")]
    InUse(Listen),
    /// The user hb runs as may not open it.
    #[error("no permission to listen on {0}")]
    Denied(Listen),
    /// The address belongs to no interface.
    #[error("{0} is no address of this machine")]
    NoAddress(Listen),
    /// The directory of a Unix socket is missing.
    #[error("the directory of {0} does not exist")]
    NoDirectory(Listen),
    /// There is something else under the path of a Unix socket.
    #[error("there is something under the path of {0} that is no socket")]
    NotSocket(Listen),
    /// The path of a Unix socket does not fit into its address.
    #[error("the path of {0} is longer than 107 bytes")]
    PathTooLong(Listen),
    /// Anything else.
    #[error("cannot listen on {listen}")]
    Io {
        /// Where.
        listen: Listen,
        /// The cause.
        source: io::Error,
    },
}

impl SocketError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            SocketError::InUse(Listen::Udp(_) | Listen::Tcp(_)) => {
                "choose another port, or stop the process that has it: `ss -lntup` names it"
            }
            SocketError::InUse(_) => "choose another path, or stop the process that has it: `ss -lxp` names it",
            SocketError::Denied(Listen::Udp(_) | Listen::Tcp(_)) => {
                "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=); or choose a higher one"
            }
            SocketError::Denied(_) => "let the user hb runs as write in the directory of the socket",
            SocketError::NoAddress(_) => "choose an address that `ip address` shows, 0.0.0.0 or [::] for all of them",
            SocketError::NoDirectory(_) => "make the directory (systemd: RuntimeDirectory=hb)",
            SocketError::NotSocket(_) => "choose another path; hb removes nothing but sockets nobody listens on",
            SocketError::PathTooLong(_) => "choose a shorter path, such as /run/hb/syslog.sock",
            SocketError::Io { .. } => "check the network and how many files hb may open (`ulimit -n`)",
        }
    }

    fn new(listen: &Listen, source: io::Error) -> Self {
        let listen = listen.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse(listen),
            io::ErrorKind::PermissionDenied => SocketError::Denied(listen),
            io::ErrorKind::AddrNotAvailable => SocketError::NoAddress(listen),
            io::ErrorKind::NotFound => SocketError::NoDirectory(listen),
            io::ErrorKind::InvalidFilename => SocketError::PathTooLong(listen),
            _ => SocketError::Io { listen, source },
        }
    }
}

/// A socket that is being read.
#[derive(Debug)]
pub struct SocketTransport {
    bound: Listen,
    kind: Kind,
    position: SocketPosition,
    counters: Arc<SocketCounters>,
}

#[derive(Debug)]
enum Kind {
    Datagrams(Datagrams),
    Streams(Streams),
}

impl SocketTransport {
    /// Opens a socket. The position before only tells how often that happened.
    pub fn open(options: SocketOptions, resume: Option<&SocketPosition>) -> Result<Self, SocketError> {
        let opened = bind::open(&options).map_err(|e| match e {
            bind::Failure::NotSocket => SocketError::NotSocket(options.listen.clone()),
            bind::Failure::Io(source) => SocketError::new(&options.listen, source),
        })?;
        let bind::Opened { kind, bound, counters } = opened;
        let position = SocketPosition { frames: 0, epoch: resume.map_or(0, |before| before.epoch + 1) };
        Ok(SocketTransport { bound, kind, position, counters })
    }

    /// Replaces the content of `out` with the next frames: at most `max_frames`, and at most `max_bytes` unless a single
    /// frame has more. It never waits.
    pub fn read(&mut self, max_frames: usize, max_bytes: usize, out: &mut RawFrames) -> Result<Progress, SocketError> {
        out.clear();
        let limits = BatchLimits::new(max_frames, max_bytes);
        let progress = match &mut self.kind {
            Kind::Datagrams(datagrams) => datagrams.read(limits, out),
            Kind::Streams(streams) => streams.read(limits, out),
        };
        let progress = match progress {
            // What came is handed out first; an error that lasts comes again.
            Err(_) if !out.is_empty() => Progress::Frames,
            other => other.map_err(|e| SocketError::new(&self.bound, e))?,
        };
        self.position.frames += out.len() as u64;
        self.counters.handed_out(out);
        Ok(progress)
    }

    /// Waits until there may be something to read; false when the deadline came first.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, SocketError> {
        let came = match &mut self.kind {
            Kind::Datagrams(datagrams) => datagrams.wait(deadline),
            Kind::Streams(streams) => streams.wait(deadline),
        };
        came.map_err(|e| SocketError::new(&self.bound, e))
    }

    /// What has been handed out.
    pub fn position(&self) -> SocketPosition {
        self.position
    }

    /// Where it listens, with the port the kernel chose for port 0.
    pub fn bound(&self) -> &Listen {
        &self.bound
    }

    /// What it counts, to be read from any thread.
    pub fn counters(&self) -> Arc<SocketCounters> {
        Arc::clone(&self.counters)
    }
}

/// What one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    frames: usize,
    bytes: usize,
}

impl BatchLimits {
    pub(super) fn new(max_frames: usize, max_bytes: usize) -> Self {
        BatchLimits { frames: max_frames.max(1), bytes: max_bytes.min(MAX_BATCH_BYTES) }
    }

    /// Bytes the next frame may have; none when the number of frames is reached.
    pub(super) fn room(self, out: &RawFrames) -> Option<usize> {
        if out.is_empty() {
            return Some(usize::MAX);
        }
        (out.len() < self.frames).then(|| self.bytes.saturating_sub(out.data.len()))
    }
}

/// Waits until some of the files are ready and says which, by index; none when the deadline came first.
pub(super) fn wait_ready<'fd>(
    files: impl Iterator<Item = BorrowedFd<'fd>>,
    deadline: Instant,
) -> io::Result<Vec<usize>> {
    let mut files: Vec<_> = files.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)).collect();
    // A signal begins the wait again; the deadline ends it.
    loop {
        match poll(&mut files, Some(&timespec(deadline.saturating_duration_since(Instant::now())))) {
            Ok(0) => return Ok(Vec::new()),
            Ok(_) => return Ok((0..files.len()).filter(|&i| !files[i].revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // More seconds than the kernel can count are no deadline anyone waits for.
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
}

#[cfg(test)]
mod tests;
