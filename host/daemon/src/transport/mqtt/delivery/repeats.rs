//! What a broker that does not mark repetitions may send again: recognised by content, at the start of a connection.
//!
//! A broker begins a resumed session with what was not acknowledged, and that is never more than its in-flight window.
//! So a message among the first of a connection, as many as the window has, that equals one of those is its repetition.
//! Later ones are new, whatever they say. Two messages of one content are told apart by their number: as many as there
//! were are taken for repetitions. What this cannot tell from a repetition is a new message of the same content that
//! comes in place of one whose acknowledgement had just arrived: where payloads carry no time or number, leave it off.

use std::collections::{BTreeMap, VecDeque};

use super::Digest;

/// A message that may come again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) hash: Digest,
    /// Of the message; 0 for one that an earlier process handed out.
    pub(super) number: u64,
    /// Packet id under which it is stored.
    pub(super) stored_as: u16,
}

#[derive(Debug)]
pub(super) struct Repeats {
    /// None for a broker that marks.
    window: Option<u32>,
    /// Messages of this connection that may still be repetitions.
    left: u32,
    waiting: BTreeMap<Digest, VecDeque<Repeat>>,
}

impl Repeats {
    pub(super) fn new(window: Option<u32>) -> Self {
        Repeats { window, left: 0, waiting: BTreeMap::new() }
    }

    pub(super) fn is_used(&self) -> bool {
        self.window.is_some()
    }

    /// A connection begins, and these may come again on it; so may those that did not come on the one before.
    pub(super) fn expect(&mut self, repeats: impl Iterator<Item = Repeat>) {
        self.left = self.window.unwrap_or_default();
        for repeat in repeats {
            self.waiting.entry(repeat.hash).or_default().push_back(repeat);
        }
    }

    /// The session is another one.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// The message this one repeats.
    pub(super) fn take(&mut self, hash: &Digest) -> Option<Repeat> {
        if self.left == 0 {
            return None;
        }
        let of_this = self.waiting.get_mut(hash)?;
        let first = of_this.pop_front();
        if of_this.is_empty() {
            self.waiting.remove(hash);
        }
        self.left = self.left.saturating_sub(1);
        first
    }

    /// A new message came. Once a whole window has come nothing comes again: the broker knew of the acknowledgements of
    /// what is left, whose stored entries may go.
    pub(super) fn pass(&mut self) -> Vec<u16> {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 || self.waiting.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting).into_values().flatten().map(|repeat| repeat.stored_as).collect()
    }
}
