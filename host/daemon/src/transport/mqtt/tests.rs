use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

mod broker;
mod flood;
mod hangs_up;
mod pauses;
mod stands_still;

use broker::{Broker, PATIENCE, free_port};

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V3, MqttVersion::V5];

fn options(port: u16, version: MqttVersion) -> MqttOptions {
    MqttOptions {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        version,
        client_id: format!("hb-{version:?}"),
        user: None,
        password: None,
        topics: vec!["plant/#".into()],
        qos: Qos::AtLeastOnce,
        keep_alive_s: 30,
        session_expiry_s: 3_600,
        // mosquitto's own.
        in_flight_window: 20,
        unmarked: false,
        max_payload_bytes: 1 << 20,
    }
}

/// A transport with what hb would store of it.
struct Kit {
    options: MqttOptions,
    transport: Option<MqttTransport>,
    position: Option<MqttPosition>,
    table: BTreeMap<u16, Digest>,
    events: Vec<MqttEvent>,
    uncommitted: Vec<(Message, Vec<u16>)>,
}

impl Kit {
    /// Opens a transport and waits until it is subscribed.
    fn new(options: MqttOptions) -> Kit {
        let mut kit = Kit::closed(options);
        kit.open();
        kit
    }

    fn closed(options: MqttOptions) -> Kit {
        let (table, events, uncommitted) = (BTreeMap::new(), Vec::new(), Vec::new());
        Kit { options, transport: None, position: None, table, events, uncommitted }
    }

    fn open(&mut self) {
        self.open_only();
        self.until(|s| s.link == MqttLink::Subscribed);
    }

    fn open_only(&mut self) {
        let (options, position) = (self.options.clone(), self.position.as_ref());
        self.transport = Some(MqttTransport::open(options, position, self.table.clone()).unwrap());
    }

    /// The end of the process: what is not committed is gone.
    fn crash(&mut self) {
        self.transport = None;
        self.uncommitted.clear();
    }

    fn handle(&self) -> MqttHandle {
        self.transport.as_ref().unwrap().handle()
    }

    fn status(&self) -> MqttStatus {
        self.handle().status()
    }

    /// Waits for a state of the transport.
    fn until(&self, want: impl Fn(&MqttStatus) -> bool) -> MqttStatus {
        let handle = self.handle();
        let reached = handle.0.wait(Instant::now() + PATIENCE, |state| want(&handle.0.status(state)));
        let status = handle.status();
        assert!(reached, "it stays at {status:?}");
        status
    }

    /// Waits for this many messages; neither commits nor acknowledges.
    fn read(&mut self, n: usize) -> Vec<String> {
        let mut texts = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while texts.len() < n {
            assert!(
                self.transport.as_mut().unwrap().wait(deadline),
                "{n} expected, {} came: {:?}",
                texts.len(),
                self.status()
            );
            texts.extend(self.take(n - texts.len()));
        }
        texts
    }

    /// Takes what is there.
    fn take(&mut self, at_most: usize) -> Vec<String> {
        let mut batch = MqttBatch::default();
        if at_most == 0 {
            return Vec::new();
        }
        match self.transport.as_mut().unwrap().read(at_most, 1 << 20, &mut batch) {
            MqttProgress::Event(event) => self.events.push(event),
            MqttProgress::Messages => assert!(!batch.messages.is_empty()),
            MqttProgress::Idle | MqttProgress::End => assert!(batch.messages.is_empty()),
        }
        let mut settled = std::mem::take(&mut batch.settled);
        let mut texts = Vec::new();
        for message in batch.messages {
            texts.push(format!("{} {}", message.topic, String::from_utf8_lossy(&message.payload)));
            self.uncommitted.push((message, std::mem::take(&mut settled)));
        }
        texts
    }

    /// Commits and acknowledges the first messages that are not.
    fn commit(&mut self, n: usize) {
        let mut last = 0;
        for (message, settled) in self.uncommitted.drain(..n) {
            for id in settled {
                self.table.remove(&id);
            }
            if let Some(delivery) = message.delivery {
                self.table.insert(delivery.packet_id, delivery.hash);
            }
            assert!(message.number > last);
            last = message.number;
        }
        self.position = Some(self.transport.as_ref().unwrap().position());
        self.handle().acknowledge(last);
    }

