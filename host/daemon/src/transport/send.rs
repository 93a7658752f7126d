//! Datagrams and streams that go out, to granted addresses alone: one connection for each address, kept over calls.
//!
//! A datagram is gone when the kernel has it, and so is a piece of a stream: nobody acknowledges either. What can be known
//! is told: that a port is closed, that a peer has hung up, that a receiver does not read.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Unsent;
use super::socket::{Listen, ListenError};

/// Bytes of one piece: the longest line that hb itself reads by default.
const MAX_BYTES: usize = 1 << 20;

/// Longest wait for one piece: a receiver that does not read for so long is not there.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// What a peer said without being asked is passed over, up to so much at a time.
const MAX_UNASKED_BYTES: usize = 64 << 10;

/// Why an address cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is none.
    #[error(transparent)]
    Address(#[from] ListenError),
    /// Nobody listens on it.
    #[error("`{0}` has the port 0, on which nobody listens")]
    Port(String),
}

impl SendError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        "write udp://10.0.0.1:514, tcp://10.0.0.1:514, unix:///dev/log (datagrams) or unix-stream:///PATH"
    }
}

/// The way out for one sink.
pub struct Sender {
    granted: Vec<Listen>,
    open: BTreeMap<String, Link>,
    /// Where the grants stand, for messages.
    place: String,
}

impl Sender {
    /// Checks addresses; connects to nothing. An error comes with the address's index.
    pub fn new(addresses: &[String], place: String) -> Result<Sender, (usize, SendError)> {
        let granted = addresses.iter().enumerate().map(|(i, text)| read(text).map_err(|e| (i, e)));
        Ok(Sender { granted: granted.collect::<Result<_, _>>()?, open: BTreeMap::new(), place })
    }

    /// Whether something may be sent there; the text says where it may.
    pub fn granted(&self, address: &str) -> Result<(), String> {
        self.find(address).map(drop)
    }

    /// Sends a datagram or a piece of a stream, and waits no longer than `time_left`.
    pub fn send(&mut self, address: &str, bytes: &[u8], time_left: Duration) -> Result<(), Unsent> {
        let to = self.find(address).map_err(Unsent::Refused)?;
        if bytes.len() > MAX_BYTES {
            return Err(Unsent::Refused(format!(
                "{} bytes for {to}; at most {MAX_BYTES} are sent at once",
                bytes.len()
            )));
        }
        let deadline = Instant::now() + time_left.min(MAX_WAIT);
        let key = to.to_string();
        let kept = self.open.remove(&key).filter(Link::is_alive);
        let was_kept = kept.is_some();
        let unsent = |e: io::Error| explain(&to, &e);
        let mut link = kept.map_or_else(|| Link::open(&to, deadline), Ok).map_err(unsent)?;
        let mut sent = link.send(bytes, deadline);
        // A peer that went away between two pieces shows at the second only; to a fresh connection nothing is lost.
        if was_kept && sent.as_ref().is_err_and(|e| link.has_hung_up(e)) {
            link = Link::open(&to, deadline).map_err(unsent)?;
            sent = link.send(bytes, deadline);
        }
        sent.map_err(unsent)?;
        // Only a link that is whole is kept: behind half a piece nothing else would be understood.
        self.open.insert(key, link);
        Ok(())
    }

    fn find(&self, address: &str) -> Result<Listen, String> {
        let asked = read(address).ok().filter(|asked| self.granted.contains(asked));
        asked.ok_or_else(|| {
            let granted: Vec<String> = self.granted.iter().map(ToString::to_string).collect();
            let address: String = address.escape_debug().take(256).collect();
            format!("{address} is not granted; the grants at {} are {}", self.place, granted.join(", "))
        })
    }
}

fn read(text: &str) -> Result<Listen, SendError> {
    let address = text.parse()?;
    match address {
        Listen::Udp(to) | Listen::Tcp(to) if to.port() == 0 => Err(SendError::Port(text.to_owned())),
        address => Ok(address),
    }
}

/// An open way to one address.
enum Link {
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
    Tcp(TcpStream),
    UnixStream(UnixStream),
}

