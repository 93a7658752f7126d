//! Which message is which: what the broker delivers at least once is handed out once.
//!
//! Pure state without socket or clock. It follows each packet id of the session through a *slot*:
//!
//! ```text
//! (none) -> Owed, received and not yet committed -> Committed -> Acked -> (none), once the broker is seen to know
//! ```
//!
//! **A repeated message is tied to its first copy.** What was received stays in the queue or in the pipeline until it
//! is committed, whatever happens to the connection; only the end of the process loses it, and its slot with it, since
//! only committed messages are stored. So a DUP that equals an owed message brings nothing new. It says that the broker
//! wants the acknowledgement on this connection, and it gets it when the first copy is committed: not earlier, because
//! until then the broker's copy is the one that survives a crash. A DUP that equals a committed message is acknowledged
//! as soon as the order allows.
//!
//! **What is not marked DUP is new**, and takes over the slot: a broker must mark what it sends again, and may use a
//! packet id for another message only after it got the acknowledgement. A broker that is killed may forget that it had
//! sent a message, and send it again unmarked. Nothing in MQTT tells that from a second message of the same content, so
//! it doubles rather than being lost.
//!
//! **Some brokers do not mark at all**, and count packet ids anew on each connection. Where the operator says so, what
//! may come again is recognised by its content instead: see [`repeats`].
//!
//! **Slots are let go as early as possible.** Packet ids come again: after 65,535 messages at mosquitto, at once at
//! others. A reused id whose first sending died with a connection comes as DUP; where telemetry is constant it equals
//! the old message of this id, and would be dropped for it. So a slot must not outlive the broker's own memory of the
//! message. MQTT does not confirm an acknowledgement, but a broker handles the packets of a connection in order: the
//! answer to any later request confirms all before it. That request is the *barrier*, sent after the acknowledgements
//! of a commit; its answer settles them. What was acknowledged on an earlier connection it settles as far as the broker
//! has got on this one: it sends again in order, and not all at once. mosquitto, killed and started again, holds more
//! than its in-flight window, and sends the rest as acknowledgements come.
//!
//! **A broker's in-flight window bounds nothing.** mosquitto 2.0 counts wrongly where acknowledgements come late: each
//! lets up to a whole window more go, until all that it holds is under way, packet ids come twice at once, and the answer
//! to a barrier stands behind all of it. So hb has bounds of its own: [`Deliveries::room`] says how many messages may be
//! read, and what is not read waits at the broker. And a slot is let go, barrier or not, when so many messages were
//! acknowledged behind it on its connection, or so many came on a later one, that the broker has heard of it or would
//! have sent it again: [`MAX_UNSEEN`], [`MAX_RESENT`]. So slots span less than all packet ids, and a message is never
//! taken for one that had its id before. What remains is a connection that ends with more acknowledgements than that on
//! the way: what they were for comes again, and doubles.
//!
//! **Acknowledgements go out in the order of receipt**, as MQTT asks: what is committed waits for what came before it
//! on the connection.

mod repeats;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use repeats::{Repeat, Repeats};

use super::{Delivery, Digest, Message, MqttBatch, MqttCounters, MqttEvent, MqttProgress};

/// Most messages of QoS 0 that wait for the reader: about a second of what one connection can bring. More means that
/// the reader stands still, and nobody can be asked to send more slowly.
pub(super) const MAX_QOS0_MESSAGES: usize = 65_536;

/// Most bytes of them.
const MAX_QOS0_BYTES: usize = 64 << 20;

/// Most messages of QoS 1 that hb has and has not acknowledged. A commit is made when half of them are there, so they are
/// enough for 20,000 messages a second on a disk that takes 200 ms; and eight times as many are fewer than there are packet
/// ids, see below.
pub(super) const MAX_UNACKNOWLEDGED: usize = 8_000;

/// Most acknowledgements that are sent and that the broker may not have seen when the connection ends: some 18,000 were
/// measured at mosquitto, which takes one for each turn of its loop, and the buffers of a socket hold little more.
const MAX_UNSEEN: usize = 3 * MAX_UNACKNOWLEDGED;

