//! A strict JSON scanner over bytes: it knows the grammar of RFC 8259, keeps no tree and copies nothing.
//!
//! Strings stay where they are until someone needs them decoded; numbers come apart into digits and exponent, from
//! which both the nearest f64 and an exact time can be made. A lone surrogate escape is refused, because it is no text.

use crate::words::{few_digits, plain_until};

/// Objects and arrays may nest this deep; the recursion over objects then takes some tens of KiB of a guest's stack.
const MAX_DEPTH: u32 = 64;

/// A part of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// A value, its content still in the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
    Array,
}

/// What lies between two quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Text {
    pub(crate) span: Span,
    /// Whether there are backslashes to resolve.
    pub(crate) escaped: bool,
}

impl Text {
    /// Appends the text itself.
    pub(crate) fn decode_into(self, bytes: &[u8], out: &mut Vec<u8>) {
        let raw = self.span.of(bytes);
        if self.escaped { unescape(raw, out) } else { out.extend_from_slice(raw) }
    }
}

/// A number in decimal: (-1)^negative * mantissa * 10^exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    pub(crate) span: Span,
    pub(crate) mantissa: u64,
    pub(crate) exponent: i32,
    pub(crate) negative: bool,
    /// There were more digits than the mantissa holds; the rest only counts in the exponent.
    truncated: bool,
}

/// Powers of ten that an f64 holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Digits that a u64 holds whatever they are.
const MAX_DIGITS: u32 = 19;

impl Number {
    /// The nearest f64; infinite when it is too large.
    pub(crate) fn to_f64(self, bytes: &[u8]) -> f64 {
        // Both factors are exact, so the one operation rounds correctly (Clinger's fast path).
        if !self.truncated && self.mantissa <= 1 << 53 && self.exponent.unsigned_abs() <= 22 {
            let m = self.mantissa as f64;
            let power = EXACT_POWERS[self.exponent.unsigned_abs() as usize];
            let value = if self.exponent < 0 { m / power } else { m * power };
            return if self.negative { -value } else { value };
        }
        // The grammar of JSON is a part of Rust's, and Rust rounds correctly.
        std::str::from_utf8(self.span.of(bytes)).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN)
    }
}

/// Why the bytes are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

