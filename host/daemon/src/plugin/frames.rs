//! A batch of frames in columns: the bytes in one piece, and per frame its end, receive time and origin.

use std::collections::HashMap;
use std::ops::Range;

use super::bindings::hb::plugin::types::{FramesParam, FramesResult};

/// Frames in arrival order. Frame `i` is `data[ends[i-1]..ends[i]]`.
///
/// Fields are private because they depend on each other: ends never fall, the columns are equally long, and every
/// origin index names an origin.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    data: Vec<u8>,
    ends: Vec<u32>,
    received_ns: Vec<i64>,
    origin: Vec<u16>,
    origins: Vec<String>,
    // Only for `push`: the place of each origin in `origins`.
    index: HashMap<String, u16>,
}

/// Equal are batches with equal frames, however their origins are numbered.
impl PartialEq for Frames {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// One frame of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// When the host received it, nanoseconds since the Unix epoch.
    pub received_ns: i64,
    /// Where it came from: a topic, a file, an address.
    pub origin: &'a str,
}

/// A frame or an origin did not fit into this batch: close it and begin the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch is full: it holds at most 4 GiB and 65,536 origins")]
pub struct BatchFull;

impl Frames {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame.
    pub fn push(&mut self, bytes: &[u8], received_ns: i64, origin: &str) -> Result<(), BatchFull> {
        let end = u32::try_from(self.data.len() + bytes.len()).map_err(|_| BatchFull)?;
        let origin = self.origin_index(origin)?;
        self.data.extend_from_slice(bytes);
        self.ends.push(end);
        self.received_ns.push(received_ns);
        self.origin.push(origin);
        Ok(())
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all frames together.
    pub fn data_len(&self) -> usize {
        self.data.len()
    }

    /// Frame `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<Frame<'_>> {
        (i < self.len()).then(|| Frame {
            bytes: &self.data[self.start(i)..self.ends[i] as usize],
            received_ns: self.received_ns[i],
            origin: &self.origins[self.origin[i] as usize],
        })
    }

    /// All frames in order.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Bytes of frame `i`.
    pub(crate) fn frame_len(&self, i: usize) -> usize {
        self.ends[i] as usize - self.start(i)
    }

    /// Appends all frames of `other`.
    pub(crate) fn append(&mut self, other: Frames) -> Result<(), BatchFull> {
        if self.is_empty() {
            *self = other;
            return Ok(());
        }
        for frame in other.iter() {
            self.push(frame.bytes, frame.received_ns, frame.origin)?;
        }
        Ok(())
    }

