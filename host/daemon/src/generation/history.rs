//! What became active when, by whom and why, and what was refused: for people; the signed log holds the same for proof.

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::state::{Reader, StateError};

/// Swaps that are remembered: more than anyone scrolls through, about 16 kB.
const SWAPS_MAX: usize = 64;

/// Name of the value that holds them.
const NAME: &str = "generations";

/// Bytes of a text that somebody gave, at most.
const TEXT_BYTES: usize = 1_024;

/// One attempt to make a generation active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// When, ns.
    pub time_ns: i64,
    /// What became active; nothing when it was refused.
    pub generation: Option<Hash>,
    /// What was active before.
    pub before: Option<Hash>,
    /// Who wanted it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Why it was refused.
    pub refused: Option<String>,
}

impl Swap {
    /// One that became active now.
    pub fn active(generation: Hash, before: Option<Hash>, author: &str, reason: &str) -> Self {
        let generation = Some(generation);
        Swap { time_ns: clock::now_ns(), generation, before, author: cut(author), reason: cut(reason), refused: None }
    }

    /// One that was refused now.
    pub fn refused(author: &str, reason: &str, why: &str) -> Self {
        let (author, reason, refused) = (cut(author), cut(reason), Some(cut(why)));
        Swap { time_ns: clock::now_ns(), generation: None, before: None, author, reason, refused }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES)].to_owned()
}

/// The newest swaps of a program, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    v: u8,
    /// The swaps.
    pub swaps: Vec<Swap>,
}

impl History {
    /// What is stored; nothing for a program without a history.
    pub fn load(reader: &Reader, program: &str) -> Result<History, StateError> {
        let bytes = reader.meta(program, NAME)?;
        // It is for people: one that cannot be read begins anew.
        Ok(bytes.and_then(|bytes| cbor::decode(&bytes).ok()).unwrap_or(History { v: 1, swaps: Vec::new() }))
    }

    /// Adds the newest; the oldest goes when there are too many.
    pub fn push(&mut self, swap: Swap) {
        if self.swaps.len() >= SWAPS_MAX {
            self.swaps.remove(0);
        }
        self.swaps.push(swap);
    }

    /// As it is stored.
    pub fn to_meta(&self) -> (String, Vec<u8>) {
        (NAME.to_owned(), cbor::encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_swaps_are_kept() {
        let mut history = History::default();
        for n in 0..SWAPS_MAX + 3 {
            history.push(Swap::refused("a", &n.to_string(), &"ü".repeat(TEXT_BYTES)));
        }
        assert_eq!((history.swaps.len(), history.swaps[0].reason.as_str()), (SWAPS_MAX, "3"));
        assert_eq!(history.swaps[0].refused.as_ref().unwrap().len(), TEXT_BYTES);
    }
}
