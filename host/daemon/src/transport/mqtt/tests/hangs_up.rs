//! A broker that takes connections and ends them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::pauses::full;
use super::{Kit, MqttLink, MqttVersion, options};

/// How long a connection holds: long enough to be subscribed and read from.
const HOLDS: Duration = Duration::from_millis(1_100);

#[test]
fn a_broker_that_hangs_up_soon_is_met_more_and_more_seldom() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kit = Kit::closed(options(listener.local_addr().unwrap().port(), MqttVersion::V3));
    kit.open_only();
    let mut closed: Option<Instant> = None;
    for connection in 0..6 {
        let mut stream = greet(&listener, false);
        if let Some(closed) = closed {
            let least = full(connection - 1) / 2;
            assert!(closed.elapsed() >= least, "connection {connection} comes after {:?}", closed.elapsed());
        }
        kit.until(|s| s.link == MqttLink::Subscribed);
        stream.set_read_timeout(Some(HOLDS)).unwrap();
        let silent = stream.read(&mut [0; 64]).unwrap_err();
        assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
        closed = Some(Instant::now());
    }
}

#[test]
fn what_came_right_before_the_end_of_a_connection_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kit = Kit::closed(options(listener.local_addr().unwrap().port(), MqttVersion::V3));
    kit.open_only();
    // A broker that is killed behind this may have forgotten it.
    let mut wanted = Vec::new();
    for (connection, count) in [(0, 3), (1, 25)] {
        let mut stream = greet(&listener, connection > 0);
        kit.until(|s| s.link == MqttLink::Subscribed);
        let mut packets = Vec::new();
        for n in 0..count {
            let id = 100 * connection + n + 1;
            packets.extend([0x32, 12, 0, 7, b'p', b'l', b'a', b'n', b't', b'/', b'a', 0, id, b'x']);
            wanted.push("plant/a x".to_owned());
        }
        stream.write_all(&packets).unwrap();
    }
    assert_eq!(kit.read(wanted.len()), wanted);
}

/// Takes the next client, and grants what it subscribes to.
fn greet(listener: &TcpListener, session_present: bool) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    read_packet(&mut stream);
    stream.write_all(&[0x20, 2, session_present.into(), 0]).unwrap();
    let subscribe = read_packet(&mut stream);
    stream.write_all(&[0x90, 3, subscribe[2], subscribe[3], 1]).unwrap();
    stream
}

/// Reads one short packet.
pub(super) fn read_packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).unwrap();
    assert!(packet[1] < 0x80, "a short packet");
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..]).unwrap();
    packet
}
