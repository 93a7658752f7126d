use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::transport::Event;

const MAX_FRAME: usize = 100;
const MAX_CONNECTIONS: usize = 1_024;
const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";

fn options(listen: &str) -> SocketOptions {
    SocketOptions::new(listen.parse().unwrap(), MAX_FRAME, MAX_CONNECTIONS)
}

fn open(listen: &str) -> SocketTransport {
    SocketTransport::open(options(listen), None).unwrap()
}

fn address(t: &SocketTransport) -> SocketAddr {
    match t.bound() {
        Listen::Udp(address) | Listen::Tcp(address) => *address,
        other => panic!("{other} has no port"),
    }
}

fn connect(t: &SocketTransport) -> TcpStream {
    TcpStream::connect(address(t)).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// What a transport told: frames as `offset:frame`, events in brackets.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    origins: Vec<Arc<str>>,
    frames: RawFrames,
}

impl Told {
    /// Reads once. False when there was nothing.
    fn read(&mut self, t: &mut SocketTransport, max_frames: usize, max_bytes: usize) -> bool {
        let progress = t.read(max_frames, max_bytes, &mut self.frames).unwrap();
        let frames = &self.frames;
        assert_eq!(progress == Progress::Frames, !frames.is_empty());
        assert!(frames.len() <= max_frames && (frames.data.len() <= max_bytes || frames.len() == 1));
        for (frame, at) in frames.iter().zip(&frames.offsets) {
            self.lines.push(format!("{at}:{}", String::from_utf8_lossy(frame)));
        }
        self.origins.extend(frames.origins.iter().cloned());
        match progress {
            Progress::Frames | Progress::Skipping => true,
            Progress::Event(Event::Socket(SocketEvent::Oversize { offset, bytes, .. })) => {
                self.lines.push(format!("[{bytes} bytes at {offset}]"));
                true
            }
            Progress::Event(Event::Socket(SocketEvent::Truncated { origin, beginning })) => {
                self.lines.push(format!("[{} bytes and more]", beginning.len()));
                self.origins.push(origin);
                true
            }
            Progress::Event(Event::Socket(SocketEvent::Closed { reason, .. })) => {
                self.lines.push(format!("[{reason}]"));
                true
            }
            Progress::Idle => false,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until something holds.
    fn until(&mut self, t: &mut SocketTransport, done: impl Fn(&Told, SocketStatus) -> bool) {
        let deadline = soon();
        while !done(self, t.counters().status()) {
            assert!(Instant::now() < deadline, "{:?} after {:?}", t.counters().status(), self.lines.last());
            if !self.read(t, 3, 200) && !done(self, t.counters().status()) {
                t.wait(deadline).unwrap();
            }
        }
    }

    fn told(&self) -> String {
        self.lines.join("|")
    }
}

/// Everything that is told until there are that many lines.
fn lines(t: &mut SocketTransport, count: usize) -> String {
    let mut told = Told::default();
    told.until(t, |told, _| told.lines.len() >= count);
    told.told()
}

#[test]
fn addresses_are_read_back_and_refused_with_a_reason() {
    for text in
        ["udp://127.0.0.1:5514", "tcp://[::]:6514", "unix:///run/hb/syslog.sock", "unix-stream:///run/hb/l.sock"]
    {
        assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
    }
    for (text, part) in [
        ("", "does not begin with udp://"),
        ("127.0.0.1:5514", "does not begin with udp://"),
        ("syslog://127.0.0.1:5514", "does not begin with udp://"),
        ("udp://localhost:5514", "a name is not looked up"),
        ("udp://127.0.0.1", "such as 127.0.0.1:5514"),
        ("tcp://:5514", "such as 127.0.0.1:5514"),
        ("tcp://127.0.0.1:70000", "such as 127.0.0.1:5514"),
        ("unix://run/hb/syslog.sock", "three slashes"),
        ("unix:///run/hb/", "three slashes"),
        ("unix-stream://", "three slashes"),
    ] {
        let told = text.parse::<Listen>().unwrap_err().to_string();
        assert!(told.contains(part), "{text}: {told}");
    }
}

#[test]
fn a_datagram_is_a_frame() {
    let mut t = open(UDP);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fits = "y".repeat(MAX_FRAME);
    let sent = ["<13>a", "<13>b\n", "c\0", "d\n\0", "e\r\n", "", "f\ng", &fits, &format!("{fits}x"), "h"];
    for datagram in sent {
        peer.send_to(datagram.as_bytes(), address(&t)).unwrap();
    }
    let mut told = Told::default();
    told.until(&mut t, |told, _| told.lines.len() == sent.len());
    let long = MAX_FRAME + 1;
    assert_eq!(told.told(), format!("0:<13>a|1:<13>b|2:c|3:d|4:e|5:|6:f\ng|7:{fits}|[{long} bytes and more]|9:h"));
    assert!(told.origins.iter().all(|origin| **origin == *"127.0.0.1"));
    let status = t.counters().status();
    assert_eq!((status.frames, status.truncated, status.bytes), (9, 1, 117));
    assert!((1..=DEFAULT_RECEIVE_BUFFER_BYTES as u64).contains(&status.receive_buffer_bytes));
    assert_eq!(t.counters().kernel_drops(), Some(0));
    assert_eq!(t.position(), SocketPosition { frames: 9, epoch: 0 });
    assert!(!t.wait(Instant::now()).unwrap());
}

#[test]
fn a_datagram_that_finds_no_room_waits_for_the_next_batch() {
    let mut t = open(UDP);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in ["12345", "67890", "abcde"] {
        peer.send_to(datagram.as_bytes(), address(&t)).unwrap();
    }
    let mut told = Told::default();
    for want in ["0:12345", "0:12345|1:67890", "0:12345|1:67890|2:abcde"] {
        assert!(t.wait(soon()).unwrap() && told.read(&mut t, 10, 9));
        assert_eq!(told.told(), want);
    }
    assert!(!told.read(&mut t, 10, 9));
}

#[test]
fn a_peer_of_the_other_family_has_its_usual_name() {
    let Ok(mut t) = SocketTransport::open(options("udp://[::]:0"), None) else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.send_to(b"a", (Ipv4Addr::LOCALHOST, address(&t).port())).unwrap();
    let mut told = Told::default();
    told.until(&mut t, |told, _| told.lines.len() == 1);
    assert_eq!(*told.origins[0], *"127.0.0.1");
    assert_eq!(t.counters().kernel_drops(), Some(0));
}

#[test]
fn what_the_kernel_drops_is_counted_exactly() {
    // Least room the kernel gives: a few datagrams.
    let mut t = SocketTransport::open(SocketOptions { receive_buffer_bytes: 1, ..options(UDP) }, None).unwrap();
    let counters = t.counters();
    let (peer, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), address(&t));
    let (mut told, mut sent) = (Told::default(), 0);
    for round in 1..=20_u64 {
        let flood = round * 500;
        for i in 0..flood {
            // One in a hundred is longer than the limit.
            let bytes = if i % 100 == 0 { MAX_FRAME + 1 } else { 50 };
            peer.send_to(&vec![b'x'; bytes], to).unwrap();
        }
        sent += flood;
        // The kernel may still be bringing the last ones.
        let deadline = soon();
        let (status, drops) = loop {
            while told.read(&mut t, 1_000, 1 << 20) {}
            let (status, drops) = (counters.status(), counters.kernel_drops().unwrap());
            let known = status.frames + status.truncated + drops;
            assert!(known <= sent && Instant::now() < deadline, "{sent} sent, {drops} dropped, {status:?}");
            if known == sent {
                break (status, drops);
            }
        };
        assert!(drops > flood / 2 && status.frames > 0 && status.truncated > 0);
    }
    // The count outlives the socket, even when nobody had looked.
    let drops = counters.kernel_drops();
    for _ in 0..500 {
        peer.send_to(b"x", to).unwrap();
    }
    drop(t);
    assert!(counters.kernel_drops() > drops);
}

#[test]
fn streams_are_cut_wherever_they_are_split() {
    let mut t = open(TCP);
    let stream = b"<13>a\n5 <13>b4 <1>c<14>d\r\n\n3 e\nf6 <15>g\n\0<16>h\0<17>rest";
    let want = "0:<13>a|6:<13>b|13:<1>c|19:<14>d|27:e\nf|32:<15>g|41:<16>h|47:<17>rest";
    for at in 0..=stream.len() {
        let mut peer = connect(&t);
        let mut told = Told::default();
        peer.write_all(&stream[..at]).unwrap();
        told.until(&mut t, |_, status| status.connections == 1);
        while told.read(&mut t, 3, 200) {}
        peer.write_all(&stream[at..]).unwrap();
        drop(peer);
        told.until(&mut t, |_, status| status.connections == 0);
        assert_eq!(told.told(), want, "split at {at}");
    }
    assert_eq!(t.counters().status().bad_framing, 0);
}

#[test]
fn what_breaks_the_framing_is_told_and_costs_only_its_connection() {
    let mut t = open(TCP);
    let (long, fits) = ("x".repeat(MAX_FRAME + 1), "y".repeat(MAX_FRAME));
    let mut whole = connect(&t);
    for (stream, want) in [
        (
            format!("a\n{long}\n{fits}\n101 {long}b\n"),
            format!("0:a|[101 bytes at 2]|104:{fits}|[101 bytes at 205]|310:b"),
        ),
        (long.repeat(1_000), "[101000 bytes at 0]".into()),
        ("a\n12x<13>b\n".into(), "0:a|[an octet count is up to nine digits and a space]".into()),
        ("a\n12 <13>".into(), "0:a|[it ended within a counted message]".into()),
    ] {
        let mut peer = connect(&t);
        let mut told = Told::default();
        let writer = thread::spawn(move || peer.write_all(stream.as_bytes()).unwrap());
        let count = want.split('|').count();
        told.until(&mut t, |told, status| told.lines.len() >= count && status.connections == 1);
        writer.join().unwrap();
        assert_eq!(told.told(), want);
    }
    let status = t.counters().status();
    assert_eq!((status.oversize, status.bad_framing, status.refused, status.connections_total), (3, 2, 0, 5));
    whole.write_all(b"still here\n").unwrap();
    assert_eq!(lines(&mut t, 1), "0:still here");
}

#[test]
fn a_line_that_a_reset_cut_off_does_not_pass_for_a_whole_one() {
    let mut t = open(TCP);
    for (stream, want) in [("a\ntemp=12", "0:a|[it was reset within a frame]"), ("a\nb\n", "0:a|2:b")] {
        let mut peer = connect(&t);
        peer.write_all(stream.as_bytes()).unwrap();
        let mut told = Told::default();
        told.until(&mut t, |_, status| status.connections == 1);
        while told.read(&mut t, 3, 200) {}
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        told.until(&mut t, |_, status| status.connections == 0);
        assert_eq!(told.told(), want);
    }
}

#[test]
fn other_framings_do_as_they_say() {
    for (framing, stream, want) in [
        (Framing::Newline, "1 a\n\nb\0c\r\n", "0:1 a|4:|5:b\0c"),
        (Framing::OctetCount, "3 a\nb2 cd", "0:a\nb|5:cd"),
        (Framing::OctetCount, "<13>a\n", "[an octet count begins with a digit from 1 to 9]"),
    ] {
        let mut t = SocketTransport::open(SocketOptions { framing, ..options(TCP) }, None).unwrap();
        connect(&t).write_all(stream.as_bytes()).unwrap();
        assert_eq!(lines(&mut t, want.split('|').count()), want);
    }
}

/// Lets the test have as many files as it may.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(65_536);
    assert!(most >= 4_200, "a thousand connections need 4,200 files, but only {most} are allowed");
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).unwrap();
}