/// Most messages that come again on a later connection. Until so many have come, slots reach back by [`MAX_UNSEEN`], and
/// stored entries by as much as is not committed: together less than the packet ids, so that each means one message.
const MAX_RESENT: usize = MAX_UNSEEN + MAX_UNACKNOWLEDGED;

const _: () = assert!(MAX_RESENT + MAX_UNSEEN + MAX_UNACKNOWLEDGED < u16::MAX as usize);

/// Most bytes of QoS 1 that wait for the reader, beyond the message that reached it: 8,000 messages of 8 KiB.
pub(super) const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Bytes that are kept of a message that is too long.
const SAMPLE_BYTES: usize = 1_024;

/// A message as it came from the broker.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
    /// `None` for QoS 0.
    pub(super) sent: Option<Sent>,
}

/// What only messages have that want an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) packet_id: u16,
    pub(super) dup: bool,
    /// QoS 2 is never subscribed, but a session may hold such messages from another client of the same id.
    pub(super) exactly_once: bool,
    pub(super) hash: Digest,
}

/// An acknowledgement to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) packet_id: u16,
    pub(super) exactly_once: bool,
}

#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) counters: MqttCounters,
    max_payload_bytes: usize,
    epoch: u64,
    /// The epoch's session is the one at this broker.
    known: bool,
    /// What waits for the reader.
    queue: VecDeque<Item>,
    qos0_messages: usize,
    qos0_bytes: usize,
    qos1_bytes: usize,
    /// Number of the next message; 0 stands for what an earlier process handed out.
    next_number: u64,
    slots: BTreeMap<u16, Slot>,
    /// What may come again unmarked; empty where the broker marks it.
    repeats: Repeats,
    /// Owed messages by their numbers; a slot may have been taken over since.
    uncommitted: VecDeque<(u64, u16)>,
    /// Packet ids the broker waits for, in the order of receipt on this connection.
    awaited: VecDeque<u16>,
    /// Numbers and packet ids of what was acknowledged last on this connection.
    acked: VecDeque<(u64, u16)>,
    /// Messages that came on this connection, those of QoS 0 apart.
    arrived: usize,
    /// Counts connections; slots from before the first one have 0.
    connection: u64,
    /// Barriers sent. What was acknowledged in an earlier round was sent before the latest barrier.
    round: u64,
    barrier: Option<Barrier>,
    acked_since_barrier: bool,
    /// Messages below this number, of earlier connections, the broker would have sent again by now.
    resent_up_to: u64,
    /// Packet ids whose stored entries may go.
    settled: Vec<u16>,
}

/// A barrier under way.
#[derive(Debug)]
struct Barrier {
    /// Nothing was awaited when it was sent, and nothing has come since.
    quiet: bool,
}

#[derive(Debug)]
enum Item {
    Message(Message),
    Event(MqttEvent),
}

#[derive(Debug)]
struct Slot {
    hash: Digest,
    number: u64,
    /// The last connection the message came on: only there can it be acknowledged.
    on: u64,
    exactly_once: bool,
    /// The packet id under which it is stored: another one when it came again unmarked.
    stored_as: u16,
    state: SlotState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Owed,
    Committed,
    /// In this round.
    Acked(u64),
}

impl Slot {
    fn awaited_on(&self, connection: u64) -> bool {
        self.on == connection && !matches!(self.state, SlotState::Acked(_))
    }
}

