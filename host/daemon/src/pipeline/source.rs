//! A source of a lane at work: started where its last batch ended, fed on, started again when it fails, changed while
//! it runs.

use std::time::{Duration, Instant};

use crossbeam_channel::Select;
use hb_engine::engine::TICK_NS;
use hb_log::cbor;

use super::feed::{Feed, FeedLimits, Next, Prepared, Resume};
use super::record::{Outcome, Recorder, cursor_name};
use super::{Cursor, PipelineError};
use crate::diagnostic::chain;
use crate::generation::{Unit, transport_options};
use crate::transport::Position;
use crate::transport::mqtt::Digest;

/// First wait before a source that failed is started again, ms; it doubles with each failure in a row.
const RESTART_MS: u64 = 1_000;

/// Longest wait before a source is started again, ms: a broken disk is looked at once a minute.
const RESTART_MS_MAX: u64 = 60_000;

/// Who is told what happened.
pub trait Watch {
    /// Decisions and cases that are durable now.
    fn committed(&mut self, recorder: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError>;

    /// A batch was taken: frames and samples in it.
    fn progress(&mut self, source: &str, frames: u64, samples: u64);

    /// The loop goes round once more: about ten times a second when nothing happens.
    fn turn(&mut self, _recorder: &Recorder) {}
}

/// A unit and what became of it.
pub struct Source {
    unit: Unit,
    limits: FeedLimits,
    state: SourceState,
    /// Failures in a row.
    failures: u32,
    /// The source's clock when its last batch came, ns, and when that was; after a restart, where it stood and when the
    /// source was started: silence is measured from here.
    clock: Option<(i64, Instant)>,
    /// Step of the clock's grid that was looked at last: looking at all assets once a step is enough.
    step: i64,
    change: Change,
    trial: Trial,
}

/// A feed at work.
pub(super) struct Running {
    pub(super) feed: Feed,
    /// Where the source resumes behind what the recorder took.
    pub(super) last: Option<Cursor>,
    /// The commit whose positions the feed was told.
    told: u64,
}

enum SourceState {
    Running(Box<Running>),
    /// To be started at this time.
    Down(Instant),
    Ended,
}

/// What a source is on its way to.
enum Change {
    /// Nothing.
    None,
    /// Other plugins on the same transport.
    Plugins,
    /// Another transport, when the one there is has given what it has.
    Transport(Box<Unit>, FeedLimits),
    /// Its end.
    Leaving,
}

/// What speaks against a new generation when the source fails: what was down before, and is the same, does not.
#[derive(Clone, Copy)]
struct Trial {
    transport: bool,
    plugins: bool,
}

impl Trial {
    const ALL: Trial = Trial { transport: true, plugins: true };
}

/// What a turn of a source came to.
#[derive(Debug, Default)]
pub struct Turn {
    /// Frames taken.
    pub frames: u64,
    /// Frames a plugin failed on.
    pub faults: u64,
    /// Why the source failed; it is started again after a while.
    pub failed: Option<PipelineError>,
    /// Whether that may be the fault of a generation that is new.
    pub is_suspect: bool,
}

impl Source {
    /// One that starts with the next turn.
    pub fn new(unit: Unit, limits: FeedLimits) -> Self {
        let state = SourceState::Down(Instant::now());
        Source {
            unit,
            limits,
            state,
            failures: 0,
            clock: None,
            step: i64::MIN,
            change: Change::None,
            trial: Trial::ALL,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.unit.name
    }

    /// Whether nothing more comes from it, now or later.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, SourceState::Ended)
    }

    /// Whether it is on its way to other plugins, another transport or its end.
    pub fn is_changing(&self) -> bool {
        !matches!(self.change, Change::None)
    }

