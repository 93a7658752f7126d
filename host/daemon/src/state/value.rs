//! How a row's value is written: a schema version byte, then fields in a fixed order.
//!
//! Numbers are little-endian, texts carry a u32 length, and the last field takes what is left. The keys are typed
//! tuples of the store itself; only values pass through here.

use hb_log::hash::Hash;

use super::error::StateError;

/// First byte of every stored value. A change of any layout raises it, and the reader says so instead of guessing.
pub(super) const VALUE_VERSION: u8 = 1;

/// Builds one value.
pub(super) struct Put(Vec<u8>);

impl Put {
    pub(super) fn new() -> Self {
        Self(vec![VALUE_VERSION])
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn i64(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        let len = u32::try_from(value.len()).expect("texts of rows are far below 4 GiB");
        self.u32(len).rest(value.as_bytes())
    }

    /// Fixed-size bytes, or the last field.
    pub(super) fn rest(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes one value apart, remembering where it came from for the error.
pub(super) struct Take<'a> {
    table: &'static str,
    key: &'a dyn std::fmt::Debug,
    left: &'a [u8],
}

impl<'a> Take<'a> {
    pub(super) fn new(table: &'static str, key: &'a dyn std::fmt::Debug, value: &'a [u8]) -> Result<Self, StateError> {
        let mut take = Self { table, key, left: value };
        match take.u8()? {
            VALUE_VERSION => Ok(take),
            other => Err(StateError::Version { found: u32::from(other), supported: u32::from(VALUE_VERSION) }),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, StateError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, tail) = self.left.split_first_chunk::<N>().ok_or_else(|| self.bad("the value is cut short"))?;
        self.left = tail;
        Ok(*head)
    }

    pub(super) fn hash(&mut self) -> Result<Hash, StateError> {
        Ok(Hash::from_bytes(self.array()?))
    }

    pub(super) fn text(&mut self) -> Result<String, StateError> {
        let len = self.u32()? as usize;
        let (head, tail) = self.left.split_at_checked(len).ok_or_else(|| self.bad("a text is cut short"))?;
        self.left = tail;
        String::from_utf8(head.to_vec()).map_err(|_| self.bad("a text is not UTF-8"))
    }

    /// Everything that is left: the last field.
    pub(super) fn rest(self) -> &'a [u8] {
        self.left
    }

    /// Says that no field follows.
    pub(super) fn end(self) -> Result<(), StateError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.bad("bytes are left over")) }
    }

    pub(super) fn bad(&self, what: &str) -> StateError {
        StateError::Corrupt { table: self.table, key: format!("{:?}", self.key), what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order() {
        let bytes = Put::new().u8(7).u32(8).u64(9).i64(-1).text("motor").rest(b"tail").done();
        let mut take = Take::new("t", &1, &bytes).unwrap();
        assert_eq!((take.u8().unwrap(), take.u32().unwrap(), take.u64().unwrap(), take.i64().unwrap()), (7, 8, 9, -1));
        assert_eq!(take.text().unwrap(), "motor");
        assert_eq!(take.rest(), b"tail");
    }

    #[test]
    fn short_long_and_foreign_values_are_refused_with_their_place() {
        let Err(StateError::Corrupt { table, key, .. }) = Take::new("cursors", &("a", 2), b"\x01").unwrap().u32()
        else {
            panic!("a short value was accepted");
        };
        assert_eq!((table, key.as_str()), ("cursors", "(\"a\", 2)"));
        assert!(Take::new("t", &1, b"\x01x").unwrap().end().is_err());
        assert!(matches!(Take::new("t", &1, b"\x02"), Err(StateError::Version { found: 2, supported: 1 })));
        assert!(Take::new("t", &1, b"").is_err());
        assert!(Take::new("t", &1, b"\x01\xff\xff\xff\xff").unwrap().text().is_err());
    }
}