pub(crate) struct Scanner<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) pos: usize,
    /// Bytes above ASCII were met in a string, so the frame has to be checked for UTF-8.
    pub(crate) non_ascii: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, non_ascii: false }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
    }

    pub(crate) fn error(&self, what: &'static str) -> Syntax {
        Syntax { offset: self.pos, what }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Syntax> {
        self.skip_space();
        if self.pos == self.bytes.len() { Ok(()) } else { Err(self.error("something follows the value")) }
    }

    pub(crate) fn check_depth(&self, depth: u32) -> Result<(), Syntax> {
        if depth > MAX_DEPTH { Err(self.error("nested deeper than 64")) } else { Ok(()) }
    }

    /// A value that is no object; the scanner stands on its first byte.
    #[inline]
    pub(crate) fn flat_value(&mut self, depth: u32) -> Result<Value, Syntax> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.literal(b"true", Value::Bool(true)),
            Some(b'f') => self.literal(b"false", Value::Bool(false)),
            Some(b'n') => self.literal(b"null", Value::Null),
            Some(b'[') => self.skip_array(depth),
            Some(_) => Err(self.error("no value begins like this")),
            None => Err(self.error("ends where a value should be")),
        }
    }

    fn literal(&mut self, word: &[u8], value: Value) -> Result<Value, Syntax> {
        if self.bytes[self.pos..].starts_with(word) {
            self.pos += word.len();
            Ok(value)
        } else {
            Err(self.error("no value begins like this"))
        }
    }

    /// A string; the scanner stands on its opening quote and then behind the closing one.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Text, Syntax> {
        let start = self.pos + 1;
        let mut escaped = false;
        let mut i = start;
        loop {
            i = plain_until(self.bytes, i);
            match self.bytes.get(i) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.pos = i;
                    i += escape_len(&self.bytes[i..]).ok_or_else(|| self.error("bad escape"))?;
                }
                Some(0x80..) => {
                    self.non_ascii = true;
                    i += 1;
                }
                Some(_) => {
                    self.pos = i;
                    return Err(self.error("control character in a string"));
                }
                None => {
                    self.pos = i;
                    return Err(self.error("string without an end"));
                }
            }
        }
        self.pos = i + 1;
        Ok(Text { span: Span { start: start as u32, end: i as u32 }, escaped })
    }

    /// A number; the scanner stands on its first byte.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number, Syntax> {
        let bytes = self.bytes;
        let start = self.pos;
        let negative = bytes[start] == b'-';
        let mut i = start + usize::from(negative);
        let mut mantissa = 0_u64;
        let mut digits = 0_u32;
        let mut dropped = 0_i32;
        let mut truncated = false;
        let int_start = i;
        while let Some(b @ b'0'..=b'9') = bytes.get(i) {
            if digits < MAX_DIGITS {
                mantissa = mantissa * 10 + u64::from(b - b'0');
                digits += u32::from(mantissa != 0);
            } else {
                truncated = true;
                dropped += 1;
            }
            i += 1;
        }
        let int_len = i - int_start;
        if int_len == 0 || (int_len > 1 && bytes[int_start] == b'0') {
            self.pos = i;
            return Err(self.error(if int_len == 0 { "digits expected" } else { "a number may not begin with 0" }));
        }
        let mut exponent = dropped;
        if bytes.get(i) == Some(&b'.') {
            i += 1;
            let fraction = i;
            while let Some(b @ b'0'..=b'9') = bytes.get(i) {
                if digits < MAX_DIGITS {
                    mantissa = mantissa * 10 + u64::from(b - b'0');
                    digits += u32::from(mantissa != 0);
                    exponent -= 1;
                } else {
                    truncated = true;
                }
                i += 1;
            }
            if i == fraction {
                self.pos = i;
                return Err(self.error("digits expected"));
            }
        }
        if let Some(b'e' | b'E') = bytes.get(i) {
            i += 1;
            let minus = bytes.get(i) == Some(&b'-');
            i += usize::from(matches!(bytes.get(i), Some(b'+' | b'-')));
            let first = i;
            let mut e = 0_i32;
            while let Some(b @ b'0'..=b'9') = bytes.get(i) {
                // Far beyond any f64; more would only overflow.
                e = (e * 10 + i32::from(b - b'0')).min(100_000);
                i += 1;
            }
            if i == first {
                self.pos = i;
                return Err(self.error("digits expected"));
            }
            exponent += if minus { -e } else { e };
        }
        self.pos = i;
        let span = Span { start: start as u32, end: i as u32 };
        Ok(Number { span, mantissa, exponent, negative, truncated })
    }

    /// Checks an array and all in it without recursion; bit d of `is_object` tells what encloses level d.
    fn skip_array(&mut self, depth: u32) -> Result<Value, Syntax> {
        let mut depth = depth;
        let base = depth;
        let mut is_object = 0_u128;
        loop {
            // Here a value begins.
            match self.peek() {
                Some(open @ (b'[' | b'{')) => {
                    depth += 1;
                    self.check_depth(depth)?;
                    self.pos += 1;
                    self.skip_space();
                    let object = open == b'{';
                    is_object = (is_object & !(1 << depth)) | (u128::from(object) << depth);
                    if self.peek() == Some(if object { b'}' } else { b']' }) {
                        self.pos += 1;
                        depth -= 1;
                    } else {
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.flat_value(depth)?;
                }
            }
            // Here a value has ended; close what ends with it.
            loop {
                if depth == base {
                    return Ok(Value::Array);
                }
                let object = is_object >> depth & 1 == 1;
                self.skip_space();
                match self.peek() {
                    Some(b',') => {
                        self.pos += 1;
                        self.skip_space();
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ => return Err(self.error(if object { "`,` or `}` expected" } else { "`,` or `]` expected" })),
                }
                self.pos += 1;
                depth -= 1;
            }
        }
    }

    /// A key with its colon; the scanner then stands on the value.
    pub(crate) fn key(&mut self) -> Result<Text, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a key in quotes expected"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.error("`:` expected"));
        }
        self.pos += 1;
        self.skip_space();
        Ok(key)
    }
}

