//! One sink at work: what is due is taken from the outbox, offered, and settled in one commit.
//!
//! The state is the queue, so a worker holds nothing that a crash could lose: killed between a delivery and its commit,
//! the next one offers the same documents under the same ids. What a sink does not take waits with a growing random
//! pause. A sink that takes nothing, call after call, is offered one document at a time until it does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hb_log::hash::{Hash, Hasher};

use super::bell::Bell;
use crate::clock;
use crate::config::{DocumentKind, RetryConfig};
use crate::diagnostic::chain;
use crate::keys::Signer;
use crate::pipeline::record::LIVE;
use crate::plugin::{Delivered, Document, SamplesParam, SinkInstance};
use crate::state::{Commit, DeadRow, OutboxRow, Settled, Settlement, State, StateError};
use crate::telemetry::Vitals;

/// Documents offered in one call: enough that a backlog costs one commit for many.
const BATCH_DOCUMENTS: usize = 256;

/// Stored bytes of the documents offered in one call, with which the batch is full. They are compressed about tenfold;
/// what a sink is handed stays far below the memory it has.
const BATCH_BYTES: u64 = 256 << 10;

/// Longest first pause, ms; it doubles with each attempt. A receiver that restarts is back within a few of them.
const BACKOFF_FIRST_MS: u64 = 500;

/// Longest pause that a sink may ask for, ms: an hour, so that a wrong answer does not silence alerts for a day.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Calls in a row in which a sink took nothing, after which it is offered one document at a time.
const BREAKER_CALLS: u32 = 5;

/// Pause after the state failed, s: it is being reopened, or the disk is full.
const STATE_PAUSE_S: u64 = 1;

/// What all workers of a dispatcher share.
#[derive(Clone)]
pub(super) struct Office {
    pub(super) state: State,
    pub(super) signer: Arc<Signer>,
    pub(super) program: String,
    pub(super) bell: Bell,
    pub(super) vitals: Arc<Vitals>,
}

/// The worker of one sink.
pub(super) struct Worker {
    office: Office,
    sink: String,
    instance: SinkInstance,
    retry: RetryConfig,
    /// Its seat at the bell.
    number: u64,
    /// Calls in a row in which the sink took nothing.
    in_vain: u32,
    /// The sink is left alone until then.
    paused: Option<Instant>,
    /// What the last call settled, until it is durable.
    unsettled: Option<Commit>,
    /// Documents dropped over the cap, as it was told last.
    dropped: Option<u64>,
}

/// When to go on.
enum Turn {
    AtOnce,
    /// At the next ring, or then.
    Later(Option<Instant>),
}

/// A document that is due.
struct Due {
    row: OutboxRow,
    json: Vec<u8>,
}

impl Worker {
    /// A worker with a seat of its own: whoever sat there leaves.
    pub(super) fn new(office: Office, sink: String, instance: SinkInstance, retry: RetryConfig) -> Self {
        let number = office.bell.seat(&sink);
        let (in_vain, paused, unsettled, dropped) = (0, None, None, None);
        Worker { office, sink, instance, retry, number, in_vain, paused, unsettled, dropped }
    }

