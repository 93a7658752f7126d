//! Runs units through a recorder: one after the other when their sources end, side by side when they do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hb_log::cbor;

use super::feed::{Feed, FeedLimits, Next};
use super::record::{Outcome, Recorder, cursor_name};
use super::{Cursor, PipelineError};
use crate::generation::Unit;

/// How long a turn waits for a batch when several sources run side by side, ms.
const TURN_MS: u64 = 5;

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
    program: &str,
    lane: &str,
    units: &[Unit],
    limits: FeedLimits,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<(), PipelineError> {
    for unit in units {
        let resume = resume(recorder, program, lane, &unit.name)?;
        let mut feed = Feed::start(unit, &recorder.book(), resume.as_ref(), limits)?;
        let mut last = resume;
        loop {
            if stop.load(Ordering::Relaxed) {
                return recorder.commit();
            }
            if !turn(recorder, &mut feed, &mut last, Duration::from_millis(TURN_MS * 10), watch)? {
                break;
            }
        }
        end(recorder, lane, unit, last);
        recorder.commit()?;
        report(recorder, watch)?;
    }
    recorder.checkpoint()
}

/// Runs the units side by side until told to stop.
pub fn run_forever(
    recorder: &mut Recorder,
    program: &str,
    lane: &str,
    units: &[Unit],
    limits: FeedLimits,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<(), PipelineError> {
    let mut feeds = Vec::new();
    for unit in units {
        let resume = resume(recorder, program, lane, &unit.name)?;
        feeds.push((unit, Some(Feed::start(unit, &recorder.book(), resume.as_ref(), limits)?), resume));
    }
    while !stop.load(Ordering::Relaxed) {
        for (unit, feed, last) in &mut feeds {
            let Some(running) = feed else { continue };
            if !turn(recorder, running, last, Duration::from_millis(TURN_MS), watch)? {
                *feed = None;
                end(recorder, lane, unit, last.take());
            }
        }
        if feeds.iter().all(|f| f.1.is_none()) {
            break;
        }
    }
    recorder.checkpoint()?;
    report(recorder, watch)
}

/// Takes what a feed has; false at the end of its source.
fn turn(
    recorder: &mut Recorder,
    feed: &mut Feed,
    last: &mut Option<Cursor>,
    wait: Duration,
    watch: &mut dyn Watch,
) -> Result<bool, PipelineError> {
    match feed.next(Instant::now() + wait) {
        Next::Batch(batch) => {
            watch.progress(&batch.source, batch.frames.len() as u64, batch.columns.len() as u64);
            *last = Some(batch.cursor.clone());
            recorder.take(*batch)?;
        }
        Next::Idle => {}
        Next::Ended => return Ok(false),
        Next::Failed(e) => return Err(e),
    }
    recorder.commit_when_due()?;
    if let Some(cursor) = last.as_ref().and_then(|c| c.plugin.clone()) {
        feed.committed(cursor);
    }
    report(recorder, watch)?;
    Ok(true)
}

/// Judges what is complete, once per end of a source.
fn end(recorder: &mut Recorder, lane: &str, unit: &Unit, last: Option<Cursor>) {
    let Some(mut cursor) = last.filter(|c| !c.ended) else { return };
    recorder.seal(&unit.name);
    cursor.ended = true;
    let name = cursor_name(lane, &unit.name);
    let cursors = &mut recorder.pending().cursors;
    cursors.retain(|c| c.0 != name);
    cursors.push((name, cbor::encode(&cursor)));
}

fn report(recorder: &mut Recorder, watch: &mut dyn Watch) -> Result<(), PipelineError> {
    let outcome = recorder.outcome();
    if outcome.notable.is_empty() && outcome.cases.is_empty() { Ok(()) } else { watch.committed(recorder, outcome) }
}

fn resume(recorder: &Recorder, program: &str, lane: &str, source: &str) -> Result<Option<Cursor>, PipelineError> {
    let bytes = recorder.state().reader()?.cursor(program, &cursor_name(lane, source))?;
    bytes.map(|b| cbor::decode(&b).map_err(|e| PipelineError::corrupt("cursor", e))).transpose()
}
