//! Between the daemon and a broker: passes on what either says, and notes each message that the daemon was given whole.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// First four bits of a packet that is a message.
const PUBLISH: u8 = 3;

/// It ends with the process.
pub(super) struct Relay {
    /// Where it listens.
    pub(super) port: u16,
    arrived: Arc<Mutex<BTreeSet<u64>>>,
}

impl Relay {
    /// Starts one before a broker; messages have a number in their topic, behind `prefix`.
    pub(super) fn start(broker: u16, prefix: &'static str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, arrived) = (listener.local_addr().unwrap().port(), Arc::default());
        let noted = Arc::clone(&arrived);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Without a broker the client is hung up on.
                let Ok(broker) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || pass(client, broker, prefix, &noted));
            }
        });
        Relay { port, arrived }
    }

    /// The numbers of the messages that were passed on whole.
    pub(super) fn arrived(&self) -> BTreeSet<u64> {
        self.arrived.lock().unwrap().clone()
    }
}

/// Passes on until the broker ends. Then the client is told so in order, and may say to nobody what it wants: a
/// connection that is reset could take back what was passed on.
fn pass(mut client: TcpStream, mut broker: TcpStream, prefix: &str, arrived: &Mutex<BTreeSet<u64>>) {
    for stream in [&client, &broker] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            let _ = to.write_all(&buffer[..got]);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut buffer, mut bytes) = ([0; 4_096], Vec::new());
    while let Ok(got @ 1..) = broker.read(&mut buffer) {
        if client.write_all(&buffer[..got]).is_err() {
            return;
        }
        bytes.extend_from_slice(&buffer[..got]);
        while let Some((first, rest)) = take_packet(&mut bytes) {
            if first >> 4 == PUBLISH {
                arrived.lock().unwrap().extend(number(&rest, prefix));
            }
        }
    }
    let _ = client.shutdown(Shutdown::Write);
}

/// The first byte of the next packet, and what follows its length; none while it is not whole.
fn take_packet(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let first = bytes[0];
    (bytes.len() >= at + length).then(|| (first, bytes.drain(..at + length).skip(at).collect()))
}

/// The number of a message, by its topic.
fn number(packet: &[u8], prefix: &str) -> Option<u64> {
    let length = usize::from(u16::from_be_bytes([*packet.first()?, *packet.get(1)?]));
    std::str::from_utf8(packet.get(2..2 + length)?).ok()?.strip_prefix(prefix)?.parse().ok()
}
