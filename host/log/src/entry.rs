//! An entry is one line of the log: what happened, when, in which place of the order.
//!
//! It is written once as the canonical CBOR array `[1, seq, time_ns, kind, body]`. These bytes are stored, hashed
//! into the tree and carried in packs verbatim; nothing ever re-encodes them.

use ciborium::Value;

use crate::cbor::{self, CborError};
use crate::hash::Hash;
use crate::tree;

/// First element of every entry; readers of a later version can tell the old shape apart.
pub const VERSION: u64 = 1;

/// Longest entry in bytes. A decision with every finding stays below 64 KiB; more belongs in a pack, named by hash.
pub const MAX_ENTRY_BYTES: usize = 1024 * 1024;

/// Longest kind in bytes; kinds are short words such as `decision` or `key.rotate`.
pub const MAX_KIND_BYTES: usize = 64;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Position in the log, from 0; also the leaf's index in the tree.
    pub seq: u64,
    /// When it was written, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// What it is about: lower-case ASCII letters, digits, `.`, `_` and `-`.
    pub kind: String,
    /// The content, as its kind defines it.
    pub body: Value,
}

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Not canonical CBOR, or not the array of an entry.
    #[error("not an entry of the log")]
    Cbor(#[from] CborError),
    /// Longer than [`MAX_ENTRY_BYTES`].
    #[error("the entry has {len} bytes, the limit is {MAX_ENTRY_BYTES}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Written by a later version.
    #[error("entry version {found} is unknown, this program reads {VERSION}")]
    Version {
        /// The version found.
        found: u64,
    },
    /// The kind is no short lower-case word.
    #[error("an entry's kind is a lower-case word of at most {MAX_KIND_BYTES} letters, digits, `.`, `_` or `-`")]
    Kind,
}

impl Entry {
    /// The bytes that are stored and hashed.
    ///
    /// # Panics
    /// When the body has no canonical form, as [`cbor::encode`]. Use [`Entry::try_encode`] for bodies that hold
    /// maps built from what others sent.
    pub fn encode(&self) -> Vec<u8> {
        match self.try_encode() {
            Ok(bytes) => bytes,
            Err(error) => panic!("log entry {} of kind {}: {error:?}", self.seq, self.kind),
        }
    }

    /// As [`Entry::encode`], answering what [`Entry::decode`] would refuse.
    pub fn try_encode(&self) -> Result<Vec<u8>, EntryError> {
        check_kind(&self.kind)?;
        let bytes = cbor::try_encode(&(VERSION, self.seq, self.time_ns, &self.kind, &self.body))?;
        check_len(&bytes)?;
        Ok(bytes)
    }

    /// Reads an entry back; [`Entry::encode`] of the result is exactly `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        check_len(bytes)?;
        // The version first: a later one may have another shape behind it.
        let items: Vec<Value> = cbor::decode(bytes)?;
        match items.first().and_then(Value::as_integer).and_then(|i| u64::try_from(i).ok()) {
            Some(VERSION) => {}
            Some(found) => return Err(EntryError::Version { found }),
            None => return Err(shape("it does not begin with a version")),
        }
        let Ok([_, Value::Integer(seq), Value::Integer(time_ns), Value::Text(kind), body]) =
            <[Value; 5]>::try_from(items)
        else {
            return Err(shape("it is not [1, seq, time_ns, kind, body]"));
        };
        check_kind(&kind)?;
        Ok(Entry {
            seq: u64::try_from(seq).map_err(|_| shape("seq is negative"))?,
            time_ns: i64::try_from(time_ns).map_err(|_| shape("time_ns is beyond 64 bits"))?,
            kind,
            body,
        })
    }

    /// The leaf of this entry in the tree.
    pub fn leaf_hash(&self) -> Hash {
        tree::leaf_hash(&self.encode())
    }

    /// A field of the body, when the body is a map that has it.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.body.as_map()?.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
    }

    /// The line of this entry in `audit_log.jsonl`, with its newline; the same entry always gives the same line.
    pub fn to_json_line(&self) -> String {
        let kind = cbor::json_line(&Value::from(self.kind.as_str()));
        let body = cbor::json_line(&self.body);
        // Written out by hand so that the order of the fields is fixed here.
        format!("{{\"seq\":{},\"time_ns\":{},\"kind\":{kind},\"body\":{body}}}\n", self.seq, self.time_ns)
    }
}

