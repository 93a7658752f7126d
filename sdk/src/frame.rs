//! A frame is bytes before they have meaning; a batch is many of them in three columns.

use crate::wit::types::Frames;
use std::fmt;

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Index in its batch.
    pub index: u32,
    /// The payload.
    pub bytes: &'a [u8],
    /// Where it came from: a topic, a peer, a file.
    pub origin: &'a str,
    /// When the host received it, in nanoseconds since the Unix epoch.
    pub received_ns: i64,
}

impl<'a> Frame<'a> {
    /// The payload as text.
    pub fn text(&self) -> Result<&'a str, NotText> {
        std::str::from_utf8(self.bytes).map_err(|e| NotText { offset: e.valid_up_to() })
    }
}

/// The payload is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText {
    /// Where the first wrong byte lies.
    pub offset: usize,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not UTF-8 at byte {}", self.offset)
    }
}

impl std::error::Error for NotText {}

/// The frames of one call: `for frame in batch`.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    columns: &'a Frames,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(columns: &'a Frames) -> Self {
        Self { columns }
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.columns.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.ends.is_empty()
    }

    /// Frame `index`.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn get(&self, index: usize) -> Frame<'a> {
        let c = self.columns;
        let start = if index == 0 { 0 } else { c.ends[index - 1] as usize };
        Frame {
            index: index as u32,
            bytes: &c.data[start..c.ends[index] as usize],
            origin: &c.origins[usize::from(c.origin[index])],
            received_ns: c.received_ns[index],
        }
    }

    /// The frames in order.
    pub fn iter(&self) -> FrameIter<'a> {
        FrameIter { batch: *self, next: 0 }
    }
}

impl<'a> IntoIterator for &Batch<'a> {
    type Item = Frame<'a>;
    type IntoIter = FrameIter<'a>;

    fn into_iter(self) -> FrameIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for Batch<'a> {
    type Item = Frame<'a>;
    type IntoIter = FrameIter<'a>;

    fn into_iter(self) -> FrameIter<'a> {
        self.iter()
    }
}

/// The frames of a batch in order.
pub struct FrameIter<'a> {
    batch: Batch<'a>,
    next: usize,
}

impl<'a> Iterator for FrameIter<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let frame = (self.next < self.batch.len()).then(|| self.batch.get(self.next))?;
        self.next += 1;
        Some(frame)
    }
}