impl Deliveries {
    /// Begins with the epoch the store knows, and the committed messages of its session. Without the latter, whatever
    /// session the broker has is another one. `unmarked` is the in-flight window of a broker that does not mark what it
    /// sends again.
    pub(super) fn new<I>(epoch: u64, session: Option<I>, max_payload_bytes: usize, unmarked: Option<u32>) -> Self
    where
        I: IntoIterator<Item = (u16, Digest)>,
    {
        let committed =
            |id, hash| Slot { hash, number: 0, on: 0, exactly_once: false, stored_as: id, state: SlotState::Committed };
        Deliveries {
            counters: MqttCounters::default(),
            max_payload_bytes,
            epoch,
            known: session.is_some(),
            queue: VecDeque::new(),
            qos0_messages: 0,
            qos0_bytes: 0,
            qos1_bytes: 0,
            next_number: 1,
            slots: session.into_iter().flatten().map(|(id, hash)| (id, committed(id, hash))).collect(),
            repeats: Repeats::new(unmarked),
            uncommitted: VecDeque::new(),
            awaited: VecDeque::new(),
            acked: VecDeque::new(),
            arrived: 0,
            connection: 0,
            round: 0,
            barrier: None,
            acked_since_barrier: false,
            resent_up_to: 0,
            settled: Vec::new(),
        }
    }