    /// Reads and commits, message by message as it were, until there are so many.
    fn drain(&mut self, n: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < n {
            texts.extend(self.read(1));
            texts.extend(self.take(n - texts.len()));
            self.commit(self.uncommitted.len());
        }
        texts
    }

    /// Breaks the connection without a farewell, and waits until there is another.
    fn cut(&self) {
        let before = self.status().counters.reconnects;
        let shared = &self.handle().0;
        shared.lock().broken = true;
        shared.call.notify_one();
        self.until(|s| s.counters.reconnects > before && s.link == MqttLink::Subscribed);
    }

    /// The broker is seen to have all acknowledgements but so many, and nothing waits.
    fn settle(&mut self, unacknowledged: u32) {
        let settled = |state: &State| state.deliveries.is_settled();
        assert!(self.handle().0.wait(Instant::now() + PATIENCE, settled), "{:?}", self.status());
        assert_eq!((self.status().unacknowledged, self.take(10)), (unacknowledged, vec![]));
    }
}

fn numbered(n: std::ops::Range<usize>) -> Vec<String> {
    n.map(|i| i.to_string()).collect()
}

fn on(topic: &str, n: std::ops::Range<usize>) -> Vec<String> {
    n.map(|i| format!("{topic} {i}")).collect()
}

#[test]
fn messages_arrive_in_order_with_their_topics() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, numbered(0..100));
        // Longer than the library's usual limit of 10 KiB.
        let long = "x".repeat(300_000);
        broker.publish("plant/b", 1, [&long]);
        broker.publish("elsewhere", 1, ["x"]);
        assert_eq!(kit.drain(100), on("plant/a", 0..100));
        assert_eq!(kit.drain(1), [format!("plant/b {long}")]);
        kit.settle(0);
        let status = kit.status();
        assert_eq!((status.counters.received, status.counters.duplicates), (101, 0));
        assert_eq!(kit.events, [MqttEvent::Session { epoch: 1, lost: false }]);
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_and_is_recognised() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, numbered(0..10));
        assert_eq!(kit.read(10), on("plant/a", 0..10));
        // Three are acknowledged; three are committed while there is no connection; four stay in the pipeline.
        kit.commit(3);
        kit.settle(7);
        kit.cut();
        kit.until(|s| s.counters.duplicates == 7);
        kit.commit(7);
        kit.settle(0);
        broker.publish("plant/a", 1, numbered(10..12));
        assert_eq!(kit.drain(2), on("plant/a", 10..12));
        kit.settle(0);
        // The broker has all acknowledgements: nothing comes again.
        kit.cut();
        broker.publish("plant/a", 1, numbered(12..13));
        assert_eq!(kit.drain(1), on("plant/a", 12..13));
        let counters = kit.status().counters;
        assert_eq!((counters.duplicates, counters.reconnects, counters.sessions_lost), (7, 2, 0));
    }
}

#[test]
fn a_crash_before_the_acknowledgement_neither_loses_nor_doubles() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, numbered(0..10));
        assert_eq!(kit.read(10), on("plant/a", 0..10));
        kit.commit(2);
        kit.settle(8);
        // Three more are in the store when the process dies, and the broker does not hear of it.
        kit.handle().0.lock().outbox = None;
        kit.commit(3);
        kit.crash();
        kit.open();
        assert_eq!(kit.drain(5), on("plant/a", 5..10));
        kit.settle(0);
        assert_eq!(kit.status().counters.duplicates, 3);
        assert_eq!(kit.status().counters.sessions_lost, 0);
    }
}