#[test]
fn a_thousand_connections_are_read_in_turn() {
    allow_files();
    const CONNECTIONS: usize = 1_000;
    const EACH: usize = 20;
    let mut t = open(TCP);
    let mut told = Told::default();
    let mut peers: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&t)).collect();
    told.until(&mut t, |_, status| status.connections == CONNECTIONS as u64);
    for i in 0..EACH {
        for (p, peer) in peers.iter_mut().enumerate() {
            // Every other one counts octets.
            let message = format!("<13>{p} {i}");
            let counted = format!("{} {message}", message.len());
            peer.write_all(if p % 2 == 0 { counted } else { message + "\n" }.as_bytes()).unwrap();
        }
    }
    told.until(&mut t, |told, _| told.lines.len() == CONNECTIONS * EACH);
    let mut next = vec![0; CONNECTIONS];
    for line in &told.lines {
        let (p, i) = line.split_once("<13>").unwrap().1.split_once(' ').unwrap();
        let p: usize = p.parse().unwrap();
        assert_eq!(i, next[p].to_string(), "connection {p} out of order");
        next[p] += 1;
    }
    assert_eq!(next, [EACH; CONNECTIONS]);
    drop(peers);
    told.until(&mut t, |_, status| status.connections == 0);
    let status = t.counters().status();
    assert_eq!((status.connections_total, status.refused, status.bad_framing), (CONNECTIONS as u64, 0, 0));
}