    /// A connection stands. Without a session at the broker, or without a memory of one here, an epoch begins.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.counters.reconnects += u64::from(self.connection > 0);
        self.connection += 1;
        self.resent_up_to = 0;
        self.acked.clear();
        self.arrived = 0;
        for slot in self.slots.values_mut() {
            // Whether the acknowledgement arrived is not known any more.
            if matches!(slot.state, SlotState::Acked(_)) {
                slot.state = SlotState::Committed;
            }
        }
        let lost = self.known && !session_present;
        if self.known && !lost {
            if self.repeats.is_used() {
                let slots = std::mem::take(&mut self.slots).into_values();
                self.repeats.expect(slots.map(|s| Repeat { hash: s.hash, number: s.number, stored_as: s.stored_as }));
            }
            return;
        }
        self.counters.sessions_lost += u64::from(lost);
        self.epoch += 1;
        self.known = true;
        self.slots.clear();
        self.repeats.forget();
        // A broker that forgets at every connection must not fill the queue.
        let unread = self.queue.pop_back_if(|last| matches!(last, Item::Event(_)));
        let lost = lost || matches!(unread, Some(Item::Event(MqttEvent::Session { lost: true, .. })));
        self.queue.push_back(Item::Event(MqttEvent::Session { epoch: self.epoch, lost }));
    }

    /// The connection is gone. What was received stays: see the head of this file.
    pub(super) fn disconnected(&mut self) {
        self.awaited.clear();
        (self.barrier, self.acked_since_barrier) = (None, false);
    }

    /// How many messages may be read now, while so many acknowledgements are not written yet.
    pub(super) fn room(&self, unsent: usize) -> usize {
        if self.qos1_bytes >= MAX_QUEUED_BYTES {
            return 0;
        }
        // What came on earlier connections is not awaited before it comes again.
        let held = self.uncommitted.len().max(self.awaited.len() + unsent);
        MAX_UNACKNOWLEDGED.saturating_sub(held)
    }

    /// How many messages may be taken that had come before the end of a connection: nobody reads on behind them.
    pub(super) fn room_for_rest(&self) -> usize {
        (2 * MAX_UNACKNOWLEDGED).saturating_sub(self.uncommitted.len())
    }

    /// Takes a message in.
    pub(super) fn receive(&mut self, mut incoming: Incoming) {
        self.counters.received += 1;
        let whole_bytes = incoming.payload.len();
        let oversize_bytes = (whole_bytes > self.max_payload_bytes).then_some(whole_bytes as u64);
        if oversize_bytes.is_some() {
            // A copy, so that the long one can go.
            incoming.payload = Bytes::copy_from_slice(&incoming.payload[..whole_bytes.min(SAMPLE_BYTES)]);
        }
        let bytes = incoming.topic.len() + incoming.payload.len();
        match incoming.sent {
            None if self.qos0_messages >= MAX_QOS0_MESSAGES || self.qos0_bytes + bytes > MAX_QOS0_BYTES => {
                self.counters.dropped_qos0 += 1;
                return;
            }
            None => {
                self.qos0_messages += 1;
                self.qos0_bytes += bytes;
            }
            Some(sent) => {
                if let Some(barrier) = &mut self.barrier {
                    barrier.quiet = false;
                }
                self.arrived += 1;
                if self.arrived == MAX_RESENT {
                    self.forget_earlier();
                }
                if self.is_known(sent) {
                    self.counters.duplicates += 1;
                    return;
                }
                self.qos1_bytes += bytes;
                self.owe(sent);
            }
        }
        self.counters.oversize += u64::from(oversize_bytes.is_some());
        let delivery = incoming.sent.map(|s| Delivery { epoch: self.epoch, packet_id: s.packet_id, hash: s.hash });
        let Incoming { topic, payload, retained, .. } = incoming;
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push_back(Item::Message(Message { topic, payload, number, retained, oversize_bytes, delivery }));
    }

    /// Hands out what waits: an event alone, or messages up to the next one.
    pub(super) fn read(&mut self, max_messages: usize, max_bytes: usize, out: &mut MqttBatch) -> MqttProgress {
        out.clear();
        if let Some(Item::Event(event)) = self.queue.pop_front_if(|first| matches!(first, Item::Event(_))) {
            return MqttProgress::Event(event);
        }
        let mut bytes = 0;
        while out.messages.len() < max_messages.max(1) {
            let fits = |first: &mut Item| match first {
                Item::Message(m) => bytes == 0 || bytes + m.payload.len() <= max_bytes,
                Item::Event(_) => false,
            };
            let Some(Item::Message(message)) = self.queue.pop_front_if(fits) else { break };
            bytes += message.payload.len();
            let held = message.topic.len() + message.payload.len();
            if message.delivery.is_some() {
                self.qos1_bytes -= held;
            } else {
                self.qos0_messages -= 1;
                self.qos0_bytes -= held;
            }
            out.messages.push(message);
        }
        if out.messages.is_empty() {
            return MqttProgress::Idle;
        }
        out.settled.append(&mut self.settled);
        MqttProgress::Messages
    }

    /// Everything up to this number is committed.
    pub(super) fn commit(&mut self, up_to: u64) {
        while let Some((number, id)) = self.uncommitted.pop_front_if(|(number, _)| *number <= up_to) {
            if let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.number == number) {
                slot.state = SlotState::Committed;
            }
        }
    }

    /// The next acknowledgement to be sent; to be asked for after each commit and each message until there is none.
    pub(super) fn next_ack(&mut self) -> Option<Ack> {
        let packet_id = *self.awaited.front()?;
        let slot = self.slots.get_mut(&packet_id).filter(|slot| slot.state == SlotState::Committed)?;
        slot.state = SlotState::Acked(self.round);
        let ack = Ack { packet_id, exactly_once: slot.exactly_once };
        self.acked.push_back((slot.number, packet_id));
        self.awaited.pop_front();
        self.acked_since_barrier = true;
        if self.acked.len() > MAX_UNSEEN {
            self.forget_oldest();
        }
        Some(ack)
    }

    /// Whether a barrier has to be sent now, behind the acknowledgements. At most one is under way.
    pub(super) fn barrier_due(&mut self) -> bool {
        let due = self.acked_since_barrier && self.barrier.is_none();
        if due {
            self.round += 1;
            let quiet = self.awaited.is_empty();
            (self.barrier, self.acked_since_barrier) = (Some(Barrier { quiet }), false);
        }
        due
    }

    /// The broker answered the barrier: it knows all acknowledgements before it.
    pub(super) fn barrier_passed(&mut self) {
        if self.barrier.take().is_some_and(|barrier| barrier.quiet) {
            // It had room for more, and has no more.
            self.resent_up_to = u64::MAX;
        }
        let (round, connection, resent_up_to) = (self.round, self.connection, self.resent_up_to);
        let mut settled = Vec::new();
        self.slots.retain(|_, slot| {
            let known = match slot.state {
                SlotState::Acked(in_round) => in_round < round,
                SlotState::Committed => slot.on != connection && slot.number < resent_up_to,
                SlotState::Owed => false,
            };
            if known {
                settled.push(slot.stored_as);
            }
            !known
        });
        self.settle(settled);
    }

    /// Whether the broker has answered for all that was acknowledged.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.barrier.is_none() && !self.acked_since_barrier
    }

    /// Whether nothing waits for the reader.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Messages the broker waits for.
    pub(super) fn unacknowledged(&self) -> u32 {
        self.awaited.len() as u32
    }

    /// Lets go what was acknowledged long ago on this connection.
    fn forget_oldest(&mut self) {
        let Some((number, packet_id)) = self.acked.pop_front() else { return };
        let Entry::Occupied(slot) = self.slots.entry(packet_id) else { return };
        if slot.get().number == number && matches!(slot.get().state, SlotState::Acked(_)) {
            let gone = slot.remove();
            self.settle([gone.stored_as]);
        }
    }

    /// Lets go what was committed on earlier connections and has not come again.
    fn forget_earlier(&mut self) {
        let connection = self.connection;
        let gone = self.slots.extract_if(.., |_, slot| slot.state == SlotState::Committed && slot.on != connection);
        let gone: Vec<u16> = gone.map(|(_, slot)| slot.stored_as).collect();
        self.settle(gone);
    }

    /// Stored entries may go, unless another message has taken one over since.
    fn settle(&mut self, stored: impl IntoIterator<Item = u16>) {
        let free = stored.into_iter().filter(|id| !self.slots.contains_key(id));
        self.settled.extend(free);
    }

    /// Whether a message is the repetition of one that is owed or committed. It is then awaited on this connection.
    fn is_known(&mut self, sent: Sent) -> bool {
        if let Some(repeat) = self.repeats.take(&sent.hash) {
            self.take_over(sent, repeat);
            return true;
        }
        let gone = self.repeats.pass();
        self.settle(gone);
        let connection = self.connection;
        let known = self.slots.get_mut(&sent.packet_id).filter(|slot| sent.dup && slot.hash == sent.hash);
        let Some(slot) = known else { return false };
        self.resent_up_to = self.resent_up_to.max(slot.number);
        if !slot.awaited_on(connection) {
            if slot.state != SlotState::Owed {
                slot.state = SlotState::Committed;
            }
            (slot.on, slot.exactly_once) = (connection, sent.exactly_once);
            self.awaited.push_back(sent.packet_id);
        }
        true
    }

    /// What came again unmarked goes on under its new packet id.
    fn take_over(&mut self, sent: Sent, repeat: Repeat) {
        let Sent { packet_id, exactly_once, hash, .. } = sent;
        let Repeat { number, stored_as, .. } = repeat;
        let owed = self.uncommitted.iter_mut().find(|(owed, _)| *owed == number);
        let state = if owed.is_some() { SlotState::Owed } else { SlotState::Committed };
        if let Some((_, id)) = owed {
            *id = packet_id;
        }
        self.slots.insert(packet_id, Slot { hash, number, on: self.connection, exactly_once, stored_as, state });
        self.awaited.push_back(packet_id);
    }

    /// A new message takes the slot of its packet id.
    fn owe(&mut self, sent: Sent) {
        let Sent { packet_id, exactly_once, hash, dup } = sent;
        if !dup {
            // What is new comes behind all that comes again.
            self.resent_up_to = u64::MAX;
        }
        let (number, on) = (self.next_number, self.connection);
        let slot = Slot { hash, number, on, exactly_once, stored_as: packet_id, state: SlotState::Owed };
        let before = self.slots.insert(packet_id, slot);
        self.uncommitted.push_back((number, packet_id));
        // A broker that does not wait for an acknowledgement gets one for both.
        if !before.is_some_and(|slot| slot.awaited_on(on)) {
            self.awaited.push_back(packet_id);
        }
    }
}

#[cfg(test)]
mod tests;
