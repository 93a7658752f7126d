//! Opening sockets, so that the addresses are as they were asked for or the reason is known.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, getrlimit};

use super::counters::{KernelDrops, SocketCounters};
use super::datagram::{Datagrams, Peers, Socket};
use super::stream::{Listener, Streams};
use super::{Kind, Listen, SocketOptions};

/// Connections the kernel keeps until they are accepted: a site whose machines all come back at once.
const BACKLOG: i32 = 1_024;

/// A peer that vanished without a word is noticed after 60 + 6 * 10 seconds and gives its place back.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) bound: Listen,
    pub(super) counters: Arc<SocketCounters>,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// There is something under the path that is no socket.
    NotSocket,
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Failure {
    fn from(source: E) -> Self {
        Failure::Io(source.into())
    }
}

pub(super) fn open(options: &SocketOptions) -> Result<Opened, Failure> {
    let max_frame_bytes = options.max_frame_bytes;
    let datagrams = |socket, counters: &Arc<SocketCounters>| {
        Kind::Datagrams(Datagrams::new(socket, max_frame_bytes, Arc::clone(counters)))
    };
    let streams = |listener, counters: &Arc<SocketCounters>| {
        Kind::Streams(Streams::new(listener, options.framing, max_frame_bytes, Arc::clone(counters)))
    };
    let (kind, bound, counters) = match &options.listen {
        Listen::Udp(address) => {
            let (socket, counters) = open_udp(*address, options.receive_buffer_bytes)?;
            let (bound, counters) = (Listen::Udp(socket.local_addr()?), Arc::new(counters));
            (datagrams(Socket::Udp(socket, Peers::default()), &counters), bound, counters)
        }
        Listen::UnixDatagram(path) => {
            let (socket, file) = open_unix(path, SocketType::DGRAM, options.mode)?;
            let counters = Arc::default();
            (datagrams(Socket::Unix(socket.into(), file), &counters), options.listen.clone(), counters)
        }
        Listen::Tcp(address) => {
            let listener = open_tcp(*address)?;
            let (bound, counters) = (Listen::Tcp(listener.local_addr()?), Arc::new(counters_of_streams(options)));
            (streams(Listener::Tcp(listener), &counters), bound, counters)
        }
        Listen::UnixStream(path) => {
            let (socket, file) = open_unix(path, SocketType::STREAM, options.mode)?;
            rustix::net::listen(&socket, BACKLOG)?;
            let counters = Arc::new(counters_of_streams(options));
            (streams(Listener::Unix(socket.into(), file), &counters), options.listen.clone(), counters)
        }
    };
    Ok(Opened { kind, bound, counters })
}

fn open_udp(address: SocketAddr, receive_buffer_bytes: usize) -> io::Result<(UdpSocket, SocketCounters)> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    sockopt::set_socket_recv_buffer_size(&socket, receive_buffer_bytes)?;
    // The kernel answers with twice what it gave, for its own overhead.
    let given = sockopt::socket_recv_buffer_size(&socket)? / 2;
    let inode = rustix::fs::fstat(&socket)?.st_ino;
    let counters = SocketCounters {
        receive_buffer_bytes: given as u64,
        udp: Some(KernelDrops::new(inode, address.is_ipv6())),
        ..SocketCounters::default()
    };
    Ok((socket, counters))
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Connections inherit these from their listener.
    sockopt::set_socket_keepalive(&listener, true)?;
    sockopt::set_tcp_keepidle(&listener, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&listener, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&listener, KEEPALIVE_PROBES)?;
    // Again, with room for more than the standard library asks for.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Half of the files hb may open are left to everything else: a flood of connections must not stop the store.
fn counters_of_streams(options: &SocketOptions) -> SocketCounters {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let max_connections = (options.max_connections as u64).min(files / 2);
    SocketCounters { max_connections, ..SocketCounters::default() }
}

/// Binds a Unix socket. A socket a dead process left behind is replaced; anything else under the path is left alone.
fn open_unix(path: &Path, kind: SocketType, mode: u32) -> Result<(OwnedFd, SocketFile), Failure> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_unix(kind)?;
    let mode = mode & 0o777;
    // The file gets the permissions of the socket, so there is no moment at which others may write to it.
    rustix::fs::fchmod(&socket, Mode::from_bits_truncate(mode))?;
    if let Err(e) = rustix::net::bind(&socket, &address) {
        if e != Errno::ADDRINUSE {
            return Err(e.into());
        }
        if !fs::symlink_metadata(path)?.file_type().is_socket() {
            return Err(Failure::NotSocket);
        }
        // Refused is said only when nobody listens; every other answer comes from someone.
        if rustix::net::connect(new_unix(kind)?, &address) != Err(Errno::CONNREFUSED) {
            return Err(e.into());
        }
        fs::remove_file(path)?;
        rustix::net::bind(&socket, &address)?;
    }
    let file = SocketFile::new(path)?;
    // The umask may have taken bits that were asked for.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((socket, file))
}

fn new_unix(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

/// The file of a Unix socket, removed with it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    name: Arc<str>,
    dev: u64,
    ino: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        let name = path.display().to_string().into();
        Ok(SocketFile { path: path.to_owned(), name, dev: meta.dev(), ino: meta.ino() })
    }

    /// What frames have as their origin: whoever sends to a Unix socket has no name of its own.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have its own socket there by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.dev, self.ino)) {
            // What cannot be removed is found to be nobody's at the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}
