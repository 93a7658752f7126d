//! A value has exactly one byte string here: canonical CBOR (RFC 8949 section 4.2.1), written and demanded.
//!
//! Shortest integers and floats, definite lengths, map keys sorted by their encoded bytes, one NaN. No tags and no
//! simple values but `false`, `true` and `null`. The reader walks the bytes once without allocating and refuses any
//! other spelling before serde sees them, so two different byte strings never mean the same thing and a signature
//! over the bytes is a signature over the value.

mod walk;
mod write;

use std::fmt::{self, Write as _};

use ciborium::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest document that is read, in bytes. A pack's frames are the largest thing the project encodes; beyond this a
/// document is an attack or should have been cut into several.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024 * 1024;

/// Deepest nesting of arrays and maps that is read. Our own types stay below 12; the rest is room for event bodies.
pub const MAX_DEPTH: usize = 64;

/// Why bytes are not a canonical document, or a value cannot be written as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// Ends in the middle of an item.
    #[error("the document ends early, at byte {at}")]
    Truncated {
        /// Offset of the item that is cut off.
        at: usize,
    },
    /// Bytes after the end of the document.
    #[error("{extra} bytes follow the document")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A valid value in a spelling that is not the canonical one.
    #[error("not canonical at byte {at}: {what}")]
    NotCanonical {
        /// Offset of the item.
        at: usize,
        /// Which rule is broken.
        what: &'static str,
    },
    /// Something this profile of CBOR does not have (tags, undefined, reserved codes).
    #[error("not allowed at byte {at}: {what}")]
    NotAllowed {
        /// Offset of the item.
        at: usize,
        /// What stands there.
        what: &'static str,
    },
    /// Arrays and maps nest deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} at byte {at}")]
    TooDeep {
        /// Offset of the item that is too deep.
        at: usize,
    },
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {len} bytes, the limit is {MAX_DOCUMENT_BYTES}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Canonical, but not of the wanted shape.
    #[error("unexpected content: {what}")]
    Shape {
        /// What serde found missing or wrong.
        what: String,
    },
    /// A value that has no canonical form.
    #[error("cannot be written as canonical CBOR: {what}")]
    Unwritable {
        /// Which part of it.
        what: String,
    },
}

/// The canonical bytes of a value; structs become maps keyed by field name.
///
/// # Panics
/// When the value has no canonical form (see [`try_encode`]): a bug of the type, not a state of the world.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    match try_encode(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{error}"),
    }
}

/// As [`encode`], for values built from what others sent: duplicate map keys, tags, integers beyond 64 bits, nesting
/// deeper than [`MAX_DEPTH`] and errors of a hand-written `Serialize` are answered instead of panicking.
pub fn try_encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CborError> {
    let mut out = Vec::new();
    write::value(value, &mut out)?;
    Ok(out)
}

/// Reads a value back, refusing every byte string that [`encode`] would not have written.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    walk::check(bytes)?;
    // The walk has bounded the nesting; twice that much, because serde may look into one level two times.
    ciborium::de::from_reader_with_recursion_limit(bytes, 2 * MAX_DEPTH)
        .map_err(|error| CborError::Shape { what: shape(&error) })
}

/// Renders a document for people: byte strings become lower hex, keys are sorted, a map with keys that are not text
/// becomes an array of pairs, and numbers JSON does not have (NaN, infinities) become strings.
pub fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CborError> {
    Ok(value_to_json(&decode(bytes)?))
}

/// The rendering of [`to_json`] for a value already at hand.
pub fn value_to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Text(s) => Json::String(s.clone()),
        Value::Bytes(b) => Json::String(data_encoding::HEXLOWER.encode(b)),
        Value::Integer(i) => {
            let i = i128::from(*i);
            let number = u64::try_from(i).map(Json::from).or_else(|_| i64::try_from(i).map(Json::from));
            number.unwrap_or_else(|_| Json::String(i.to_string()))
        }
        Value::Float(f) => match serde_json::Number::from_f64(*f) {
            Some(number) => Json::Number(number),
            None if f.is_nan() => Json::String("NaN".to_owned()),
            None if *f > 0.0 => Json::String("Infinity".to_owned()),
            None => Json::String("-Infinity".to_owned()),
        },
        Value::Array(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Map(pairs) => map_to_json(pairs),
        // Tags cannot be decoded; a value built in memory shows what it holds.
        Value::Tag(_, inner) => value_to_json(inner),
        // `Value` may grow in a later version of its crate; the reader here would refuse what it stands for.
        other => Json::String(format!("{other:?}")),
    }
}

fn map_to_json(pairs: &[(Value, Value)]) -> serde_json::Value {
    let named: Option<Vec<(&str, &Value)>> = pairs.iter().map(|(k, v)| k.as_text().map(|k| (k, v))).collect();
    let Some(mut named) = named else {
        let pair = |(k, v): &(Value, Value)| serde_json::Value::Array(vec![value_to_json(k), value_to_json(v)]);
        return serde_json::Value::Array(pairs.iter().map(pair).collect());
    };
    // Sorted as text, so that the result is the same whichever map type serde_json is built with.
    named.sort_by_key(|(k, _)| *k);
    serde_json::Value::Object(named.into_iter().map(|(k, v)| (k.to_owned(), value_to_json(v))).collect())
}

/// The rendering of [`to_json`] as one line of text without spaces. The same value gives the same line with every
/// version of every library: floats are written here (shortest digits that read back, exponent from 1e16 and below
/// 1e-5), because how serde_json writes them has changed before.
pub fn json_line(value: &Value) -> String {
    let mut out = String::new();
    write_json(&value_to_json(value), &mut out);
    out
}

fn write_json(json: &serde_json::Value, out: &mut String) {
    use serde_json::Value as Json;
    match json {
        Json::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            let _ = write!(out, "{float:?}");
        }
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write_json(item, out);
            }
            out.push(']');
        }
        Json::Object(fields) => {
            out.push('{');
            for (i, (name, item)) in fields.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                out.push_str(&Json::from(name.as_str()).to_string());
                out.push(':');
                write_json(item, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn shape(error: &ciborium::de::Error<std::io::Error>) -> String {
    match error {
        ciborium::de::Error::Semantic(_, what) => what.clone(),
        other => other.to_string(),
    }
}

/// A byte string. Plain `Vec<u8>` is a list of numbers to serde; this is the compact form.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

// No `visit_seq`: a list of small numbers is another spelling and is refused.
impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h'{}'", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes)
    }
}

#[cfg(test)]
mod tests;
