//! A transport is a way for bytes to come in; the host owns it, a source plugin only sees what it brought.
//!
//! Transports form a closed set: adding one makes the compiler list every place to think about. Each hands out
//! [`RawFrames`], and [`Transport::position`] says what has been handed out, to be committed together with the samples
//! that were made of it.

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub mod file;

pub use file::{FileError, FileEvent, FileOptions, FileTransport};

/// Frames as they came, in one piece of memory that is used again for the next batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawFrames {
    /// The bytes of all frames, one after the other, without what separated them.
    pub data: Vec<u8>,
    /// Where each frame ends in `data`.
    pub ends: Vec<u32>,
    /// Where each frame began in its origin: the byte offset in a file.
    pub offsets: Vec<u64>,
}

impl RawFrames {
    /// Number of frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of the frame with this index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.data.get(start..end)
    }

    /// All frames in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Forgets the frames but keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.offsets.clear();
    }

    fn push(&mut self, offset: u64, frame: &[u8]) {
        self.data.extend_from_slice(frame);
        self.ends.push(self.data.len() as u32);
        self.offsets.push(offset);
    }
}

/// What a call to [`Transport::read`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There are frames.
    Frames,
    /// Something happened between two frames; no frames this time.
    Event(FileEvent),
    /// A frame that is too long is being passed over; read again.
    Skipping,
    /// Nothing now, perhaps later.
    Idle,
    /// Nothing any more.
    End,
}

/// What a transport is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportOptions {
    /// Lines of a file.
    File(FileOptions),
}

/// An open transport.
#[derive(Debug)]
pub enum Transport {
    /// Lines of a file.
    File(FileTransport),
}

/// How far a transport has been read. It is stored with the samples and handed back at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Of a file.
    File(file::FilePosition),
}

/// A stored position that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// It was written by a newer hb.
    #[error("the resume position has version {0}; this hb reads up to {POSITION_VERSION}")]
    Version(u32),
    /// It is damaged.
    #[error("the resume position is damaged")]
    Damaged(#[from] serde_json::Error),
}

/// Version of a stored position.
const POSITION_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    v: u32,
    at: P,
}

impl Position {
    /// The bytes that are stored: JSON, since they also go into readable exports.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain structs of numbers and texts always serialise.
        serde_json::to_vec(&Stored { v: POSITION_VERSION, at: self }).unwrap_or_default()
    }

    /// Reads stored bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Position, PositionError> {
        let stored: Stored<serde_json::Value> = serde_json::from_slice(bytes)?;
        if stored.v != POSITION_VERSION {
            return Err(PositionError::Version(stored.v));
        }
        Ok(serde_json::from_value(stored.at)?)
    }

    /// Counts how often the origin began anew; part of the cursor's key.
    pub fn epoch(&self) -> u64 {
        match self {
            Position::File(p) => p.epoch,
        }
    }
}

impl Transport {
    /// Opens a transport at its start, or where it was left.
    pub fn open(options: TransportOptions, resume: Option<&Position>) -> Result<Transport, FileError> {
        match options {
            TransportOptions::File(options) => {
                let resume = resume.map(|Position::File(p)| p);
                FileTransport::open(options, resume).map(Transport::File)
            }
        }
    }

    /// Replaces the content of `out` with the next frames: at most `max_frames`, and at most `max_bytes` unless a single
    /// frame has more.
    pub fn read(&mut self, max_frames: usize, max_bytes: usize, out: &mut RawFrames) -> Result<Progress, FileError> {
        match self {
            Transport::File(file) => file.read(max_frames, max_bytes, out),
        }
    }

    /// Waits until there may be something to read; false when the deadline came first.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, FileError> {
        match self {
            Transport::File(file) => file.wait_growth(deadline),
        }
    }

    /// The position behind everything that has been handed out.
    pub fn position(&self) -> Position {
        match self {
            Transport::File(file) => Position::File(file.position()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_position_is_read_by_later_versions() {
        let stored = br#"{"v":1,"at":{"file":{"dev":65024,"ino":131,"head_len":3,"head":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","offset":18446744073709551615,"epoch":2}}}"#;
        let position = Position::from_bytes(stored).unwrap();
        let Position::File(p) = &position;
        assert_eq!((p.identity.dev, p.identity.ino, p.offset, position.epoch()), (65024, 131, u64::MAX, 2));
        assert_eq!(position.to_bytes(), stored);
        let newer = br#"{"v":2,"at":{"file":{}}}"#;
        assert!(matches!(Position::from_bytes(newer), Err(PositionError::Version(2))));
        assert!(matches!(Position::from_bytes(b"{"), Err(PositionError::Damaged(_))));
    }

    #[test]
    fn frames_lie_one_after_the_other() {
        let mut frames = RawFrames::default();
        frames.push(0, b"ab");
        frames.push(3, b"");
        frames.push(4, b"c");
        assert_eq!(frames.iter().collect::<Vec<_>>(), [b"ab".as_slice(), b"", b"c"]);
        assert_eq!((frames.get(3), frames.len(), frames.is_empty()), (None, 3, false));
        frames.clear();
        assert!(frames.is_empty() && frames.data.capacity() > 0);
    }
}
