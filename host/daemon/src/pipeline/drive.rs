//! Runs units through a recorder: in order of event time when their sources end, as it comes when they do not.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};
use hb_engine::engine::TICK_NS;
use hb_log::cbor;

use super::feed::{Feed, FeedLimits, Next, Resume};
use super::merge::Taking;
use super::record::{Outcome, Recorder, cursor_name};
use super::{Cursor, PipelineError};
use crate::generation::Unit;
use crate::transport::Position;
use crate::transport::mqtt::Digest;

/// Longest wait for a batch before the clocks are looked at, ms: clocks go in steps of a second, and a tenth of it is
/// lateness nobody sees.
const TURN_MS: u64 = 100;

/// First wait before a source that failed is started again, ms; it doubles with each failure in a row.
const RESTART_MS: u64 = 1_000;

/// Longest wait before a source is started again, ms: a broken disk is looked at once a minute.
const RESTART_MS_MAX: u64 = 60_000;

/// What the outside asks of a running pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Take no more, make durable what was taken, and return.
    Stop,
}

/// Who is told what happened: after each commit that brought something, and after each batch.
pub trait Watch {
    /// Decisions and cases that are durable now.
    fn committed(&mut self, recorder: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError>;

    /// A batch was taken: frames and samples in it.
    fn progress(&mut self, source: &str, frames: u64, samples: u64);
}

/// Runs the units until their sources have ended, in the order of event time, so that a run can be repeated. A source
/// that fails ends, and is the error when the others have ended.
pub fn run_once(
    recorder: &mut Recorder,
    units: &[Unit],
    limits: FeedLimits,
    control: &Receiver<Control>,
    watch: &mut dyn Watch,
) -> Result<(), PipelineError> {
    let (mut files, mut failed) = (Vec::new(), None);
    for unit in units {
        match Running::start(recorder, unit, limits) {
            Ok(running) => files.push(Ending { unit, running, taking: None }),
            Err(e) => keep_first(&mut failed, e)?,
        }
    }
    while !files.is_empty() {
        if let Some(e) = fill(recorder, &mut files, control, watch)? {
            match e {
                Interrupted::Stop => return recorder.commit(),
                Interrupted::Failed(e) => keep_first(&mut failed, e)?,
            }
        }
        // Whoever has the oldest second goes on up to the second of the next one.
        let key = |at: usize, file: &Ending<'_>| (file.taking.as_ref().and_then(Taking::second), at);
        let mut order: Vec<(Option<i64>, usize)> = files.iter().enumerate().map(|(at, f)| key(at, f)).collect();
        order.sort_unstable();
        let Some(&(_, at)) = order.first() else { break };
        let Some(taking) = files[at].taking.take() else { break };
        let (part, rest) = match order.get(1) {
            Some(&other) => taking.take(|second| (second, at) <= other),
            None => taking.take(|_| true),
        };
        files[at].taking = rest;
        files[at].running.last = Some(part.cursor.clone());
        watch.progress(&part.source, part.frames.len() as u64, part.columns.len() as u64);
        recorder.take(part)?;
        recorder.commit_when_due()?;
        for file in &mut files {
            file.running.tell(recorder);
        }
        report(recorder, watch)?;
    }
    recorder.checkpoint()?;
    report(recorder, watch)?;
    failed.map_or(Ok(()), Err)
}

/// A source that ends, and what of its newest batch is not taken yet.
struct Ending<'u> {
    unit: &'u Unit,
    running: Running,
    taking: Option<Taking>,
}

enum Interrupted {
    Stop,
    Failed(PipelineError),
}

/// Waits until each source has something to take; one that has ended is judged to its end and let go.
fn fill(
    recorder: &mut Recorder,
    files: &mut Vec<Ending<'_>>,
    control: &Receiver<Control>,
    watch: &mut dyn Watch,
) -> Result<Option<Interrupted>, PipelineError> {
    let mut at = 0;
    while let Some(file) = files.get_mut(at) {
        if file.taking.is_some() {
            at += 1;
            continue;
        }
        if let Ok(Control::Stop) = control.try_recv() {
            return Ok(Some(Interrupted::Stop));
        }
        match file.running.feed.next(Instant::now() + Duration::from_millis(TURN_MS)) {
            Next::Batch(batch) => {
                let before = file.running.last.clone().unwrap_or(Cursor { v: 1, ..Cursor::default() });
                file.taking = Taking::begin(*batch, &before);
            }
            Next::Idle => {
                recorder.commit_when_due()?;
                report(recorder, watch)?;
            }
            Next::Ended => {
                let file = files.remove(at);
                end(recorder, file.unit, file.running.last);
                recorder.commit()?;
                report(recorder, watch)?;
            }
            Next::Failed(e) => {
                files.remove(at);
                return Ok(Some(Interrupted::Failed(e)));
            }
        }
    }
    Ok(None)
}