#[test]
fn more_connections_than_allowed_are_refused() {
    let mut t = SocketTransport::open(SocketOptions { max_connections: 2, ..options(TCP) }, None).unwrap();
    let mut told = Told::default();
    let (mut first, mut second) = (connect(&t), connect(&t));
    told.until(&mut t, |_, status| status.connections == 2);
    let mut third = connect(&t);
    told.until(&mut t, |_, status| status.refused == 1);
    assert_eq!(third.read(&mut [0]).unwrap(), 0, "the refused connection is closed");
    drop(first);
    told.until(&mut t, |_, status| status.connections == 1);
    first = connect(&t);
    told.until(&mut t, |_, status| status.connections == 2);
    first.write_all(b"first\n").unwrap();
    assert_eq!(lines(&mut t, 1), "0:first");
    second.write_all(b"second\n").unwrap();
    assert_eq!(lines(&mut t, 1), "0:second");
    assert_eq!(t.counters().status().connections_total, 3);
}

/// Runs one test of this file in a process of its own, where it may do what would disturb the others. True there.
fn alone(name: &str) -> bool {
    if std::env::var_os("HB_TEST_ALONE").is_some() {
        return true;
    }
    let module = module_path!().split_once("::").unwrap().1;
    let mut test = Command::new(std::env::current_exe().unwrap());
    let done = test.args(["--exact", &format!("{module}::{name}")]).env("HB_TEST_ALONE", "1").output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[test]
fn connections_wait_while_no_file_can_be_opened() {
    if !alone("connections_wait_while_no_file_can_be_opened") {
        return;
    }
    let mut t = open(TCP);
    let mut told = Told::default();
    let mut peer = connect(&t);
    peer.write_all(b"patient\n").unwrap();
    let limit = getrlimit(Resource::Nofile);
    // The lowest free number is the limit, so nothing can be opened.
    let free = std::os::fd::AsRawFd::as_raw_fd(&fs::File::open("/dev/null").unwrap()) as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(free), maximum: limit.maximum }).unwrap();
    told.until(&mut t, |_, status| status.refused == 1);
    // It does not spin: the listener is left alone for a while.
    let pause = Instant::now();
    assert!(!told.read(&mut t, 3, 200) && !t.wait(pause + Duration::from_millis(50)).unwrap());
    assert_eq!(t.counters().status().refused, 1);
    setrlimit(Resource::Nofile, limit).unwrap();
    told.until(&mut t, |told, _| told.lines.len() == 1);
    assert_eq!(told.told(), "0:patient");
}

