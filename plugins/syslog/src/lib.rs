//! syslog turns messages as they come from a socket, or from journalctl, into one JSON object each.
//!
//! ```json
//! {"timestamp":"2026-01-01T00:00:00.000000000Z","host":"m1","program":"kernel","facility":"kern","severity":"warning","msg":"..."}
//! ```
//!
//! What a message does not say is left out, except for the time: then it happened when the host received it. What an
//! object says depends on the settings and the one frame alone. A blank frame yields nothing; a message that makes no
//! sense is a reject with a reason.

mod fields;
mod journald;
mod local_time;
mod message;
mod priority;
mod rfc3164;
mod rfc5424;

use hb_sdk::{Fault, Frame, Inbox, Polled, Source};
use message::{Message, Reason};
use rfc5424::Letter;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    format: Format,
    utc_offset_minutes: i64,
    fields: FieldsFrom,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, utc_offset_minutes: 0, fields: FieldsFrom::None }
    }
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// RFC 5424 where it looks like it, else RFC 3164.
    Auto,
    Rfc5424,
    Rfc3164,
    Journald,
}

/// Where fields come from besides structured data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FieldsFrom {
    None,
    /// Pairs found in the message.
    Kv,
}

/// Offsets that exist on Earth.
const OFFSETS_MIN: std::ops::RangeInclusive<i64> = -720..=840;

const NS_PER_MIN: i64 = 60_000_000_000;

/// Reads syslog messages.
pub struct Syslog {
    format: Format,
    offset_ns: i64,
    fields: FieldsFrom,
    /// The object at hand, until it is known to fit.
    object: Vec<u8>,
}

impl Source for Syslog {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        let offset_min = settings.utc_offset_minutes;
        if !OFFSETS_MIN.contains(&offset_min) {
            return Err(Fault::BadSettings(format!("utc_offset_minutes: {offset_min} is not within -720 to 840")));
        }
        let offset_ns = offset_min * NS_PER_MIN;
        Ok(Self { format: settings.format, offset_ns, fields: settings.fields, object: Vec::new() })
    }

    /// Messages carry all that is needed to read them, so there is no position of its own to take up.
    fn open(&mut self, _resume: Option<&[u8]>) -> Result<(), Fault> {
        Ok(())
    }

    fn poll(&mut self, inbox: Inbox, out: &mut Polled) -> Result<(), Fault> {
        for frame in inbox.batch() {
            let Ok(text) = frame.text() else {
                out.reject(&frame, "not UTF-8");
                continue;
            };
            // Senders end a message as a line or as a C string; neither belongs to it.
            let text = text.trim_end_matches(['\n', '\r', '\0']);
            if text.trim_ascii().is_empty() {
                out.take(&frame);
                continue;
            }
            match self.read(text, &frame) {
                Err(reason) => out.reject(&frame, reason),
                Ok(message) => {
                    self.object.clear();
                    serde_json::to_writer(&mut self.object, &message).map_err(|e| Fault::Fatal(e.to_string()))?;
                    if !out.has_room(self.object.len()) {
                        break;
                    }
                    out.frame(&self.object, frame.received_ns, frame.origin);
                    out.take(&frame);
                }
            }
        }
        Ok(())
    }
}

impl Syslog {
    fn read<'a>(&self, text: &'a str, frame: &Frame<'_>) -> Result<Message<'a>, Reason> {
        let received_ns = frame.received_ns;
        let mut message = match self.format {
            Format::Journald => journald::parse(text, received_ns)?,
            Format::Rfc5424 => rfc5424::parse(text, received_ns, Letter::Strict)?,
            Format::Auto if rfc5424::looks_like(text) => rfc5424::parse(text, received_ns, Letter::Lenient)?,
            Format::Auto | Format::Rfc3164 => rfc3164::parse(text, received_ns, self.offset_ns)?,
        };
        if self.fields == FieldsFrom::Kv
            && let Some(msg) = &message.msg
        {
            fields::add_pairs(msg, &mut message.fields)?;
        }
        Ok(message)
    }
}

hb_sdk::export_source!(Syslog);

#[cfg(test)]
mod tests;