/// Length of the escape at the front; a pair of surrogates is one.
fn escape_len(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => match hex4(bytes.get(2..6)?)? {
            0xD800..0xDC00 => {
                let low = bytes.get(6..12)?.strip_prefix(b"\\u").and_then(hex4)?;
                (0xDC00..0xE000).contains(&low).then_some(12)
            }
            0xDC00..0xE000 => None,
            _ => Some(6),
        },
        _ => None,
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, &b| Some(sum * 16 + char::from(b).to_digit(16)?))
}

/// Resolves escapes that `escape_len` has accepted.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while i < raw.len() {
        if raw[i] != b'\\' {
            out.push(raw[i]);
            i += 1;
            continue;
        }
        let len = escape_len(&raw[i..]).unwrap_or(2);
        let code = match raw.get(i + 1) {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => 0x0A,
            Some(b'r') => 0x0D,
            Some(b't') => 0x09,
            Some(b'u') => {
                let unit = |at: usize| raw.get(at..at + 4).and_then(hex4).unwrap_or(0xFFFD);
                if len == 12 { 0x10000 + ((unit(i + 2) & 0x3FF) << 10) + (unit(i + 8) & 0x3FF) } else { unit(i + 2) }
            }
            other => u32::from(other.copied().unwrap_or(b'\\')),
        };
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        i += len;
    }
}

/// Powers of ten up to the number of digits that are read at once.
const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The value of a number with few digits, and the place behind it; none for any other, which may be a number too.
#[inline]
pub(crate) fn short_number(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(negative);
    let (mut mantissa, digits) = few_digits(bytes, start);
    if digits == 0 || (digits > 1 && bytes[start] == b'0') {
        return None;
    }
    let (mut end, mut places) = (start + digits, 0);
    if bytes.get(end) == Some(&b'.') {
        let part;
        (part, places) = few_digits(bytes, end + 1);
        mantissa = mantissa * POWERS[places] + part;
        end += 1 + places;
        if places == 0 {
            return None;
        }
    }
    let goes_on = matches!(bytes.get(end), Some(b'0'..=b'9' | b'.' | b'e' | b'E'));
    if goes_on || mantissa > 1 << 53 {
        return None;
    }
    // As in `Number::to_f64`.
    let value = mantissa as f64 / EXACT_POWERS[places];
    Some((if negative { -value } else { value }, end))
}

