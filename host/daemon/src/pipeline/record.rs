//! Decide, record, then act: the engine of one lane together with the state that makes its decisions durable.
//!
//! Everything a step produced goes into one commit with the inputs that made it. After a restart the engine is
//! rebuilt from the newest checkpoint and the journal behind it, so it goes on as if it had never stopped.

mod effects;
mod keep;
mod redo;
mod turn;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciborium::Value;
use hb_engine::decision::Decision;
use hb_engine::engine::{Engine, Input, TICK_NS};
use hb_engine::spec::EngineSpec;
use hb_log::cbor;
use hb_log::hash::Hash;

pub use self::keep::state_options;
pub use self::redo::Taken;
pub use self::words::{counter_of, decision_entry, text_map};
use super::alerts::Alerting;
use super::export::Exports;
use super::journal::{self, Columns, Other, ROW_SAMPLES_MAX};
use super::news::{self, News};
use super::recover::{Recovered, recover};
use super::retain::{Compared, OpenCases};
use super::schedule::Schedule;
use super::series::SeriesBook;
use super::{Cursor, Normalized, PipelineError, frames};
use crate::case::Case;
use crate::clock;
use crate::config::Config;
use crate::generation::Generation;
use crate::generation::history::History;
use crate::keys::Signer;
use crate::policy::PolicySet;
use crate::state::{Commit, DeadRow, DeliveryRows, FrameBlock, JournalRow, NewEntry, QuarantineRow, State};
use crate::telemetry::{Durable, Vitals};

/// The lane of what sources bring; other lanes are offline runs.
pub const LIVE: &str = "live";

/// Bytes of raw frames that force a commit: bounds the memory of a batch together with the sample limit.
const COMMIT_FRAME_BYTES: usize = 4 << 20;

/// When pending work is committed.
#[derive(Clone, Copy, Debug)]
pub struct CommitLimits {
    /// Samples.
    pub samples: usize,
    /// Age of the oldest pending input.
    pub age: Duration,
    /// Whether a decision that somebody waits for is committed at once; a run over old files need not hurry.
    pub eager: bool,
}

impl CommitLimits {
    /// As a config says.
    pub fn of(config: &Config, eager: bool) -> Self {
        let limits = &config.limits;
        let age = Duration::from_millis(limits.commit_ms.into());
        CommitLimits { samples: limits.commit_samples as usize, age, eager }
    }
}

/// What one commit brought that somebody outside may act on.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Decisions that are not an unchanged PASS, in order.
    pub notable: Vec<Decision>,
    /// Cases opened.
    pub cases: Vec<Case>,
}

/// How often something was refused, and one example: its number and bytes.
type Quarantined = (u64, Option<(u64, Vec<u8>)>);

/// The engine of one lane and its memory.
pub struct Recorder {
    state: State,
    signer: Arc<Signer>,
    program: String,
    lane: String,
    engine: Engine,
    judge: PolicySet,
    book: SeriesBook,
    /// What judges now.
    spec: Arc<EngineSpec>,
    history: History,
    /// Series the engine knows.
    known: usize,
    /// Series the state knows.
    stored: usize,
    limits: CommitLimits,
    pending: Commit,
    columns: Columns,
    columns_seq: u64,
    samples: usize,
    frame_bytes: usize,
    since: Option<Instant>,
    /// Commits since the start.
    commits: u64,
    passed: Vec<Hash>,
    counters: BTreeMap<&'static str, u64>,
    /// The newest snapshot of each asset, by the first input that is not in it.
    snapshots: BTreeMap<String, u64>,
    /// Of the live lane alone.
    alerting: Option<Alerting>,
    /// Who is told that documents are durable.
    bell: Option<Box<dyn Fn() + Send>>,
    /// The first input behind the newest checkpoint.
    floor: u64,
    /// Where the sources of the lane stand as stored: a commit that begins elsewhere is refused.
    positions: BTreeMap<String, Vec<u8>>,
    /// Baselines compared with since then.
    compared: Compared,
    /// Cases whose checks have not judged better since.
    open: OpenCases,
    /// Samples are shed.
    is_shedding: bool,
    /// Files that tell where the lane stands, when it has any.
    exports: Option<Exports>,
    /// What is learned by itself, if anything is.
    schedule: Option<Schedule>,
    /// By source, plugin and reason.
    quarantine: BTreeMap<(String, String, String), Quarantined>,
    /// What the pending commit will bring.
    outcome: Outcome,
    /// What is durable and nobody was told yet.
    durable: Outcome,
    vitals: Arc<Vitals>,
    /// What the pending commit will add to them.
    news: News,
    /// What was taken and is not known to be durable: when a commit fails it is taken again. As large as a commit.
    taken: Vec<Step>,
    /// How many of them the commit holds that was tried last.
    tried: usize,
    /// Where the engine stood at the last commit.
    durable_seq: u64,
}

