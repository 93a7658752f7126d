//! A broker of its own, for demonstrations on a machine that has none: MQTT 3.1.1 on loopback, nothing on disk.
//!
//! It does not mark what it sends again, see `redelivery` of the MQTT transport.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Messages it sends without an acknowledgement: a constant of the library.
pub const IN_FLIGHT_WINDOW: u16 = 100;

/// Most clients: a publisher, a daemon, and whoever looks in.
const CONNECTIONS: usize = 16;

/// What it keeps in memory of one topic filter for subscribers that are away: 4 segments of 16 MiB, some 300,000
/// messages. What is older goes.
const SEGMENT_BYTES: usize = 16 << 20;
const SEGMENTS: usize = 4;

/// Longest message.
const PAYLOAD_BYTES: usize = 64 << 10;

/// Longest wait for it to listen.
const START: Duration = Duration::from_secs(10);

/// A free port may be taken by another process before the broker has it.
const ATTEMPTS: usize = 3;

/// Starts a broker that keeps messages of the filter even before anybody has subscribed to it; it runs until the
/// process ends. The address it listens on.
///
/// # Errors
/// No port, no thread, or nobody listens after ten seconds.
pub fn start(filter: &str) -> io::Result<SocketAddr> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?;
        drop(free);
        let mut broker = rumqttd::Broker::new(config(address, filter));
        let (ended, has_ended) = crossbeam_channel::bounded(1);
        std::thread::Builder::new().name("hb-broker".into()).spawn(move || {
            // It comes back when its port is taken; otherwise never.
            let result = broker.start().map_err(|e| e.to_string());
            let _ = ended.send(result);
        })?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Ok(result) = has_ended.try_recv() {
                last = result.err();
                break;
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(address);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Err(io::Error::other(last.unwrap_or_else(|| "the embedded broker does not listen".to_owned())))
}

fn config(listen: SocketAddr, filter: &str) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: PAYLOAD_BYTES,
        max_inflight_count: IN_FLIGHT_WINDOW.into(),
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "hb-broker-mqtt".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    Config {
        router: RouterConfig {
            max_connections: CONNECTIONS,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            initialized_filters: Some(vec![filter.to_owned()]),
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([(server.name.clone(), server)])),
        ..Config::default()
    }
}
