//! mqtt passes payloads on, each with its topic as the origin; `key=value` payloads become JSON objects.
//!
//! What a payload becomes depends on the setting and the payload alone.

mod pairs;

use hb_sdk::{Fault, Frame, Inbox, Polled, Source};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    payload: Payload,
}

/// What payloads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Payload {
    /// Pairs where it is nothing but pairs, else as it is.
    #[default]
    Auto,
    /// As it is.
    Json,
    /// Pairs.
    Kv,
}

/// Publishing nothing with the retain flag deletes what a broker keeps for the topic.
const EMPTY: &str = "an empty payload: it clears a retained message and carries no reading";

/// Passes payloads on.
pub struct Mqtt {
    payload: Payload,
    /// The object at hand, until it is known to fit.
    object: Vec<u8>,
}

impl Source for Mqtt {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        Ok(Self { payload: settings.payload, object: Vec::new() })
    }

    /// The host remembers which messages it has acknowledged; there is no position beyond that.
    fn open(&mut self, _resume: Option<&[u8]>) -> Result<(), Fault> {
        Ok(())
    }

    fn poll(&mut self, inbox: Inbox, out: &mut Polled) -> Result<(), Fault> {
        if self.passes_as_it_is(&inbox) {
            out.pass_through(inbox);
            return Ok(());
        }
        for frame in inbox.batch() {
            if !self.payload(&frame, out) {
                break;
            }
        }
        Ok(())
    }
}

impl Mqtt {
    /// Whether all that waits needs no change: then it goes out without a copy.
    fn passes_as_it_is(&self, inbox: &Inbox) -> bool {
        let batch = inbox.batch();
        batch.len() <= inbox.max_frames()
            && inbox.data().len() <= inbox.max_bytes()
            && batch.iter().all(|frame| !frame.bytes.is_empty() && !self.may_be_pairs(frame.bytes))
    }

    /// Whether a payload has to be looked at; what begins like JSON need not be, and what has no `=` is no pair.
    fn may_be_pairs(&self, payload: &[u8]) -> bool {
        match self.payload {
            Payload::Json => false,
            Payload::Kv => true,
            Payload::Auto => match payload.trim_ascii_start().first() {
                None | Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9') => false,
                Some(_) => payload.contains(&b'='),
            },
        }
    }

    /// Takes one payload; false when it does not fit any more.
    fn payload(&mut self, frame: &Frame<'_>, out: &mut Polled) -> bool {
        if frame.bytes.is_empty() {
            out.reject(frame, EMPTY);
            return true;
        }
        self.object.clear();
        let answer =
            if self.may_be_pairs(frame.bytes) { pairs::write_object(frame, &mut self.object) } else { Ok(false) };
        let bytes = match answer {
            Ok(true) => self.object.as_slice(),
            Ok(false) if self.payload != Payload::Kv => frame.bytes,
            Ok(false) => {
                out.reject(frame, "not key=value pairs");
                return true;
            }
            Err(reason) => {
                out.reject(frame, reason);
                return true;
            }
        };
        if !out.has_room(bytes.len()) {
            return false;
        }
        out.frame(bytes, frame.received_ns, frame.origin);
        out.take(frame);
        true
    }
}

hb_sdk::export_source!(Mqtt);

#[cfg(test)]
mod tests;
