//! The outbox: documents that are durable and not yet delivered, one queue for each sink.
//!
//! A document gets the next number of its sink. It leaves when it is settled: delivered, or given up by the dispatcher,
//! which then writes a dead letter in the same commit. A sink that takes nothing for long fills its queue; over the cap
//! the documents of the lowest rank go first, the oldest of them first, and they are counted. For each alert that is
//! remembered, what became of its last document at each sink stays.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::block::{Blocks, Packer};
use super::commit::{Commit, OutboxDocument, Settled, Settlement};
use super::error::StateError;
use super::reader::{Reader, only};
use super::usage::Tally;
use super::value::{Put, Take};
use super::write::Writer;
use super::{retain, tables};

/// What is left of a full queue, in tenths: rows are dropped in bulk, so that a dead sink costs no scan per commit.
const KEPT_TENTHS: u64 = 9;

/// A document that waits, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its place in the queue of its sink.
    pub seq: u64,
    /// How dear it is.
    pub rank: u8,
    /// When it was queued, ns since the Unix epoch.
    pub queued_ns: i64,
    /// Attempts so far.
    pub attempts: u32,
    /// Not to be offered before, ns since the Unix epoch.
    pub next_attempt_ns: i64,
    /// Bytes its content takes.
    pub bytes: u64,
    /// Its type.
    pub kind: String,
    /// Idempotency key.
    pub id: String,
    /// Documents of one subject keep their order; empty when there is none.
    pub subject: String,
}

/// How the queue of one sink stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxSum {
    /// Documents that wait.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Documents dropped over the cap so far.
    pub dropped: u64,
    /// Number the next document gets.
    pub next: u64,
}

/// What became of a document that waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentOutcome {
    /// Its sink has it.
    Delivered,
    /// It was given up, and became a dead letter.
    Dead,
    /// Its queue was full.
    Dropped,
}

impl DocumentOutcome {
    /// All of them; a stored code is a place in this list.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Dead, Self::Dropped];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }
}

/// By fingerprint of an alert and sink: what became of the document that was settled last, and its id.
pub type DocumentOutcomes = BTreeMap<(String, String), (DocumentOutcome, String)>;

/// What the queue of one sink may hold.
#[derive(Debug, Clone, Copy)]
struct Cap {
    rows: u64,
    bytes: u64,
}

type Heads<'t> = Table<'t, (&'static str, &'static str, u64), &'static [u8]>;
type Contents<'t> = Table<'t, (&'static str, &'static str, u64, u16), &'static [u8]>;
type Rows<'t> = Table<'t, (&'static str, &'static str), &'static [u8]>;
type Outcomes<'t> = Table<'t, (&'static str, &'static str, &'static str), &'static [u8]>;

impl OutboxRow {
    fn decode(key: &dyn std::fmt::Debug, seq: u64, value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("outbox", key, value)?;
        let row = Self {
            seq,
            rank: take.u8()?,
            queued_ns: take.i64()?,
            attempts: take.u32()?,
            next_attempt_ns: take.i64()?,
            bytes: take.u64()?,
            kind: take.text()?,
            id: take.text()?,
            subject: take.text()?,
        };
        take.end()?;
        Ok(row)
    }

    fn encode(&self) -> Vec<u8> {
        let numbers = Put::new().u8(self.rank).i64(self.queued_ns).u32(self.attempts).i64(self.next_attempt_ns);
        numbers.u64(self.bytes).text(&self.kind).text(&self.id).text(&self.subject).done()
    }
}

impl OutboxSum {
    fn decode(key: &dyn std::fmt::Debug, value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("outbox_sums", key, value)?;
        let sum = Self { rows: take.u64()?, bytes: take.u64()?, dropped: take.u64()?, next: take.u64()? };
        take.end()?;
        Ok(sum)
    }

    fn encode(&self) -> Vec<u8> {
        Put::new().u64(self.rows).u64(self.bytes).u64(self.dropped).u64(self.next).done()
    }
}

impl Writer<'_> {
    /// Queues new documents, settles old ones, and keeps each queue under its cap.
    pub(super) fn outbox(&mut self, commit: &Commit) -> Result<(), StateError> {
        if commit.outbox.is_empty() && commit.settled.is_empty() {
            return Ok(());
        }
        let cap = Cap { rows: self.options.outbox_cap_rows, bytes: self.options.outbox_cap_bytes };
        let mut queues = Queues::open(self.txn, self.program, self.tally)?;
        for document in &commit.outbox {
            queues.push(self.packer, document)?;
        }
        for settled in &commit.settled {
            queues.settle(settled)?;
        }
        let mut sinks: Vec<&str> = commit.outbox.iter().map(|document| document.sink.as_str()).collect();
        sinks.sort_unstable();
        sinks.dedup();
        sinks.into_iter().try_for_each(|sink| queues.keep_under(sink, cap))
    }
}

