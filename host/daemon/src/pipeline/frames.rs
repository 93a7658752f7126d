//! Raw frames as bytes: what arrived, kept so that a decision can be re-executed from the very beginning.

use hb_log::hash::Hash;

use crate::plugin::Frames;

use super::column::{self, Cut};

/// Frames per block at most, so that a reader needs bounded memory.
const BLOCK_FRAMES_MAX: u64 = 1 << 20;

/// Encodes a batch, behind the hash of the plugins' record that say what it means.
pub fn encode(frames: &Frames, unit: Hash) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.data_len() + frames.len() * 4 + 96);
    out.extend_from_slice(unit.as_bytes());
    column::put_varint(&mut out, frames.len() as u64);
    let received: Vec<i64> = frames.iter().map(|f| f.received_ns).collect();
    column::put_deltas(&mut out, &received);
    // Neighbours mostly share their origin: runs of (length, origin).
    let mut runs: Vec<(u64, &str)> = Vec::new();
    for f in frames.iter() {
        match runs.last_mut() {
            Some((n, origin)) if *origin == f.origin => *n += 1,
            _ => runs.push((1, f.origin)),
        }
    }
    for (n, origin) in runs {
        column::put_varint(&mut out, n);
        column::put_bytes(&mut out, origin.as_bytes());
    }
    for f in frames.iter() {
        column::put_varint(&mut out, f.bytes.len() as u64);
    }
    for f in frames.iter() {
        out.extend_from_slice(f.bytes);
    }
    out
}

/// Decodes a batch and its unit; `None` when the bytes are none.
pub fn decode(bytes: &[u8]) -> Option<(Frames, Hash)> {
    let mut cut = Cut(bytes);
    let unit = Hash::from_bytes(cut.array()?);
    let n = cut.varint().filter(|&n| n <= BLOCK_FRAMES_MAX)? as usize;
    let received = cut.deltas(n)?;
    let mut origins: Vec<(usize, String)> = Vec::new();
    let mut covered = 0;
    while covered < n {
        let run = usize::try_from(cut.varint()?).ok().filter(|&r| r > 0 && r <= n - covered)?;
        origins.push((run, String::from_utf8(cut.bytes()?.to_vec()).ok()?));
        covered += run;
    }
    let lengths = (0..n).map(|_| cut.varint().and_then(|l| usize::try_from(l).ok())).collect::<Option<Vec<_>>>()?;
    let mut frames = Frames::new();
    let mut origin = origins.iter().flat_map(|(run, origin)| std::iter::repeat_n(origin, *run));
    for (length, received_ns) in lengths.into_iter().zip(received) {
        frames.push(cut.take(length)?, received_ns, origin.next()?).ok()?;
    }
    cut.0.is_empty().then_some((frames, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_back_as_they_went_in() {
        let mut frames = Frames::new();
        for (bytes, t, origin) in [(&b"one"[..], 5, "a"), (b"", 3, "a"), (b"\xff\x00", i64::MAX, "b"), (b"x", 0, "a")] {
            frames.push(bytes, t, origin).unwrap();
        }
        let unit = Hash::of(b"unit");
        assert!(decode(&encode(&frames, unit)).is_some_and(|back| back == (frames, unit)));
        assert!(decode(&encode(&Frames::new(), unit)).is_some_and(|(f, _)| f.is_empty()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
