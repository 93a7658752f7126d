//! Goes on after the store failed: from what is really stored, with what was taken since.
//!
//! Whether the commit that failed is stored is not known before the store is open again. So what it was made from is
//! kept until a commit has succeeded: then nothing has to be read twice, and what a stream has given is not lost.

use std::collections::VecDeque;
use std::sync::Arc;

use hb_log::cbor;

use super::{Recorder, Step, cursor_name};
use crate::generation::Generation;
use crate::pipeline::PipelineError;
use crate::state::Commit;

/// What was taken and is not known to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames.
    pub frames: u64,
    /// Samples.
    pub samples: u64,
}

impl Recorder {
    /// Opens the store again, rebuilds the engine from it, takes again what is not stored, and commits that. When this
    /// fails too it can be tried again.
    pub fn recover(&mut self, generation: &Generation) -> Result<(), PipelineError> {
        self.state.reopen()?;
        let (state, signer) = (self.state.clone(), Arc::clone(&self.signer));
        let stored = Self::load(state, signer, generation, &self.lane, self.limits)?;
        let has_landed = self.has_landed(&stored)?;
        let before = std::mem::replace(self, stored);
        // Plugins at work know the series by the numbers of the table there is: it begins with what is stored.
        self.book = before.book;
        (self.bell, self.exports, self.schedule) = (before.bell, before.exports, before.schedule);
        self.commits = before.commits;
        self.watched_by(before.vitals);
        (self.taken, self.durable) = (before.taken, before.durable);
        if has_landed {
            self.taken.drain(..before.tried);
            self.durable.notable.extend(before.outcome.notable);
            self.durable.cases.extend(before.outcome.cases);
            // Whether there were documents is not known any more; a bell that rings for nothing does no harm.
            self.bell.iter().for_each(|bell| bell());
        }
        self.begin(generation, "the state store failed meanwhile")?;
        self.take_again()?;
        self.commit()
    }

    /// What was taken and is not known to be durable.
    pub fn taken(&self) -> Taken {
        self.taken.iter().fold(Taken::default(), |sum, step| match step {
            Step::Batch(batch) => Taken {
                frames: sum.frames + batch.frames.len() as u64,
                samples: sum.samples + batch.columns.len() as u64,
            },
            _ => sum,
        })
    }

    /// Whether the commit that was tried last is stored. One that holds neither an input nor a batch says so nowhere:
    /// it is made again.
    fn has_landed(&self, stored: &Recorder) -> Result<bool, PipelineError> {
        let stored_seq = stored.engine.seq();
        if stored_seq != self.durable_seq {
            let landed = stored_seq == self.engine.seq();
            return if landed { Ok(true) } else { Err(PipelineError::corrupt("journal", stored_seq)) };
        }
        if self.engine.seq() != self.durable_seq {
            return Ok(false);
        }
        let newest = self.taken[..self.tried].iter().rev().find_map(|step| match step {
            Step::Batch(batch) => Some((&*batch.source, &batch.cursor)),
            _ => None,
        });
        let Some((source, cursor)) = newest else { return Ok(false) };
        let stored = self.state.reader()?.cursor(&self.program, &cursor_name(&self.lane, source))?;
        Ok(stored.is_some_and(|stored| stored == cbor::encode(cursor)))
    }

    fn take_again(&mut self) -> Result<(), PipelineError> {
        if !self.taken.is_empty() && self.blocked().is_some() {
            // Each commit removes a slice of what may go, as of cases that were unpinned meanwhile.
            let (program, lane) = (self.program.clone(), self.lane.clone());
            self.state.commit(Commit { program, lane, ..Commit::default() }, &self.signer)?;
            self.tell_usage();
            if let Some(full) = self.blocked() {
                return Err(full.into());
            }
        }
        let mut left = VecDeque::from(std::mem::take(&mut self.taken));
        while let Some(step) = left.pop_front() {
            let taken = match step {
                // Whoever watches has been told of it.
                Step::Batch(batch) => {
                    let is_shed = self.put(*batch);
                    self.commit_when_large(is_shed)
                }
                Step::Tick(source, now_ns) => {
                    self.tick(&source, now_ns);
                    Ok(())
                }
                Step::Seal(source, cursor) => {
                    self.seal(&source, cursor);
                    Ok(())
                }
                Step::Refused { author, reason, why } => {
                    self.refuse(&author, &reason, &why);
                    Ok(())
                }
            };
            if taken.is_err() {
                // They wait for the next attempt, behind what this one has taken.
                self.taken.extend(left);
                return taken;
            }
        }
        Ok(())
    }
}
