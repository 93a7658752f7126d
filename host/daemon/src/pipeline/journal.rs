//! The journal's bytes: samples as columns, everything else as canonical CBOR, each row readable on its own.

use hb_engine::decision::BaselineRef;
use hb_engine::engine::Samples;
use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use super::column::{self, Cut};

/// Samples per row at most: what a reader decodes at once, about 150 kB.
pub const ROW_SAMPLES_MAX: usize = 8_192;

/// One decoded row.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// Samples in order.
    Samples(Columns),
    /// Anything else.
    Other(Other),
}

/// Inputs that are not samples, as stored. Content is named by hash and lies among the blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Other {
    /// A generation became active.
    Generation(Hash),
    /// A tag names another baseline.
    Baseline(String, Option<BaselineRef>),
    /// The clock of a source, ns.
    Tick(String, i64),
    /// A source ended.
    Seal(String),
    /// A frame gave nothing because a guest failed on it: not an engine input, but part of what a replay must show.
    Fault {
        /// Source.
        source: String,
        /// Where: `source`, before there were frames, or `normalizer`.
        stage: String,
        /// Frame, or the next one when there was none yet.
        ordinal: u64,
        /// What happened.
        cause: String,
    },
}

/// Owned sample columns of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Source.
    pub source: String,
    /// Frame ordinals; never fall.
    pub ordinal: Vec<u64>,
    /// Series numbers.
    pub series: Vec<u32>,
    /// Event times, ns.
    pub time_ns: Vec<i64>,
    /// Values.
    pub value: Vec<f64>,
}

impl Columns {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The engine's view of samples `from..to`.
    pub fn view(&self, from: usize, to: usize) -> Samples<'_> {
        Samples {
            source: &self.source,
            ordinal: &self.ordinal[from..to],
            series: &self.series[from..to],
            time_ns: &self.time_ns[from..to],
            value: &self.value[from..to],
        }
    }

    /// Appends samples `from..to` of another batch of the same source.
    pub fn extend(&mut self, other: &Columns, from: usize, to: usize) {
        self.ordinal.extend_from_slice(&other.ordinal[from..to]);
        self.series.extend_from_slice(&other.series[from..to]);
        self.time_ns.extend_from_slice(&other.time_ns[from..to]);
        self.value.extend_from_slice(&other.value[from..to]);
    }

    /// Forgets all samples, keeping memory and source.
    pub fn clear(&mut self) {
        self.ordinal.clear();
        self.series.clear();
        self.time_ns.clear();
        self.value.clear();
    }
}

const KIND_SAMPLES: u8 = 0;
const KIND_OTHER: u8 = 1;

/// Encodes samples `from..to` of `c`.
pub fn encode_samples(c: &Columns, from: usize, to: usize) -> Vec<u8> {
    let n = to - from;
    let mut out = Vec::with_capacity(n * 18 + c.source.len() + 16);
    out.push(KIND_SAMPLES);
    column::put_bytes(&mut out, c.source.as_bytes());
    column::put_varint(&mut out, n as u64);
    column::put_rising(&mut out, &c.ordinal[from..to]);
    for id in &c.series[from..to] {
        out.extend_from_slice(&id.to_le_bytes());
    }
    column::put_deltas(&mut out, &c.time_ns[from..to]);
    for v in &c.value[from..to] {
        out.extend_from_slice(&v.to_bits().to_le_bytes());
    }
    out
}

/// Encodes any other input.
pub fn encode_other(other: &Other) -> Vec<u8> {
    let mut out = vec![KIND_OTHER];
    out.extend_from_slice(&cbor::encode(other));
    out
}

/// Decodes one row; `None` when the bytes are none.
pub fn decode(bytes: &[u8]) -> Option<Row> {
    let (&kind, rest) = bytes.split_first()?;
    if kind == KIND_OTHER {
        return cbor::decode(rest).ok().map(Row::Other);
    }
    let mut cut = Cut(rest);
    let source = String::from_utf8(cut.bytes()?.to_vec()).ok()?;
    let n = usize::try_from(cut.varint()?).ok().filter(|&n| n <= ROW_SAMPLES_MAX)?;
    let ordinal = cut.rising(n)?;
    let series = (0..n).map(|_| cut.array().map(u32::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    let time_ns = cut.deltas(n)?;
    let value =
        (0..n).map(|_| cut.array().map(|b| f64::from_bits(u64::from_le_bytes(b)))).collect::<Option<Vec<_>>>()?;
    (kind == KIND_SAMPLES && cut.0.is_empty()).then_some(Row::Samples(Columns {
        source,
        ordinal,
        series,
        time_ns,
        value,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        let c = Columns {
            source: "plant".into(),
            ordinal: vec![5, 5, 6, 1_000],
            series: vec![0, 1, 0, 70_000],
            time_ns: vec![-5, i64::MAX, i64::MIN, 0],
            value: vec![0.0, -0.0, f64::MAX, f64::MIN_POSITIVE],
        };
        let Some(Row::Samples(back)) = decode(&encode_samples(&c, 0, 4)) else { panic!("not samples") };
        assert_eq!(back, c);
        let other = Other::Baseline("golden".into(), None);
        assert_eq!(decode(&encode_other(&other)), Some(Row::Other(other)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
