//! A queue at the broker that is longer than its window, than what hb takes, and than there are packet ids.

use super::broker::Broker;
use super::delivery::MAX_UNACKNOWLEDGED;
use super::{Kit, MqttVersion, VERSIONS, numbered, on, options};

const QUEUED: usize = 200_000;

/// Of one publisher: mosquitto_pub takes an acknowledgement for that of its last message when that one's number of 16 bits
/// was used before.
const PUBLISHED: usize = 50_000;

/// A broker that holds all messages for a session, and the session. With a window of 0 it sends all at once; mosquitto 2.0
/// does so with any window once an acknowledgement comes late.
fn queued(version: MqttVersion, window: u16) -> (Broker, Kit) {
    let limits = format!("max_queued_messages 0\nmax_inflight_messages {window}\n");
    // What it says of single messages would be most of its work.
    let broker = Broker::start(&format!("{limits}log_type error\nlog_type notice\nlog_type information\n"));
    let mut kit = Kit::new(options(broker.port, version));
    kit.transport = None;
    broker.wait_log(&format!("Client hb-{version:?} disconnected"));
    for begin in (0..QUEUED).step_by(PUBLISHED) {
        broker.publish("plant/a", 1, numbered(begin..begin + PUBLISHED));
    }
    // The answer to its subscription stands behind all of them.
    kit.open_only();
    (broker, kit)
}

/// Takes what is there when so much of it is not acknowledged, and commits half of it, until so many are committed.
fn commit_late(kit: &mut Kit, late: usize, count: usize, committed: &mut Vec<String>) {
    let mut taken = Vec::new();
    while committed.len() < count {
        let late = late.min(QUEUED - committed.len()) as u32;
        let status = kit.until(|s| s.unacknowledged >= late);
        assert!(status.unacknowledged as usize <= MAX_UNACKNOWLEDGED, "{status:?}");
        while taken.len() < late as usize {
            taken.extend(kit.take(usize::MAX));
        }
        let half = taken.len().div_ceil(2);
        kit.commit(half);
        committed.extend(taken.drain(..half));
    }
}

#[test]
fn a_long_queue_at_the_broker_is_read_as_fast_as_it_is_committed() {
    for (version, window, late) in [(VERSIONS[0], 2_000, 2_000), (VERSIONS[1], 0, MAX_UNACKNOWLEDGED)] {
        let (_broker, mut kit) = queued(version, window);
        let mut committed = Vec::new();
        commit_late(&mut kit, late, QUEUED, &mut committed);
        assert!(committed == on("plant/a", 0..QUEUED), "{version:?}: another order, or other messages");
        kit.settle(0);
        let counters = kit.status().counters;
        assert_eq!((counters.received, counters.duplicates, counters.reconnects), (QUEUED as u64, 0, 0));
    }
}

#[test]
fn a_crash_amid_a_long_queue_neither_loses_nor_doubles() {
    for (version, window, late) in [(VERSIONS[0], 0, MAX_UNACKNOWLEDGED), (VERSIONS[1], 2_000, 2_000)] {
        let (_broker, mut kit) = queued(version, window);
        let mut committed = Vec::new();
        commit_late(&mut kit, late, 90_000, &mut committed);
        // These are in the store when the process dies, and the broker does not hear of it.
        let unseen = kit.uncommitted.len().min(500);
        let texts = kit.uncommitted[..unseen].iter().map(|(m, _)| format!("{} {}", m.topic, text(&m.payload)));
        committed.extend(texts.collect::<Vec<_>>());
        kit.handle().0.lock().outbox = None;
        kit.commit(unseen);
        kit.crash();
        kit.open_only();
        commit_late(&mut kit, late, QUEUED, &mut committed);
        assert!(committed == on("plant/a", 0..QUEUED), "{version:?}: another order, or other messages");
        kit.settle(0);
        let counters = kit.status().counters;
        assert_eq!((counters.reconnects, counters.sessions_lost), (0, 0));
        // The broker may not have seen what was on the way either.
        assert!(unseen > 0 && counters.duplicates >= unseen as u64, "{counters:?}");
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
