//! Feeds an inbox to a source the way the host does: what was not taken comes again.

use super::{TestFrame, columns};
use crate::source::{Source, poll};
use crate::wit::types::{Fault, Reject};

/// What one poll yielded.
#[derive(Clone, Debug, PartialEq)]
pub struct PollReport {
    /// The frames made.
    pub frames: Vec<TestFrame>,
    /// The rejects; `frame` is the index in the inbox.
    pub rejects: Vec<Reject>,
    /// How many frames of the inbox were taken in whole.
    pub taken: usize,
    /// The resume position, if it changed.
    pub cursor: Option<Vec<u8>>,
    /// When to poll again.
    pub next_poll_ms: u32,
}

impl PollReport {
    /// The frames as text.
    ///
    /// # Panics
    /// If one is not UTF-8.
    pub fn texts(&self) -> Vec<&str> {
        self.frames.iter().map(|f| std::str::from_utf8(&f.bytes).unwrap_or_else(|e| panic!("{e}"))).collect()
    }
}

/// A source under test.
pub struct SourceKit<S> {
    plugin: S,
}

impl<S: Source> SourceKit<S> {
    /// Configures and opens a plugin.
    pub fn new(settings: &str, resume: Option<&[u8]>) -> Result<Self, Fault> {
        let mut plugin = S::configure(settings)?;
        plugin.open(resume)?;
        Ok(Self { plugin })
    }

    /// Polls once with limits that do not matter.
    pub fn poll(&mut self, inbox: &[TestFrame]) -> Result<PollReport, Fault> {
        self.poll_limited(inbox, u32::MAX, u32::MAX)
    }

    /// Polls once and checks that the answer keeps the contract.
    ///
    /// # Panics
    /// If it does not.
    pub fn poll_limited(&mut self, inbox: &[TestFrame], max_frames: u32, max_bytes: u32) -> Result<PollReport, Fault> {
        let answer = poll(&mut self.plugin, columns(inbox), max_frames, max_bytes)?;
        let b = &answer.batch;
        assert!(
            b.ends.is_sorted() && b.ends.last().is_none_or(|&e| e as usize == b.data.len()),
            "ends do not fit data"
        );
        assert_eq!(b.ends.len(), b.received_ns.len());
        assert_eq!(b.ends.len(), b.origin.len());
        assert!(b.ends.len() <= 1 || (b.ends.len() <= max_frames as usize && b.data.len() <= max_bytes as usize));
        assert_eq!(answer.consumed.len(), inbox.len(), "one entry per inbox frame");
        let short = |i: &usize| answer.consumed[*i] < inbox[*i].bytes.len() as u64;
        let taken = (0..inbox.len()).find(short).unwrap_or(inbox.len());
        assert!(answer.consumed.iter().skip(taken + 1).all(|&n| n == 0), "took frames behind one it left");
        assert!(answer.consumed.iter().zip(inbox).all(|(&n, f)| n <= f.bytes.len() as u64), "took more than there is");
        assert!(answer.rejects.is_sorted_by(|a, b| a.frame < b.frame), "rejects repeat or fall");
        assert!(answer.rejects.iter().all(|r| (r.frame as usize) < taken), "rejected a frame it left");
        let batch = crate::frame::Batch::new(b);
        let frames = batch.iter().map(|f| TestFrame {
            bytes: f.bytes.to_vec(),
            origin: f.origin.to_owned(),
            received_ns: f.received_ns,
        });
        Ok(PollReport {
            frames: frames.collect(),
            rejects: answer.rejects,
            taken,
            cursor: answer.cursor,
            next_poll_ms: answer.next_poll_ms,
        })
    }
}