fn check_kind(kind: &str) -> Result<(), EntryError> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let good = !kind.is_empty() && kind.len() <= MAX_KIND_BYTES && kind.bytes().all(word);
    if good { Ok(()) } else { Err(EntryError::Kind) }
}

fn check_len(bytes: &[u8]) -> Result<(), EntryError> {
    if bytes.len() > MAX_ENTRY_BYTES { Err(EntryError::TooLong { len: bytes.len() }) } else { Ok(()) }
}

fn shape(what: &str) -> EntryError {
    EntryError::Cbor(CborError::Shape { what: what.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Entry {
        let body = Value::Map(vec![
            ("status".into(), "FAIL".into()),
            ("decision".into(), Value::Bytes(Hash::of(b"x").as_bytes().to_vec())),
            ("limit".into(), Value::Float(80.5)),
        ]);
        Entry { seq: 7, time_ns: 1_700_000_000_000_000_000, kind: "decision".into(), body }
    }

    #[test]
    fn bytes_and_line_are_golden() {
        let entry = example();
        let hex = data_encoding::HEXLOWER.encode(&entry.encode());
        assert_eq!(
            hex,
            "8501071b17979cfe362a0000686465636973696f6ea3656c696d6974f95508667374617475736446\
             41494c686465636973696f6e58202d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        );
        assert_eq!(
            entry.to_json_line(),
            "{\"seq\":7,\"time_ns\":1700000000000000000,\"kind\":\"decision\",\"body\":{\"decision\":\
             \"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\"limit\":80.5,\"status\":\"FAIL\"}}\n"
        );
        assert_eq!(entry.leaf_hash(), tree::leaf_hash(&entry.encode()));
        let back = Entry::decode(&entry.encode()).unwrap();
        assert_eq!(back.encode(), entry.encode());
        assert_eq!(back.field("status"), Some(&"FAIL".into()));
        assert_eq!(back.field("missing"), None);
    }

    #[test]
    fn other_shapes_are_refused() {
        let null = Value::Null;
        for (value, what) in [
            (cbor::encode(&(2, 0, 0, "a", &null)), "version 2"),
            (cbor::encode(&(1, -1, 0, "a", &null)), "negative seq"),
            (cbor::encode(&(1, 0, u64::MAX, "a", &null)), "time beyond i64"),
            (cbor::encode(&(1, 0, 0, "", &null)), "empty kind"),
            (cbor::encode(&(1, 0, 0, "A b", &null)), "kind not a word"),
            (cbor::encode(&(1, 0, 0, "a".repeat(65), &null)), "long kind"),
            (cbor::encode(&(1, 0, 0, "a")), "four items"),
            (cbor::encode(&(1, 0, 0, "a", &null, &null)), "six items"),
            (cbor::encode(&(1, 0, 0, "a", Value::Bytes(vec![0; MAX_ENTRY_BYTES]))), "too long"),
            (cbor::encode("text"), "no array"),
            (Vec::new(), "nothing"),
        ] {
            assert!(Entry::decode(&value).is_err(), "{what}");
        }
        assert!(matches!(Entry { kind: "A".into(), ..example() }.try_encode(), Err(EntryError::Kind)));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }

        #[test]
        fn every_flipped_byte_is_noticed_or_another_entry(at in any::<prop::sample::Index>(), mask in 1_u8..) {
            let mut bytes = example().encode();
            let index = at.index(bytes.len());
            bytes[index] ^= mask;
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_ne!(entry.leaf_hash(), example().leaf_hash());
                let _ = entry.to_json_line();
            }
        }
    }
}
