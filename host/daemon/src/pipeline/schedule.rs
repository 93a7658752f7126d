//! What is learned by itself: a first baseline after a while, and a rolling one again and again.
//!
//! The clock is that of the telemetry, so a replay of old files learns at the same places as the daemon did. Learning
//! runs on a thread of its own; what becomes active goes through the journal, see [`super::record::Recorder::refresh_baselines`].

use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use hb_log::cbor;
use serde::{Deserialize, Serialize};

use super::PipelineError;
use super::learn::{Lesson, learn};
use crate::config::{Config, Name};
use crate::diagnostic::chain;
use crate::keys::Signer;
use crate::state::{Reader, State};

/// Tag of the rolling baseline.
pub const ROLLING_TAG: &str = "rolling";
/// What makes the first baseline.
const FIRST: &str = "first";
/// Rolling versions that stay besides those that something names: somebody may be about to use one.
const ROLLING_KEPT: usize = 3;
/// Name of the value that says how far the schedule is.
const PROGRESS: &str = "schedule/live";
/// Steps of the progress that are stored: percent.
const STEPS: i64 = 100;

/// What is learned when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// Span of a rolling baseline, and the time between two, ns.
    pub rolling: Option<(i64, i64)>,
    /// Time after which the first baseline is made, ns.
    pub first_after_ns: Option<i64>,
    /// Tag of the first baseline.
    pub first_tag: String,
    /// Whether learning is waited for: a run over old files is the same each time.
    pub waits: bool,
}

impl ScheduleOptions {
    /// As a config says.
    pub fn of(config: &Config, waits: bool) -> Self {
        let schedule = &config.schedule;
        ScheduleOptions {
            rolling: schedule.rolling_baseline.as_ref().map(|r| (r.window_ns, r.every_ns)),
            first_after_ns: schedule.first_baseline_after_ns,
            first_tag: schedule.baseline_tag.as_ref().map_or("golden", Name::as_str).to_owned(),
            waits,
        }
    }
}

/// How far the schedule of a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Schema version of this structure.
    pub v: u8,
    /// Clock of the telemetry when it began, ns.
    pub start_ns: i64,
    /// Clock of the telemetry when this was stored, ns.
    pub clock_ns: i64,
    /// Time after which the first baseline is made, ns; none when its tag names one, or it never will be made.
    pub first_after_ns: Option<i64>,
    /// When the newest rolling baseline was made, ns.
    pub rolled_ns: Option<i64>,
}

impl Progress {
    /// As it was stored.
    pub fn read(reader: &Reader, program: &str) -> Result<Option<Self>, PipelineError> {
        let bytes = reader.meta(program, PROGRESS)?;
        bytes.map(|b| cbor::decode(&b).map_err(|e| PipelineError::corrupt("schedule", e))).transpose()
    }

    /// How much of the time to the first baseline is over; none when none is waited for.
    pub fn percent(&self) -> Option<i64> {
        let after = self.first_after_ns.filter(|&after| after > 0)?;
        Some((self.clock_ns - self.start_ns).saturating_mul(STEPS).div_euclid(after).clamp(0, STEPS))
    }
}