#[test]
fn whatever_breaks_each_message_is_committed_once_and_in_order() {
    const N: usize = 3_000;
    let broker = Broker::start("max_queued_messages 0\n");
    for (version, seed) in VERSIONS.into_iter().zip([0x9e37_79b9_7f4a_7c15_u64, 0xd1b5_4a32_d192_ed03]) {
        let mut random = seed;
        let mut roll = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut kit = Kit::new(options(broker.port, version));
        kit.transport = None;
        broker.wait_log(&format!("Client hb-{version:?} disconnected"));
        broker.publish("plant/a", 1, numbered(0..N));
        kit.open();
        let (mut uncommitted, mut committed, mut duplicates) = (Vec::new(), Vec::new(), 0);
        while committed.len() < N {
            if kit.uncommitted.is_empty() {
                uncommitted.extend(kit.read(1));
            }
            uncommitted.extend(kit.take(1 + roll(20) as usize));
            let n = kit.uncommitted.len().min(1 + roll(20) as usize);
            let dies = roll(60) == 0;
            // The last commit of a process may stay unknown to the broker.
            if dies && roll(2) == 0 {
                kit.handle().0.lock().outbox = None;
            }
            kit.commit(n);
            committed.extend(uncommitted.drain(..n));
            if dies {
                duplicates += kit.status().counters.duplicates;
                kit.crash();
                uncommitted.clear();
                kit.open_only();
            } else if roll(60) == 0 {
                kit.cut();
            }
        }
        assert_eq!(committed, on("plant/a", 0..N), "seed {seed}");
        assert!(duplicates > 0, "nothing came twice: nothing was shown");
        kit.settle(0);
        assert_eq!(kit.status().counters.sessions_lost, 0);
    }
}

#[test]
fn a_thread_that_died_leaves_no_connection_to_be_seen() {
    let broker = Broker::start("");
    let kit = Kit::new(options(broker.port, MqttVersion::V3));
    drop(Worker(Arc::clone(&kit.handle().0)));
    let status = kit.status();
    assert_eq!((status.link, status.error.as_deref()), (MqttLink::Down, Some("the MQTT thread has ended")));
}

#[test]
fn what_was_published_meanwhile_is_queued_by_the_broker() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, ["first"]);
        assert_eq!(kit.drain(1), ["plant/a first"]);
        kit.transport = None;
        broker.wait_log(&format!("Client hb-{version:?} disconnected"));
        broker.publish("plant/a", 1, numbered(0..70));
        kit.open();
        assert_eq!(kit.drain(70), on("plant/a", 0..70));
        assert_eq!(kit.status().counters.sessions_lost, 0);
        assert_eq!(kit.events, [MqttEvent::Session { epoch: 1, lost: false }]);
    }
}

#[test]
fn a_killed_broker_that_saved_its_sessions_goes_on() {
    for version in VERSIONS {
        let mut broker = Broker::start("persistence true\npersistence_location DIR/\n");
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, numbered(0..10));
        assert_eq!(kit.read(10), on("plant/a", 0..10));
        kit.commit(4);
        kit.settle(6);
        broker.save();
        broker.kill();
        kit.until(|s| s.link == MqttLink::Down);
        kit.commit(2);
        assert_eq!(kit.take(1), Vec::<String>::new());
        broker.restart();
        kit.until(|s| s.link == MqttLink::Subscribed && s.counters.duplicates == 6);
        broker.publish("plant/a", 1, numbered(10..15));
        assert_eq!(kit.read(5), on("plant/a", 10..15));
        kit.commit(9);
        kit.settle(0);
        assert_eq!(kit.status().counters.sessions_lost, 0);
    }
}

#[test]
fn a_broker_that_forgot_the_session_is_noticed() {
    for version in VERSIONS {
        let mut broker = Broker::start("");
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, numbered(0..3));
        assert_eq!(kit.read(3).len(), 3);
        broker.kill();
        broker.restart();
        kit.until(|s| s.link == MqttLink::Subscribed && s.counters.sessions_lost == 1);
        // Packet ids begin anew: these must not be taken for the others.
        broker.publish("plant/a", 1, numbered(0..3));
        assert_eq!(kit.read(3), on("plant/a", 0..3));
        assert_eq!(kit.events[1..], [MqttEvent::Session { epoch: 2, lost: true }]);
        kit.commit(6);
        kit.settle(0);
        // Also when it forgot while hb was away.
        kit.crash();
        broker.kill();
        broker.restart();
        kit.open();
        assert_eq!((kit.read(0).len(), kit.status().counters.sessions_lost), (0, 1));
        broker.publish("plant/a", 1, ["new"]);
        assert_eq!(kit.read(1), ["plant/a new"]);
        assert_eq!(kit.events[2..], [MqttEvent::Session { epoch: 3, lost: true }]);
    }
}