impl Link {
    fn open(to: &Listen, deadline: Instant) -> io::Result<Link> {
        Ok(match to {
            Listen::Udp(address) => {
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Link::Udp(socket)
            }
            Listen::UnixDatagram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Link::UnixDatagram(socket)
            }
            Listen::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, left(deadline)?)?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                Link::Tcp(stream)
            }
            Listen::UnixStream(path) => Link::UnixStream(connect_unix(path)?),
        })
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        match self {
            Link::Udp(socket) => {
                socket.set_write_timeout(Some(left(deadline)?))?;
                socket.send(bytes)?;
                // On this machine a closed port answers at once; from afar the answer shows with a later datagram.
                socket.take_error()?.map_or(Ok(()), Err)
            }
            Link::UnixDatagram(socket) => {
                socket.set_write_timeout(Some(left(deadline)?))?;
                socket.send(bytes).map(drop)
            }
            Link::Tcp(stream) => write_all(bytes, deadline, |part, wait| {
                stream.set_write_timeout(Some(wait))?;
                stream.write(part)
            }),
            Link::UnixStream(stream) => write_all(bytes, deadline, |part, wait| {
                stream.set_write_timeout(Some(wait))?;
                stream.write(part)
            }),
        }
    }

    /// Whether an error says that the peer went away and none that it does not want this.
    fn has_hung_up(&self, e: &io::Error) -> bool {
        let refused = e.kind() == ErrorKind::ConnectionRefused && matches!(self, Link::UnixDatagram(_));
        refused || matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
    }

    /// Whether the peer has not hung up. A first write after that would succeed, and be lost.
    fn is_alive(&self) -> bool {
        match self {
            Link::Udp(_) | Link::UnixDatagram(_) => true,
            Link::Tcp(stream) => is_open(stream, |on| stream.set_nonblocking(on)),
            Link::UnixStream(stream) => is_open(stream, |on| stream.set_nonblocking(on)),
        }
    }
}