/// The queues of one program inside an open transaction.
struct Queues<'t> {
    program: &'t str,
    tally: &'t Tally,
    heads: Heads<'t>,
    contents: Contents<'t>,
    sums: Rows<'t>,
    alerts: Rows<'t>,
    outcomes: Outcomes<'t>,
}

impl<'t> Queues<'t> {
    fn open(txn: &'t WriteTransaction, program: &'t str, tally: &'t Tally) -> Result<Self, StateError> {
        Ok(Self {
            program,
            tally,
            heads: txn.open_table(tables::OUTBOX)?,
            contents: txn.open_table(tables::OUTBOX_DOCUMENTS)?,
            sums: txn.open_table(tables::OUTBOX_SUMS)?,
            alerts: txn.open_table(tables::ALERTS)?,
            outcomes: txn.open_table(tables::OUTBOX_OUTCOMES)?,
        })
    }

    fn push(&mut self, packer: &mut Packer, document: &OutboxDocument) -> Result<(), StateError> {
        let (program, sink) = (self.program, document.sink.as_str());
        let mut sum = self.sum(sink)?;
        let seq = sum.next;
        let key = |fragment| (program, sink, seq, fragment);
        let bytes = packer.write(self.tally, "outbox_documents", &mut self.contents, key, 1, &document.json)?;
        let row = OutboxRow {
            seq,
            rank: document.rank,
            queued_ns: document.queued_ns,
            attempts: 0,
            next_attempt_ns: document.queued_ns,
            bytes,
            kind: document.kind.clone(),
            id: document.id.clone(),
            subject: document.subject.clone(),
        };
        self.heads.insert((program, sink, seq), row.encode().as_slice())?;
        sum.next += 1;
        sum.rows += 1;
        sum.bytes += bytes;
        self.put_sum(sink, &sum)
    }

    /// A document that is gone already, over the cap, stays gone.
    fn settle(&mut self, settled: &Settled) -> Result<(), StateError> {
        let (sink, seq) = (settled.sink.as_str(), settled.seq);
        let Some(mut row) = self.head(sink, seq)? else { return Ok(()) };
        let outcome = match settled.what {
            Settlement::Delivered => DocumentOutcome::Delivered,
            Settlement::Dead => DocumentOutcome::Dead,
            Settlement::Later { attempts, next_attempt_ns } => {
                (row.attempts, row.next_attempt_ns) = (attempts, next_attempt_ns);
                self.heads.insert((self.program, sink, seq), row.encode().as_slice())?;
                return Ok(());
            }
        };
        let mut sum = self.sum(sink)?;
        self.remove(sink, &mut sum, &row, outcome)?;
        self.put_sum(sink, &sum)
    }

    fn keep_under(&mut self, sink: &str, cap: Cap) -> Result<(), StateError> {
        let mut sum = self.sum(sink)?;
        if sum.rows <= cap.rows && sum.bytes <= cap.bytes {
            return Ok(());
        }
        let mut all = Vec::new();
        for row in self.heads.range((self.program, sink, 0)..=(self.program, sink, u64::MAX))? {
            let (key, value) = row?;
            let row = OutboxRow::decode(&key.value(), key.value().2, value.value())?;
            all.push(row);
        }
        all.sort_unstable_by_key(|row| (row.rank, row.seq));
        let (rows, bytes) = (cap.rows / 10 * KEPT_TENTHS, cap.bytes / 10 * KEPT_TENTHS);
        for row in all {
            if sum.rows <= rows && sum.bytes <= bytes {
                break;
            }
            self.remove(sink, &mut sum, &row, DocumentOutcome::Dropped)?;
            sum.dropped += 1;
        }
        self.put_sum(sink, &sum)
    }