#[test]
fn a_missing_broker_is_a_state() {
    let port = free_port();
    let mut kit = Kit::closed(options(port, MqttVersion::V3));
    kit.open_only();
    let status = kit.until(|s| s.error.is_some());
    assert_eq!((status.link, status.error.as_deref()), (MqttLink::Down, Some("connection refused")));
    assert_eq!(kit.take(1), Vec::<String>::new());
    let soon = Instant::now() + Duration::from_millis(20);
    assert!(!kit.transport.as_mut().unwrap().wait(soon));
    let broker = Broker::start_on(port);
    kit.until(|s| s.link == MqttLink::Subscribed && s.error.is_none());
    broker.publish("plant/a", 1, ["x"]);
    assert_eq!(kit.drain(1), ["plant/a x"]);
}

#[test]
fn a_wrong_password_is_shown_and_no_password_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    let mut make = Command::new("mosquitto_passwd");
    make.args(["-b", "-c"]).arg(&file).args(["operator", "s3cr3t"]);
    assert!(make.status().unwrap().success());
    let broker = Broker::start_in(dir, "allow_anonymous false\npassword_file DIR/passwords\n");
    for version in VERSIONS {
        let mut options = options(broker.port, version);
        (options.user, options.password) = (Some("operator".into()), Some("wr0ng".into()));
        let mut kit = Kit::closed(options.clone());
        kit.open_only();
        let status = kit.until(|s| s.error.is_some());
        let error = "the broker refused the connection: not authorized; check user, password and client id";
        assert_eq!(status.error.as_deref(), Some(error));
        for text in [format!("{options:?}"), format!("{:?}", kit.transport), format!("{:?} {status:?}", kit.handle())] {
            assert!(!text.contains("wr0ng") && !text.contains("operator"), "{text}");
        }
        options.password = Some("s3cr3t".into());
        Kit::new(options);
    }
}

#[test]
fn a_refused_topic_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";
    let plugin = [plugin, "/usr/lib/aarch64-linux-gnu/mosquitto_dynamic_security.so"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let plugin = plugin.expect("mosquitto's dynamic security plugin, part of Debian's package");
    let rules = r#"{"defaultACLAccess":
        {"publishClientSend":true,"publishClientReceive":true,"subscribe":false,"unsubscribe":false},
        "clients":[],"groups":[{"groupname":"all","roles":[{"rolename":"some"}]}],"anonymousGroup":"all",
        "roles":[{"rolename":"some","acls":[{"acltype":"subscribePattern","topic":"plant/#","allow":true}]}]}"#;
    fs::write(dir.path().join("rules.json"), rules).unwrap();
    let config = format!("plugin {plugin}\nplugin_opt_config_file DIR/rules.json\nallow_anonymous true\n");
    let broker = Broker::start_in(dir, &config);
    for (version, why) in VERSIONS.into_iter().zip(["no reason given", "not authorized"]) {
        let mut options = options(broker.port, version);
        options.topics.push("office/#".into());
        let mut kit = Kit::closed(options);
        kit.open_only();
        let status = kit.until(|s| s.link == MqttLink::Refused);
        assert_eq!(status.error.as_deref(), Some(&*format!("the broker refused to subscribe `office/#` ({why})")));
        // The other topic is served.
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.drain(1), ["plant/a x"]);
    }
}

