//! One value, one encoding: deterministic CBOR (RFC 8949, section 4.2.1).
//!
//! Shortest integers and floats, definite lengths, map keys in the order of their bytes. What was not written this way
//! is refused on reading, so the hash of a value and the hash of its bytes are the same thing.

use ciborium::Value;
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest encoding that is read, bytes: a snapshot of the largest asset has a tenth of it.
pub const MAX_BYTES: usize = 256 << 20;

/// Deepest nesting that is read: ours has at most ten levels.
pub const MAX_DEPTH: usize = 64;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// Not CBOR, or not of the expected shape.
    #[error("cannot be decoded: {0}")]
    Malformed(String),
    /// CBOR, but another encoding of the value than the canonical one.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// Too large or nested too deeply.
    #[error("larger than {MAX_BYTES} bytes or nested deeper than {MAX_DEPTH} levels")]
    TooLarge,
}

/// Encodes a value canonically.
///
/// # Panics
/// When the value's own `Serialize` fails, which derived ones do not.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut tree = Value::serialized(value).expect("a derived Serialize does not fail");
    canonicalize(&mut tree);
    write(&tree)
}

/// Decodes a value from its canonical encoding.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    read(bytes)?.deserialized().map_err(|e| CborError::Malformed(e.to_string()))
}

/// Renders canonical CBOR as JSON; byte strings become lower-case hex, numbers JSON lacks become null.
pub fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CborError> {
    Ok(value_to_json(&read(bytes)?))
}

/// Renders a CBOR value as JSON, like [`to_json`].
pub fn value_to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Integer(i) => {
            let i = i128::from(*i);
            u64::try_from(i).map(Json::from).or_else(|_| i64::try_from(i).map(Json::from)).unwrap_or(Json::Null)
        }
        Value::Bytes(b) => Json::String(HEXLOWER.encode(b)),
        Value::Float(f) => serde_json::Number::from_f64(*f).map_or(Json::Null, Json::Number),
        Value::Text(t) => Json::String(t.clone()),
        Value::Bool(b) => Json::Bool(*b),
        Value::Tag(_, inner) => value_to_json(inner),
        Value::Array(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(k, v)| {
                    let key = match k {
                        Value::Text(t) => t.clone(),
                        other => value_to_json(other).to_string(),
                    };
                    (key, value_to_json(v))
                })
                .collect(),
        ),
        _ => Json::Null,
    }
}

/// Reads canonical bytes into a tree.
fn read(bytes: &[u8]) -> Result<Value, CborError> {
    if bytes.len() > MAX_BYTES {
        return Err(CborError::TooLarge);
    }
    let mut tree: Value = ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).map_err(|e| match e {
        ciborium::de::Error::RecursionLimitExceeded => CborError::TooLarge,
        other => CborError::Malformed(other.to_string()),
    })?;
    canonicalize(&mut tree);
    // Also refuses what follows the value, because the reader stops there.
    if write(&tree) == bytes { Ok(tree) } else { Err(CborError::NotCanonical) }
}

fn write(tree: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(tree, &mut bytes).expect("writing to memory does not fail");
    bytes
}

/// Sorts maps by the bytes of their keys and makes every NaN the same.
fn canonicalize(value: &mut Value) {
    match value {
        Value::Float(f) if f.is_nan() => *f = f64::NAN,
        Value::Array(items) => items.iter_mut().for_each(canonicalize),
        Value::Tag(_, inner) => canonicalize(inner),
        Value::Map(entries) => {
            for (k, v) in entries.iter_mut() {
                canonicalize(k);
                canonicalize(v);
            }
            // Text keys, nearly all there are, sort by length and bytes like their encodings: no need to encode them.
            let plain = entries.iter().all(|(k, _)| matches!(k, Value::Text(_)));
            if plain {
                entries.sort_by(|(a, _), (b, _)| {
                    let (a, b) = (text(a), text(b));
                    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
                });
            } else {
                entries.sort_by_cached_key(|(k, _)| write(k));
            }
            // A key that stands twice has no canonical form: one is left, so the bytes will differ.
            entries.dedup_by(|a, b| a.0 == b.0);
        }
        _ => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_text().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::hash::Hash;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        zeta: u64,
        a: Option<f64>,
        hash: Hash,
        list: Vec<(i64, String)>,
        map: BTreeMap<String, u8>,
    }

    fn sample() -> Sample {
        Sample {
            zeta: 500,
            a: Some(1.5),
            hash: Hash::of(b"x"),
            list: vec![(-1, "one".into())],
            map: [("bb".into(), 1), ("a".into(), 2)].into(),
        }
    }

    #[test]
    fn keys_are_sorted_and_numbers_short() {
        assert_eq!(encode(&BTreeMap::from([("bb", 1), ("a", 2)])), b"\xa2\x61\x61\x02\x62bb\x01");
        assert_eq!(encode(&1.5_f64), [0xf9, 0x3e, 0x00]);
        assert_eq!(encode(&f64::NAN), [0xf9, 0x7e, 0x00]);
        assert_eq!(encode(&-f64::NAN), [0xf9, 0x7e, 0x00]);
        assert_eq!(encode(&0.1_f64).len(), 9);
        assert_eq!(encode(&500_u64), [0x19, 0x01, 0xf4]);
        assert_eq!(encode(&sample())[..5], *b"\xa5\x61a\xf9\x3e");
    }

    #[test]
    fn values_come_back() {
        assert_eq!(decode::<Sample>(&encode(&sample())), Ok(sample()));
    }

    #[test]
    fn other_encodings_of_the_same_value_are_refused() {
        for bytes in [
            &b"\x18\x05"[..],            // 5 in two bytes
            b"\xa2\x62bb\x01\x61a\x02",  // keys out of order
            b"\xa2\x61a\x01\x61a\x02",   // a key twice
            b"\x9f\x01\xff",             // indefinite length
            b"\xfb\x3f\xf8\0\0\0\0\0\0", // 1.5 in nine bytes
            b"\x01\x01",                 // something behind it
        ] {
            assert_eq!(read(bytes), Err(CborError::NotCanonical), "{bytes:02x?}");
        }
        assert!(matches!(read(b""), Err(CborError::Malformed(_))));
        assert_eq!(read(&[0x81; 10_000]), Err(CborError::TooLarge));
    }

    #[test]
    fn json_shows_bytes_as_hex() {
        let json = to_json(&encode(&sample())).unwrap();
        assert_eq!(json["hash"], Hash::of(b"x").to_string());
        assert_eq!(json["zeta"], 500);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = read(&bytes) {
                prop_assert_eq!(write(&value), bytes);
            }
        }

        #[test]
        fn every_float_comes_back(bits in any::<u64>()) {
            let f = f64::from_bits(bits);
            let back: f64 = decode(&encode(&f)).unwrap();
            prop_assert!(back.to_bits() == f.to_bits() || (back.is_nan() && f.is_nan()));
        }
    }
}