    fn remove(
        &mut self,
        sink: &str,
        sum: &mut OutboxSum,
        row: &OutboxRow,
        outcome: DocumentOutcome,
    ) -> Result<(), StateError> {
        let seq = row.seq;
        self.note(sink, row, outcome)?;
        self.heads.remove((self.program, sink, seq))?;
        let fragments = (self.program, sink, seq, 0)..=(self.program, sink, seq, u16::MAX);
        retain::drop_block(&mut self.contents, fragments, self.tally)?;
        let (Some(rows), Some(left)) = (sum.rows.checked_sub(1), sum.bytes.checked_sub(row.bytes)) else {
            let (key, what) = (format!("{:?}", (self.program, sink)), "the queue holds more than its sum".to_owned());
            return Err(StateError::Corrupt { table: "outbox_sums", key, what });
        };
        (sum.rows, sum.bytes) = (rows, left);
        Ok(())
    }

    /// Notes what became of a document of an alert, as long as the alert is remembered.
    fn note(&mut self, sink: &str, row: &OutboxRow, outcome: DocumentOutcome) -> Result<(), StateError> {
        let subject = row.subject.as_str();
        if !subject.is_empty() && self.alerts.get((self.program, subject))?.is_some() {
            let value = Put::new().u8(outcome as u8).text(&row.id).done();
            self.outcomes.insert((self.program, subject, sink), value.as_slice())?;
        }
        Ok(())
    }

    fn head(&self, sink: &str, seq: u64) -> Result<Option<OutboxRow>, StateError> {
        let key = (self.program, sink, seq);
        let value = self.heads.get(key)?;
        value.map(|value| OutboxRow::decode(&key, seq, value.value())).transpose()
    }

    fn sum(&self, sink: &str) -> Result<OutboxSum, StateError> {
        let key = (self.program, sink);
        let value = self.sums.get(key)?;
        Ok(value.map(|value| OutboxSum::decode(&key, value.value())).transpose()?.unwrap_or_default())
    }

    fn put_sum(&mut self, sink: &str, sum: &OutboxSum) -> Result<(), StateError> {
        self.sums.insert((self.program, sink), sum.encode().as_slice())?;
        Ok(())
    }
}

impl Reader {
    /// The documents that wait for a sink, in the order they were queued.
    pub fn outbox(
        &self,
        program: &str,
        sink: &str,
    ) -> Result<impl Iterator<Item = Result<OutboxRow, StateError>> + use<>, StateError> {
        let rows = self.txn.open_table(tables::OUTBOX)?.range((program, sink, 0)..=(program, sink, u64::MAX))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            OutboxRow::decode(&key.value(), key.value().2, value.value())
        }))
    }

    /// The content of a document that waits: JSON.
    pub fn outbox_document(&self, program: &str, sink: &str, seq: u64) -> Result<Option<Vec<u8>>, StateError> {
        let table = self.txn.open_table(tables::OUTBOX_DOCUMENTS)?;
        let rows = table.range((program, sink, seq, 0)..=(program, sink, seq, u16::MAX))?;
        Ok(only(Blocks::new("outbox_documents", rows, |key| (key.2, key.3)))?.map(|block| block.bytes))
    }

    /// How the queue of each sink of a program stands, by the sink's name.
    pub fn outbox_sums(&self, program: &str) -> Result<Vec<(String, OutboxSum)>, StateError> {
        let table = self.txn.open_table(tables::OUTBOX_SUMS)?;
        let mut sums = Vec::new();
        for row in table.range((program, "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if key.0 != program {
                break;
            }
            sums.push((key.1.to_owned(), OutboxSum::decode(&key, value.value())?));
        }
        Ok(sums)
    }

    /// What became of the last document of each alert of a program that is remembered.
    pub fn outbox_outcomes(&self, program: &str) -> Result<DocumentOutcomes, StateError> {
        let table = self.txn.open_table(tables::OUTBOX_OUTCOMES)?;
        let mut outcomes = DocumentOutcomes::new();
        for row in table.range((program, "", "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if key.0 != program {
                break;
            }
            let mut take = Take::new("outbox_outcomes", &key, value.value())?;
            let (code, id) = (take.u8()?, take.text()?);
            take.end()?;
            let Some(outcome) = DocumentOutcome::ALL.get(usize::from(code)) else {
                let (key, what) = (format!("{key:?}"), format!("no outcome has the code {code}"));
                return Err(StateError::Corrupt { table: "outbox_outcomes", key, what });
            };
            outcomes.insert((key.1.to_owned(), key.2.to_owned()), (*outcome, id));
        }
        Ok(outcomes)
    }

    /// Every alert of a program that is remembered, by fingerprint: CBOR.
    pub fn alerts(&self, program: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.named("alerts", tables::ALERTS, program)
    }
}
