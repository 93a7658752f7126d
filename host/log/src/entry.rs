//! An entry is one thing that happened, written once: a leaf of the log.
//!
//! Its bytes are the canonical CBOR array `[1, seq, time_ns, kind, body]`. They are stored as they are and never made
//! anew, so the leaf's hash stays that of the stored bytes.

use ciborium::Value;

use crate::cbor::{self, CborError};
use crate::hash::Hash;
use crate::tree;

/// Version of the entry's layout: its first element.
pub const VERSION: u64 = 1;

/// Longest name of a kind, bytes: ours have at most two short words.
pub const MAX_KIND_BYTES: usize = 64;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its position in the log, from 0; also the index of its leaf.
    pub seq: u64,
    /// When it was written, ns since the Unix epoch.
    pub time_ns: i64,
    /// What it tells of: `decision`, `config.change` and so on.
    pub kind: String,
    /// What it tells.
    pub body: Value,
}

impl Entry {
    /// The entry's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            VERSION.into(),
            self.seq.into(),
            self.time_ns.into(),
            Value::Text(self.kind.clone()),
            self.body.clone(),
        ]))
    }

    /// Reads an entry; refuses what [`Entry::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let tree: Value = cbor::decode(bytes)?;
        let malformed = |what: &str| CborError::Malformed(format!("a log entry needs {what}"));
        let items = tree.into_array().map_err(|_| malformed("an array"))?;
        let [version, seq, time_ns, kind, body] =
            <[Value; 5]>::try_from(items).map_err(|_| malformed("five elements"))?;
        if version != VERSION.into() {
            return Err(malformed("version 1"));
        }
        let integer = |value: Value| value.into_integer().ok().map(i128::from);
        let seq = integer(seq).and_then(|i| u64::try_from(i).ok()).ok_or_else(|| malformed("a sequence number"))?;
        let time_ns = integer(time_ns).and_then(|i| i64::try_from(i).ok()).ok_or_else(|| malformed("a time"))?;
        let kind = kind.into_text().map_err(|_| malformed("a kind"))?;
        if kind.is_empty() || kind.len() > MAX_KIND_BYTES {
            return Err(malformed("a kind of 1 to 64 bytes"));
        }
        Ok(Entry { seq, time_ns, kind, body })
    }

    /// The hash of this entry as a leaf of the log.
    pub fn leaf_hash(&self) -> Hash {
        tree::leaf_hash(&self.encode())
    }

    /// The entry as one line of JSON with its newline: the same entry always gives the same line.
    pub fn to_json_line(&self) -> String {
        // The body goes through its canonical bytes, so that the order of keys is not the builder's accident.
        let body = cbor::to_json(&cbor::encode(&self.body)).unwrap_or_default();
        let line = serde_json::json!({ "seq": self.seq, "time_ns": self.time_ns, "kind": self.kind, "body": body });
        format!("{line}\n")
    }

    /// The value of a key of the body, when the body is a map with text keys.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.body.as_map()?.iter().find(|(k, _)| k.as_text() == Some(key)).map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        Entry {
            seq: 7,
            time_ns: 1_790_000_000_000_000_000,
            kind: "decision".into(),
            body: Value::Map(vec![("status".into(), "DRIFT".into()), ("decision".into(), Value::Bytes(vec![0xab; 3]))]),
        }
    }

    #[test]
    fn an_entry_comes_back() {
        let bytes = entry().encode();
        assert_eq!(bytes[..3], [0x85, 0x01, 0x07]);
        let back = Entry::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.leaf_hash(), entry().leaf_hash());
        assert_eq!(back.field("status"), Some(&"DRIFT".into()));
        assert_eq!(back.field("absent"), None);
        let before_1970 = Entry { time_ns: i64::MIN, ..entry() };
        assert_eq!(Entry::decode(&before_1970.encode()).unwrap().time_ns, i64::MIN);
    }

    #[test]
    fn a_line_does_not_depend_on_the_order_of_building() {
        let mut other = entry();
        other.body.as_map_mut().unwrap().reverse();
        let line = entry().to_json_line();
        assert_eq!(
            line,
            "{\"seq\":7,\"time_ns\":1790000000000000000,\"kind\":\"decision\",\
             \"body\":{\"status\":\"DRIFT\",\"decision\":\"ababab\"}}\n"
        );
        assert_eq!(other.to_json_line(), line);
    }

    #[test]
    fn other_shapes_are_refused() {
        let good = || vec![1.into(), 2.into(), 3.into(), Value::from("k"), Value::Null];
        assert!(Entry::decode(&cbor::encode(&good())).is_ok());
        for (at, bad) in [
            (0, Value::from(2)),
            (1, Value::from(-1)),
            (2, Value::from(u64::MAX)),
            (3, Value::from(1)),
            (3, Value::from("")),
            (3, Value::from("k".repeat(65))),
        ] {
            let mut items = good();
            items[at] = bad;
            assert!(Entry::decode(&cbor::encode(&items)).is_err(), "{items:?}");
        }
        assert!(Entry::decode(&cbor::encode(&good()[..4])).is_err());
        assert!(Entry::decode(&cbor::encode(&Value::Map(vec![]))).is_err());
    }

    #[test]
    fn tags_and_large_numbers_keep_their_bytes() {
        let body = Value::Array(vec![
            Value::Tag(32, Box::new("x".into())),
            Value::Float(f64::NAN),
            u64::MAX.into(),
            i64::MIN.into(),
            Value::Null,
            true.into(),
        ]);
        let bytes = Entry { body, ..entry() }.encode();
        assert_eq!(Entry::decode(&bytes).unwrap().encode(), bytes);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let framed = [&[0x85, 1][..], &bytes].concat();
            for bytes in [bytes, framed] {
                if let Ok(entry) = Entry::decode(&bytes) {
                    prop_assert_eq!(entry.encode(), bytes);
                    prop_assert!(entry.to_json_line().ends_with('\n'));
                }
            }
        }
    }
}