#[test]
fn less_than_was_asked_for_is_shown() {
    let broker = Broker::start("max_qos 0\n");
    for version in VERSIONS {
        let mut kit = Kit::closed(options(broker.port, version));
        kit.open_only();
        let status = kit.until(|s| s.link == MqttLink::Refused);
        assert_eq!(status.error.as_deref(), Some("the broker refused to subscribe `plant/#` (only at QoS 0)"));
        kit.options.qos = Qos::AtMostOnce;
        kit.transport = None;
        kit.open();
    }
}

#[test]
fn a_topic_that_is_not_configured_any_more_is_unsubscribed() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut options = options(broker.port, version);
        options.topics = vec!["plant/a".into(), "plant/b".into()];
        let mut kit = Kit::new(options);
        broker.publish("plant/b", 1, ["1"]);
        assert_eq!(kit.drain(1), ["plant/b 1"]);
        kit.transport = None;
        kit.options.topics.pop();
        kit.open_only();
        assert_eq!(kit.transport.as_ref().unwrap().position().topics, ["plant/a", "plant/b"]);
        kit.until(|s| s.link == MqttLink::Subscribed);
        broker.publish("plant/b", 1, ["2"]);
        broker.publish("plant/a", 1, ["3"]);
        assert_eq!(kit.drain(1), ["plant/a 3"]);
        assert_eq!(kit.transport.as_ref().unwrap().position().topics, ["plant/a"]);
    }
}

#[test]
fn retained_messages_are_messages() {
    let broker = Broker::start("");
    broker.run("mosquitto_pub", &["-t", "plant/name", "-q", "1", "-r", "-m", "press 4"]);
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        assert_eq!(kit.read(1), ["plant/name press 4"]);
        assert!(kit.uncommitted[0].0.retained);
        kit.commit(1);
        kit.settle(0);
        // MQTT 3.1.1 sends them again with each subscription.
        kit.cut();
        broker.publish("plant/name", 1, ["press 5"]);
        match version {
            MqttVersion::V3 => assert_eq!(kit.drain(2), ["plant/name press 4", "plant/name press 5"]),
            MqttVersion::V5 => assert_eq!(kit.drain(1), ["plant/name press 5"]),
        }
        kit.settle(0);
    }
}

#[test]
fn messages_of_another_clients_subscription_at_qos_2_are_answered() {
    let broker = Broker::start("");
    for (version, name) in VERSIONS.into_iter().zip(["311", "5"]) {
        let id = format!("hb-{version:?}");
        let session = ["-i", &id, "-c", "-q", "2", "-t", "plant/#", "-E", "-V", name];
        let expiry: &[&str] = if name == "5" { &["-x", "3600"] } else { &[] };
        broker.run("mosquitto_sub", &[&session[..], expiry].concat());
        broker.publish("plant/a", 2, numbered(0..30));
        let mut kit = Kit::new(options(broker.port, version));
        assert_eq!(kit.drain(30), on("plant/a", 0..30));
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.drain(1), ["plant/a x"]);
        kit.settle(0);
        kit.cut();
        broker.publish("plant/a", 1, ["y"]);
        assert_eq!(kit.drain(1), ["plant/a y"]);
        assert_eq!(kit.status().counters.duplicates, 0);
    }
}

#[test]
fn a_flood_at_qos_0_is_cut_and_counted() {
    // The broker drops what the socket does not take at once, so not all that is sent comes.
    let broker = Broker::start("max_queued_messages 0\n");
    let cap = delivery::MAX_QOS0_MESSAGES;
    let mut kit = Kit::new(options(broker.port, MqttVersion::V3));
    let flood = numbered(0..20_000);
    while kit.status().counters.dropped_qos0 < 1_000 {
        broker.publish("plant/a", 0, &flood);
        kit.until(|s| s.counters.received > 0);
    }
    // The event loop lived through it.
    broker.publish("plant/a", 1, ["last"]);
    kit.until(|s| s.unacknowledged == 1);
    let counters = kit.status().counters;
    let kept = counters.received - counters.dropped_qos0;
    assert_eq!(kept, cap as u64 + 1);
    let texts = kit.read(kept as usize);
    assert_eq!((texts.len() as u64, texts.last().unwrap().as_str()), (kept, "plant/a last"));
    assert!(kit.uncommitted.iter().all(|(m, _)| m.delivery.is_none() || m.payload == "last"));
    broker.publish("plant/a", 0, ["again"]);
    assert_eq!(kit.read(1), ["plant/a again"]);
}

