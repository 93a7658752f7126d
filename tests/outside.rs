//! Input that others collected, through a running daemon: each message ends as an event, a reject or a dead letter, the
//! sums agree, and nothing of it does anything to a terminal.

use std::fs;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::hostile::corpora::assert_harmless;
use crate::support::broker::Broker;
use crate::support::corpora::corpus;
use crate::support::hb::{Hb, Running};

/// Datagrams at a time: the kernel drops what does not fit into its buffer.
const BURST: usize = 50;

/// How long what was sent may take to be durable.
const PATIENCE: Duration = Duration::from_mins(2);

/// A daemon that listens in every way, and what it was sent.
struct Ears {
    hb: Hb,
    running: Running,
    port: u16,
    unix: UnixDatagram,
    sent: u64,
}

impl Ears {
    fn open(more: &str) -> Ears {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let hb = Hb::new();
        let socket = hb.path("log.sock");
        hb.write(
            "hb.yaml",
            &format!(
                "program: hostile
state: ./state
require_signed: false
sources:
  - {{ name: u, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - {{ name: t, plugin: syslog, transport: {{ socket: {{ listen: \"tcp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - {{ name: x, plugin: syslog, transport: {{ socket: {{ listen: \"unix://{}\" }} }}, normalizer: n }}
{more}normalizers:
  - name: n
    plugin: schema-map
    settings:
      version: 1
      timestamp: {{ field: timestamp, missing: received }}
      labels: {{ asset: {{ origin: true }} }}
      unmapped: ignore
      events: {{ kind: outside.message, body: msg, attributes: [program] }}
limits: {{ commit_ms: 100 }}
",
                socket.display()
            ),
        );
        let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=warn,hb::pipeline=debug"));
        running.wait_for("reading", 3 + more.lines().filter(|l| l.contains("- {")).count());
        let unix = UnixDatagram::unbound().unwrap();
        unix.connect(socket).unwrap();
        Ears { hb, running, port, unix, sent: 0 }
    }

    /// Sends messages in every way; those with a line feed inside only where frames may have one.
    fn send(&mut self, messages: &[Vec<u8>]) {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for burst in messages.chunks(BURST) {
            for message in burst {
                udp.send_to(message, ("127.0.0.1", self.port)).unwrap();
                self.unix.send(message).unwrap();
            }
            self.sent += 2 * burst.len() as u64;
            self.settle();
        }
        let connect = || TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let (mut lines, mut counted) = (connect(), connect());
        for message in messages {
            counted.write_all(format!("{} ", message.len()).as_bytes()).unwrap();
            counted.write_all(message).unwrap();
            if !message.contains(&b'\n') {
                lines.write_all(message).unwrap();
                lines.write_all(b"\n").unwrap();
                self.sent += 1;
            }
        }
        self.sent += messages.len() as u64;
        drop((lines, counted));
        self.settle();
    }

    /// Waits until each message has ended as something.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.hb.json(&["status"]);
            let n = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
            let ends = n("events") + n("rejects") + n("faults") + n("ignored");
            assert!(ends <= self.sent, "{ends} of {} messages: {status:#}", self.sent);
            assert_eq!(n("faults"), 0, "a plugin died of a message: {status:#}");
            if ends == self.sent {
                return;
            }
            assert!(Instant::now() < deadline, "{ends} of {} messages: {status:#}", self.sent);
        }
    }

    /// Ends the daemon, and looks at what it kept.
    fn end(mut self) {
        assert_harmless(&self.hb);
        self.running.end();
        assert_harmless(&self.hb);
        self.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    }
}

#[test]
fn syslog_seeds_are_messages_in_every_framing() {
    let Some(folder) = corpus("syslog/tests/fuzz/corpus/syslog-message") else { return };
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut messages = Vec::new();
    for file in &files {
        let seed = fs::read(file).unwrap().trim_ascii_end().to_vec();
        // And each of its beginnings: what a connection that breaks leaves.
        messages.extend((1..=seed.len()).map(|end| seed[..end].to_vec()).filter(|m| !m.trim_ascii().is_empty()));
    }
    assert!(messages.len() > 300, "{} messages", messages.len());
    let mut ears = Ears::open("");
    ears.send(&messages);
    ears.end();
}

#[test]
fn naughty_strings_in_syslog_are_only_text() {
    let Some(strings) = naughty() else { return };
    let mut messages = Vec::new();
    for s in &strings {
        messages.push(format!("<13>1 2026-01-01T00:00:00Z host app - - - {s}").into_bytes());
        messages.push(format!("<13>Jan  1 00:00:00 host {s}: a message").into_bytes());
    }
    let mut ears = Ears::open("");
    ears.send(&messages);
    ears.end();
}

#[test]
fn naughty_strings_in_mqtt_are_only_topics_and_values() {
    let Some(strings) = naughty() else { return };
    let broker = Broker::start("max_queued_messages 0\n");
    let port = broker.port;
    let mut ears = Ears::open(&format!(
        "  - {{ name: m, plugin: mqtt, transport: {{ mqtt: {{ broker: \"tcp://127.0.0.1:{port}\", topics: [plant/#] }} }}, \
         normalizer: n }}\n"
    ));
    assert!(broker.says("Sending SUBACK"), "the daemon does not subscribe");
    let (mut publisher, mut stdin) = broker.publisher("plant/values");
    for s in &strings {
        writeln!(stdin, "{}", serde_json::json!({ "msg": s, "program": s, "v": 1 })).unwrap();
        ears.sent += 1;
    }
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    ears.settle();
    for s in &strings {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-m", "{\"msg\":\"x\"}"]);
        // Some are no topics, which client or broker say.
        let topic = command.args(["-t", &format!("plant/{s}")]).stderr(Stdio::null()).status().unwrap();
        ears.sent += u64::from(topic.success());
    }
    ears.settle();
    assert!(ears.sent > 3 * strings.len() as u64 / 2, "{} of {} were sent", ears.sent, 2 * strings.len());
    ears.end();
}

fn naughty() -> Option<Vec<String>> {
    let strings: Vec<String> = serde_json::from_slice(&fs::read(corpus("strings/blns.json")?).unwrap()).unwrap();
    // No argument of a program holds it.
    Some(strings.into_iter().filter(|s| !s.contains('\0')).collect())
}