    /// Starts it, when it is time. What cannot start is tried again later: a daemon outlives what it reads from.
    pub fn start_when_due(&mut self, recorder: &mut Recorder) -> Result<Turn, PipelineError> {
        let SourceState::Down(at) = self.state else { return Ok(Turn::default()) };
        if at > Instant::now() {
            return Ok(Turn::default());
        }
        // It resumes from what is durable.
        recorder.commit()?;
        if self.clock.is_none() {
            self.clock = recorder.clock_of(&self.unit.name).map(|ns| (ns, Instant::now()));
        }
        match Running::start(recorder, &self.unit, self.limits) {
            Ok(mut running) => {
                recorder.vitals().source_up(&self.unit.name, running.feed.take_probe());
                self.state = SourceState::Running(Box::new(running));
                Ok(Turn::default())
            }
            Err(e) => self.fail(recorder, e),
        }
    }

    /// Makes `select` wait for it too, when it runs.
    pub fn select<'a>(&'a self, select: &mut Select<'a>) -> bool {
        if let SourceState::Running(running) = &self.state {
            running.feed.select(select);
        }
        matches!(self.state, SourceState::Running(_))
    }

    /// Takes what its feed has.
    pub fn turn(&mut self, recorder: &mut Recorder, watch: &mut dyn Watch) -> Result<Turn, PipelineError> {
        let SourceState::Running(running) = &mut self.state else { return Ok(Turn::default()) };
        let mut turn = Turn::default();
        match running.feed.next(Instant::now()) {
            Next::Batch(batch) => {
                turn.frames = batch.frames.len() as u64;
                turn.faults = batch.faults.len() as u64;
                watch.progress(&batch.source, turn.frames, batch.columns.len() as u64);
                running.last = Some(batch.cursor.clone());
                recorder.take(*batch)?;
                self.failures = 0;
                // Refusals alone are no word of the source.
                if turn.frames > 0 {
                    self.clock = recorder.clock_of(&self.unit.name).map(|ns| (ns, Instant::now()));
                }
            }
            Next::Idle => {}
            Next::Swapped => self.change = Change::None,
            Next::Ended => self.ended(recorder),
            Next::Failed(e) => return self.fail(recorder, e),
        }
        Ok(turn)
    }

    /// Goes on as another unit. Where the transport stays what it is it stays open, and only plugins change; otherwise
    /// the source ends and starts again. It [is changing](Source::is_changing) until that has happened.
    pub fn become_unit(&mut self, unit: Unit, prepared: Prepared, limits: FeedLimits) {
        let of = |unit: &Unit, limits: FeedLimits| {
            transport_options(&unit.transport, unit.whole, limits.max_line_bytes as usize)
        };
        // Both are told what a secret is now; that it was another before is what the digests say. What cannot be told
        // apart, for a secret that is gone, is taken for another one: opening it says what is wrong.
        let keeps_transport = match (of(&self.unit, self.limits), of(&unit, limits)) {
            (Ok(before), Ok(after)) => before == after && self.unit.secrets == unit.secrets,
            _ => false,
        };
        let is_ending = matches!(self.change, Change::Leaving | Change::Transport(..));
        let is_same = self.unit.record() == unit.record() && self.unit.workers == unit.workers && self.limits == limits;
        self.trial = match self.state {
            SourceState::Down(_) => Trial { transport: !keeps_transport, plugins: !is_same },
            SourceState::Running(_) | SourceState::Ended => Trial::ALL,
        };
        match &mut self.state {
            SourceState::Running(running) => {
                let keeps_source = self.unit.source.record == unit.source.record;
                let goes_on = keeps_transport
                    && !is_ending
                    && (is_same || running.feed.swap(&unit, prepared, keeps_source, limits).is_ok());
                if !goes_on {
                    running.feed.finish();
                    self.change = Change::Transport(Box::new(unit), limits);
                    return;
                }
                if !is_same {
                    self.change = Change::Plugins;
                }
            }
            // Whatever kept it down may be what was changed.
            SourceState::Down(at) => *at = Instant::now(),
            // A file that has ended has no more for other plugins, and may be another file now.
            SourceState::Ended if !keeps_transport => self.state = SourceState::Down(Instant::now()),
            SourceState::Ended => {}
        }
        (self.unit, self.limits) = (unit, limits);
    }

