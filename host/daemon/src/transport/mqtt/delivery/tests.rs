use super::*;

/// Of a message of this content.
fn digest(content: u64) -> Digest {
    let mut digest = Digest::default();
    digest[..8].copy_from_slice(&content.to_le_bytes());
    digest
}

fn publish(packet_id: u16, dup: bool, content: u64) -> Incoming {
    let sent = Some(Sent { packet_id, dup, exactly_once: false, hash: digest(content) });
    Incoming { topic: "t".into(), payload: Bytes::copy_from_slice(&content.to_le_bytes()), retained: false, sent }
}

fn qos0(payload: impl Into<Bytes>) -> Incoming {
    Incoming { topic: "t".into(), payload: payload.into(), retained: false, sent: None }
}

/// Deliveries in a connected session, for which the lines below are short.
struct Kit(Deliveries);

impl Kit {
    fn new(delivered: &[(u16, u64)]) -> Kit {
        Kit::at(delivered, None)
    }

    /// At a broker that does not mark what it sends again, with this in-flight window.
    fn at(delivered: &[(u16, u64)], unmarked: Option<u32>) -> Kit {
        let delivered = delivered.iter().map(|&(id, content)| (id, digest(content)));
        let mut d = Deliveries::new(1, Some(delivered), 100, unmarked);
        d.connected(true);
        Kit(d)
    }

    /// Takes messages in; `d` before the packet id marks a DUP: `1:10 d2:20`.
    fn receive(&mut self, messages: &str) -> &mut Self {
        for m in messages.split_whitespace() {
            let (id, content) = m.split_once(':').unwrap();
            let incoming =
                publish(id.trim_start_matches('d').parse().unwrap(), id.starts_with('d'), content.parse().unwrap());
            self.0.receive(incoming);
        }
        self
    }

    /// What is handed out, by number and content, and what is settled.
    fn read(&mut self) -> String {
        let mut batch = MqttBatch::default();
        if let MqttProgress::Event(event) = self.0.read(1_000, 1_000_000, &mut batch) {
            return format!("{event:?}");
        }
        let content = |m: &Message| u64::from_le_bytes(m.payload[..].try_into().unwrap());
        let messages = batch.messages.iter().map(|m| format!("{}:{}", m.number, content(m)));
        messages.chain(batch.settled.iter().map(|id| format!("settled {id}"))).collect::<Vec<_>>().join(" ")
    }

    /// The packet ids that are acknowledged now, and `|` for a barrier.
    fn acks(&mut self) -> String {
        let mut sent: Vec<String> = std::iter::from_fn(|| self.0.next_ack()).map(|a| a.packet_id.to_string()).collect();
        if self.0.barrier_due() {
            sent.push("|".into());
        }
        sent.join(" ")
    }

    fn commit(&mut self, up_to: u64) -> String {
        self.0.commit(up_to);
        self.acks()
    }

