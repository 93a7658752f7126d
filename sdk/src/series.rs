//! A series is a metric with labels and a unit, named once and then known by a number.

use crate::wit::types::{Attribute, SeriesKind};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// An id of the host for a series. Idempotent to get, and nothing to compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series(pub(crate) u32);

impl Series {
    /// The number itself; for those who write columns by hand.
    #[doc(hidden)]
    pub fn raw(self) -> u32 {
        self.0
    }
}

/// The id of a series, by a call to the host: do it once and keep the id, or use [`SeriesTable`].
///
/// The error is a text for a reject: a name is illegal, or a cap on series is reached.
pub fn define(metric: &str, unit: &str, kind: SeriesKind, labels: &[(&str, &str)]) -> Result<Series, String> {
    let labels: Vec<Attribute> =
        labels.iter().map(|&(key, value)| Attribute { key: key.to_owned(), value: value.to_owned() }).collect();
    host::define(metric, unit, kind, &labels).map(Series)
}

/// The code of a text in a state series, by a call to the host.
pub fn state_code(series: Series, text: &str) -> Result<f64, String> {
    host::state_code(series.0, text)
}

/// Remembers ids, so that a normalizer calls the host once per series and not once per sample.
///
/// Looking up a known series allocates nothing. Refusals are not remembered, so a raised cap works at once and
/// hostile names cannot fill the plugin's memory.
#[derive(Default)]
pub struct SeriesTable {
    ids: HashMap<Box<[u8]>, Series, BuildHasherDefault<ByteHasher>>,
    codes: HashMap<Box<[u8]>, f64, BuildHasherDefault<ByteHasher>>,
    key: Vec<u8>,
}

impl SeriesTable {
    /// The id of a series. Labels in another order are the same series to the host, and two entries here.
    pub fn id(
        &mut self,
        metric: &str,
        unit: &str,
        kind: SeriesKind,
        labels: &[(&str, &str)],
    ) -> Result<Series, String> {
        self.key.clear();
        self.key.push(kind as u8);
        for text in [metric, unit].into_iter().chain(labels.iter().flat_map(|&(k, v)| [k, v])) {
            push_text(&mut self.key, text);
        }
        if let Some(&id) = self.ids.get(self.key.as_slice()) {
            return Ok(id);
        }
        let id = define(metric, unit, kind, labels)?;
        self.ids.insert(self.key.as_slice().into(), id);
        Ok(id)
    }

    /// The code of a text in a state series.
    pub fn code(&mut self, series: Series, text: &str) -> Result<f64, String> {
        self.key.clear();
        self.key.extend_from_slice(&series.0.to_le_bytes());
        self.key.extend_from_slice(text.as_bytes());
        if let Some(&code) = self.codes.get(self.key.as_slice()) {
            return Ok(code);
        }
        let code = state_code(series, text)?;
        self.codes.insert(self.key.as_slice().into(), code);
        Ok(code)
    }
}

/// Length first, so that no two lists of texts make the same key.
fn push_text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

/// The rustc (Fx) hash over 8-byte words: several times cheaper than SipHash in wasm. It has no defence against crafted
/// collisions; those cost the attacker's own plugin its fuel and nothing else, because no output depends on the order.
#[derive(Default)]
pub struct ByteHasher(u64);

impl ByteHasher {
    const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;

    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(Self::SEED);
    }
}

impl Hasher for ByteHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        // One by one: in a guest a call to copy so few costs more.
        let last = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        self.add(last ^ ((rest.len() as u64) << 60));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes the top bits for its tags and the low bits for the bucket; multiplication leaves the low weak.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::wit::series::{define, state_code};
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) use crate::testkit::host::{define, state_code};
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::testkit::host;

    #[test]
    fn a_series_is_asked_for_once_and_a_refusal_each_time() {
        host::reset();
        host::set_max_series(2);
        let mut table = SeriesTable::default();
        let mut id = |metric: &str, asset: &str| table.id(metric, "kW", SeriesKind::Gauge, &[("asset", asset)]);
        let first = id("power", "m1").unwrap();
        assert_eq!(id("power", "m1"), Ok(first));
        assert_ne!(id("power", "m2"), Ok(first));
        assert_eq!(host::define_calls(), 2);
        assert!(id("power", "m3").is_err() && id("power", "m3").is_err());
        assert_eq!(host::define_calls(), 4);
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        host::reset();
        let mut table = SeriesTable::default();
        let mut id = |labels: &[(&str, &str)]| table.id("m", "", SeriesKind::Gauge, labels).unwrap();
        assert_ne!(id(&[("a", "bc")]), id(&[("ab", "c")]));
        assert_ne!(id(&[("a", "b"), ("c", "d")]), id(&[("a", "b")]));
    }

    #[test]
    fn codes_belong_to_state_series() {
        host::reset();
        let mut table = SeriesTable::default();
        let door = table.id("door", "", SeriesKind::State, &[]).unwrap();
        let (open, shut) = (table.code(door, "open"), table.code(door, "shut"));
        assert!(open.is_ok() && shut.is_ok() && open != shut);
        assert_eq!(table.code(door, "open"), open);
        let load = table.id("load", "", SeriesKind::Gauge, &[]).unwrap();
        assert!(table.code(load, "open").is_err());
    }

    #[test]
    fn the_hash_tells_lengths_apart() {
        let hash = |bytes: &[u8]| {
            let mut hasher = ByteHasher::default();
            hasher.write(bytes);
            hasher.finish()
        };
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(b"\0"), hash(b"\0\0"));
        assert_ne!(hash(b"abcdefgh"), hash(b"abcdefgh\0"));
    }
}
