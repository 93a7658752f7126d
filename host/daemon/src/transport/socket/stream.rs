//! Streams: many connections, read in turn by one thread.
//!
//! A turn reads at most one chunk and hands out its frames before the next connection has its turn, so at most one chunk
//! is ever held besides the unfinished frame of each connection.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::bind::SocketFile;
use super::counters::{SocketCounters, add_one};
use super::datagram::peer_name;
use super::framing::{Deframer, Framing, Step};
use super::{BatchLimits, Progress, RawFrames, SocketEvent, wait_ready};

/// Bytes read in one turn: hundreds of messages, and small enough that a thousand busy connections all have their turn
/// within a tenth of a second.
const CHUNK_BYTES: usize = 64 * 1024;

/// Turns of one call: together 64 MiB, so that a caller can stop while long lines are passed over.
const MAX_TURNS: usize = 1_024;

/// Connections accepted before those that are open have their turn.
const MAX_ACCEPTS: usize = 64;

/// Memory for the unfinished frames of all connections. Peers that begin many long lines and end none could take the
/// host's memory otherwise; the one that takes most is closed.
const MAX_HELD_BYTES: usize = 256 << 20;

/// How long nothing is accepted after it failed, as it does when hb can open no more files: the connection that waits
/// would be reported again at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Streams {
    listener: Listener,
    framing: Framing,
    max_frame_bytes: usize,
    max_connections: usize,
    /// A slot keeps its number while its connection lives.
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Slots that were ready and had no turn since.
    ready: VecDeque<usize>,
    /// The turn that is being served.
    turn: Option<Turn>,
    chunk: Vec<u8>,
    held_bytes: usize,
    max_held_bytes: usize,
    /// To be told before anything else is handed out.
    pending: Option<SocketEvent>,
    accept_after: Option<Instant>,
    counters: Arc<SocketCounters>,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    origin: Arc<str>,
    deframer: Deframer,
}

/// What one read brought: `chunk[start..end]` is not handed out yet.
#[derive(Debug)]
struct Turn {
    slot: usize,
    start: usize,
    end: usize,
    /// The connection has ended behind it.
    last: bool,
}

impl Streams {
    pub(super) fn new(
        listener: Listener,
        framing: Framing,
        max_frame_bytes: usize,
        counters: Arc<SocketCounters>,
    ) -> Self {
        Streams {
            listener,
            framing,
            max_frame_bytes,
            max_connections: counters.max_connections as usize,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            turn: None,
            chunk: vec![0; CHUNK_BYTES],
            held_bytes: 0,
            max_held_bytes: MAX_HELD_BYTES,
            pending: None,
            accept_after: None,
            counters,
        }
    }

    pub(super) fn read(&mut self, limits: BatchLimits, out: &mut RawFrames) -> io::Result<Progress> {
        for _ in 0..MAX_TURNS {
            if self.pending.is_none() && self.turn.is_some() && !self.serve(limits, out) {
                return Ok(Progress::Frames);
            }
            if self.pending.is_some() {
                let told = if out.is_empty() { self.pending.take() } else { None };
                return Ok(told.map_or(Progress::Frames, |event| Progress::Event(event.into())));
            }
            if self.ready.is_empty() && !self.look()? {
                return Ok(if out.is_empty() { Progress::Idle } else { Progress::Frames });
            }
            if let Some(slot) = self.ready.pop_front() {
                self.begin_turn(slot);
            }
        }
        Ok(if out.is_empty() { Progress::Skipping } else { Progress::Frames })
    }

    pub(super) fn wait(&mut self, deadline: Instant) -> io::Result<bool> {
        if self.pending.is_some() || self.turn.is_some() || !self.ready.is_empty() {
            return Ok(true);
        }
        // The end of a pause wakes as a connection would: `read` then looks at the listener again.
        let until = self.accept_after.map_or(deadline, |after| after.min(deadline));
        Ok(!wait_ready(self.files().map(|(_, file)| file), until)?.is_empty() || until < deadline)
    }

