//! A field of an entry: text as a rule, an array of bytes where it is not, an array of values where it is there twice.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// What a field holds. Of what has no use only the kind is kept, so that an entry takes no more room than its text.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Field {
    /// Missing or null.
    #[default]
    Absent,
    Text(String),
    Number(u64),
    Bytes(Vec<u8>),
    Other,
}

impl Field {
    /// Its text, if there is any.
    pub(super) fn text(self) -> Option<Cow<'static, str>> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(Cow::Owned(text)),
            _ => None,
        }
    }

    /// Its number, which the journal writes as text.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        let mut bytes = Some(Vec::new());
        while let Some(element) = seq.next_element()? {
            let byte = match element {
                Field::Number(number) => u8::try_from(number).ok(),
                _ => None,
            };
            match (&mut bytes, byte) {
                (Some(bytes), Some(byte)) => bytes.push(byte),
                _ => bytes = None,
            }
        }
        Ok(bytes.map_or(Field::Other, Field::Bytes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
