//! Runs units whose sources end through a recorder, in the order of event time, so that a run can be repeated.

use std::time::{Duration, Instant};

use super::feed::{FeedLimits, Next};
use super::merge::Taking;
use super::record::Recorder;
use super::source::{Running, Watch, end, report};
use super::{Cursor, PipelineError};
use crate::generation::Unit;

/// Longest wait for a batch before somebody may say stop, ms.
const TURN_MS: u64 = 100;

/// Runs the units until their sources have ended, or `stop` says so. A source that fails ends, and is the error when the
/// others have ended.
pub fn run(
    recorder: &mut Recorder,
    units: &[Unit],
    limits: FeedLimits,
    stop: &dyn Fn() -> bool,
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
        if let Some(e) = fill(recorder, &mut files, stop, watch)? {
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
    stop: &dyn Fn() -> bool,
    watch: &mut dyn Watch,
) -> Result<Option<Interrupted>, PipelineError> {
    let mut at = 0;
    while let Some(file) = files.get_mut(at) {
        if file.taking.is_some() {
            at += 1;
            continue;
        }
        if stop() {
            return Ok(Some(Interrupted::Stop));
        }
        match file.running.feed.next(Instant::now() + Duration::from_millis(TURN_MS)) {
            Next::Batch(batch) => {
                let before = file.running.last.clone().unwrap_or(Cursor { v: 1, ..Cursor::default() });
                file.taking = Taking::begin(*batch, &before);
            }
            Next::Idle | Next::Swapped => {
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