/// Reads a number from plain text, more freely than JSON: `+1`, `.5`, `1.`, `007` are numbers too, `nan` and `inf` not.
pub(crate) fn number_in_text(text: &str) -> Option<f64> {
    let text = text.trim();
    let numeric = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if numeric { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        let mut scanner = Scanner::new(text.as_bytes());
        let number = scanner.number().unwrap();
        assert_eq!(scanner.pos, text.len());
        number
    }

    #[test]
    fn numbers_are_the_nearest_f64() {
        for text in [
            "0",
            "-0",
            "1",
            "-1",
            "0.1",
            "171.23",
            "1234.5",
            "12.25",
            "1e22",
            "1e23",
            "9007199254740993",
            "1e-7",
            "123456789012345678901234567890",
            "0.000000000000000000000000000000012345",
            "2.2250738585072011e-308",
            "4.9e-324",
            "1.7976931348623157e308",
            "1e999",
            "-1e999",
            "1e-999",
            "0e999",
            "179769313486231580793e289",
            "3.14159265358979323846264338327950288419716939937510582097494459",
            "1E+2",
            "1e0000000000000000000001",
            "100000000000000000000000.5",
            "0.30000000000000004",
            "8.5e15",
            "99999999999999999999e-20",
        ] {
            check(text);
        }
        let mut x = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..200_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let text = match x >> 62 {
                0 => format!("{:.*}", (x >> 8 & 7) as usize, (x >> 20 & 0xFFFF_FFFF) as f64 / 1_000.0),
                1 => format!("{:e}", f64::from_bits(x >> 2)),
                2 => format!("{}", (x >> 11) as f64 * 1e-9),
                _ => format!("-{}.{}e{}", x >> 50, x & 0xFFFF, x >> 33 & 31),
            };
            if text.contains('N') || text.contains('i') {
                continue;
            }
            check(&text);
        }
        for text in ["1.5", "-0", "0.5", "12345678.12345678", "-12345678"] {
            assert!(short_number(text.as_bytes(), 0).is_some(), "{text}");
        }
        for text in ["", "-", "007", "1.", ".5", "+1", "1e5", "123456789", "1.123456789", "1.2.3", "99999999.99999999"]
        {
            assert!(short_number(text.as_bytes(), 0).is_none(), "{text}");
        }
    }

    fn check(text: &str) {
        let value = text.parse::<f64>().unwrap().to_bits();
        assert_eq!(number(text).to_f64(text.as_bytes()).to_bits(), value, "{text}");
        if let Some((short, end)) = short_number(text.as_bytes(), 0) {
            assert_eq!((short.to_bits(), end), (value, text.len()), "{text}");
        }
    }

    #[test]
    fn strings_end_where_they_end() {
        for text in ["", "a", "1234567", "12345678", "123456789abcdef0123", "ä", "aaaaaaaaaaä", "~~~~~~~~~~ !#[]^"] {
            let quoted = format!("\"{text}\"tail");
            let mut scanner = Scanner::new(quoted.as_bytes());
            let span = scanner.string().unwrap().span;
            assert_eq!(span.of(quoted.as_bytes()), text.as_bytes());
            assert_eq!(scanner.non_ascii, !text.is_ascii());
        }
        for bad in [
            "\"abc",
            "\"a\u{1}b\"",
            "\"aaaaaaaa\u{1f}\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\udc00a\"",
            "\"\\",
        ] {
            assert!(Scanner::new(bad.as_bytes()).string().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn escapes_decode() {
        let raw = br#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z"#;
        let mut out = Vec::new();
        unescape(raw, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
    }

    #[test]
    fn arrays_are_skipped_and_checked() {
        for good in ["[]", "[ ]", "[1,[2,{\"a\":[]}],\"]\"]", "[{}]", "[{\"a\":{\"b\":null}}]", "[[[]],{},[{}]]"] {
            let mut scanner = Scanner::new(good.as_bytes());
            assert_eq!(scanner.flat_value(0).and_then(|_| scanner.end()), Ok(()), "{good}");
        }
        for bad in
            ["[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[{]", "[{\"a\"}]", "[{\"a\":}]", "[}", "[{\"a\":1,}]", "[[]"]
        {
            let mut scanner = Scanner::new(bad.as_bytes());
            assert!(scanner.flat_value(0).and_then(|_| scanner.end()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(
            Scanner::new(deep.as_bytes()).flat_value(0),
            Err(Syntax { offset: 64, what: "nested deeper than 64" })
        );
    }

    #[test]
    fn text_is_read_freely_as_a_number() {
        for (text, value) in [("+1", 1.0), (".5", 0.5), ("1.", 1.0), (" 007 ", 7.0), ("1e3", 1_000.0)] {
            assert_eq!(number_in_text(text), Some(value), "{text}");
        }
        for text in ["", "nan", "inf", "Infinity", "1,5", "0x10", "1 2", "--1", "e"] {
            assert_eq!(number_in_text(text), None, "{text}");
        }
    }
}
