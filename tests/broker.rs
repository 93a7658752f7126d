//! A broker that is killed again and again: the daemon goes on, loses nothing that it was given nor what the broker kept,
//! and adds no doubles of its own.

mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use hb_engine::decision::Decision;

use crate::live::{PROGRAM, subscriber};
use crate::reload::values;
use crate::support::broker::Broker;
use crate::support::hb::{Dice, Running};
use relay::Relay;

/// Messages of one mosquitto_pub at most: it confuses those whose numbers of 16 bits are equal while they wait.
const PUBLISHED: usize = 50_000;

/// Kills of the broker.
const KILLS: usize = 20;

/// Messages a second that are published, and that the broker has to acknowledge over the whole run, kills included.
const RATE: u64 = 2_500;
const RATE_MIN: f64 = 2_000.0;

/// Messages that wait for their acknowledgement at most.
const WINDOW: usize = 200;

/// Messages that are on their way to the daemon at most.
const IN_FLIGHT: u32 = 1_000;

/// Acknowledgements between two kills at most.
const BETWEEN: u64 = 2_000;

/// A connection that stood for this long is followed by a short pause, if it also stood so many times as long as it was
/// waited for; pauses after shorter ones grow.
const STEADY: Duration = Duration::from_millis(5_200);
const STEADY_TIMES: u32 = 6;

/// Of so many kills one comes after a connection that stood as long.
const STEADY_EVERY: usize = 5;

/// How long the publisher waits for an acknowledgement before it looks for something else to do.
const LOOK: Duration = Duration::from_millis(2);

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_mins(2);

/// mosquitto acknowledges first and saves then; with these settings it saves after so many changes. So a kill costs what
/// was acknowledged since the last save was complete, if it had not reached the subscriber yet. Its log says which
/// messages these are; about all others it made a promise. To save after each change, as the guide advises who has few
/// messages, it needs a turn of its loop and a whole file for each: far too long at this rate.
const SETTINGS: &str = "persistence true\npersistence_location DIR/\nautosave_on_changes true\nautosave_interval 100\n\
    max_queued_messages 0\nmax_inflight_messages 1000\n";

/// What became of each message at the broker.
#[derive(Default)]
struct Ledger {
    /// How often it took each: a publisher that got no acknowledgement sends again.
    taken: BTreeMap<u64, u64>,
    /// How often it gave each to the daemon as one that it did not know to be there. One that goes back to an older save
    /// forgets what it has given, and that it was acknowledged, and nothing in MQTT tells such a message from a new one.
    given: BTreeMap<u64, u64>,
    /// Which message a packet id of the daemon's session stands for, and one of the publisher's.
    ids: BTreeMap<u64, u64>,
    published: BTreeMap<u64, u64>,
    /// What the daemon has acknowledged.
    acknowledged: BTreeSet<u64>,
    /// Acknowledged, and killed before it was saved.
    unsaved: BTreeSet<u64>,
    /// All that it said.
    said: Vec<String>,
}