#[test]
fn connections_leave_half_of_the_files_to_the_host() {
    if !alone("connections_leave_half_of_the_files_to_the_host") {
        return;
    }
    let limit = Rlimit { current: Some(64), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(open(TCP).counters().status().max_connections, 32);
}

/// Writes until the kernel takes no more, and says how much it took.
fn write_until_full(peer: &mut TcpStream, stream: &[u8]) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(more) = peer.write(&stream[written..]) {
        written += more;
    }
    peer.set_nonblocking(false).unwrap();
    written
}

#[test]
fn a_sender_waits_while_nobody_reads_and_loses_nothing() {
    let mut t = open(TCP);
    let mut told = Told::default();
    let mut peer = connect(&t);
    told.until(&mut t, |_, status| status.connections == 1);
    let stream: Vec<u8> = (0..6_000_000).flat_map(|i| format!("#{i}\n").into_bytes()).collect();
    let written = write_until_full(&mut peer, &stream);
    assert!(written < stream.len(), "the kernel took all {written} bytes");
    let writer = thread::spawn(move || peer.write_all(&stream[written..]).unwrap());
    let (mut frames, mut next) = (RawFrames::default(), 0_u64);
    while next < 6_000_000 {
        match t.read(1_000, 1 << 20, &mut frames).unwrap() {
            Progress::Frames => {
                for frame in frames.iter() {
                    assert_eq!(frame, format!("#{next}").as_bytes());
                    next += 1;
                }
            }
            Progress::Idle => assert!(t.wait(soon()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    writer.join().unwrap();
}

#[test]
fn a_busy_connection_does_not_keep_a_quiet_one_waiting() {
    let mut t = open(TCP);
    let mut told = Told::default();
    let mut busy = [connect(&t), connect(&t), connect(&t)];
    let mut quiet = connect(&t);
    told.until(&mut t, |_, status| status.connections == 4);
    let flood = b"noise\n".repeat(1_000_000);
    for peer in &mut busy {
        assert!(write_until_full(peer, &flood) > 4 * 64 * 1024);
    }
    quiet.write_all(b"signal\n").unwrap();
    told.until(&mut t, |told, _| told.lines.iter().rev().take(3).any(|line| line == "0:signal"));
    // One chunk of each busy connection, and one that was begun before.
    assert!(told.lines.len() <= 4 * 64 * 1024 / 6 + 5, "after {} lines", told.lines.len());
}

#[test]
fn a_transport_moves_between_threads_and_connections_do_not_notice() {
    let mut t = open(TCP);
    let mut peer = connect(&t);
    peer.write_all(b"before\nmid").unwrap();
    assert_eq!(lines(&mut t, 1), "0:before");
    let reader = thread::spawn(move || {
        let told = lines(&mut t, 1);
        (told, t)
    });
    peer.write_all(b"dle\n").unwrap();
    let (told, mut t) = reader.join().unwrap();
    assert_eq!(told, "7:middle");
    peer.write_all(b"after\n").unwrap();
    assert_eq!(lines(&mut t, 1), "14:after");
    let counters = t.counters();
    drop(t);
    assert_eq!(counters.status().frames, 3);
    // The kernel says so to the peer at once: everything is closed.
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn each_opening_is_another_life_of_the_socket() {
    let mut t = open(TCP);
    connect(&t).write_all(b"a\nb\n").unwrap();
    assert_eq!(lines(&mut t, 2), "0:a|2:b");
    let position = t.position();
    assert_eq!(position, SocketPosition { frames: 2, epoch: 0 });
    drop(t);
    let t = SocketTransport::open(options(TCP), Some(&position)).unwrap();
    assert_eq!(t.position(), SocketPosition { frames: 0, epoch: 1 });
    assert_eq!(serde_json::to_string(&position).unwrap(), r#"{"frames":2,"epoch":0}"#);
}

#[test]
fn a_taken_address_is_told_with_the_way_out() {
    for kind in ["udp", "tcp"] {
        let t = open(&format!("{kind}://127.0.0.1:0"));
        let taken = t.bound().to_string();
        let e = SocketTransport::open(options(&taken), None).unwrap_err();
        assert!(matches!(e, SocketError::InUse(_)) && e.help().contains("ss -"), "{e}");
        assert_eq!(e.to_string(), format!("{taken} is in use"));
        drop(t);
        open(&taken);
        let e = SocketTransport::open(options(&format!("{kind}://192.0.2.1:5514")), None).unwrap_err();
        assert!(matches!(e, SocketError::NoAddress(_)), "{e}");
    }
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn unix_sockets_come_and_go_with_the_transport() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hb.sock");
    for scheme in ["unix", "unix-stream"] {
        let listen = format!("{scheme}://{}", path.display());
        let mut t = open(&listen);
        assert_eq!(mode_of(&path), 0o660);
        if scheme == "unix" {
            let peer = UnixDatagram::unbound().unwrap();
            peer.connect(&path).unwrap();
            peer.send(b"<13>a\0").unwrap();
            peer.send(&[b'x'; MAX_FRAME + 1]).unwrap();
            peer.send(b"<13>b").unwrap();
        } else {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.write_all(b"<13>a\0<13>b\n").unwrap();
        }
        let mut told = Told::default();
        let long = format!("0:<13>a|[{} bytes and more]|2:<13>b", MAX_FRAME + 1);
        let expected = if scheme == "unix" { long } else { "0:<13>a|6:<13>b".to_owned() };
        told.until(&mut t, |told, _| told.lines.last().is_some_and(|line| line.ends_with(":<13>b")));
        assert_eq!(told.told(), expected);
        assert!(told.origins.iter().all(|origin| **origin == *path.to_str().unwrap()));
        let status = t.counters().status();
        assert_eq!((status.truncated, t.counters().kernel_drops()), (u64::from(scheme == "unix"), None));
        // Somebody listens, whichever kind is asked for.
        for other in ["unix", "unix-stream"] {
            let e = SocketTransport::open(options(&format!("{other}://{}", path.display())), None).unwrap_err();
            assert!(matches!(e, SocketError::InUse(_)) && e.help().contains("ss -lxp"), "{e}");
        }
        drop(t);
        assert!(!path.exists());
        // A dead process leaves its socket behind, of either kind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(SocketTransport::open(SocketOptions { mode: 0o606, ..options(&listen) }, None).unwrap());
        drop(UnixDatagram::bind(&path).unwrap());
        let t = SocketTransport::open(SocketOptions { mode: 0o606, ..options(&listen) }, None).unwrap();
        assert_eq!(mode_of(&path), 0o606);
        // What is another's by now stays.
        fs::remove_file(&path).unwrap();
        let _other = UnixDatagram::bind(&path).unwrap();
        drop(t);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn nothing_but_a_dead_socket_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str| {
        let listen = format!("unix://{}", dir.path().join(name).display());
        SocketTransport::open(options(&listen), None).unwrap_err()
    };
    fs::write(dir.path().join("file"), "precious").unwrap();
    assert!(matches!(refused("file"), SocketError::NotSocket(_)));
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "precious");
    drop(UnixDatagram::bind(dir.path().join("dead")).unwrap());
    std::os::unix::fs::symlink(dir.path().join("dead"), dir.path().join("link")).unwrap();
    assert!(matches!(refused("link"), SocketError::NotSocket(_)));
    assert!(dir.path().join("dead").exists());
    let e = refused("missing/hb.sock");
    assert!(matches!(e, SocketError::NoDirectory(_)) && e.help().contains("RuntimeDirectory"), "{e}");
    let e = refused(&"x".repeat(108));
    assert!(matches!(e, SocketError::PathTooLong(_)), "{e}");
}

/// Has logger(1) send two messages; false when this machine has none.
fn log(arguments: &[&str]) -> bool {
    for message in ["first", "2nd message"] {
        match Command::new("logger").args(["--tag", "hb", "--id=7"]).args(arguments).arg(message).output() {
            Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: this machine has no logger(1)");
                return false;
            }
            Err(e) => panic!("{e}"),
        }
    }
    true
}

#[test]
fn logger_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.sock");
    let path = path.to_str().unwrap();
    for (listen, arguments) in [
        (UDP, vec!["--udp"]),
        (UDP, vec!["--udp", "--rfc3164"]),
        (TCP, vec!["--tcp"]),
        (TCP, vec!["--tcp", "--rfc3164"]),
        (TCP, vec!["--tcp", "--octet-count"]),
        (&format!("unix://{path}"), vec!["--socket", path]),
        (&format!("unix-stream://{path}"), vec!["--socket", path]),
        (&format!("unix-stream://{path}"), vec!["--socket", path, "--octet-count"]),
    ] {
        let options = SocketOptions::new(listen.parse().unwrap(), 400, MAX_CONNECTIONS);
        let mut t = SocketTransport::open(options, None).unwrap();
        let mut all = arguments.clone();
        let port = match t.bound() {
            Listen::Udp(address) | Listen::Tcp(address) => address.port().to_string(),
            _ => String::new(),
        };
        if !port.is_empty() {
            all.extend(["--server", "127.0.0.1", "--port", &port]);
        }
        if !log(&all) {
            return;
        }
        let mut told = Told::default();
        told.until(&mut t, |told, _| told.lines.len() == 2);
        for (line, message) in told.lines.iter().zip(["first", "2nd message"]) {
            let frame = line.split_once(':').unwrap().1;
            assert!(frame.starts_with("<13>") && frame.ends_with(message), "{arguments:?}: {line:?}");
        }
        assert_eq!(t.counters().status().bad_framing, 0);
    }
}

/// Says how fast lines come in over loopback; what it asserts is that all of them came.
#[test]
fn lines_per_second_are_told() {
    const LINES: usize = 2_000_000;
    let mut t = open(TCP);
    let mut peer = connect(&t);
    let line = b"<13>1 2026-01-01T00:00:00Z rack7 hb - - - temp_c=41.5 power_w=1204 fan_rpm=8800\n";
    let writer = thread::spawn(move || {
        let piece = line.repeat(1_000);
        (0..LINES / 1_000).for_each(|_| peer.write_all(&piece).unwrap());
    });
    let (mut frames, mut count, start) = (RawFrames::default(), 0, Instant::now());
    while count < LINES {
        match t.read(10_000, 4 << 20, &mut frames).unwrap() {
            Progress::Frames => count += frames.len(),
            _ => assert!(t.wait(soon()).unwrap()),
        }
    }
    let sec = start.elapsed().as_secs_f64();
    writer.join().unwrap();
    assert_eq!(t.counters().status().frames, LINES as u64);
    println!("{:.0} lines/s of {} bytes over TCP on loopback", LINES as f64 / sec, line.len());
}
