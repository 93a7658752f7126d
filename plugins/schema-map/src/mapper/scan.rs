//! Finds the fields of an object, with names of nested objects joined by dots.

use super::{Mapper, Seen};
use crate::json::{Scanner, Syntax, Text, Value};
use crate::reading::excerpt;

/// A key that is expected at its place, because earlier frames had it there.
///
/// Devices repeat themselves: comparing a few bytes is much cheaper than scanning a name and looking it up.
pub(crate) struct Expected {
    /// `"key":`.
    text: Box<[u8]>,
    field: u32,
    misses: u8,
}

/// Places that are remembered.
const MAX_SHAPE: usize = 64;

/// A place changes its key after this many misses in a row, so that two kinds of frames in turn do not fight over it.
const MISSES: u8 = 8;

/// Fields of one frame; a device with more sends them in several frames.
const MAX_FIELDS_PER_FRAME: usize = 1_024;

/// Bytes of a field's name with all names above it.
const MAX_NAME: usize = 256;

/// How a key was found.
enum Key {
    Expected(u32),
    /// With its place in the frame.
    Read(Text, usize),
}

impl Mapper {
    /// The fields of an object; the scanner stands behind its brace.
    pub(super) fn object(&mut self, s: &mut Scanner<'_>, depth: u32) -> Result<(), Syntax> {
        s.check_depth(depth)?;
        s.skip_space();
        if s.peek() == Some(b'}') {
            s.pos += 1;
            return Ok(());
        }
        let mut place = 0;
        loop {
            let start = s.pos;
            let expected = if depth == 1 { self.shape.get(place) } else { None };
            let key = match expected {
                Some(expected) if s.bytes[start..].starts_with(&expected.text) => {
                    s.pos += expected.text.len();
                    s.skip_space();
                    Key::Expected(expected.field)
                }
                _ => Key::Read(s.key()?, start),
            };
            if s.peek() == Some(b'{') {
                s.pos += 1;
                self.nested(s, &key, depth)?;
            } else {
                let value = s.flat_value(depth)?;
                self.found(s.bytes, &key, value, depth, place);
            }
            place += 1;
            s.skip_space();
            match s.peek() {
                Some(b',') => {
                    s.pos += 1;
                    s.skip_space();
                }
                Some(b'}') => {
                    s.pos += 1;
                    return Ok(());
                }
                _ => return Err(s.error("`,` or `}` expected")),
            }
        }
    }

    fn nested(&mut self, s: &mut Scanner<'_>, key: &Key, depth: u32) -> Result<(), Syntax> {
        let len = self.path.len();
        match key {
            Key::Expected(field) => self.path.extend_from_slice(&self.fields.get(*field).name),
            Key::Read(text, _) => text.decode_into(s.bytes, &mut self.path),
        }
        self.path.push(b'.');
        self.object(s, depth + 1)?;
        self.path.truncate(len);
        Ok(())
    }

    fn found(&mut self, bytes: &[u8], key: &Key, value: Value, depth: u32, place: usize) {
        let field = match *key {
            Key::Expected(field) => field,
            Key::Read(text, _) if self.path.len() + text.span.of(bytes).len() > MAX_NAME => {
                let name = String::from_utf8_lossy(text.span.of(bytes)).into_owned();
                return self.wrong(format!("field `{}`: the name is longer than {MAX_NAME} bytes", excerpt(&name)));
            }
            Key::Read(text, start) if depth == 1 && !text.escaped => {
                let field = self.fields.intern(text.span.of(bytes), &self.plan);
                self.expect(place, &bytes[start..], text, field);
                field
            }
            Key::Read(text, _) => {
                let mut name = self.path.clone();
                text.decode_into(bytes, &mut name);
                self.fields.intern(&name, &self.plan)
            }
        };
        self.note(field, value);
    }

    /// Learns the key at a place of the object.
    fn expect(&mut self, place: usize, from_key: &[u8], key: Text, field: u32) {
        let len = (key.span.end - key.span.start) as usize + 3;
        // Only a key with its colon right behind it can be compared in one go.
        let Some(text) = from_key.get(..len).filter(|text| text.ends_with(b"\":")) else { return };
        let fresh = || Expected { text: text.into(), field, misses: 0 };
        let known = self.shape.len();
        match self.shape.get_mut(place) {
            Some(old) if old.misses < MISSES => old.misses += 1,
            Some(old) => *old = fresh(),
            None if place == known && place < MAX_SHAPE => self.shape.push(fresh()),
            None => {}
        }
    }

    pub(super) fn note(&mut self, field: u32, value: Value) {
        if self.seen.len() >= MAX_FIELDS_PER_FRAME {
            return self.wrong(format!("more than {MAX_FIELDS_PER_FRAME} fields"));
        }
        if !self.fields.mark(field, self.stamp) {
            let name = self.fields.get(field).name().into_owned();
            return self.wrong(format!("field `{}` is there twice", excerpt(&name)));
        }
        self.seen.push(Seen { field, value });
    }

    fn wrong(&mut self, reason: String) {
        self.pending.get_or_insert(reason);
    }
}