    fn reconnect(&mut self, session_present: bool) -> &mut Self {
        self.0.disconnected();
        self.0.connected(session_present);
        self
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_committed() {
    let mut kit = Kit::new(&[]);
    assert_eq!(kit.receive("1:10 2:20 3:30").acks(), "");
    assert_eq!(kit.read(), "1:10 2:20 3:30");
    assert_eq!(kit.acks(), "");
    assert_eq!(kit.commit(2), "1 2 |");
    assert_eq!(kit.commit(2), "");
    assert_eq!(kit.commit(3), "3");
}

#[test]
fn a_repeated_message_is_acknowledged_when_its_first_copy_is_committed() {
    let mut kit = Kit::new(&[]);
    kit.receive("1:10 2:20").read();
    kit.receive("3:30");
    // One committed while there was no connection, one in the pipeline, one in the queue.
    kit.0.disconnected();
    assert_eq!(kit.commit(1), "");
    kit.0.connected(true);
    assert_eq!(kit.receive("d1:10 d2:20 d3:30 4:40").acks(), "1 |");
    assert_eq!(kit.read(), "3:30 4:40");
    assert_eq!(kit.commit(4), "2 3 4");
    assert_eq!((kit.0.counters.duplicates, kit.0.counters.reconnects), (3, 1));
}

#[test]
fn acknowledgements_keep_the_order_of_receipt() {
    // A broker that sends out of order: the committed one waits for the one before it.
    let mut kit = Kit::new(&[(7, 70)]);
    kit.receive("1:10");
    assert_eq!(kit.commit(1), "1 |");
    assert_eq!(kit.receive("2:20 d7:70").acks(), "");
    kit.0.barrier_passed();
    assert_eq!(kit.commit(2), "2 7 |");
}

#[test]
fn a_stored_message_that_comes_again_is_not_handed_out() {
    let mut kit = Kit::new(&[(1, 10), (2, 20)]);
    assert_eq!(kit.receive("d1:10 d2:99 3:30").acks(), "1 |");
    assert_eq!(kit.read(), "1:99 2:30");
}

#[test]
fn only_a_marked_repetition_is_one() {
    let mut kit = Kit::new(&[(1, 10)]);
    kit.receive("1:10");
    assert_eq!(kit.read(), "1:10");
    assert_eq!(kit.commit(1), "1 |");
    // The broker uses the id again for the same content.
    kit.receive("1:10");
    assert_eq!(kit.read(), "2:10");
    assert_eq!(kit.commit(1), "");
    assert_eq!(kit.commit(2), "1");
}

#[test]
fn an_unmarked_repetition_is_known_by_its_content_where_the_operator_says_so() {
    // Committed by an earlier process; the broker counts its packet ids anew.
    let mut kit = Kit::at(&[(8, 80), (9, 90)], Some(10));
    assert_eq!(kit.receive("1:80 2:90 3:95").acks(), "1 2 |");
    assert_eq!(kit.read(), "1:95");
    // Received and not committed when the connection dies: the copy at hand counts, and is committed for the new id.
    kit.reconnect(true).receive("1:95 2:96");
    assert_eq!((kit.read(), kit.acks()), ("2:96".into(), String::new()));
    assert_eq!(kit.commit(2), "1 2 |");
    assert_eq!(kit.0.counters.duplicates, 3);
}

#[test]
fn a_repetition_by_content_comes_in_the_first_window_and_once_for_each() {
    let mut kit = Kit::at(&[(8, 80), (9, 80), (10, 70)], Some(4));
    kit.receive("1:80 2:80 3:80 4:90 5:70");
    // Two were stored, the third is new; behind a whole window nothing is a repetition, and what is stored may go.
    assert_eq!(kit.read(), "1:80 2:90 3:70 settled 10");
}

#[test]
fn a_repetition_by_content_is_settled_under_the_id_it_is_stored_as() {
    let mut kit = Kit::at(&[(8, 80)], Some(10));
    assert_eq!(kit.receive("1:80").acks(), "1 |");
    kit.0.barrier_passed();
    kit.receive("2:20");
    assert_eq!(kit.read(), "1:20 settled 8");
}

#[test]
fn a_reused_id_owes_nothing_to_its_earlier_message() {
    let mut kit = Kit::new(&[]);
    kit.receive("1:10").read();
    // Acknowledged on a connection that died: the broker got it, and uses the id again.
    kit.reconnect(true).receive("1:11").read();
    assert_eq!(kit.commit(1), "");
    assert_eq!(kit.commit(2), "1 |");
    // And once more before the acknowledgement, against the protocol: one acknowledgement for both.
    kit.receive("2:20 2:21").read();
    assert_eq!((kit.commit(3), kit.commit(4), kit.0.unacknowledged()), (String::new(), "2".into(), 0));
}

#[test]
fn what_the_broker_confirmed_is_forgotten() {
    let mut kit = Kit::new(&[(7, 70)]);
    kit.receive("1:10 2:20").read();
    assert_eq!(kit.commit(1), "1 |");
    assert_eq!(kit.commit(2), "2");
    // The answer to the barrier speaks of what was sent before it, and of what was not sent again.
    kit.0.barrier_passed();
    assert_eq!((kit.receive("3:30").read(), kit.acks()), ("3:30 settled 1 settled 7".into(), "|".into()));
    // Constant content under a reused id, its first sending lost with the connection.
    kit.reconnect(true).receive("d1:10 d2:20");
    assert_eq!(kit.read(), "4:10");
    assert_eq!(kit.0.counters.duplicates, 1);
}

#[test]
fn a_broker_that_sends_again_in_parts_is_recognised_to_the_end() {
    let mut kit = Kit::new(&[]);
    kit.receive("1:10 2:20 3:30 4:40").read();
    assert_eq!(kit.commit(4), "1 2 3 4 |");
    // None of it has arrived, and its window has become smaller.
    kit.reconnect(true);
    assert_eq!(kit.receive("d1:10 d2:20").acks(), "1 2 |");
    assert_eq!(kit.receive("d3:30").acks(), "3");
    kit.0.barrier_passed();
    assert_eq!((kit.receive("d4:40").read(), kit.acks()), (String::new(), "4 |".into()));
    assert_eq!(kit.0.counters.duplicates, 4);
    // Now it has nothing more: nobody else waits, and nothing comes before the answer.
    kit.0.barrier_passed();
    assert_eq!(kit.receive("5:50").read(), "5:50 settled 1 settled 2 settled 3 settled 4");
}

#[test]
fn what_a_broker_passes_over_it_has_no_more() {
    let mut kit = Kit::new(&[]);
    kit.receive("1:10 2:20 3:30").read();
    assert_eq!(kit.commit(3), "1 2 3 |");
    kit.reconnect(true);
    assert_eq!(kit.receive("d2:20 d9:90").acks(), "2 |");
    kit.0.barrier_passed();
    assert_eq!(kit.read(), "4:90 settled 1 settled 2", "the third may still come");
}

#[test]
fn a_lost_session_begins_an_epoch() {
    let mut kit = Kit::new(&[(1, 10)]);
    kit.receive("5:50").read();
    kit.receive("6:60");
    kit.reconnect(false).reconnect(false);
    kit.receive("1:10 d5:50");
    assert_eq!(kit.read(), "2:60");
    assert_eq!(kit.read(), "Session { epoch: 3, lost: true }");
    assert_eq!(kit.read(), "3:10 4:50");
    assert_eq!(kit.commit(4), "1 5 |");
    assert_eq!((kit.0.counters.sessions_lost, kit.0.epoch), (2, 3));
    // Without a memory of any session there is none to be lost.
    let mut fresh = Deliveries::new(7, None::<[_; 0]>, 100, None);
    fresh.connected(true);
    assert_eq!((fresh.counters.sessions_lost, Kit(fresh).read()), (0, "Session { epoch: 8, lost: false }".into()));
}

#[test]
fn a_long_message_keeps_its_beginning_and_its_place() {
    let mut kit = Kit::new(&[]);
    let mut long = publish(1, false, 10);
    long.payload = vec![7; 5_000].into();
    kit.0.receive(long.clone());
    kit.receive("2:20");
    let mut batch = MqttBatch::default();
    kit.0.read(10, 10, &mut batch);
    let m = &batch.messages[0];
    assert_eq!((batch.messages.len(), m.payload.len(), m.oversize_bytes), (1, SAMPLE_BYTES, Some(5_000)));
    assert_eq!((kit.0.qos1_bytes, kit.read(), kit.0.qos1_bytes), (9, "2:20".into(), 0));
    assert_eq!((kit.commit(2), kit.0.counters.oversize), ("1 2 |".into(), 1));
}

#[test]
fn queues_are_bounded() {
    let mut kit = Kit::new(&[]);
    for _ in 0..MAX_QOS0_MESSAGES + 3 {
        kit.0.receive(qos0("x"));
    }
    assert_eq!((kit.0.counters.dropped_qos0, kit.0.queue.len()), (3, MAX_QOS0_MESSAGES));
    let mut batch = MqttBatch::default();
    kit.0.read(usize::MAX, usize::MAX, &mut batch);
    assert_eq!((batch.messages.len(), kit.0.qos0_bytes, kit.0.qos0_messages), (MAX_QOS0_MESSAGES, 0, 0));
    // By bytes.
    let mut kit = Kit(Deliveries::new(1, Some([]), MAX_QUEUED_BYTES, None));
    kit.0.connected(true);
    kit.0.receive(qos0(vec![0; MAX_QOS0_BYTES]));
    assert_eq!(kit.0.counters.dropped_qos0, 1);
    let mut large = publish(1, false, 1);
    large.payload = vec![0; MAX_QUEUED_BYTES].into();
    assert_eq!(kit.0.room(0), MAX_UNACKNOWLEDGED);
    kit.0.receive(large);
    assert_eq!(kit.0.room(0), 0);
    kit.0.read(1, 1, &mut batch);
    assert_eq!(kit.0.room(0), MAX_UNACKNOWLEDGED - 1);
}

#[test]
fn there_is_room_for_so_many_that_are_not_acknowledged() {
    let mut kit = Kit::new(&[]);
    let all = MAX_UNACKNOWLEDGED as u64;
    for n in 1..=all {
        assert!(kit.0.room(0) > 0);
        kit.0.receive(publish(n as u16, false, n));
    }
    assert_eq!((kit.0.room(0), kit.0.room_for_rest()), (0, MAX_UNACKNOWLEDGED));
    // What is handed out is not yet committed, and what is committed not yet written.
    kit.read();
    assert_eq!(kit.0.room(0), 0);
    kit.0.commit(3);
    assert_eq!((kit.0.room(0), kit.acks(), kit.0.room(3), kit.0.room(1)), (0, "1 2 3 |".into(), 0, 2));
    // Without a connection nobody awaits anything, and yet it is held.
    kit.reconnect(true);
    assert_eq!((kit.0.unacknowledged(), kit.0.room(0)), (0, 3));
    kit.reconnect(false);
    assert_eq!(kit.0.room(0), 3);
    kit.commit(all);
    assert_eq!(kit.0.room(0), MAX_UNACKNOWLEDGED);
}

/// A broker that keeps to the protocol, on a wire that breaks.
struct Broker {
    queue: VecDeque<u64>,
    in_flight: VecDeque<(u16, u64)>,
    window: usize,
    ids: u16,
    next_id: u16,
    /// Takes the lowest free packet id instead of the next one.
    lowest_id: bool,
}

enum ToClient {
    Publish(Incoming),
    BarrierPassed,
}

enum ToBroker {
    Ack(u16),
    Barrier,
}

impl Broker {
    fn send(&mut self) -> Option<ToClient> {
        if self.in_flight.len() >= self.window {
            return None;
        }
        let content = self.queue.pop_front()?;
        if self.lowest_id {
            self.next_id = 1;
        }
        while self.in_flight.iter().any(|(id, _)| *id == self.next_id) {
            self.next_id = self.next_id % self.ids + 1;
        }
        let id = self.next_id;
        self.next_id = id % self.ids + 1;
        self.in_flight.push_back((id, content));
        Some(ToClient::Publish(publish(id, false, content)))
    }
}

/// What hb has in memory and on disk.
struct Host {
    deliveries: Deliveries,
    pipeline: VecDeque<(Message, Vec<u16>)>,
    table: BTreeMap<u16, Digest>,
    committed: Vec<u64>,
}

impl Host {
    fn new() -> Host {
        let deliveries = Deliveries::new(1, Some([]), 100, None);
        Host { deliveries, pipeline: VecDeque::new(), table: BTreeMap::new(), committed: Vec::new() }
    }

    /// Takes what waits into the pipeline.
    fn read(&mut self, at_most: usize, batch: &mut MqttBatch) {
        self.deliveries.read(at_most, 1_000_000, batch);
        let mut settled = std::mem::take(&mut batch.settled);
        self.pipeline.extend(batch.messages.drain(..).map(|m| (m, std::mem::take(&mut settled))));
    }

    /// The end of the process, and the next one.
    fn die(&mut self) {
        self.pipeline.clear();
        self.deliveries = Deliveries::new(1, Some(self.table.clone()), 100, None);
    }

    fn commit(&mut self, at_most: usize) {
        for (message, settled) in self.pipeline.drain(..self.pipeline.len().min(at_most)) {
            for id in settled {
                self.table.remove(&id);
            }
            let delivery = message.delivery.unwrap();
            self.table.insert(delivery.packet_id, delivery.hash);
            self.committed.push(u64::from_le_bytes(message.payload[..].try_into().unwrap()));
            self.deliveries.commit(message.number);
        }
    }
}

/// Sends messages through breaking connections and dying processes, until all are committed.
fn simulate(seed: u64, messages: u64, content: impl Fn(u64) -> u64, lowest_id: bool) -> Vec<u64> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let mut broker = Broker {
        queue: (0..messages).map(content).collect(),
        in_flight: VecDeque::new(),
        window: 6,
        ids: 64,
        next_id: 1,
        lowest_id,
    };
    let mut host = Host::new();
    let (mut down, mut up) = (VecDeque::new(), VecDeque::new());
    host.deliveries.connected(true);
    let mut batch = MqttBatch::default();
    for step in 0.. {
        assert!(step < 1_000_000, "seed {seed}: it stands still at {} of {messages}", host.committed.len());
        let calm = step > 500_000;
        match roll(100) {
            0..30 => down.extend(broker.send()),
            30..60 => match down.pop_front() {
                Some(ToClient::Publish(incoming)) => host.deliveries.receive(incoming),
                Some(ToClient::BarrierPassed) => host.deliveries.barrier_passed(),
                None => {}
            },
            60..75 => match up.pop_front() {
                Some(ToBroker::Ack(id)) => {
                    // In order, and never one nobody waits for.
                    assert_eq!(broker.in_flight.pop_front().map(|(first, _)| first), Some(id), "seed {seed}");
                }
                Some(ToBroker::Barrier) => down.push_back(ToClient::BarrierPassed),
                None => {}
            },
            75..85 => {
                host.read(1 + roll(5) as usize, &mut batch);
            }
            85..96 => host.commit(1 + roll(6) as usize),
            96..98 if !calm => {
                down.clear();
                up.clear();
                host.deliveries.disconnected();
                if roll(3) == 0 {
                    host.die();
                }
                // What is committed while there is no connection.
                host.commit(roll(3) as usize);
                host.deliveries.connected(true);
                down.extend(
                    broker.in_flight.iter().map(|&(id, content)| ToClient::Publish(publish(id, true, content))),
                );
            }
            _ => {}
        }
        while let Some(ack) = host.deliveries.next_ack() {
            up.push_back(ToBroker::Ack(ack.packet_id));
        }
        if host.deliveries.barrier_due() {
            up.push_back(ToBroker::Barrier);
        }
        if broker.queue.is_empty() && broker.in_flight.is_empty() {
            break;
        }
    }
    host.committed
}

#[test]
fn each_message_is_committed_once_and_in_order_whatever_breaks() {
    for seed in 0..200 {
        let expected: Vec<u64> = (0..300).collect();
        assert_eq!(simulate(seed, 300, |n| n, false), expected, "seed {seed}");
        assert_eq!(simulate(seed, 300, |n| n, true), expected, "seed {seed}, lowest packet id");
    }
}

#[test]
fn constant_telemetry_is_counted_right_although_packet_ids_come_again() {
    for seed in 0..200 {
        assert_eq!(simulate(seed, 600, |_| 1, false).len(), 600, "seed {seed}");
    }
}

/// A broker that does not wait for acknowledgements has given all it holds to a connection that ends: all of it comes again
/// marked, from the first message whose acknowledgement it has not seen. It answers no barrier, as the answer would come
/// behind all that. Contents are the same, so that only packet ids tell messages apart.
fn flood(unseen: usize, dies: bool) -> usize {
    const ALL: usize = 250_000;
    const BROKEN: usize = 120_000;
    let mut host = Host::new();
    let mut batch = MqttBatch::default();
    let mut first = 0;
    for (until, dup) in [(BROKEN, false), (ALL, true)] {
        host.deliveries.connected(true);
        let mut acknowledged = first;
        for n in first..until {
            // Packet ids of mosquitto, given when a message is queued.
            host.deliveries.receive(publish((n % 65_535 + 1) as u16, dup, 7));
            if n % 1_000 == 999 {
                host.read(usize::MAX, &mut batch);
                // Much of it is still owed when the connection ends.
                let owed = if n + 1 == ALL { 0 } else { MAX_UNACKNOWLEDGED - 1_000 };
                host.commit(host.pipeline.len().saturating_sub(owed));
                acknowledged += std::iter::from_fn(|| host.deliveries.next_ack()).count();
                host.deliveries.barrier_due();
            }
        }
        host.deliveries.disconnected();
        if dies {
            host.die();
        }
        first = acknowledged - unseen;
    }
    assert!(host.table.len() <= 5 * MAX_UNACKNOWLEDGED, "{}", host.table.len());
    host.committed.len()
}

#[test]
fn packet_ids_that_come_twice_at_once_neither_lose_nor_double() {
    for (unseen, dies) in [(0, false), (MAX_UNSEEN, false), (0, true), (MAX_UNSEEN, true)] {
        assert_eq!(flood(unseen, dies), 250_000, "{unseen} acknowledgements unseen, {dies}");
    }
}
