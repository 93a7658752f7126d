//! Pairs: `temp=21.5 state="door open",on=true`, with blanks, commas or semicolons between them.

use hb_sdk::Frame;
use serde::de::IgnoredAny;
use std::collections::BTreeSet;

/// Pairs of one payload; a normalizer takes no more fields of one frame either.
const MAX_PAIRS: usize = 1_024;

/// Appends a payload of pairs as a JSON object; false when it is anything else. The error is the reason of a reject:
/// it is made of pairs that cannot stand in one object.
pub(crate) fn write_object(frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    let Ok(text) = frame.text() else { return Ok(false) };
    let Some(pairs) = parse(text) else { return Ok(false) };
    if pairs.len() > MAX_PAIRS {
        return Err("more than 1024 pairs");
    }
    let mut keys = BTreeSet::new();
    for (i, pair) in pairs.iter().enumerate() {
        if !keys.insert(pair.key) {
            return Err("a key is there twice");
        }
        out.push(if i == 0 { b'{' } else { b',' });
        write_string(out, pair.key);
        out.push(b':');
        match &pair.value {
            Value::Quoted(text) => write_string(out, text),
            Value::Bare(text) if matches!(*text, "true" | "false") || is_json_number(text) => {
                out.extend_from_slice(text.as_bytes());
            }
            Value::Bare(text) => write_string(out, text),
        }
    }
    out.push(b'}');
    Ok(true)
}

struct Pair<'a> {
    key: &'a str,
    value: Value<'a>,
}

enum Value<'a> {
    Bare(&'a str),
    /// Text in any case, with escapes resolved.
    Quoted(String),
}

/// The pairs of a text that is nothing but pairs, at least one. It stops at one more than may be.
fn parse(text: &str) -> Option<Vec<Pair<'_>>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_between);
    while !rest.is_empty() && pairs.len() <= MAX_PAIRS {
        let (key, behind) = rest.split_at(rest.find(ends_key)?);
        let behind = behind.strip_prefix('=').filter(|_| !key.is_empty())?;
        let (value, behind) = if let Some(quoted) = behind.strip_prefix('"') {
            unquote(quoted).map(|(text, rest)| (Value::Quoted(text), rest))?
        } else {
            let (bare, rest) = behind.split_at(behind.find(is_between).unwrap_or(behind.len()));
            (Value::Bare(bare), rest)
        };
        let is_odd = matches!(&value, Value::Bare(text) if text.starts_with('=') || text.contains(char::is_control));
        // What stands right behind a closing quote is no separator, so the text is something else.
        if is_odd || !(behind.is_empty() || behind.starts_with(is_between)) {
            return None;
        }
        pairs.push(Pair { key, value });
        rest = behind.trim_start_matches(is_between);
    }
    (!pairs.is_empty()).then_some(pairs)
}

fn is_between(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | ',' | ';')
}

/// Where a key is over: at its `=`, or at what no key holds but markup, code and URLs do.
fn ends_key(c: char) -> bool {
    c.is_control() || is_between(c) || "=\"'`?&<>()[]{}".contains(c)
}

/// The content up to the closing quote, with `\"` and `\\` resolved, and what follows; none without a closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, &text[at + 1..])),
            '\\' => match chars.next()? {
                (_, escaped @ ('"' | '\\')) => content.push(escaped),
                (_, other) => content.extend(['\\', other]),
            },
            _ => content.push(c),
        }
    }
    None
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            0..0x20 => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

/// Whether a text without blanks is a number by the grammar of RFC 8259, so that it can stand in JSON as it is.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_numbers_are_numbers() {
        for yes in
            ["0", "-0", "10", "1.0", "1e5", "1E+5", "1.5e-05", "-12.25", "1e999", "123456789012345678901234567890"]
        {
            assert!(is_json_number(yes), "{yes}");
        }
        for no in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "inf", "NaN", "1,5", "--1", "true", "[1]"] {
            assert!(!is_json_number(no), "{no}");
        }
    }
}