    /// Works until its seat is taken; `before` is the worker that it follows, who may be in the middle of a call.
    pub(super) fn run(mut self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            // One that panicked has said so.
            let _ = before.join();
        }
        while let Some(heard) = self.office.bell.listen(&self.sink, self.number) {
            let turn = self.turn().unwrap_or_else(|error| {
                tracing::error!(sink = self.sink, error = chain(&error), "the outbox cannot be used");
                Turn::Later(Some(Instant::now() + Duration::from_secs(STATE_PAUSE_S)))
            });
            if let Turn::Later(until) = turn {
                self.office.bell.rest(&self.sink, self.number, heard, until);
            }
        }
        if let Err(error) = self.settle() {
            tracing::warn!(sink = self.sink, error = chain(&error), "what was delivered will be delivered again");
        }
    }

    /// Settles, looks and offers.
    fn turn(&mut self) -> Result<Turn, StateError> {
        self.settle()?;
        if let Some(paused) = self.paused.filter(|paused| *paused > Instant::now()) {
            return Ok(Turn::Later(Some(paused)));
        }
        let (due, next) = self.look()?;
        if due.is_empty() {
            return Ok(Turn::Later(next));
        }
        self.offer(&due);
        self.settle()?;
        Ok(Turn::AtOnce)
    }

    /// The documents to offer now, and when the first of the others is due.
    fn look(&mut self) -> Result<(Vec<Due>, Option<Instant>), StateError> {
        let reader = self.office.state.reader()?;
        let program = self.office.program.as_str();
        let sums = reader.outbox_sums(program)?;
        let dropped = sums.iter().find(|(sink, _)| *sink == self.sink).map_or(0, |(_, sum)| sum.dropped);
        let before = *self.dropped.get_or_insert(dropped);
        if dropped > before {
            let documents = dropped - before;
            tracing::warn!(sink = self.sink, documents, "documents were dropped: too many wait for this sink");
            self.dropped = Some(dropped);
        }
        let now_ns = clock::now_ns();
        let most = if self.in_vain >= BREAKER_CALLS { 1 } else { BATCH_DOCUMENTS };
        // A clock that was set back must not hold a document for longer than any pause.
        let longest_ns = (RETRY_AFTER_MS_MAX as i64 * NS_PER_MS).max(self.retry.max_wait_ns);
        let (mut due, mut bytes, mut next) = (Vec::new(), 0, None::<i64>);
        let mut held = BTreeSet::new();
        for row in reader.outbox(program, &self.sink)? {
            let row = row?;
            let wait_ns = row.next_attempt_ns.saturating_sub(now_ns);
            let waits = (1..=longest_ns).contains(&wait_ns);
            let subject = row.subject.clone();
            if waits {
                next = Some(next.map_or(wait_ns, |next| next.min(wait_ns)));
            } else if !held.contains(&subject) {
                let json = reader.outbox_document(program, &self.sink, row.seq)?.ok_or_else(|| lost(&row))?;
                bytes += row.bytes;
                due.push(Due { row, json });
            }
            // The next one of its subject waits for it, so that nobody hears of the end before the beginning.
            if !subject.is_empty() {
                held.insert(subject);
            }
            if due.len() >= most || bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok((due, next.map(|ns| Instant::now() + Duration::from_nanos(ns.unsigned_abs()))))
    }

    /// Offers documents once, and notes what became of each.
    fn offer(&mut self, due: &[Due]) {
        let documents: Vec<Document<'_>> =
            due.iter().map(|d| Document { id: &d.row.id, kind: &d.row.kind, json: &d.json }).collect();
        let answers = match self.instance.deliver(batch_id(due), &documents, &[], NO_POINTS) {
            Ok(delivery) => delivery.documents,
            Err(fault) => vec![Delivered::RetryAfterMs((0, fault.to_string())); due.len()],
        };
        let mut commit = Commit { program: self.office.program.clone(), lane: LIVE.to_owned(), ..Commit::default() };
        let (mut again, mut delivered, mut asked_ms) = (Vec::new(), 0, 0);
        for (due, answer) in due.iter().zip(answers) {
            match answer {
                Delivered::Delivered => {
                    delivered += 1;
                    tell_delivered(&self.sink, due);
                    commit.settled.push(self.settled(due, Settlement::Delivered));
                }
                Delivered::Rejected(why) => self.bury(due, format!("rejected: {why}"), &mut commit),
                Delivered::RetryAfterMs((ms, why)) => {
                    asked_ms = asked_ms.max(ms);
                    again.push((due, ms, why));
                }
            }
        }
        let now_ns = clock::now_ns();
        if delivered > 0 {
            let oldest_ns = due.iter().map(|d| d.row.queued_ns).min().unwrap_or(now_ns);
            let age_ms = now_ns.saturating_sub(oldest_ns) / NS_PER_MS;
            tracing::debug!(sink = self.sink, documents = delivered, age_ms, "delivered");
        }
        let pause = self.note(again.len() == due.len(), asked_ms, again.first().map(|a| a.2.as_str()));
        for (due, ms, why) in again {
            let attempts = due.row.attempts.saturating_add(1);
            let age_ns = now_ns.saturating_sub(due.row.queued_ns);
            if attempts >= self.retry.max_attempts || age_ns >= self.retry.max_age_ns {
                self.bury(due, format!("not taken in {attempts} attempts: {why}"), &mut commit);
                continue;
            }
            let wait = pause.unwrap_or_else(|| self.wait(attempts, ms));
            let next_attempt_ns = now_ns.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX));
            let (correlation_id, id, wait_ms) = (correlation_id(due), &due.row.id, wait.as_millis() as u64);
            tracing::debug!(correlation_id, sink = self.sink, id, attempts, why, wait_ms, "a document waits");
            commit.settled.push(self.settled(due, Settlement::Later { attempts, next_attempt_ns }));
        }
        let counted = [("documents.delivered", delivered), ("documents.dead", commit.dead.len() as u64)];
        commit.counters = counted.into_iter().filter(|c| c.1 > 0).map(|(name, n)| (name.to_owned(), n)).collect();
        self.unsettled = Some(commit);
    }

    /// Keeps account of the sink's health; a sink that took nothing is left alone for the pause that is returned.
    fn note(&mut self, is_vain: bool, asked_ms: u32, trouble: Option<&str>) -> Option<Duration> {
        let sink = self.sink.as_str();
        self.office.bell.tell(sink, self.number, trouble.map(str::to_owned));
        if !is_vain {
            if self.in_vain >= BREAKER_CALLS {
                tracing::warn!(sink, "the sink takes documents again");
            }
            (self.in_vain, self.paused) = (0, None);
            return None;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let wait = self.wait(self.in_vain, asked_ms);
        let (wait_ms, cause) = (wait.as_millis() as u64, trouble.unwrap_or_default());
        tracing::warn!(sink, cause, wait_ms, "the sink takes nothing; its documents wait");
        if self.in_vain == BREAKER_CALLS {
            tracing::error!(sink, cause, "the sink took nothing {BREAKER_CALLS} times; it is tried with one document");
        }
        self.paused = Some(Instant::now() + wait);
        Some(wait)
    }

    /// The pause behind attempt `nth`: somewhere between nothing and a limit that doubles, so that not all senders
    /// come back at once; at least what the sink asks for.
    fn wait(&self, nth: u32, asked_ms: u32) -> Duration {
        let max_ms = self.retry.max_wait_ns.unsigned_abs() / NS_PER_MS.unsigned_abs();
        let limit_ms = (BACKOFF_FIRST_MS << nth.saturating_sub(1).min(BACKOFF_DOUBLINGS_MAX)).min(max_ms);
        Duration::from_millis(fastrand::u64(0..=limit_ms).max(u64::from(asked_ms).min(RETRY_AFTER_MS_MAX)))
    }

    fn settled(&self, due: &Due, what: Settlement) -> Settled {
        Settled { sink: self.sink.clone(), seq: due.row.seq, what }
    }

    /// Gives a document up: it is a dead letter of its sink.
    fn bury(&self, due: &Due, cause: String, commit: &mut Commit) {
        let (correlation_id, id) = (correlation_id(due), &due.row.id);
        tracing::error!(correlation_id, sink = self.sink, id, cause, "a document is given up; it is a dead letter now");
        commit.settled.push(self.settled(due, Settlement::Dead));
        let (plugin, ordinal, frame) = (self.sink.clone(), due.row.seq, due.json.clone());
        commit.dead.push(DeadRow { plugin, ordinal, cause, frame });
    }

    /// Makes durable what became of the last call's documents.
    fn settle(&mut self) -> Result<(), StateError> {
        let Some(commit) = &self.unsettled else { return Ok(()) };
        let settled = |what: Settlement| commit.settled.iter().filter(|settled| settled.what == what).count() as u64;
        let (delivered, dead) = (settled(Settlement::Delivered), settled(Settlement::Dead));
        self.office.state.commit(commit.clone(), &self.office.signer)?;
        self.office.vitals.settled(&self.sink, delivered, dead);
        self.unsettled = None;
        Ok(())
    }
}