    /// Hands out the frames of the turn. False when the batch is full before its end.
    fn serve(&mut self, limits: BatchLimits, out: &mut RawFrames) -> bool {
        let Streams { slots, chunk, turn, .. } = self;
        let Some(Turn { slot, start, end, last }) = turn.as_mut() else { return true };
        let Some(Connection { origin, deframer, .. }) = &mut slots[*slot] else { return true };
        let held_before = deframer.held_bytes();
        let mut input = &chunk[*start..*end];
        let step = loop {
            let Some(room) = limits.room(out) else { break Step::Full };
            let mut push = |offset, frame: &[u8]| out.push(origin, offset, frame);
            let step = match deframer.next(&mut input, room, &mut push) {
                Step::More if *last => deframer.finish(room, &mut push),
                step => step,
            };
            if step != Step::Frame {
                break step;
            }
        };
        *start = *end - input.len();
        let (slot, last) = (*slot, *last);
        self.held_bytes = self.held_bytes + deframer.held_bytes() - held_before;
        match step {
            Step::Frame | Step::Full => return false,
            Step::Oversize { offset, bytes } => {
                self.pending = Some(SocketEvent::Oversize { origin: Arc::clone(origin), offset, bytes });
                add_one(&self.counters.oversize);
            }
            Step::Bad(reason) => self.close_for(slot, reason),
            Step::More => {
                self.turn = None;
                if last {
                    self.close(slot);
                }
                self.keep_within_memory();
            }
        }
        true
    }

    /// Reads a chunk of a connection that was ready.
    fn begin_turn(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_ref() else { return };
        let (end, last) = match rustix::io::read(&connection.socket, &mut self.chunk[..]) {
            Ok(0) => (0, true),
            Ok(got) => (got, false),
            Err(Errno::WOULDBLOCK | Errno::INTR) => return,
            // A line that was cut off may look like a shorter one; it must not pass for it.
            Err(_) if connection.deframer.is_between_frames() => (0, true),
            Err(_) => return self.close_for(slot, "it was reset within a frame"),
        };
        self.turn = Some(Turn { slot, start: 0, end, last });
    }

    /// Accepts what waits and notes who is ready. False when nobody is.
    fn look(&mut self) -> io::Result<bool> {
        if self.accept_after.is_some_and(|after| after <= Instant::now()) {
            self.accept_after = None;
        }
        let (slots, files): (Vec<_>, Vec<_>) = self.files().unzip();
        let ready: Vec<_> = wait_ready(files.into_iter(), Instant::now())?.into_iter().map(|i| slots[i]).collect();
        self.ready.extend(ready.iter().flatten());
        // Those that were ready have their turn before those that come new.
        if ready.contains(&None) {
            self.accept();
        }
        Ok(!ready.is_empty())
    }