#[test]
fn a_broker_that_is_killed_twenty_times_costs_nothing_it_had_kept() {
    // In memory, where its many saves take no time: this is about kills, and no power cut.
    let mut broker = Broker::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), SETTINGS);
    let relay = Relay::start(broker.port, "plant/m/");
    let hb = subscriber(relay.port, "hit", IN_FLIGHT);
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info"));
    running.wait_for("connected to the MQTT broker", 1);
    assert!(broker.says("Sending SUBACK to hit"), "it does not subscribe");

    let (done, port, begin) = (AtomicBool::new(false), broker.port, Instant::now());
    let (to_killer, acknowledged) = channel();
    let (mut ledger, mut acks) = (Ledger::default(), BTreeSet::new());
    let sent = std::thread::scope(|threads| {
        let publisher = threads.spawn(|| publish(port, &done, &to_killer));
        let (mut dice, mut killed) = (Dice(23), Instant::now());
        for n in 0..KILLS {
            // Every third time it is killed as publisher and subscriber are about to greet it.
            let mut wanted = dice.below(3);
            let mut until = Instant::now();
            if n % 3 != 2 {
                running.wait_for("connected to the MQTT broker", usize::from(n > 0));
                wanted = 1 + dice.below(BETWEEN);
                if n % STEADY_EVERY == STEADY_EVERY - 2 {
                    until = Instant::now() + STEADY.max(killed.elapsed() * STEADY_TIMES);
                }
            }
            while wanted > 0 || Instant::now() < until {
                acks.insert(acknowledged.recv_timeout(PATIENCE).expect("nothing is acknowledged"));
                wanted = wanted.saturating_sub(1);
            }
            ledger.note(&broker.kill());
            killed = Instant::now();
            broker.restart();
        }
        done.store(true, Ordering::Relaxed);
        publisher.join().unwrap()
    });
    let rate = sent as f64 / begin.elapsed().as_secs_f64();
    acks.extend(acknowledged.try_iter());
    assert_eq!(acks, (0..sent).collect::<BTreeSet<u64>>(), "the publisher goes on until it has all acknowledgements");
    wait_for_the_end(&broker);
    ledger.note(&broker.kill());
    running.end();

    let mut stored: BTreeMap<u64, u64> = BTreeMap::new();
    let sequence = values(&hb).remove("n").unwrap_or_default();
    for &n in &sequence {
        *stored.entry(n).or_default() += 1;
    }
    let times = |map: &BTreeMap<u64, u64>, n: u64| map.get(&n).copied().unwrap_or(0);
    let lost: BTreeSet<u64> = acks.iter().copied().filter(|&n| times(&stored, n) == 0).collect();
    let given = relay.arrived();
    let doubled = stored.values().filter(|&&times| times > 1).count();
    let again = ledger.taken.values().filter(|&&times| times > 1).count();
    let forgotten = ledger.given.values().filter(|&&times| times > 1).count();
    println!(
        "{sent} messages, {rate:.0} acknowledged a second, {KILLS} kills: the broker took {again} more than once and gave {forgotten} more than once as \
         new, {doubled} are stored so; {} came to the daemon; {} acknowledged and not saved, {} of these lost",
        given.len(),
        ledger.unsaved.len(),
        lost.len()
    );
    let broken: Vec<&u64> = lost.difference(&ledger.unsaved).collect();
    assert!(broken.is_empty(), "acknowledged, saved by the broker, and not there: {broken:?}");
    let dropped: Vec<u64> = given.iter().copied().filter(|&n| times(&stored, n) == 0).collect();
    assert!(dropped.is_empty(), "given to the daemon, and not there: {dropped:?}");
    let own: Vec<u64> = acks.iter().copied().filter(|&n| times(&stored, n) > times(&ledger.given, n)).collect();
    let story = own.first().map(|&n| ledger.story(n));
    assert!(own.is_empty(), "stored more often than the broker gave them: {own:?}: {}", story.unwrap_or_default());
    assert!(rate >= RATE_MIN, "the broker acknowledged {rate:.0} messages a second");
    hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    let calm = undisturbed(&sequence);
    assert!(!calm.is_empty());
    let decoded = |bytes: &Vec<u8>| hb_log::cbor::decode::<Decision>(bytes).unwrap();
    for (hit, calm) in hb.decisions(PROGRAM).iter().zip(&calm) {
        assert!(hit == calm, "the kills changed a decision: {:#?} and not {:#?}", decoded(hit), decoded(calm));
    }
    assert_eq!(hb.decisions(PROGRAM).len(), calm.len());
}

/// The decisions of a daemon that is given the same messages in the same order by a broker that lives on.
fn undisturbed(sequence: &[u64]) -> Vec<Vec<u8>> {
    let broker = Broker::start("max_queued_messages 0\nmax_inflight_messages 1000\n");
    // As the other one, for its name is in the broker's lines.
    let hb = subscriber(broker.port, "hit", IN_FLIGHT);
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info"));
    assert!(broker.says("Sending SUBACK to hit"), "it does not subscribe");
    for part in sequence.chunks(PUBLISHED) {
        let (mut publisher, mut stdin) = broker.publisher("plant/m");
        for &n in part {
            writeln!(stdin, "{}", payload(n)).unwrap();
        }
        drop(stdin);
        assert!(publisher.wait().unwrap().success(), "the broker did not take all messages");
    }
    // What waits at the broker for long may be overtaken by what comes last.
    let deadline = Instant::now() + PATIENCE;
    let stored = || hb.json(&["status"])["counters"]["samples"].as_u64().unwrap_or(0);
    while stored() < sequence.len() as u64 {
        assert!(Instant::now() < deadline, "{} of {} messages", stored(), sequence.len());
    }
    wait_for_the_end(&broker);
    running.end();
    hb.decisions(PROGRAM)
}

impl Ledger {
    /// Reads what a broker said from its start to its death.
    fn note(&mut self, said: &[String]) {
        let mut since_save: BTreeSet<u64> = BTreeSet::new();
        let mut being_saved = BTreeSet::new();
        for line in said {
            // It is one thread: whatever it says next, the save before is complete.
            being_saved.clear();
            if line.contains("Saving in-memory database") {
                being_saved.append(&mut since_save);
            } else if let Some(n) = number(line, "Received PUBLISH from numbering", "'plant/m/") {
                *self.taken.entry(n).or_default() += 1;
                self.published.extend(number(line, "Received PUBLISH from numbering", ", m").map(|id| (id, n)));
            } else if let Some(n) = number(line, "Sending PUBLISH to hit (", "'plant/m/") {
                let is_marked = line.contains("(d1,");
                *self.given.entry(n).or_default() += u64::from(!is_marked || self.acknowledged.contains(&n));
                self.ids.extend(number(line, "Sending PUBLISH to hit (", ", m").map(|id| (id, n)));
            } else if let Some(id) = number(line, "Received PUBACK from hit", "(Mid: ") {
                self.acknowledged.extend(self.ids.get(&id));
            } else if let Some(id) = number(line, "Sending PUBACK to numbering", "(m") {
                since_save.extend(self.published.get(&id));
            }
        }
        self.unsaved.extend(since_save);
        self.unsaved.extend(being_saved);
        self.said.extend(said.iter().cloned());
    }