/// No points: hb delivers documents.
pub(super) const NO_POINTS: SamplesParam<'static> = SamplesParam { frame: &[], series: &[], time_ns: &[], value: &[] };

const NS_PER_MS: i64 = 1_000_000;

/// Doublings after which the longest configurable wait is exceeded; a shift must end somewhere.
const BACKOFF_DOUBLINGS_MAX: u32 = 16;

/// Alerts are few, and somebody may wait for each; decisions may be many.
fn tell_delivered(sink: &str, due: &Due) {
    let (correlation_id, id, attempts) = (correlation_id(due), &due.row.id, due.row.attempts + 1);
    if due.row.kind == DocumentKind::Alerts.name() {
        tracing::info!(correlation_id, sink, id, attempts, "alert delivered");
    } else {
        tracing::debug!(correlation_id, sink, id, attempts, "decision delivered");
    }
}

/// What the lines of one decision share: the beginning of the hash of the decision that a document is about.
fn correlation_id(due: &Due) -> String {
    #[derive(serde::Deserialize)]
    struct About {
        decision: Option<Hash>,
    }
    let about = serde_json::from_slice::<About>(&due.json).ok().and_then(|about| about.decision);
    // The id of a decision is its hash.
    about.or_else(|| due.row.id.parse().ok()).map_or_else(String::new, |hash| hash.short())
}

/// The same for the same documents.
fn batch_id(due: &[Due]) -> u64 {
    let mut hasher = Hasher::new();
    for d in due {
        hasher.update(format!("{};", d.row.id).as_bytes());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

fn lost(row: &OutboxRow) -> StateError {
    let (key, what) = (format!("number {}", row.seq), "the content of the document is missing".to_owned());
    StateError::Corrupt { table: "outbox_documents", key, what }
}
