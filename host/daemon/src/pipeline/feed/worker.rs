//! Gives frames their meaning, a batch at a time.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use hb_log::hash::Hash;

use super::{Cut, Job, Message, refused};
use crate::pipeline::journal::Columns;
use crate::pipeline::{Faulted, Normalized, Stage};
use crate::plugin::NormalizerInstance;

/// Of this many frames one is normalized again, alone and on a fresh instance, to see that it gives the same.
const PROBE_EVERY: u64 = 65_536;

/// Runs one normalizer instance.
pub(super) struct Worker {
    pub(super) source: Arc<str>,
    pub(super) unit: Hash,
    pub(super) plugin: String,
    pub(super) instance: NormalizerInstance,
}

impl Worker {
    pub(super) fn run(mut self, jobs: &Receiver<Job>, out: &Sender<Message>) {
        for job in jobs {
            let message = match job {
                Job::Batch(cut) => Message::Batch(Box::new(self.normalize(*cut))),
                Job::Swapped => Message::Swapped,
                Job::Ended => Message::Ended,
                Job::Failed(e) => Message::Failed(e),
            };
            if out.send(message).is_err() {
                return;
            }
        }
    }

    fn normalize(&mut self, cut: Cut) -> Normalized {
        let Cut { first, frames, refused: mut refused_so_far, mut faults, deliveries, cursor } = cut;
        let mut outcome = self.instance.run(&frames);
        let probe = first.next_multiple_of(PROBE_EVERY).wrapping_sub(first);
        if probe < frames.len() as u64
            && let Err(fault) = self.instance.probe(&frames, &outcome, [probe as usize])
        {
            outcome.condemn(probe as u32, fault);
        }
        let bytes = |i: u32| frames.get(i as usize).map_or(&[][..], |f| f.bytes);
        for reject in &outcome.rejects {
            let ordinal = first + u64::from(reject.frame);
            refused_so_far.push(refused(&self.plugin, &reject.reason, ordinal, bytes(reject.frame)));
        }
        for (frame, fault) in &outcome.faults {
            faults.push(Faulted {
                plugin: self.plugin.clone(),
                stage: Stage::Normalizer,
                ordinal: first + u64::from(*frame),
                cause: fault.to_string(),
                frame: bytes(*frame).to_vec(),
            });
        }
        let columns = Columns {
            source: self.source.to_string(),
            ordinal: outcome.frame.iter().map(|&f| first + u64::from(f)).collect(),
            series: outcome.series,
            time_ns: outcome.time_ns,
            value: outcome.value,
        };
        Normalized {
            source: Arc::clone(&self.source),
            unit: self.unit,
            first,
            columns,
            events: outcome.events,
            ignored: outcome.ignored.into(),
            refused: refused_so_far,
            faults,
            deliveries,
            cursor,
            frames,
        }
    }
}
