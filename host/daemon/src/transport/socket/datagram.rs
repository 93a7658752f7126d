//! Datagrams: each is one frame.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

use super::bind::SocketFile;
use super::counters::{SocketCounters, add_one};
use super::framing::without_end;
use super::{BatchLimits, Progress, RawFrames, SocketEvent, wait_ready};

/// Longest datagram whatever is asked for. UDP carries 65,507 bytes; over Unix sockets the sender's buffer is the limit,
/// which is 208 KiB by default.
const MAX_DATAGRAM_BYTES: usize = 1 << 20;

/// Bytes of a datagram that is too long that are shown.
const SAMPLE_BYTES: usize = 1_024;

/// Peers whose name is kept. A sender may invent its address; then all names are made anew.
const MAX_PEERS: usize = 4_096;

#[derive(Debug)]
pub(super) struct Datagrams {
    socket: Socket,
    /// One byte longer than the longest datagram, which tells one that does not fit.
    buffer: Vec<u8>,
    /// Length and origin of a datagram in `buffer` that the batch before had no room for, or that is no frame.
    held: Option<(usize, Arc<str>)>,
    /// Datagrams received before.
    received: u64,
    counters: Arc<SocketCounters>,
}

#[derive(Debug)]
pub(super) enum Socket {
    Udp(UdpSocket, Peers),
    Unix(UnixDatagram, SocketFile),
}

impl Datagrams {
    pub(super) fn new(socket: Socket, max_frame_bytes: usize, counters: Arc<SocketCounters>) -> Self {
        let buffer = vec![0; max_frame_bytes.min(MAX_DATAGRAM_BYTES) + 1];
        Datagrams { socket, buffer, held: None, received: 0, counters }
    }

    pub(super) fn read(&mut self, limits: BatchLimits, out: &mut RawFrames) -> io::Result<Progress> {
        while let Some(room) = limits.room(out) {
            let (len, origin) = match self.held.take() {
                Some(held) => held,
                None => match self.socket.receive(&mut self.buffer) {
                    Ok(came) => {
                        self.received += 1;
                        came
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(if out.is_empty() { Progress::Idle } else { Progress::Frames });
                    }
                    Err(e) => return Err(e),
                },
            };
            let is_truncated = len == self.buffer.len();
            let frame = without_end(&self.buffer[..len]);
            if frame.len() > room || is_truncated && !out.is_empty() {
                self.held = Some((len, origin));
                return Ok(Progress::Frames);
            }
            if is_truncated {
                add_one(&self.counters.truncated);
                let beginning = self.buffer[..len.min(SAMPLE_BYTES)].to_vec();
                return Ok(Progress::Event(SocketEvent::Truncated { origin, beginning }.into()));
            }
            out.push(&origin, self.received - 1, frame);
        }
        Ok(Progress::Frames)
    }

    pub(super) fn wait(&mut self, deadline: Instant) -> io::Result<bool> {
        Ok(self.held.is_some() || !wait_ready([self.socket.as_fd()].into_iter(), deadline)?.is_empty())
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // The kernel forgets its count with the socket; ours keeps it.
        self.counters.kernel_drops();
    }
}

impl Socket {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Arc<str>)> {
        match self {
            Socket::Udp(socket, peers) => {
                let (len, peer) = socket.recv_from(buffer)?;
                Ok((len, peers.name(peer.ip())))
            }
            Socket::Unix(socket, file) => Ok((socket.recv(buffer)?, file.name())),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Udp(socket, _) => socket.as_fd(),
            Socket::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// The names of peers, each made once.
#[derive(Debug, Default)]
pub(super) struct Peers {
    last: Option<(IpAddr, Arc<str>)>,
    names: BTreeMap<IpAddr, Arc<str>>,
}

impl Peers {
    fn name(&mut self, address: IpAddr) -> Arc<str> {
        if let Some((last, name)) = &self.last
            && *last == address
        {
            return Arc::clone(name);
        }
        if self.names.len() >= MAX_PEERS && !self.names.contains_key(&address) {
            self.names.clear();
        }
        let name = Arc::clone(self.names.entry(address).or_insert_with(|| peer_name(address)));
        self.last = Some((address, Arc::clone(&name)));
        name
    }
}

/// A peer is named by its address alone: the port changes with each of its restarts.
pub(super) fn peer_name(address: IpAddr) -> Arc<str> {
    address.to_canonical().to_string().into()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_names_of_peers_have_a_limit() {
        let mut peers = Peers::default();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = peers.name(local);
        assert!(Arc::ptr_eq(&first, &peers.name(local)));
        for i in 0..3 * MAX_PEERS as u32 {
            let address = IpAddr::V4(Ipv4Addr::from_bits(i));
            assert_eq!(*peers.name(address), *address.to_string());
            assert!(peers.names.len() <= MAX_PEERS);
        }
        assert_eq!(*peer_name("::ffff:192.0.2.7".parse().unwrap()), *"192.0.2.7");
        assert_eq!(*peer_name("2001:db8::1".parse().unwrap()), *"2001:db8::1");
    }
}
