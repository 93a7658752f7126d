//! syslog-sink sends each document as one message of RFC 5424 to one address.

mod document;
mod message;

use document::Known;
use hb_sdk::{Delivery, Document, Failure, Fault, Points, Sink, socket};
use message::Header;
use serde::Deserialize;

/// When a receiver is not there: the host waits longer each time.
const RETRY_MS: u32 = 1_000;

/// Addresses whose messages follow each other without a border of their own.
const STREAMS: [&str; 2] = ["tcp://", "unix-stream://"];

/// By their codes.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MessageText {
    Issue,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Framing {
    OctetCount,
    Newline,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    address: String,
    facility: String,
    hostname: String,
    app_name: String,
    message: MessageText,
    framing: Framing,
    max_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: String::new(),
            facility: "daemon".to_owned(),
            hostname: "-".to_owned(),
            app_name: "hb".to_owned(),
            message: MessageText::Issue,
            framing: Framing::OctetCount,
            max_bytes: 8_192,
        }
    }
}

/// Sends documents as syslog messages.
pub struct SyslogSink {
    settings: Settings,
    facility: u8,
}

impl Sink for SyslogSink {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        let facility = FACILITIES.iter().position(|f| *f == settings.facility);
        let unknown = || format!("facility: there is no `{}`; known are {}", settings.facility, FACILITIES.join(", "));
        let facility = facility.ok_or_else(|| Fault::BadSettings(unknown()))? as u8;
        for (key, value) in [("hostname", &settings.hostname), ("app_name", &settings.app_name)] {
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Fault::BadSettings(format!("{key}: printable ASCII without blanks is needed")));
            }
        }
        socket::granted(&settings.address).map_err(|why| Fault::BadSettings(format!("address: {why}")))?;
        Ok(Self { settings, facility })
    }

    fn deliver(
        &mut self,
        _batch_id: u64,
        documents: &[Document],
        points: &Points<'_>,
        out: &mut Delivery,
    ) -> Result<(), Fault> {
        if !points.is_empty() {
            out.points_rejected("syslog takes documents, no points");
        }
        for (i, document) in documents.iter().enumerate() {
            match socket::send(&self.settings.address, &self.framed(document)) {
                Ok(()) => out.delivered(i),
                Err(Failure::Refused(why)) => out.rejected(i, why),
                // Nobody is there for the rest either; and their order stays.
                Err(Failure::Unreachable(why)) => {
                    (i..documents.len()).for_each(|left| out.retry(left, RETRY_MS, &*why));
                    break;
                }
            }
        }
        Ok(())
    }
}

impl SyslogSink {
    fn framed(&self, document: &Document) -> Vec<u8> {
        let message = self.message(document);
        let stream = STREAMS.iter().any(|scheme| self.settings.address.starts_with(scheme));
        match self.settings.framing {
            Framing::OctetCount if stream => format!("{} {message}", message.len()),
            Framing::Newline if stream => format!("{message}\n"),
            _ => message,
        }
        .into_bytes()
    }

    fn message(&self, document: &Document) -> String {
        let known = Known::of(document);
        let header = Header {
            facility: self.facility,
            severity: known.severity(),
            time_ns: known.time_ns(),
            hostname: &self.settings.hostname,
            app_name: &self.settings.app_name,
            msgid: &document.kind,
        };
        let data = known.data();
        let json = String::from_utf8_lossy(&document.json);
        let max = self.settings.max_bytes;
        if self.settings.message == MessageText::Json {
            let whole = message::write(&header, &data, &json, usize::MAX);
            if whole.len() <= max {
                return whole;
            }
        }
        // What is no document that this plugin knows is shown as it is.
        let text = known.sentence().unwrap_or_else(|| json.into_owned());
        message::write(&header, &data, &text, max)
    }
}

hb_sdk::export_sink!(SyslogSink);

#[cfg(test)]
mod tests;