    /// The open connections with their slots, and the listener without.
    fn files(&self) -> impl Iterator<Item = (Option<usize>, BorrowedFd<'_>)> {
        let connections = self.slots.iter().enumerate();
        let connections = connections.filter_map(|(i, slot)| Some((Some(i), slot.as_ref()?.socket.as_fd())));
        let listener = self.accept_after.is_none().then(|| (None, self.listener.as_fd()));
        connections.chain(listener)
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTS {
            let (socket, origin) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // One that ended while it waited is nobody's loss.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
                Err(_) => {
                    add_one(&self.counters.refused);
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            if self.slots.len() - self.free.len() >= self.max_connections {
                add_one(&self.counters.refused);
                continue;
            }
            let deframer = Deframer::new(self.framing, self.max_frame_bytes);
            let connection = Some(Connection { socket, origin, deframer });
            match self.free.pop() {
                Some(slot) => self.slots[slot] = connection,
                None => self.slots.push(connection),
            }
            add_one(&self.counters.connections);
            add_one(&self.counters.connections_total);
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(connection) = self.slots[slot].take() {
            self.held_bytes -= connection.deframer.held_bytes();
            self.free.push(slot);
            self.counters.connections.fetch_sub(1, Relaxed);
        }
        if self.turn.as_ref().is_some_and(|turn| turn.slot == slot) {
            self.turn = None;
        }
    }

    /// Closes a connection nothing more can be made of, and tells.
    fn close_for(&mut self, slot: usize, reason: &'static str) {
        if let Some(connection) = &self.slots[slot] {
            self.pending = Some(SocketEvent::Closed { origin: Arc::clone(&connection.origin), reason });
            add_one(&self.counters.bad_framing);
            self.close(slot);
        }
    }

    /// Closes the connection whose unfinished frame is longest when all of them together are too long.
    fn keep_within_memory(&mut self) {
        if self.held_bytes <= self.max_held_bytes {
            return;
        }
        let held = |slot: &Option<Connection>| slot.as_ref().map_or(0, |c| c.deframer.held_bytes());
        if let Some(slot) = (0..self.slots.len()).max_by_key(|&i| held(&self.slots[i])) {
            self.close_for(slot, "unfinished frames take too much memory, and its was the longest");
        }
    }
}

impl Listener {
    /// The next connection and its origin.
    fn accept(&self) -> io::Result<(OwnedFd, Arc<str>)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok((socket.into(), peer_name(peer.ip())))
            }
            Listener::Unix(listener, file) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok((socket.into(), file.name()))
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;

    use rustix::net::sockopt;

    use super::super::{Kind, Listen, SocketOptions, SocketTransport};
    use super::*;

    /// A transport with that many connections.
    fn open(connections: usize) -> (SocketTransport, Vec<TcpStream>) {
        let options = SocketOptions::new("tcp://127.0.0.1:0".parse().unwrap(), 100_000, 16);
        let mut t = SocketTransport::open(options, None).unwrap();
        let Listen::Tcp(address) = *t.bound() else { unreachable!() };
        let peers = (0..connections).map(|_| TcpStream::connect(address).unwrap()).collect();
        while t.counters().status().connections < connections as u64 {
            assert!(t.wait(Instant::now() + Duration::from_secs(20)).unwrap());
            assert_eq!(t.read(1, 1, &mut RawFrames::default()).unwrap(), Progress::Idle);
        }
        (t, peers)
    }

    fn streams(t: &mut SocketTransport) -> &mut Streams {
        let Kind::Streams(streams) = &mut t.kind else { unreachable!() };
        streams
    }

    #[test]
    fn the_longest_unfinished_frame_goes_when_all_take_too_much_memory() {
        let (mut t, mut peers) = open(3);
        streams(&mut t).max_held_bytes = 150_000;
        let mut frames = RawFrames::default();
        for (peer, bytes) in peers.iter_mut().zip([40_000, 60_000, 70_000]) {
            peer.write_all(&vec![b'x'; bytes]).unwrap();
        }
        let event = loop {
            match t.read(10, 1 << 20, &mut frames).unwrap() {
                Progress::Idle => assert!(t.wait(Instant::now() + Duration::from_secs(20)).unwrap()),
                other => break other,
            }
        };
        let reason = "unfinished frames take too much memory, and its was the longest";
        assert_eq!(event, Progress::Event(SocketEvent::Closed { origin: "127.0.0.1".into(), reason }.into()));
        assert_eq!(t.counters().status().connections, 2);
        // Finished frames give their memory back.
        for peer in &mut peers {
            // The closed one may have noticed.
            drop(peer.write_all(b"\n"));
        }
        let mut count = 0;
        while count < 2 {
            if t.read(10, 1 << 20, &mut frames).unwrap() == Progress::Frames {
                count += frames.len();
            } else {
                assert!(t.wait(Instant::now() + Duration::from_secs(20)).unwrap());
            }
        }
        assert_eq!(t.read(10, 1 << 20, &mut frames).unwrap(), Progress::Idle);
        let held = streams(&mut t).held_bytes;
        assert!(held <= 2 * 4 * 1024, "{held} bytes are still held");
    }

    #[test]
    fn connections_inherit_the_keepalive_of_their_listener() {
        let (mut t, _peers) = open(1);
        let connection = streams(&mut t).slots[0].as_ref().unwrap();
        assert!(sockopt::socket_keepalive(&connection.socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&connection.socket).unwrap(), Duration::from_mins(1));
        assert_eq!(sockopt::tcp_keepcnt(&connection.socket).unwrap(), 6);
    }
}