/// Something a recorder was told.
enum Step {
    Batch(Box<Normalized>),
    Tick(String, i64),
    Seal(String, Cursor),
    Refused { author: String, reason: String, why: String },
}

impl Recorder {
    /// Opens the lane where its last commit ended and turns it to `generation`.
    pub fn open(
        state: State,
        signer: Arc<Signer>,
        generation: &Generation,
        lane: &str,
        limits: CommitLimits,
    ) -> Result<Self, PipelineError> {
        let mut recorder = Self::load(state, signer, generation, lane, limits)?;
        recorder.begin(generation, "start")?;
        recorder.commit()?;
        Ok(recorder)
    }

    /// The lane as it is stored.
    fn load(
        state: State,
        signer: Arc<Signer>,
        generation: &Generation,
        lane: &str,
        limits: CommitLimits,
    ) -> Result<Self, PipelineError> {
        let program = generation.program.clone();
        let reader = state.reader()?;
        tracing::debug!(lane, commits = reader.commits()?, "recovering lane");
        let Recovered { engine, judge, book } = recover(&reader, &program, lane)?;
        tracing::debug!(lane, seq = engine.seq(), "lane recovered");
        let (stored, durable_seq) = (book.len(), engine.seq());
        let mut recorder = Recorder {
            state,
            signer,
            program,
            lane: lane.to_owned(),
            engine,
            judge,
            book,
            spec: Arc::clone(&generation.spec),
            history: History::load(&reader, &generation.program)?,
            known: stored,
            stored,
            limits,
            pending: Commit::default(),
            columns: Columns::default(),
            columns_seq: 0,
            samples: 0,
            frame_bytes: 0,
            since: None,
            commits: 0,
            passed: Vec::new(),
            counters: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            alerting: (lane == LIVE).then(|| Alerting::load(&reader, generation)).transpose()?,
            bell: None,
            floor: 0,
            positions: BTreeMap::new(),
            compared: Compared::default(),
            open: OpenCases::default(),
            is_shedding: false,
            exports: None,
            schedule: None,
            quarantine: BTreeMap::new(),
            outcome: Outcome::default(),
            durable: Outcome::default(),
            vitals: Arc::default(),
            news: News::default(),
            taken: Vec::new(),
            tried: 0,
            durable_seq,
        };
        let kept = reader.latest_snapshots(&recorder.program, lane)?;
        recorder.snapshots = kept.into_iter().map(|row| (row.asset, row.seq)).collect();
        recorder.floor = keep::floor_of(&reader, &recorder.program, lane)?;
        let of_lane = |(name, _): &(String, Vec<u8>)| name.starts_with(&cursor_name(lane, ""));
        recorder.positions = reader.cursors(&recorder.program)?.into_iter().filter(of_lane).collect();
        recorder.compared.restart(recorder.engine.core());
        recorder.open = OpenCases::load(&reader, &recorder.program, lane)?;
        Ok(recorder)
    }

    /// Lets `generation` judge, and compares with what its tags name.
    fn begin(&mut self, generation: &Generation, reason: &str) -> Result<(), PipelineError> {
        if self.engine.core().generation != Some(generation.hash) {
            self.turn_to(generation, "hb", reason)?;
        }
        self.retire_alerts();
        self.refresh_baselines()?;
        self.pending.floor = Some(self.floor);
        self.pending.compared = Some(Compared::now(self.engine.core()));
        Ok(())
    }

    /// Calls `bell` right behind each commit that brought documents for sinks.
    pub fn ring(&mut self, bell: impl Fn() + Send + 'static) {
        self.bell = Some(Box::new(bell));
    }