    /// Forgets all frames and origins, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.received_ns.clear();
        self.origin.clear();
        self.origins.clear();
        self.index.clear();
    }

    /// Calls `f` with the guest's view of the frames in `range`: bytes and times are borrowed. A part of the batch gets
    /// its own ends and the origins it needs, so that it looks the same whatever batch it was cut from.
    pub(crate) fn view<R>(&self, range: Range<usize>, f: impl FnOnce(FramesParam<'_>) -> R) -> R {
        if range == (0..self.len()) {
            let origins: Vec<&str> = self.origins.iter().map(String::as_str).collect();
            return f(FramesParam {
                data: &self.data,
                ends: &self.ends,
                received_ns: &self.received_ns,
                origin: &self.origin,
                origins: &origins,
            });
        }
        let start = self.start(range.start);
        let ends: Vec<u32> = self.ends[range.clone()].iter().map(|e| e - start as u32).collect();
        let end = start + ends.last().copied().unwrap_or(0) as usize;
        let mut origins: Vec<&str> = Vec::new();
        let mut renumbered: Vec<Option<u16>> = vec![None; self.origins.len()];
        let origin: Vec<u16> = self.origin[range.clone()]
            .iter()
            .map(|&old| {
                *renumbered[old as usize].get_or_insert_with(|| {
                    origins.push(&self.origins[old as usize]);
                    (origins.len() - 1) as u16
                })
            })
            .collect();
        f(FramesParam {
            data: &self.data[start..end],
            ends: &ends,
            received_ns: &self.received_ns[range],
            origin: &origin,
            origins: &origins,
        })
    }

    /// Takes over what a guest returned, or says in which way it is malformed.
    pub(crate) fn from_guest(f: FramesResult) -> Result<Self, String> {
        let n = f.ends.len();
        if f.received_ns.len() != n || f.origin.len() != n {
            return Err(format!(
                "frame columns of unequal length: {n} ends, {} receive times, {} origins",
                f.received_ns.len(),
                f.origin.len()
            ));
        }
        if let Some(i) = f.ends.windows(2).position(|w| w[0] > w[1]) {
            return Err(format!("the end of frame {} falls from {} to {}", i + 1, f.ends[i], f.ends[i + 1]));
        }
        let last = f.ends.last().copied().unwrap_or(0) as usize;
        if last != f.data.len() {
            return Err(format!("the last frame ends at byte {last} of {}", f.data.len()));
        }
        if f.origins.len() > usize::from(u16::MAX) + 1 {
            return Err(format!("{} origins; at most 65,536 are allowed", f.origins.len()));
        }
        if let Some(i) = f.origin.iter().position(|&o| o as usize >= f.origins.len()) {
            return Err(format!("frame {i} names origin {} of {}", f.origin[i], f.origins.len()));
        }
        let index = f.origins.iter().enumerate().map(|(i, o)| (o.clone(), i as u16)).collect();
        Ok(Frames {
            data: f.data,
            ends: f.ends,
            received_ns: f.received_ns,
            origin: f.origin,
            origins: f.origins,
            index,
        })
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] as usize }
    }

    fn origin_index(&mut self, origin: &str) -> Result<u16, BatchFull> {
        // Consecutive frames mostly share their origin.
        if let Some(&last) = self.origin.last()
            && self.origins[last as usize] == origin
        {
            return Ok(last);
        }
        if let Some(&i) = self.index.get(origin) {
            return Ok(i);
        }
        let i = u16::try_from(self.origins.len()).map_err(|_| BatchFull)?;
        self.origins.push(origin.to_owned());
        self.index.insert(origin.to_owned(), i);
        Ok(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Frames {
        let mut f = Frames::new();
        f.push(b"ab", 1, "x").unwrap();
        f.push(b"", 2, "y").unwrap();
        f.push(b"cde", 3, "x").unwrap();
        f
    }

    #[test]
    fn frames_keep_bytes_times_and_origins() {
        let f = three();
        let all: Vec<_> = f.iter().map(|f| (f.bytes.to_vec(), f.received_ns, f.origin.to_owned())).collect();
        assert_eq!(
            all,
            [(b"ab".to_vec(), 1, "x".into()), (b"".to_vec(), 2, "y".into()), (b"cde".to_vec(), 3, "x".into())]
        );
        assert_eq!((f.len(), f.data_len(), f.get(3)), (3, 5, None));
    }

    #[test]
    fn a_view_looks_the_same_whatever_it_was_cut_from() {
        three().view(1..3, |v| {
            assert_eq!((v.data, v.ends, v.received_ns), (&b"cde"[..], &[0, 3][..], &[2, 3][..]));
            assert_eq!((v.origin, v.origins), (&[0, 1][..], &["y", "x"][..]));
        });
        three().view(2..3, |v| assert_eq!((v.data, v.origin, v.origins), (&b"cde"[..], &[0][..], &["x"][..])));
        three().view(0..3, |v| {
            assert_eq!((v.data, v.origin, v.origins), (&b"abcde"[..], &[0, 1, 0][..], &["x", "y"][..]));
        });
        three().view(0..0, |v| assert!(v.data.is_empty() && v.ends.is_empty()));
        three().view(2..2, |v| assert!(v.data.is_empty() && v.ends.is_empty()));
    }

    #[test]
    fn malformed_frames_of_a_guest_are_named() {
        let good = || FramesResult {
            data: b"abc".to_vec(),
            ends: vec![1, 3],
            received_ns: vec![0, 0],
            origin: vec![0, 0],
            origins: vec!["x".into()],
        };
        assert_eq!(Frames::from_guest(good()).unwrap().len(), 2);
        let mut f = good();
        f.ends = vec![3, 1];
        assert_eq!(Frames::from_guest(f).unwrap_err(), "the end of frame 1 falls from 3 to 1");
        let mut f = good();
        f.ends = vec![1, 2];
        assert_eq!(Frames::from_guest(f).unwrap_err(), "the last frame ends at byte 2 of 3");
        let mut f = good();
        f.origin = vec![0, 1];
        assert_eq!(Frames::from_guest(f).unwrap_err(), "frame 1 names origin 1 of 1");
        let mut f = good();
        f.received_ns = vec![0];
        assert!(Frames::from_guest(f).unwrap_err().contains("unequal length"));
    }
}
