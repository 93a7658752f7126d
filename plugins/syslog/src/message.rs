//! A message as it is understood, whatever form it came in.

use crate::fields::Fields;
use hb_sdk::time::TimeError;
use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// Why a message makes no sense: a fixed text, so that refusals can be counted by it.
pub(crate) type Reason = &'static str;

/// What one message says. It is written in the order of its fields.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Message<'a> {
    /// When it happened.
    #[serde(rename = "timestamp", serialize_with = "rfc3339")]
    pub(crate) time_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<Cow<'a, str>>,
    /// Text: it need not be a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msgid: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facility: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msg: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub(crate) fields: Fields,
}

/// A part of a message, if there is anything in it.
pub(crate) fn part(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Why a text is no time.
pub(crate) fn time_reason(error: TimeError) -> Reason {
    match error {
        TimeError::Malformed => "timestamp: not of the form 2026-01-01T00:00:00Z",
        TimeError::NoSuchTime => "timestamp: no such date or time",
        TimeError::OutOfRange => "timestamp: outside of the years 1678 to 2261",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn rfc3339<S: Serializer>(time_ns: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hb_sdk::time::format_rfc3339(*time_ns))
}