    /// What the broker said of a message, and when it began.
    fn story(&self, n: u64) -> String {
        let (topic, mut ids, mut story) = (format!("'plant/m/{n}'"), BTreeSet::new(), String::new());
        for line in &self.said {
            let of_topic = line.contains(&topic);
            if of_topic && line.contains("Sending PUBLISH to hit") {
                ids.extend(number(line, "Sending PUBLISH to hit (", ", m").map(|id| format!("(Mid: {id},")));
            }
            let of_id = line.contains("Received PUBACK from hit") && ids.iter().any(|id| line.contains(id));
            let of_all = line.contains(" running") || line.contains("to hit (") && !line.contains("PUBLISH");
            if of_topic || of_id || of_all || line.contains("New client connected") {
                story.push_str(&format!("{line}\n"));
            }
        }
        story
    }
}

/// The number behind `mark`, in a line of the broker that says `what`.
fn number(line: &str, what: &str, mark: &str) -> Option<u64> {
    let digits = line.split(what).nth(1)?.split(mark).nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits[..end].parse().ok()
}

/// A message behind all others; the broker hears that it is durable, and with it all before it.
fn wait_for_the_end(broker: &Broker) {
    let (mut publisher, mut stdin) = broker.publisher("plant/end");
    stdin.write_all(b"{\"t\":1767300000,\"end\":1}\n").unwrap();
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    let sent = broker.line(&["Sending PUBLISH to hit", "'plant/end'"]).expect("the end is not delivered");
    let id = sent.split(" m").nth(1).unwrap().split(',').next().unwrap();
    assert!(broker.says(&format!("Received PUBACK from hit (Mid: {id},")), "the end is not acknowledged");
}

/// Publishes numbered messages at QoS 1 until told to stop, and each again until it is acknowledged: MQTT to the letter,
/// so that the test sees each acknowledgement when the publisher does. Returns how many there were.
fn publish(port: u16, done: &AtomicBool, acknowledged: &Sender<u64>) -> u64 {
    let (begin, mut next, mut waiting) = (Instant::now(), 0, BTreeSet::new());
    let deadline = begin + 5 * PATIENCE;
    while !(done.load(Ordering::Relaxed) && waiting.is_empty()) {
        assert!(Instant::now() < deadline, "{} messages are not acknowledged", waiting.len());
        let ended = connect(port).and_then(|stream| {
            let due = || begin.elapsed().as_millis() as u64 * RATE / 1_000;
            connection(stream, &mut next, &mut waiting, &due, done, acknowledged)
        });
        if ended.is_err() {
            // Nothing tells when there is a broker again.
            std::thread::park_timeout(LOOK);
        }
    }
    next
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.write_all(b"\x10\x15\x00\x04MQTT\x04\x02\x00\x3c\x00\x09numbering")?;
    Ok(stream)
}

fn connection(
    mut stream: TcpStream,
    next: &mut u64,
    waiting: &mut BTreeSet<u64>,
    due: &dyn Fn() -> u64,
    done: &AtomicBool,
    acknowledged: &Sender<u64>,
) -> std::io::Result<()> {
    for &n in waiting.iter() {
        stream.write_all(&message(n, true))?;
    }
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1_024]);
    while !(done.load(Ordering::Relaxed) && waiting.is_empty()) {
        while waiting.len() < WINDOW && *next < due() && !done.load(Ordering::Relaxed) {
            waiting.insert(*next);
            *next += 1;
            stream.write_all(&message(*next - 1, false))?;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => bytes.extend_from_slice(&buffer[..got]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        // The greeting and each acknowledgement have four bytes.
        while bytes.len() >= 4 {
            let packet: Vec<u8> = bytes.drain(..4).collect();
            if packet[0] == 0x40 {
                let id = u16::from_be_bytes([packet[2], packet[3]]);
                // Those that wait follow one another, and are fewer than there are ids.
                let answered = waiting.iter().copied().find(|&n| packet_id(n) == id);
                if let Some(n) = answered.filter(|n| waiting.remove(n)) {
                    // Nobody counts any more at the end.
                    let _ = acknowledged.send(n);
                }
            }
        }
    }
    Ok(())
}

/// A PUBLISH of the message with this number.
fn message(n: u64, again: bool) -> Vec<u8> {
    let payload = payload(n);
    // The broker's log tells topics, and no payloads.
    let topic = format!("plant/m/{n}");
    let length = 2 + topic.len() + 2 + payload.len();
    let mut packet = vec![if again { 0x3a } else { 0x32 }, u8::try_from(length).unwrap(), 0, topic.len() as u8];
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(&packet_id(n).to_be_bytes());
    packet.extend_from_slice(payload.as_bytes());
    packet
}

/// What stands in the message with this number.
fn payload(n: u64) -> String {
    format!("{{\"t\":{}.{:03},\"n\":{n}}}", 1_767_225_600 + n / 500, n % 500 * 2)
}

/// Ids count from 1, and begin again when there are no more.
fn packet_id(n: u64) -> u16 {
    (n % u64::from(u16::MAX)) as u16 + 1
}