    /// The series table of the lane's program.
    pub fn book(&self) -> SeriesBook {
        self.book.clone()
    }

    /// The tenant.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The lane.
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// The store, for readers.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The key the log is signed with.
    pub fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    /// Tells `vitals` from now on what happens, instead of its own.
    pub fn watched_by(&mut self, vitals: Arc<Vitals>) {
        vitals.firing(self.alerting.as_ref().map_or(0, Alerting::firing));
        self.vitals = vitals;
    }

    /// The numbers and reasons of whoever records.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Takes one normalized batch; commits when a limit is reached. A full state takes only the position behind it.
    pub fn take(&mut self, batch: Normalized) -> Result<(), PipelineError> {
        if let Some(full) = self.blocked() {
            self.keep(|| Step::Batch(Box::new(batch)));
            return Err(full.into());
        }
        let source = Arc::clone(&batch.source);
        let mut taken = news::taken(&batch);
        self.news.received = Some(news::received(&batch));
        let is_shed = self.put(batch);
        self.news.received = None;
        if !is_shed {
            taken.refused = std::mem::take(&mut self.news.refused);
            taken.clock_ns = self.clock_of(&source);
            self.vitals.took(&source, &taken);
        }
        self.commit_when_large(is_shed)
    }

    /// Adds a batch to what is pending; says whether it was shed.
    fn put(&mut self, batch: Normalized) -> bool {
        self.since.get_or_insert_with(Instant::now);
        let is_shed = self.sheds();
        if is_shed {
            self.shed(&batch);
        } else {
            self.judge_batch(&batch);
            if !batch.frames.is_empty() {
                self.frame_bytes += batch.frames.data_len();
                self.pending.frames.push(FrameBlock {
                    source: batch.source.to_string(),
                    first: batch.first,
                    count: batch.frames.len() as u32,
                    bytes: frames::encode(&batch.frames, batch.unit),
                });
            }
        }
        self.move_on(&batch.source, batch.deliveries.clone(), &batch.cursor);
        self.keep(|| Step::Batch(Box::new(batch)));
        is_shed
    }

    fn commit_when_large(&mut self, is_shed: bool) -> Result<(), PipelineError> {
        let is_large = self.samples >= self.limits.samples || self.frame_bytes >= COMMIT_FRAME_BYTES;
        // What a source that is shed waits for is room, and commits are what makes it.
        if is_large || is_shed { self.commit() } else { Ok(()) }
    }

    /// Counts a batch, and feeds the engine with it.
    fn judge_batch(&mut self, batch: &Normalized) {
        self.count("frames", batch.frames.len() as u64);
        self.count("samples", batch.columns.len() as u64);
        self.count("events", batch.events.len() as u64);
        self.count("ignored", batch.ignored);
        self.count("faults", batch.faults.len() as u64);
        for refused in &batch.refused {
            self.count("rejects", 1);
            let key = (batch.source.to_string(), refused.plugin.clone(), refused.reason.clone());
            let slot = self.quarantine.entry(key).or_default();
            slot.0 += 1;
            slot.1.get_or_insert_with(|| (refused.ordinal, refused.frame.clone()));
        }
        // A frame that faulted stands in the journal behind the samples of the frames before it.
        let mut from = 0;
        for fault in &batch.faults {
            let to = batch.columns.ordinal.partition_point(|&o| o < fault.ordinal);
            self.feed(&batch.columns, from, to);
            from = to;
            let (source, stage) = (batch.source.to_string(), fault.stage.as_str().to_owned());
            let cause = Other::Fault { source, stage, ordinal: fault.ordinal, cause: fault.cause.clone() };
            self.other(Input::Fault, &cause);
            self.pending.dead.push(DeadRow {
                plugin: fault.plugin.clone(),
                ordinal: fault.ordinal,
                cause: fault.cause.clone(),
                frame: fault.frame.clone(),
            });
        }
        self.feed(&batch.columns, from, batch.columns.len());
    }

    /// Where the source resumes from now on, and what is known of its messages.
    fn move_on(&mut self, source: &str, deliveries: DeliveryRows, cursor: &Cursor) {
        if !deliveries.source.is_empty() {
            self.pending.deliveries.push(deliveries);
        }
        let name = cursor_name(&self.lane, source);
        self.pending.cursors.retain(|c| c.0 != name);
        self.pending.cursors.push((name, cbor::encode(cursor)));
    }