#[test]
fn a_window_that_is_half_used_asks_for_a_commit() {
    let broker = Broker::start("max_inflight_messages 6\n");
    let mut kit = Kit::new(MqttOptions { in_flight_window: 6, ..options(broker.port, MqttVersion::V5) });
    broker.publish("plant/a", 1, numbered(0..10));
    let status = kit.until(|s| s.unacknowledged == 6);
    assert_eq!((status.window, kit.handle().wants_commit()), (6, true));
    assert_eq!(kit.read(6).len(), 6);
    kit.commit(6);
    assert_eq!(kit.drain(4), on("plant/a", 6..10));
    kit.settle(0);
    assert!(!kit.handle().wants_commit());
}

#[test]
fn dropping_says_farewell_and_never_waits_long() {
    let finished = |kit: Kit| {
        let (done, finished) = channel();
        std::thread::spawn(move || {
            drop(kit);
            done.send(()).unwrap();
        });
        finished.recv_timeout(PATIENCE).unwrap();
    };
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.read(1), ["plant/a x"]);
        // What is acknowledged last goes out before the farewell.
        kit.commit(1);
        finished(kit);
        broker.wait_log(&format!("Received PUBACK from hb-{version:?}"));
        broker.wait_log(&format!("Client hb-{version:?} disconnected"));
        // A broker that does not answer, and none at all.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        for port in [silent.local_addr().unwrap().port(), free_port()] {
            let mut kit = Kit::closed(options(port, version));
            kit.open_only();
            finished(kit);
        }
    }
}

#[test]
fn a_stop_wakes_the_reader_and_lets_acknowledgements_out() {
    let broker = Broker::start("");
    let mut kit = Kit::new(options(broker.port, MqttVersion::V3));
    broker.publish("plant/a", 1, numbered(0..2));
    assert_eq!(kit.read(1), ["plant/a 0"]);
    let handle = kit.handle();
    assert_eq!(kit.read(1), ["plant/a 1"]);
    let stopper = std::thread::spawn(move || handle.stop());
    assert!(kit.transport.as_mut().unwrap().wait(Instant::now() + PATIENCE));
    stopper.join().unwrap();
    let mut batch = MqttBatch::default();
    assert_eq!(kit.transport.as_mut().unwrap().read(1, 1, &mut batch), MqttProgress::End);
    kit.commit(2);
    kit.until(|s| s.unacknowledged == 0 && s.link == MqttLink::Subscribed);
}

#[test]
fn another_client_of_the_same_id_is_shown() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let first = Kit::new(options(broker.port, version));
        let _second = Kit::new(options(broker.port, version));
        first.until(|s| s.error.as_deref() == Some("the broker closed the connection"));
    }
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate and its key.
    fn sign(&self, dir: &Path, file: &str, name: &str, years: std::ops::Range<i32>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// A broker with a TLS listener for each certificate, and their ports.
fn tls_broker(certificates: &[(&str, &str)]) -> (Broker, Vec<u16>, Authority) {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("plant authority"), Authority::new("other authority"));
    fs::write(dir.path().join("ca.crt"), authority.0.pem()).unwrap();
    fs::write(dir.path().join("other.crt"), other.0.pem()).unwrap();
    authority.sign(dir.path(), "good", "127.0.0.1", 2020..2120);
    authority.sign(dir.path(), "expired", "127.0.0.1", 2020..2021);
    authority.sign(dir.path(), "early", "127.0.0.1", 2119..2120);
    authority.sign(dir.path(), "elsewhere", "broker.example", 2020..2120);
    authority.sign(dir.path(), "client", "hb", 2020..2120);
    authority.sign(dir.path(), "expired-client", "hb", 2020..2021);
    other.sign(dir.path(), "stranger", "hb", 2020..2120);
    let (mut config, mut ports) = (String::new(), Vec::new());
    for (certificate, more) in certificates {
        let port = free_port();
        ports.push(port);
        let files = format!("cafile DIR/ca.crt\ncertfile DIR/{certificate}.crt\nkeyfile DIR/{certificate}.key");
        config.push_str(&format!("listener {port} 127.0.0.1\n{files}\n{more}\n"));
    }
    (Broker::start_in(dir, &config), ports, authority)
}

