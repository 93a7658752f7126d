//! One value read as what its series wants: a number, a truth, or a state.

use crate::json::{Number, Text, Value, number_in_text};
use hb_sdk::SeriesKind;
use std::borrow::Cow;

/// What a value says.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading<'a> {
    /// The field is null.
    Nothing,
    Number(f64),
    State(Cow<'a, str>),
    /// Text or an array where a number belongs, and no mapping that would have promised one.
    NoNumber(String),
}

/// Whether it is a truth value, also in text.
pub(crate) fn is_boolean(value: Value, bytes: &[u8]) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Text(text) => truth(text.span.of(bytes)).is_some(),
        _ => false,
    }
}

/// Reads a value for a series of this kind. The error says what is wrong with it.
pub(crate) fn read(value: Value, kind: Option<SeriesKind>, bytes: &[u8]) -> Result<Reading<'_>, String> {
    match (kind, value) {
        (_, Value::Null) => Ok(Reading::Nothing),
        (Some(SeriesKind::State), value) => state(value, bytes),
        (_, Value::Array) => Ok(Reading::NoNumber("an array is no reading".to_owned())),
        (Some(SeriesKind::Boolean), Value::Number(n)) => match number(n, bytes)? {
            x @ (0.0 | 1.0) => Ok(Reading::Number(x.abs())),
            x => Err(format!("{x} is neither 0 nor 1")),
        },
        (_, Value::Bool(b)) => Ok(Reading::Number(f64::from(u8::from(b)))),
        (Some(SeriesKind::Counter), Value::Number(n)) => counted(number(n, bytes)?),
        (_, Value::Number(n)) => number(n, bytes).map(Reading::Number),
        (kind, Value::Text(t)) => in_text(t, kind, bytes),
    }
}

fn in_text(t: Text, kind: Option<SeriesKind>, bytes: &[u8]) -> Result<Reading<'_>, String> {
    let decoded = text(t, bytes);
    let trimmed = decoded.trim();
    if trimmed.is_empty() {
        return Ok(Reading::Nothing);
    }
    if let Some(b) = truth(trimmed.as_bytes()) {
        return Ok(Reading::Number(f64::from(u8::from(b))));
    }
    match (kind, number_in_text(trimmed)) {
        (_, Some(x)) if !x.is_finite() => Err(format!("`{}` is too large", excerpt(trimmed))),
        (Some(SeriesKind::Counter), Some(x)) => counted(x),
        (Some(SeriesKind::Boolean), Some(x @ (0.0 | 1.0))) => Ok(Reading::Number(x)),
        (Some(SeriesKind::Boolean), _) => Err(format!("`{}` is neither true nor false", excerpt(trimmed))),
        (_, Some(x)) => Ok(Reading::Number(x)),
        (_, None) if is_not_finite(trimmed) => Err(format!("`{}` is not a finite number", excerpt(trimmed))),
        (_, None) => Ok(Reading::NoNumber(format!("`{}` is not a number", excerpt(trimmed)))),
    }
}

fn number(n: Number, bytes: &[u8]) -> Result<f64, String> {
    let x = n.to_f64(bytes);
    if x.is_finite() {
        Ok(x)
    } else {
        Err(format!("`{}` is too large", excerpt(&String::from_utf8_lossy(n.span.of(bytes)))))
    }
}

fn counted(x: f64) -> Result<Reading<'static>, String> {
    if x < 0.0 { Err(format!("{x} is below zero, but a counter only counts up")) } else { Ok(Reading::Number(x)) }
}

fn state(value: Value, bytes: &[u8]) -> Result<Reading<'_>, String> {
    match value {
        Value::Text(t) => Ok(Reading::State(text(t, bytes))),
        Value::Number(n) => Ok(Reading::State(String::from_utf8_lossy(n.span.of(bytes)))),
        Value::Bool(b) => Ok(Reading::State(Cow::Borrowed(if b { "true" } else { "false" }))),
        Value::Array => Err("an array is no state".to_owned()),
        Value::Null => Ok(Reading::Nothing),
    }
}

/// The text itself. The frame is known to be UTF-8.
pub(crate) fn text(text: Text, bytes: &[u8]) -> Cow<'_, str> {
    if text.escaped {
        let mut decoded = Vec::new();
        text.decode_into(bytes, &mut decoded);
        Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
    } else {
        String::from_utf8_lossy(text.span.of(bytes))
    }
}

fn truth(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['+', '-']);
    ["nan", "inf", "infinity"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// Longer texts are cut in a reason.
const EXCERPT_CHARS: usize = 64;

/// The beginning of a text, for a reason.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}
