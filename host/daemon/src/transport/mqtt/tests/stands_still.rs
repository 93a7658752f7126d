//! A broker that sends more than there is room for.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::broker::PATIENCE;
use super::delivery::MAX_UNACKNOWLEDGED;
use super::hangs_up::read_packet;
use super::{Kit, MqttLink, MqttVersion, options};

const MORE: usize = 1_000;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];

#[test]
fn reading_stops_where_there_is_no_room_and_goes_on_behind_acknowledgements() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kit = Kit::closed(options(listener.local_addr().unwrap().port(), MqttVersion::V5));
    kit.open_only();
    let mut stream = greet(&listener);
    kit.until(|s| s.link == MqttLink::Subscribed);
    let ids = 1..=(MAX_UNACKNOWLEDGED + MORE) as u16;
    let publish = |id: u16| {
        let [high, low] = id.to_be_bytes();
        [0x32, 13, 0, 7, b'p', b'l', b'a', b'n', b't', b'/', b'a', high, low, 0, b'x']
    };
    stream.write_all(&ids.clone().flat_map(publish).collect::<Vec<_>>()).unwrap();
    kit.until(|s| s.unacknowledged as usize == MAX_UNACKNOWLEDGED);
    // A second each, and no answer can be heard.
    for _ in 0..3 {
        assert_eq!(read_packet(&mut stream), PINGREQ);
    }
    let status = kit.status();
    assert_eq!((status.link, status.counters.received), (MqttLink::Subscribed, MAX_UNACKNOWLEDGED as u64));

    // Handing out makes no room, committing does.
    kit.read(MAX_UNACKNOWLEDGED);
    kit.commit(10);
    assert_eq!(acknowledged(&mut stream, 10), (1..=10).collect::<Vec<_>>());
    kit.until(|s| s.counters.received as usize == MAX_UNACKNOWLEDGED + 10);
    assert_eq!(kit.status().unacknowledged as usize, MAX_UNACKNOWLEDGED);
    kit.commit(kit.uncommitted.len());
    kit.read(MORE);
    kit.commit(MORE);
    let rest: Vec<u16> = ids.skip(10).collect();
    assert!(acknowledged(&mut stream, rest.len()) == rest, "they come in order");

    // Now somebody listens, and nobody answers.
    kit.until(|s| s.error.as_deref() == Some("the broker does not answer pings"));
    assert_eq!(kit.status().counters.received as usize, MAX_UNACKNOWLEDGED + MORE);
}

/// Takes the client, has it ping each second, and grants what it subscribes to.
fn greet(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    read_packet(&mut stream);
    stream.write_all(&[0x20, 6, 0, 0, 3, 0x13, 0, 1]).unwrap();
    let subscribe = read_packet(&mut stream);
    stream.write_all(&[0x90, 4, subscribe[2], subscribe[3], 0, 1]).unwrap();
    stream
}

/// The packet ids of so many acknowledgements. Pings between them are answered, other requests are not.
fn acknowledged(stream: &mut TcpStream, count: usize) -> Vec<u16> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let packet = read_packet(stream);
        match packet[0] {
            0x40 => ids.push(u16::from_be_bytes([packet[2], packet[3]])),
            0xc0 => stream.write_all(&PINGRESP).unwrap(),
            _ => {}
        }
    }
    ids
}