fn tls_options(broker: &Broker, port: u16, version: MqttVersion, client: Option<&str>) -> MqttOptions {
    let file = |name: &str| broker.path().join(name);
    let client = client.map(|name| ClientCertificate {
        certificate_file: file(&format!("{name}.crt")),
        key_file: file(&format!("{name}.key")),
    });
    let tls = Some(TlsOptions { ca_file: Some(file("ca.crt")), client });
    // A session for each: what others publish is queued for all that stand.
    MqttOptions { tls, client_id: format!("hb-{port}-{version:?}"), ..options(port, version) }
}

#[test]
fn tls_says_what_is_wrong_with_the_brokers_certificate() {
    let (broker, ports, _) =
        tls_broker(&[("good", ""), ("expired", ""), ("early", ""), ("elsewhere", ""), ("good", "tls_version tlsv1.2")]);
    for version in VERSIONS {
        for port in [ports[0], ports[4]] {
            let mut kit = Kit::new(tls_options(&broker, port, version, None));
            broker.publish("plant/a", 1, ["x"]);
            assert_eq!(kit.drain(1), ["plant/a x"]);
            kit.settle(0);
        }
        let refused = |options: MqttOptions, expected: &str| {
            let mut kit = Kit::closed(options);
            kit.open_only();
            let status = kit.until(|s| s.error.is_some());
            assert_eq!((status.link, status.error.as_deref()), (MqttLink::Down, Some(expected)));
        };
        let mut wrong_ca = tls_options(&broker, ports[0], version, None);
        wrong_ca.tls.as_mut().unwrap().ca_file = Some(broker.path().join("other.crt"));
        let unknown = "the broker's certificate is not signed by a certificate authority that is trusted here; \
            name its own as ca_file";
        refused(wrong_ca, unknown);
        let mut system = tls_options(&broker, ports[0], version, None);
        system.tls.as_mut().unwrap().ca_file = None;
        if system.check().is_ok() {
            refused(system, unknown);
        }
        let with = |port| tls_options(&broker, port, version, None);
        refused(with(ports[1]), "the broker's certificate has expired; have it renewed, or check the clocks");
        refused(with(ports[2]), "the broker's certificate is not valid yet; check the clocks");
        let elsewhere = "the broker's certificate is for another host than `127.0.0.1`: it names broker.example; \
            connect to one of these, or have it renewed";
        refused(with(ports[3]), elsewhere);
        refused(with(broker.port), "the broker closed the connection");
        refused(MqttOptions { tls: None, ..with(ports[0]) }, "the broker closed the connection");
    }
}

#[test]
fn a_broker_that_asks_for_a_certificate_gets_one() {
    let (broker, ports, _) =
        tls_broker(&[("good", "require_certificate true"), ("good", "require_certificate true\ntls_version tlsv1.2")]);
    for (port, version) in ports.iter().flat_map(|p| VERSIONS.map(|v| (*p, v))) {
        let mut kit = Kit::new(tls_options(&broker, port, version, Some("client")));
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.drain(1), ["plant/a x"]);
        kit.settle(0);
        drop(kit);
        for (client, words) in [
            (None, "certificate"),
            (Some("stranger"), "the broker does not know who signed the client certificate"),
            (Some("expired-client"), "the broker says that the client certificate has expired"),
        ] {
            let mut kit = Kit::closed(tls_options(&broker, port, version, client));
            kit.open_only();
            let error = kit.until(|s| s.error.is_some()).error.unwrap();
            assert!(error.contains(words), "{client:?}: {error}");
        }
    }
}

