//! Structured data of RFC 5424: `[id key="value" key="value"][id]`, or `-`.

use super::Letter;
use crate::fields::Fields;
use crate::message::Reason;
use std::borrow::Cow;

/// Length of a name, by RFC 5424 section 6.3.
const NAME_MAX: usize = 32;

const NOT_A_NAME: Reason = "structured data: not a name";
const NO_END: Reason = "structured data: ends early";

/// Reads all elements and returns what follows them. A parameter becomes the field `id.key`, an element without any
/// the empty field `id`.
pub(super) fn parse<'a>(text: &'a str, letter: Letter, fields: &mut Fields) -> Result<&'a str, Reason> {
    if let Some(rest) = text.strip_prefix('-') {
        return Ok(rest);
    }
    let mut rest = text.strip_prefix('[').ok_or("structured data: neither `-` nor `[`")?;
    let mut ids: Vec<&str> = Vec::new();
    loop {
        let id;
        (id, rest) = name(rest, &[' ', ']'], letter)?;
        if letter == Letter::Strict && ids.contains(&id) {
            return Err("structured data: an element is there twice");
        }
        ids.push(id);
        rest = element(id, rest, letter, fields)?;
        match rest.strip_prefix('[') {
            Some(next) => rest = next,
            None => return Ok(rest),
        }
    }
}

/// The parameters of an element, and what follows its bracket.
fn element<'a>(id: &str, text: &'a str, letter: Letter, fields: &mut Fields) -> Result<&'a str, Reason> {
    if let Some(rest) = text.strip_prefix(']') {
        fields.add(id.to_owned(), "")?;
        return Ok(rest);
    }
    let mut rest = text;
    loop {
        if let Some(rest) = rest.strip_prefix(']') {
            return Ok(rest);
        }
        rest =
            rest.strip_prefix(' ').ok_or(if rest.is_empty() { NO_END } else { "structured data: no space between" })?;
        let key;
        (key, rest) = name(rest, &['='], letter)?;
        let quoted = rest.strip_prefix("=\"").ok_or("structured data: a value without quotes")?;
        let value;
        (value, rest) = unquote(quoted, letter)?;
        fields.add(format!("{id}.{key}"), &value)?;
    }
}

/// A name up to one of `ends`, which stays.
fn name<'a>(text: &'a str, ends: &[char], letter: Letter) -> Result<(&'a str, &'a str), Reason> {
    let (name, rest) = text.split_at(text.find(ends).ok_or(NO_END)?);
    let is_wrong = name.is_empty() || name.contains(['=', ' ', ']', '"']);
    let is_odd = name.len() > NAME_MAX || !name.bytes().all(|b| b.is_ascii_graphic());
    if is_wrong || (letter == Letter::Strict && is_odd) { Err(NOT_A_NAME) } else { Ok((name, rest)) }
}

/// A value up to its closing quote, and what follows that. `\"`, `\\` and `\]` are escapes; another backslash is one.
fn unquote(text: &str, letter: Letter) -> Result<(Cow<'_, str>, &str), Reason> {
    let bytes = text.as_bytes();
    let mut escaped = false;
    let mut at = 0;
    loop {
        match bytes.get(at) {
            None => return Err(NO_END),
            Some(b'"') => break,
            Some(b']') if letter == Letter::Strict => return Err("structured data: `]` without a backslash"),
            Some(b'\\') if matches!(bytes.get(at + 1), Some(b'"' | b'\\' | b']')) => {
                escaped = true;
                at += 2;
            }
            Some(_) => at += 1,
        }
    }
    let (raw, rest) = (&text[..at], &text[at + 1..]);
    Ok((if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }, rest))
}

fn unescape(raw: &str) -> String {
    let mut value = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next @ ('"' | '\\' | ']')) if c == '\\' => {
                value.push(next);
                chars.next();
            }
            _ => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, letter: Letter) -> String {
        let mut fields = Fields::default();
        match parse(text, letter, &mut fields) {
            Ok(rest) => format!("{}{rest}", serde_json::to_string(&fields).unwrap()),
            Err(reason) => format!("! {reason}"),
        }
    }

    #[test]
    fn elements_become_fields() {
        for (text, fields) in [
            ("-", "{}"),
            ("[a]", r#"{"a":""}"#),
            (r#"[a x="1" y=""][b z="é"] msg"#, r#"{"a.x":"1","a.y":"","b.z":"é"} msg"#),
            (r#"[a x="1"] [b y="2"]"#, r#"{"a.x":"1"} [b y="2"]"#),
            (r#"[o ip="192.0.2.1" ip="192.0.2.129"]"#, r#"{"o.ip":"192.0.2.1,192.0.2.129"}"#),
            (r#"[a x="q\" b\\ r\] n\n \\]"]"#, "! structured data: `]` without a backslash"),
            (r#"[a x="q\" b\\ r\] n\n"]"#, r#"{"a.x":"q\" b\\ r] n\\n"}"#),
            (r#"[a x="\\"]"#, r#"{"a.x":"\\"}"#),
            (r#"[a x="\\\""]"#, r#"{"a.x":"\\\""}"#),
        ] {
            assert_eq!(read(text, Letter::Strict), fields, "{text}");
        }
    }

    #[test]
    fn a_lenient_reader_takes_what_is_clear() {
        let long = format!("[{} x=\"1\"]", "i".repeat(33));
        for (text, fields) in [
            (r#"[a x="b]c"]"#, r#"{"a.x":"b]c"}"#),
            (r#"[a x="1"][a x="2" y="3"]"#, r#"{"a.x":"1,2","a.y":"3"}"#),
            (r#"[é x="1"]"#, r#"{"é.x":"1"}"#),
            (long.as_str(), &format!("{{\"{}.x\":\"1\"}}", "i".repeat(33))),
        ] {
            assert_eq!(read(text, Letter::Lenient), fields, "{text}");
            assert!(read(text, Letter::Strict).starts_with('!'), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (text, reason) in [
            ("", "neither `-` nor `[`"),
            ("msg", "neither `-` nor `[`"),
            ("[", "ends early"),
            ("[a", "ends early"),
            ("[a x", "ends early"),
            ("[a x=", "a value without quotes"),
            ("[a x=1]", "a value without quotes"),
            ("[a x=\"1", "ends early"),
            ("[a x=\"1\"", "ends early"),
            ("[a x=\"1\\\"", "ends early"),
            ("[]", "not a name"),
            ("[ a x=\"1\"]", "not a name"),
            ("[a=b x=\"1\"]", "not a name"),
            ("[a x=\"1\" ]", "ends early"),
            ("[a x=\"1\" ] y=\"2\"", "not a name"),
            ("[a  x=\"1\"]", "not a name"),
            ("[a x=\"1\"y=\"2\"]", "no space between"),
            ("[a x =\"1\"]", "not a name"),
        ] {
            for letter in [Letter::Strict, Letter::Lenient] {
                assert_eq!(read(text, letter), format!("! structured data: {reason}"), "{text}");
            }
        }
        let many = format!("[a{}]", " x=\"1\"".repeat(513));
        assert_eq!(read(&many, Letter::Lenient), "! more than 512 fields");
    }
}