/// Connects without waiting: a listener whose queue is full would hold the caller for as long as it likes.
fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn write_all(
    mut bytes: &[u8],
    deadline: Instant,
    mut write: impl FnMut(&[u8], Duration) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes, left(deadline)?) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_open(mut stream: impl Read, nonblocking: impl Fn(bool) -> io::Result<()>) -> bool {
    let mut unasked = [0; 4_096];
    let mut look = || {
        for _ in 0..MAX_UNASKED_BYTES / unasked.len() {
            match stream.read(&mut unasked) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    };
    nonblocking(true).is_ok() && look() && nonblocking(false).is_ok()
}

/// What is left of the time; a socket takes a wait of zero for one without end.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn explain(to: &Listen, e: &io::Error) -> Unsent {
    if e.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) {
        return Unsent::Refused(format!("{to}: the message is longer than one datagram"));
    }
    let what = match e.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        ErrorKind::NotFound => "there is no such socket".to_owned(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => "the receiver closed the connection".to_owned(),
        // A full queue shows so on sockets that wait for a while only.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "the receiver does not take it".to_owned(),
        _ => e.to_string(),
    };
    Unsent::Unreachable(format!("{to}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn sender(addresses: &[&str]) -> Sender {
        let addresses: Vec<String> = addresses.iter().map(|&a| a.to_owned()).collect();
        Sender::new(&addresses, "hb.yaml:3:5".into()).unwrap_or_else(|(i, e)| panic!("{i}: {e}"))
    }

    fn send(sender: &mut Sender, to: &str, text: &str) -> Result<(), Unsent> {
        sender.send(to, text.as_bytes(), PATIENCE)
    }

    #[test]
    fn only_granted_addresses_are_reached() {
        let mut sender = sender(&["udp://127.0.0.1:514", "unix:///run/hb/x"]);
        assert_eq!(sender.granted("udp://127.0.0.1:514"), Ok(()));
        for address in [
            "udp://127.0.0.1:515",
            "tcp://127.0.0.1:514",
            "unix-stream:///run/hb/x",
            "unix:///run/hb/../x",
            "",
            "udp://h:514",
        ] {
            let why = format!(
                "{address} is not granted; the grants at hb.yaml:3:5 are udp://127.0.0.1:514, unix:///run/hb/x"
            );
            assert_eq!(sender.granted(address), Err(why.clone()));
            assert_eq!(send(&mut sender, address, "x"), Err(Unsent::Refused(why)));
        }
        for text in ["udp://localhost:514", "udp://127.0.0.1:0", "http://127.0.0.1:80", "unix://relative", "514"] {
            let Err((0, e)) = Sender::new(&[text.to_owned()], String::new()) else { panic!("{text} is taken") };
            assert!(!e.to_string().is_empty() && e.help().contains("udp://"), "{text}");
        }
    }

    #[test]
    fn datagrams_arrive_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (udp, unix) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UnixDatagram::bind(&path).unwrap());
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let (to_udp, to_unix) = (format!("udp://{}", udp.local_addr().unwrap()), format!("unix://{}", path.display()));
        let mut sender = sender(&[&to_udp, &to_unix]);
        let mut room = [0; 64];
        for text in ["one", "two"] {
            send(&mut sender, &to_udp, text).unwrap();
            assert_eq!(udp.recv(&mut room).map(|n| room[..n].to_vec()).unwrap(), text.as_bytes());
            send(&mut sender, &to_unix, text).unwrap();
            assert_eq!(unix.recv(&mut room).map(|n| room[..n].to_vec()).unwrap(), text.as_bytes());
        }
        let long = "x".repeat(65_508);
        assert!(matches!(send(&mut sender, &to_udp, &long), Err(Unsent::Refused(why)) if why.contains("one datagram")));
        // The receiver begins anew under the same name.
        drop(unix);
        std::fs::remove_file(&path).unwrap();
        let gone = send(&mut sender, &to_unix, "three");
        assert_eq!(gone, Err(Unsent::Unreachable(format!("{to_unix}: there is no such socket"))));
        let unix = UnixDatagram::bind(&path).unwrap();
        send(&mut sender, &to_unix, "three").unwrap();
        assert_eq!(unix.recv(&mut room).map(|n| room[..n].to_vec()).unwrap(), b"three");
    }

    #[test]
    fn a_closed_port_is_noticed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = format!("udp://{}", socket.local_addr().unwrap());
        drop(socket);
        let refused = Err(Unsent::Unreachable(format!("{to}: nobody listens there")));
        let mut sender = sender(&[&to]);
        assert_eq!([(); 3].map(|()| send(&mut sender, &to, "x")), [(); 3].map(|()| refused.clone()));
    }

    #[test]
    fn a_stream_is_kept_and_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("tcp://{}", listener.local_addr().unwrap());
        let mut sender = sender(&[&to]);
        send(&mut sender, &to, "one\n").unwrap();
        let mut first = BufReader::new(listener.accept().unwrap().0);
        send(&mut sender, &to, "two\n").unwrap();
        let mut lines = String::new();
        first.read_line(&mut lines).unwrap();
        first.read_line(&mut lines).unwrap();
        assert_eq!(lines, "one\ntwo\n", "over one connection");
        drop(first);
        send(&mut sender, &to, "three\n").unwrap();
        let mut second = BufReader::new(listener.accept().unwrap().0);
        lines.clear();
        second.read_line(&mut lines).unwrap();
        assert_eq!(lines, "three\n", "nothing is lost to a connection that was closed");
        drop((second, listener));
        let refused = Err(Unsent::Unreachable(format!("{to}: nobody listens there")));
        assert_eq!(send(&mut sender, &to, "four\n"), refused);
    }

    #[test]
    fn a_receiver_that_does_not_read_costs_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let listener = UnixListener::bind(&path).unwrap();
        let to = format!("unix-stream://{}", path.display());
        let mut sender = sender(&[&to]);
        let begin = Instant::now();
        let piece = "x".repeat(MAX_BYTES);
        let wait = Duration::from_millis(200);
        let told = (0..64).find_map(|_| sender.send(&to, piece.as_bytes(), wait).err());
        assert_eq!(told, Some(Unsent::Unreachable(format!("{to}: the receiver does not take it"))));
        assert!(begin.elapsed() < PATIENCE);
        // The next piece goes over a connection of its own: half a piece is on the first.
        let (_first, _) = listener.accept().unwrap();
        send(&mut sender, &to, "whole\n").unwrap();
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
        assert_eq!(line, "whole\n");
    }
}