    /// Ends it: what would be gone with its transport is taken first.
    pub fn leave(&mut self) {
        match &self.state {
            SourceState::Running(running) => {
                running.feed.finish();
                self.change = Change::Leaving;
            }
            SourceState::Down(_) | SourceState::Ended => self.state = SourceState::Ended,
        }
    }

    /// Whether its transport waits for a commit.
    pub fn wants_commit(&self) -> bool {
        matches!(&self.state, SourceState::Running(running) if running.feed.wants_commit())
    }

    /// Tells it what is durable.
    pub fn tell(&mut self, recorder: &Recorder) {
        if let SourceState::Running(running) = &mut self.state {
            running.tell(recorder);
        }
    }

    /// Moves the source's clock on while it is silent, when a window waits for that: silence is a finding too.
    pub fn tick(&mut self, recorder: &mut Recorder) {
        let Some((ns, since)) = self.clock else { return };
        let now_ns = ns.saturating_add(i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX));
        let step = now_ns.div_euclid(TICK_NS);
        if step != self.step {
            self.step = step;
            recorder.tick(&self.unit.name, now_ns);
        }
    }

    fn ended(&mut self, recorder: &mut Recorder) {
        let state = std::mem::replace(&mut self.state, SourceState::Ended);
        match std::mem::replace(&mut self.change, Change::None) {
            Change::Transport(unit, limits) => {
                (self.unit, self.limits) = (*unit, limits);
                self.state = SourceState::Down(Instant::now());
            }
            // It was ended, it has not come to its end: no window waits for what is never read.
            Change::Leaving => {}
            Change::None | Change::Plugins => {
                recorder.vitals().source_ended(&self.unit.name);
                if let SourceState::Running(running) = state {
                    end(recorder, &self.unit, running.last);
                }
            }
        }
    }

    fn fail(&mut self, recorder: &Recorder, error: PipelineError) -> Result<Turn, PipelineError> {
        if let PipelineError::State(_) = error {
            return Err(error);
        }
        match std::mem::replace(&mut self.change, Change::None) {
            Change::Leaving => {
                self.state = SourceState::Ended;
                return Ok(Turn::default());
            }
            Change::Transport(unit, limits) => (self.unit, self.limits) = (*unit, limits),
            Change::None | Change::Plugins => {}
        }
        let wait_ms = (RESTART_MS << self.failures.min(16)).min(RESTART_MS_MAX);
        self.failures += 1;
        let source = self.unit.name.as_str();
        recorder.vitals().source_down(source, error.kind(), &chain(&error));
        tracing::error!(source, %error, wait_ms, "the source failed and is started again after a while");
        self.state = SourceState::Down(Instant::now() + Duration::from_millis(wait_ms));
        let is_suspect = match error {
            PipelineError::Plugin { .. } => self.trial.plugins,
            _ => self.trial.transport,
        };
        Ok(Turn { failed: Some(error), is_suspect, ..Turn::default() })
    }
}

impl Running {
    pub(super) fn start(recorder: &Recorder, unit: &Unit, limits: FeedLimits) -> Result<Running, PipelineError> {
        let last = resume(recorder, &unit.name)?;
        let delivered = delivered(recorder, &unit.name, last.as_ref())?;
        let resume = last.as_ref().map(|cursor| Resume { cursor, delivered });
        let feed = Feed::start(unit, &recorder.book(), resume, limits)?;
        Ok(Running { feed, last, told: recorder.commits() })
    }

    /// Tells the feed what is durable, once per commit.
    pub(super) fn tell(&mut self, recorder: &Recorder) {
        if self.told != recorder.commits() {
            self.told = recorder.commits();
            if let Some(cursor) = &self.last {
                self.feed.committed(cursor);
            }
        }
    }
}

/// Judges what is complete, once per end of a source.
pub(super) fn end(recorder: &mut Recorder, unit: &Unit, last: Option<Cursor>) {
    let Some(mut cursor) = last.filter(|c| !c.ended) else { return };
    cursor.ended = true;
    recorder.seal(&unit.name, cursor);
}

/// Tells `watch` what has become durable.
pub fn report(recorder: &mut Recorder, watch: &mut dyn Watch) -> Result<(), PipelineError> {
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