/// Notes why a source ended early; what is wrong with the store ends everything.
fn keep_first(failed: &mut Option<PipelineError>, e: PipelineError) -> Result<(), PipelineError> {
    if let PipelineError::State(_) = e {
        return Err(e);
    }
    tracing::error!(error = %e, "a source failed; the others go on");
    failed.get_or_insert(e);
    Ok(())
}

/// Runs the units side by side until told to stop, or until all of them have ended. A source that fails is started
/// again where its last batch ended, after a while; the others go on.
pub fn run_forever(
    recorder: &mut Recorder,
    units: &[Unit],
    limits: FeedLimits,
    control: &Receiver<Control>,
    watch: &mut dyn Watch,
) -> Result<(), PipelineError> {
    let mut sources: Vec<Source<'_>> = units.iter().map(Source::new).collect();
    while !sources.iter().all(|s| matches!(s.state, SourceState::Ended)) {
        for source in &mut sources {
            source.start_when_due(recorder, limits)?;
        }
        match wait(&sources, control, recorder.due()) {
            Ready::Control => {
                if let Ok(Control::Stop) = control.try_recv() {
                    break;
                }
            }
            Ready::Source(at) => sources[at].turn(recorder, watch)?,
            Ready::Time => {}
        }
        for source in &mut sources {
            source.tick(recorder);
        }
        if sources.iter().any(Source::wants_commit) {
            recorder.commit_pending()?;
        }
        recorder.commit_when_due()?;
        for source in &mut sources {
            if let SourceState::Running(running) = &mut source.state {
                running.tell(recorder);
            }
        }
        report(recorder, watch)?;
    }
    recorder.checkpoint()?;
    for source in &mut sources {
        if let SourceState::Running(running) = &mut source.state {
            running.tell(recorder);
        }
    }
    report(recorder, watch)
}

/// A unit and what became of it.
struct Source<'u> {
    unit: &'u Unit,
    state: SourceState,
    /// Failures in a row.
    failures: u32,
    /// The source's clock when its last batch came, ns, and when that was: silence is measured from here.
    clock: Option<(i64, Instant)>,
    /// Step of the clock's grid that was looked at last: looking at all assets once a step is enough.
    step: i64,
}

enum SourceState {
    Running(Running),
    /// To be started at this time.
    Down(Instant),
    Ended,
}

/// A feed at work.
struct Running {
    feed: Feed,
    /// Where the source resumes behind what the recorder took.
    last: Option<Cursor>,
    /// The commit whose positions the feed was told.
    told: u64,
}

impl Running {
    fn start(recorder: &Recorder, unit: &Unit, limits: FeedLimits) -> Result<Running, PipelineError> {
        let last = resume(recorder, &unit.name)?;
        let delivered = delivered(recorder, &unit.name, last.as_ref())?;
        let resume = last.as_ref().map(|cursor| Resume { cursor, delivered });
        let feed = Feed::start(unit, &recorder.book(), resume, limits)?;
        Ok(Running { feed, last, told: recorder.commits() })
    }

    /// Tells the feed what is durable, once per commit.
    fn tell(&mut self, recorder: &Recorder) {
        if self.told != recorder.commits() {
            self.told = recorder.commits();
            if let Some(cursor) = &self.last {
                self.feed.committed(cursor);
            }
        }
    }
}

impl<'u> Source<'u> {
    fn new(unit: &'u Unit) -> Self {
        Source { unit, state: SourceState::Down(Instant::now()), failures: 0, clock: None, step: i64::MIN }
    }

    /// Starts it, when it is time. What cannot start is tried again later: a daemon outlives what it reads from.
    fn start_when_due(&mut self, recorder: &mut Recorder, limits: FeedLimits) -> Result<(), PipelineError> {
        let SourceState::Down(at) = self.state else { return Ok(()) };
        if at > Instant::now() {
            return Ok(());
        }
        // It resumes from what is durable.
        recorder.commit()?;
        match Running::start(recorder, self.unit, limits) {
            Ok(running) => self.state = SourceState::Running(running),
            Err(e) => self.fail(e)?,
        }
        Ok(())
    }