    /// A source has ended behind `cursor`: what is complete is judged.
    pub fn seal(&mut self, source: &str, cursor: Cursor) {
        self.other(Input::Seal { source }, &Other::Seal(source.to_owned()));
        self.move_on(source, DeliveryRows::default(), &cursor);
        self.keep(|| Step::Seal(source.to_owned(), cursor));
    }

    /// Where the clock of a source stands, ns.
    pub fn clock_of(&self, source: &str) -> Option<i64> {
        self.engine.core().ticks.get(source).copied()
    }

    /// Moves the clock of a source on to `now_ns`, if a window waits for that: only then is it an input.
    pub fn tick(&mut self, source: &str, now_ns: i64) {
        if self.engine.deadline(source).is_some_and(|deadline| deadline <= now_ns - now_ns.rem_euclid(TICK_NS)) {
            self.other(Input::Tick { source, now_ns }, &Other::Tick(source.to_owned(), now_ns));
            self.keep(|| Step::Tick(source.to_owned(), now_ns));
        }
    }

    /// When the pending inputs are to be committed.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limits.age)
    }

    /// Commits since the start: when it grows, everything taken before is durable.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Commits what is pending, if anything is.
    pub fn commit_pending(&mut self) -> Result<(), PipelineError> {
        if self.since.is_some() { self.commit() } else { Ok(()) }
    }

    /// Commits when the oldest pending input is old enough, or somebody waits for a decision.
    pub fn commit_when_due(&mut self) -> Result<(), PipelineError> {
        self.follow_schedule()?;
        if let Some(exports) = &mut self.exports {
            exports.write_due(&self.state, &self.program, &self.lane, false);
        }
        let waiting = self.limits.eager && !(self.outcome.notable.is_empty() && self.pending.outbox.is_empty());
        if waiting || self.due().is_some_and(|due| due <= Instant::now()) {
            self.commit()?;
        }
        Ok(())
    }

    /// Snapshots the engine, so that the next start has nothing to replay, and commits.
    pub fn checkpoint(&mut self) -> Result<(), PipelineError> {
        let effects = self.engine.checkpoint();
        self.absorb(effects);
        self.commit()?;
        if let Some(exports) = &mut self.exports {
            exports.write_due(&self.state, &self.program, &self.lane, true);
        }
        Ok(())
    }

    /// Appends an entry to the log with the next commit.
    pub fn log(&mut self, kind: &str, body: Value) {
        self.pending.entries.push(NewEntry { kind: kind.to_owned(), time_ns: clock::now_ns(), body });
    }

    /// The pending commit, for rows that belong to faces: runs, cases, baselines.
    pub fn pending(&mut self) -> &mut Commit {
        &mut self.pending
    }

    /// Makes everything pending durable, in one transaction.
    pub fn commit(&mut self) -> Result<(), PipelineError> {
        self.flush_columns();
        self.name_passed();
        let mut commit = std::mem::take(&mut self.pending);
        commit.program.clone_from(&self.program);
        commit.lane.clone_from(&self.lane);
        for (i, def) in self.book.since(self.stored).into_iter().enumerate() {
            commit.series.push(((self.stored + i) as u32, cbor::encode(&def)));
        }
        self.stored += commit.series.len();
        let counters = std::mem::take(&mut self.counters);
        commit.counters.extend(counters.into_iter().filter(|c| c.1 > 0).map(|(k, n)| (k.to_owned(), n)));
        for ((source, plugin, reason), (count, sample)) in std::mem::take(&mut self.quarantine) {
            commit.quarantine.push(QuarantineRow { source, plugin, reason, count, sample });
        }
        let moved = commit.cursors.clone();
        let before = |(name, _): &(String, Vec<u8>)| (name.clone(), self.positions.get(name).cloned());
        commit.expect_cursors = moved.iter().map(before).collect();
        for cause in self.judge.take_faults() {
            tracing::warn!(lane = self.lane, cause, "the severity policy failed; the alert keeps its default severity");
        }
        tracing::debug!(lane = self.lane, seq = self.engine.seq(), samples = self.samples, "committing");
        let has_documents = !commit.outbox.is_empty();
        let mut news = std::mem::take(&mut self.news);
        let (begin, dead) = (Instant::now(), commit.dead.len() as u64);
        let cases = &mut self.outcome.cases;
        let behind = |first_entry: u64| {
            // Only now is it known where in the log they stand: others write to it too.
            for case in cases.iter_mut() {
                case.entry += first_entry;
            }
            commit.cases.extend(cases.iter().map(|case| (case.id.clone(), cbor::encode(case))));
            commit
        };
        self.tried = self.taken.len();
        let committed = self.state.commit_behind(behind, &self.signer).inspect_err(|_| self.vitals.commit_failed())?;
        tracing::debug!(lane = self.lane, txn = committed.txn, "committed");
        // Whoever delivers is told first: an alert waits for nobody.
        self.bell.iter().filter(|_| has_documents).for_each(|bell| bell());
        let (took, log_entries) = (begin.elapsed(), committed.checkpoint.size);
        let firing = self.alerting.as_ref().filter(|_| !news.alerts.is_empty()).map(Alerting::firing);
        self.vitals.committed(&Durable { took, dead, log_entries, firing, ..news.durable(&self.outcome) });
        self.tell_usage();
        news.tell(&self.outcome, &self.lane, committed.txn);
        self.durable.notable.append(&mut self.outcome.notable);
        self.durable.cases.append(&mut self.outcome.cases);
        self.positions.extend(moved);
        self.samples = 0;
        self.frame_bytes = 0;
        self.since = None;
        self.commits += 1;
        self.taken.clear();
        self.tried = 0;
        self.durable_seq = self.engine.seq();
        if let Some(exports) = &mut self.exports {
            exports.committed();
        }
        Ok(())
    }

    /// What the commits since the last call brought: decided, recorded, and only now acted upon.
    pub fn outcome(&mut self) -> Outcome {
        std::mem::take(&mut self.durable)
    }

    /// Feeds samples `from..to` of a batch to the engine and remembers them for the journal.
    fn feed(&mut self, batch: &Columns, from: usize, to: usize) {
        if from == to {
            return;
        }
        for def in self.book.since(self.known) {
            self.engine.define(self.known as u32, def);
            self.known += 1;
        }
        if self.columns.source != batch.source {
            self.flush_columns();
            self.columns.source.clone_from(&batch.source);
        }
        if self.columns.is_empty() {
            self.columns_seq = self.engine.seq() + 1;
        }
        self.samples += to - from;
        self.columns.extend(batch, from, to);
        let effects = self.engine.step(Input::Samples(batch.view(from, to)), &mut self.judge);
        self.absorb(effects);
    }

    /// Gives the engine an input that is not samples, and the journal a row for it.
    fn other(&mut self, input: Input<'_>, stored: &Other) {
        self.flush_columns();
        self.since.get_or_insert_with(Instant::now);
        let seq = self.engine.seq() + 1;
        self.pending.journal.push(JournalRow { seq, count: 1, bytes: journal::encode_other(stored) });
        let received = self.news.received;
        // What the clock closes is waited for from now on.
        self.news.received.get_or_insert_with(Instant::now);
        let effects = self.engine.step(input, &mut self.judge);
        self.absorb(effects);
        self.news.received = received;
    }

    fn flush_columns(&mut self) {
        let n = self.columns.len();
        for from in (0..n).step_by(ROW_SAMPLES_MAX) {
            let to = n.min(from + ROW_SAMPLES_MAX);
            self.pending.journal.push(JournalRow {
                seq: self.columns_seq + from as u64,
                count: (to - from) as u32,
                bytes: journal::encode_samples(&self.columns, from, to),
            });
        }
        self.columns.clear();
    }

    /// Keeps what was taken for the case that its commit fails. A run over old files ends then, and is run again.
    fn keep(&mut self, step: impl FnOnce() -> Step) {
        if self.limits.eager {
            self.taken.push(step());
        }
    }

    fn count(&mut self, name: &'static str, n: u64) {
        *self.counters.entry(name).or_default() += n;
    }
}

/// Key of a source's cursor: lanes do not share positions.
pub fn cursor_name(lane: &str, source: &str) -> String {
    format!("{lane}/{source}")
}
