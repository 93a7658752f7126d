//! Runs units through a recorder: one after the other when their sources end, side by side when they do not.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, TryRecvError};
use hb_log::cbor;

use super::feed::{Feed, FeedLimits, Next};
use super::record::{Outcome, Recorder, cursor_name};
use super::{Cursor, PipelineError};
use crate::generation::Unit;

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

/// Runs the units until their sources have ended: in the order of the config, so that a run can be repeated.
pub fn run_once(
    recorder: &mut Recorder,
    units: &[Unit],
    limits: FeedLimits,
    control: &Receiver<Control>,
    watch: &mut dyn Watch,
) -> Result<(), PipelineError> {
    for unit in units {
        let mut running = Running::start(recorder, unit, limits)?;
        loop {
            match control.try_recv() {
                Ok(Control::Stop) => return recorder.commit(),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            match running.feed.next(Instant::now() + Duration::from_millis(TURN_MS)) {
                Next::Batch(batch) => {
                    watch.progress(&batch.source, batch.frames.len() as u64, batch.columns.len() as u64);
                    running.last = Some(batch.cursor.clone());
                    recorder.take(*batch)?;
                }
                Next::Idle => {}
                Next::Ended => break,
                Next::Failed(e) => return Err(e),
            }
            recorder.commit_when_due()?;
            running.tell(recorder);
            report(recorder, watch)?;
        }
        end(recorder, unit, running.last);
        recorder.commit()?;
        report(recorder, watch)?;
    }
    recorder.checkpoint()
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
        let feed = Feed::start(unit, &recorder.book(), last.as_ref(), limits)?;
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
        Source { unit, state: SourceState::Down(Instant::now()), failures: 0, clock: None }
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
            Err(e) => self.fail(&e)?,
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
            Next::Failed(e) => self.fail(&e)?,
        }
        Ok(())
    }

    /// Moves the source's clock on while it is silent, when a window waits for that: silence is a finding too.
    fn tick(&self, recorder: &mut Recorder) {
        if let Some((ns, since)) = self.clock {
            let now_ns = ns.saturating_add(i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX));
            recorder.tick(&self.unit.name, now_ns);
        }
    }

    fn fail(&mut self, error: &PipelineError) -> Result<(), PipelineError> {
        if let PipelineError::State(_) = error {
            return Err(PipelineError::corrupt("source", error));
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