/// Something that is being learned: where its version comes, and what it is.
type Job = (Receiver<Result<Option<u32>, String>>, &'static str);

/// The schedule of one lane.
pub(super) struct Schedule {
    options: ScheduleOptions,
    state: State,
    signer: Arc<Signer>,
    program: String,
    lane: String,
    progress: Option<Progress>,
    /// A first baseline is waited for that was not before: its time begins with the next look at the clock.
    begins_anew: bool,
    job: Option<Job>,
}

/// What a turn of the schedule asks for.
#[derive(Debug, Default)]
pub(super) struct Turned {
    /// A tag names something else now.
    pub(super) refresh: bool,
    /// A value to store with the next commit.
    pub(super) meta: Option<(String, Vec<u8>)>,
}

impl Schedule {
    pub(super) fn open(
        options: ScheduleOptions,
        state: State,
        signer: Arc<Signer>,
        program: &str,
        lane: &str,
    ) -> Result<Self, PipelineError> {
        let reader = state.reader()?;
        let mut progress = Progress::read(&reader, program)?;
        // What is stored may be older than the config, or than the baseline: a kill can fall between the two.
        let is_made = reader.tags(program)?.iter().any(|(tag, _)| *tag == options.first_tag);
        drop(reader);
        let waited_for = options.first_after_ns.filter(|_| !is_made);
        let mut begins_anew = false;
        if let Some(progress) = &mut progress {
            begins_anew = waited_for.is_some() && progress.first_after_ns.is_none();
            progress.first_after_ns = waited_for;
        }
        let (program, lane) = (program.to_owned(), lane.to_owned());
        Ok(Schedule { options, state, signer, program, lane, progress, begins_anew, job: None })
    }

    /// Whether something may be due: what is pending is to be committed first.
    pub(super) fn is_due(&self, clock_ns: Option<i64>) -> bool {
        let (Some(progress), Some(clock_ns), None) = (&self.progress, clock_ns, &self.job) else { return false };
        let first = progress.first_after_ns.is_some_and(|after| clock_ns.saturating_sub(progress.start_ns) >= after);
        let rolled = progress.rolled_ns.unwrap_or(progress.start_ns);
        first || self.options.rolling.is_some_and(|(_, every)| clock_ns.saturating_sub(rolled) >= every)
    }

    /// Looks at what is due now, and at what was learned meanwhile.
    pub(super) fn turn(&mut self, clock_ns: Option<i64>) -> Result<Turned, PipelineError> {
        let before = self.progress.clone();
        let mut refresh = self.has_learned();
        if let Some(clock_ns) = clock_ns {
            if self.job.is_none()
                && let Some(lesson) = self.due(clock_ns)?
            {
                self.begin(lesson, clock_ns);
                refresh |= self.options.waits && self.has_learned();
            } else {
                self.note(clock_ns);
            }
        }
        let changed = self.progress.as_ref().filter(|progress| before.as_ref() != Some(progress));
        Ok(Turned { refresh, meta: changed.map(|progress| (PROGRESS.to_owned(), cbor::encode(progress))) })
    }

    /// What is to be learned now.
    fn due(&mut self, clock_ns: i64) -> Result<Option<Lesson>, PipelineError> {
        let Some(progress) = &mut self.progress else { return Ok(None) };
        if std::mem::take(&mut self.begins_anew) {
            (progress.start_ns, progress.clock_ns) = (clock_ns, clock_ns);
        }
        let past = clock_ns.saturating_sub(progress.start_ns);
        let lesson = |by, tag: &str, span_ns: i64, keep| Lesson {
            program: self.program.clone(),
            lane: self.lane.clone(),
            by,
            tag: tag.to_owned(),
            start_ns: clock_ns.saturating_sub(span_ns),
            end_ns: clock_ns,
            keep,
        };
        if let Some(after) = progress.first_after_ns
            && past >= after
        {
            let tags = self.state.reader()?.tags(&self.program)?;
            if tags.iter().all(|(tag, _)| *tag != self.options.first_tag) {
                return Ok(Some(lesson(FIRST, &self.options.first_tag, past, 1)));
            }
            // An operator was faster.
            progress.first_after_ns = None;
            return Ok(None);
        }
        let Some((window, every)) = self.options.rolling else { return Ok(None) };
        let rolled = progress.rolled_ns.unwrap_or(progress.start_ns);
        let is_due = clock_ns.saturating_sub(rolled) >= every;
        Ok(is_due.then(|| lesson("rolling", ROLLING_TAG, window, ROLLING_KEPT)))
    }

    fn begin(&mut self, lesson: Lesson, clock_ns: i64) {
        let by = lesson.by;
        let progress = self.progress.get_or_insert_default();
        progress.clock_ns = clock_ns;
        if by != FIRST {
            progress.rolled_ns = Some(clock_ns);
        }
        let (sender, receiver) = bounded(1);
        let (state, signer) = (self.state.clone(), Arc::clone(&self.signer));
        let work = move || {
            // Nobody listens any more when the daemon ends.
            let _ = sender.send(learn(&state, &signer, &lesson).map_err(|e| chain(&e)));
        };
        match std::thread::Builder::new().name("hb-learn".into()).spawn(work) {
            Ok(_) => self.job = Some((receiver, by)),
            Err(error) => {
                tracing::warn!(%error, by, "no thread to make a baseline; it is tried again in its turn");
                self.wait_again(by);
            }
        }
    }

    /// Whether something was learned since the last look.
    fn has_learned(&mut self) -> bool {
        let Some((receiver, by)) = &self.job else { return false };
        let by = *by;
        let result = match (self.options.waits, receiver.try_recv()) {
            (_, Ok(result)) => result,
            (true, Err(TryRecvError::Empty)) => receiver.recv().unwrap_or_else(|e| Err(e.to_string())),
            (false, Err(TryRecvError::Empty)) => return false,
            (_, Err(e @ TryRecvError::Disconnected)) => Err(e.to_string()),
        };
        self.job = None;
        match result {
            Ok(Some(version)) => {
                tracing::info!(by, version, "a baseline was made");
                if let Some(progress) = self.progress.as_mut().filter(|_| by == FIRST) {
                    progress.first_after_ns = None;
                }
                return true;
            }
            Ok(None) => tracing::info!(by, "there was no sample to make a baseline of"),
            Err(error) => tracing::warn!(by, error, "no baseline was made; it is tried again in its turn"),
        }
        self.wait_again(by);
        false
    }

    /// Lets the time to the first baseline begin again; the next rolling one comes in its turn anyway.
    fn wait_again(&mut self, by: &str) {
        if let Some(progress) = self.progress.as_mut().filter(|_| by == FIRST) {
            progress.start_ns = progress.clock_ns;
        }
    }

    /// Notes how far the clock is, when that is another percent.
    fn note(&mut self, clock_ns: i64) {
        let Some(progress) = &mut self.progress else {
            let first_after_ns = self.options.first_after_ns;
            let start_ns = clock_ns;
            self.progress = Some(Progress { v: 1, start_ns, clock_ns, first_after_ns, rolled_ns: None });
            return;
        };
        let noted = Progress { clock_ns, ..progress.clone() };
        if noted.percent() != progress.percent() {
            *progress = noted;
        }
    }
}

#[cfg(test)]
mod tests {
    use hb_log::hash::Hash;

    use super::*;
    use crate::state::{BaselineRow, Commit, Options};

    const SEC: i64 = 1_000_000_000;

    fn state(dir: &std::path::Path) -> State {
        State::open(dir, Options::default()).unwrap()
    }

    fn options(first_after_ns: Option<i64>) -> ScheduleOptions {
        ScheduleOptions { first_after_ns, first_tag: "golden".to_owned(), waits: true, ..ScheduleOptions::default() }
    }

    /// Looks at the clock and makes durable what that brings.
    fn turn(schedule: &mut Schedule, clock_ns: i64) -> Progress {
        let meta: Vec<_> = schedule.turn(Some(clock_ns)).unwrap().meta.into_iter().collect();
        let commit = Commit { program: "plant".to_owned(), meta, ..Commit::default() };
        schedule.state.commit(commit, &schedule.signer).unwrap();
        Progress::read(&schedule.state.reader().unwrap(), "plant").unwrap().unwrap()
    }

    fn open(state: &State, options: ScheduleOptions) -> Schedule {
        Schedule::open(options, state.clone(), Arc::new(Signer::generate()), "plant", "live").unwrap()
    }

    #[test]
    fn a_first_baseline_that_was_not_made_is_waited_for_still() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(dir.path());
        let mut schedule = open(&state, ScheduleOptions { waits: false, ..options(Some(100 * SEC)) });
        assert_eq!(turn(&mut schedule, 0).percent(), Some(0));
        // The daemon is killed while it learns: what is stored then still waits.
        assert_eq!(turn(&mut schedule, 100 * SEC).percent(), Some(100));
        drop(schedule);
        let mut schedule = open(&state, options(Some(100 * SEC)));
        assert!(schedule.is_due(Some(100 * SEC)));
        // There is no sample, so the time begins again.
        assert_eq!(turn(&mut schedule, 100 * SEC).percent(), Some(0));
        // Another time counts from the same beginning.
        let mut schedule = open(&state, options(Some(50 * SEC)));
        assert_eq!(turn(&mut schedule, 125 * SEC).percent(), Some(50));
    }

    #[test]
    fn a_first_baseline_asked_for_later_is_waited_for_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(dir.path());
        assert_eq!(turn(&mut open(&state, options(None)), 0).percent(), None);
        let mut schedule = open(&state, options(Some(100 * SEC)));
        assert_eq!(turn(&mut schedule, 1_000 * SEC).percent(), Some(0));
        assert_eq!(turn(&mut schedule, 1_050 * SEC).percent(), Some(50));
        // Its tag names one meanwhile.
        let row = BaselineRow { version: 1, hash: Hash::of(b"stats"), meta: vec![] };
        let made = Commit {
            program: "plant".to_owned(),
            blobs: vec![(row.hash, b"stats".to_vec())],
            baselines: vec![row],
            tags: vec![("golden".to_owned(), 1)],
            ..Commit::default()
        };
        state.commit(made, &schedule.signer).unwrap();
        assert_eq!(turn(&mut schedule, 1_200 * SEC).percent(), None);
        assert_eq!(turn(&mut open(&state, options(Some(100 * SEC))), 1_300 * SEC).percent(), None);
    }
}