    /// Takes what its feed has.
    fn turn(&mut self, recorder: &mut Recorder, watch: &mut dyn Watch) -> Result<(), PipelineError> {
        let SourceState::Running(running) = &mut self.state else { return Ok(()) };
        match running.feed.next(Instant::now()) {
            Next::Batch(batch) => {
                watch.progress(&batch.source, batch.frames.len() as u64, batch.columns.len() as u64);
                running.last = Some(batch.cursor.clone());
                recorder.take(*batch)?;
                self.failures = 0;
                self.clock = recorder.clock_of(&self.unit.name).map(|ns| (ns, Instant::now()));
            }
            Next::Idle => {}
            Next::Ended => {
                let last = running.last.take();
                self.state = SourceState::Ended;
                end(recorder, self.unit, last);
            }
            Next::Failed(e) => self.fail(e)?,
        }
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        matches!(&self.state, SourceState::Running(running) if running.feed.wants_commit())
    }

    /// Moves the source's clock on while it is silent, when a window waits for that: silence is a finding too.
    fn tick(&mut self, recorder: &mut Recorder) {
        let Some((ns, since)) = self.clock else { return };
        let now_ns = ns.saturating_add(i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX));
        let step = now_ns.div_euclid(TICK_NS);
        if step != self.step {
            self.step = step;
            recorder.tick(&self.unit.name, now_ns);
        }
    }

    fn fail(&mut self, error: PipelineError) -> Result<(), PipelineError> {
        if let PipelineError::State(_) = error {
            return Err(error);
        }
        let wait_ms = (RESTART_MS << self.failures.min(16)).min(RESTART_MS_MAX);
        self.failures += 1;
        tracing::error!(source = self.unit.name, %error, wait_ms, "the source failed and is started again after a while");
        self.state = SourceState::Down(Instant::now() + Duration::from_millis(wait_ms));
        Ok(())
    }
}

enum Ready {
    Control,
    Source(usize),
    Time,
}

/// Waits for whatever comes first.
fn wait(sources: &[Source<'_>], control: &Receiver<Control>, due: Option<Instant>) -> Ready {
    let mut deadline = Instant::now() + Duration::from_millis(TURN_MS);
    deadline = due.map_or(deadline, |due| due.min(deadline));
    let mut select = Select::new();
    let mut places = Vec::with_capacity(sources.len() + 1);
    select.recv(control);
    places.push(None);
    for (at, source) in sources.iter().enumerate() {
        if let SourceState::Running(running) = &source.state {
            running.feed.select(&mut select);
            places.push(Some(at));
        }
    }
    match select.ready_deadline(deadline) {
        Ok(ready) => places[ready].map_or(Ready::Control, Ready::Source),
        Err(_) => Ready::Time,
    }
}

/// Judges what is complete, once per end of a source.
fn end(recorder: &mut Recorder, unit: &Unit, last: Option<Cursor>) {
    let Some(mut cursor) = last.filter(|c| !c.ended) else { return };
    recorder.seal(&unit.name);
    cursor.ended = true;
    let name = cursor_name(recorder.lane(), &unit.name);
    let cursors = &mut recorder.pending().cursors;
    cursors.retain(|c| c.0 != name);
    cursors.push((name, cbor::encode(&cursor)));
}

fn report(recorder: &mut Recorder, watch: &mut dyn Watch) -> Result<(), PipelineError> {
    let outcome = recorder.outcome();
    if outcome.notable.is_empty() && outcome.cases.is_empty() { Ok(()) } else { watch.committed(recorder, outcome) }
}

fn resume(recorder: &Recorder, source: &str) -> Result<Option<Cursor>, PipelineError> {
    let name = cursor_name(recorder.lane(), source);
    let bytes = recorder.state().reader()?.cursor(recorder.program(), &name)?;
    bytes.map(|b| cbor::decode(&b).map_err(|e| PipelineError::corrupt("cursor", e))).transpose()
}

/// What is stored of the messages of a source's session.
fn delivered(recorder: &Recorder, source: &str, last: Option<&Cursor>) -> Result<Vec<(u16, Digest)>, PipelineError> {
    let position = last.map(|cursor| Position::from_bytes(&cursor.transport)).transpose();
    match position.map_err(|e| PipelineError::corrupt("cursor", e))? {
        Some(Position::Mqtt(position)) => {
            Ok(recorder.state().reader()?.deliveries(recorder.program(), source, position.epoch)?)
        }
        _ => Ok(Vec::new()),
    }
}