#[test]
fn mistakes_are_told_before_anything_is_connected() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("plant authority");
    authority.sign(dir.path(), "a", "a", 2020..2120);
    authority.sign(dir.path(), "b", "b", 2020..2120);
    let file = |name: &str| dir.path().join(name);
    let right = options(1, MqttVersion::V5);
    let tls = |ca: &str, key: &str| {
        let client = Some(ClientCertificate { certificate_file: file("a.crt"), key_file: file(key) });
        MqttOptions { tls: Some(TlsOptions { ca_file: Some(file(ca)), client }), ..right.clone() }
    };
    assert!(right.check().is_ok() && tls("a.crt", "a.key").check().is_ok());
    for (wrong, words) in [
        (MqttOptions { host: String::new(), ..right.clone() }, "no host"),
        (MqttOptions { client_id: String::new(), ..right.clone() }, "client id"),
        (MqttOptions { topics: vec![], ..right.clone() }, "no topic"),
        (MqttOptions { topics: vec!["a".into(), "a/#/b".into()], ..right.clone() }, "`a/#/b` is no topic filter"),
        (MqttOptions { keep_alive_s: 4, ..right.clone() }, "keep-alive of 4 s"),
        (MqttOptions { password: Some("x".into()), ..right.clone() }, "no user"),
        (tls("missing", "a.key"), "cannot read"),
        (tls("a.key", "a.key"), "no certificate in PEM"),
        (tls("a.crt", "a.crt"), "no private key in PEM"),
        (tls("a.crt", "b.key"), "cannot be used"),
    ] {
        let error = MqttTransport::open(wrong, None, []).unwrap_err();
        assert!(error.to_string().contains(words) && !error.help().is_empty(), "{error}");
    }
}

#[test]
fn a_stored_position_is_read_by_later_versions() {
    let stored = r#"{"broker":"broker.example:1883","client_id":"hb-1","epoch":3,"topics":["plant/#"]}"#;
    let position: MqttPosition = serde_json::from_str(stored).unwrap();
    assert_eq!((position.epoch, serde_json::to_string(&position).unwrap().as_str()), (3, stored));
}

#[test]
fn another_broker_or_client_has_another_session() {
    let broker = Broker::start("");
    for version in VERSIONS {
        let mut kit = Kit::new(options(broker.port, version));
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.drain(1), ["plant/a x"]);
        kit.settle(0);
        kit.transport = None;
        // Both sessions use the same packet ids for the same message.
        kit.options.client_id.push_str("-new");
        kit.open();
        let before = kit.position.clone().unwrap();
        assert_eq!(kit.transport.as_ref().unwrap().position(), before);
        broker.publish("plant/a", 1, ["x"]);
        assert_eq!(kit.drain(1), ["plant/a x"]);
        assert_eq!(kit.events[1..], [MqttEvent::Session { epoch: 2, lost: false }]);
        let after = kit.position.clone().unwrap();
        assert_eq!((after.epoch, after.client_id), (2, format!("{}-new", before.client_id)));
        assert_eq!((kit.status().counters.sessions_lost, kit.status().counters.duplicates), (0, 0));
    }
}

#[test]
fn throughput_is_printed() {
    const N: usize = 20_000;
    for (version, window) in VERSIONS.into_iter().flat_map(|v| [(v, 20), (v, 1_000)]) {
        let broker = Broker::start(&format!("max_inflight_messages {window}\nmax_queued_messages 0\n"));
        let mut kit = Kit::new(options(broker.port, version));
        kit.transport = None;
        broker.wait_log(&format!("Client hb-{version:?} disconnected"));
        broker.publish("plant/a", 1, numbered(0..N));
        let start = Instant::now();
        kit.open();
        assert_eq!(kit.drain(N).len(), N);
        let rate = N as f64 / start.elapsed().as_secs_f64();
        println!("{version:?}, {window} in flight: {rate:.0} messages/s at QoS 1");
    }
}
