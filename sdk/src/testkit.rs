//! The host in miniature: `cargo test` runs a plugin natively and sees what it did.
//!
//! Each test thread has its own host: a series table, a log, an output. Nothing here exists in a component.

pub mod host;
mod normalizer;
mod sink;
mod source;

pub use normalizer::{NormalizerKit, Report, Row, assert_pure};
pub use sink::SinkKit;
pub use source::{PollReport, SourceKit};

use crate::wit::types::Frames;

/// A frame to feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFrame {
    /// The payload.
    pub bytes: Vec<u8>,
    /// Where it comes from.
    pub origin: String,
    /// When it was received, in nanoseconds since the Unix epoch.
    pub received_ns: i64,
}

impl TestFrame {
    /// A frame from somewhere.
    pub fn from_origin(bytes: impl AsRef<[u8]>, origin: &str) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), origin: origin.to_owned(), received_ns: RECEIVED_NS }
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for TestFrame {
    fn from(bytes: &T) -> Self {
        Self::from_origin(bytes, "test")
    }
}

/// 2026-01-01T00:00:00Z, when every test frame is received unless it says otherwise.
pub const RECEIVED_NS: i64 = 1_767_225_600_000_000_000;

/// Frames in columns, as the host sends them.
pub fn columns(frames: &[TestFrame]) -> Frames {
    let mut columns = Frames { data: vec![], ends: vec![], received_ns: vec![], origin: vec![], origins: vec![] };
    for frame in frames {
        columns.data.extend_from_slice(&frame.bytes);
        columns.ends.push(columns.data.len() as u32);
        columns.received_ns.push(frame.received_ns);
        let known = columns.origins.iter().position(|o| *o == frame.origin);
        let origin = known.unwrap_or_else(|| {
            columns.origins.push(frame.origin.clone());
            columns.origins.len() - 1
        });
        columns.origin.push(origin as u16);
    }
    columns
}
