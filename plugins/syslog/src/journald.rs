//! Entries of the journal as `journalctl -o json` prints them: one object per line, all values text.

mod field;

use crate::message::{Message, Reason};
use crate::priority;
use field::Field;
use serde::Deserialize;
use std::borrow::Cow;

/// What is read of an entry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Microseconds since the Unix epoch.
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time_us: Field,
    #[serde(rename = "_HOSTNAME")]
    host: Field,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Field,
    /// The name of the process, where it gave itself no other.
    #[serde(rename = "_COMM")]
    command: Field,
    #[serde(rename = "_PID")]
    pid: Field,
    #[serde(rename = "PRIORITY")]
    severity: Field,
    #[serde(rename = "SYSLOG_FACILITY")]
    facility: Field,
    #[serde(rename = "MESSAGE")]
    message: Field,
}

/// Reads an entry.
pub(crate) fn parse(text: &str, received_ns: i64) -> Result<Message<'static>, Reason> {
    const NO_ENTRY: Reason = "not an entry of the journal in JSON";
    // An array of the right length would be taken for the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(NO_ENTRY);
    }
    let entry: Entry = serde_json::from_str(text).map_err(|_| NO_ENTRY)?;
    let time_ns = match entry.time_us {
        Field::Absent => received_ns,
        time => time.number().and_then(|us| i64::try_from(us).ok()?.checked_mul(1_000)).ok_or(NO_TIME)?,
    };
    let code = |field: Field| field.number().and_then(|code| usize::try_from(code).ok());
    Ok(Message {
        time_ns,
        host: entry.host.text(),
        program: entry.identifier.text().or_else(|| entry.command.text()),
        pid: entry.pid.text(),
        // Programs write these two as they like; what is no such number is as good as absent.
        facility: code(entry.facility).and_then(priority::facility),
        severity: code(entry.severity).and_then(priority::severity),
        msg: message_of(entry.message)?,
        ..Message::default()
    })
}

const NO_TIME: Reason = "__REALTIME_TIMESTAMP: not a time in microseconds";

/// A message that holds what JSON or a terminal could not take is printed as an array of its bytes; one that is too
/// long as null.
fn message_of(field: Field) -> Result<Option<Cow<'static, str>>, Reason> {
    match field {
        Field::Absent => Ok(None),
        Field::Bytes(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| "MESSAGE: not UTF-8")?;
            Ok(Field::Text(text).text())
        }
        Field::Text(_) => Ok(field.text()),
        Field::Number(_) | Field::Other => Err("MESSAGE: neither text nor bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse(text, 0) {
            Ok(message) => serde_json::to_string(&message).unwrap(),
            Err(reason) => format!("! {reason}"),
        }
    }

    #[test]
    fn an_entry_is_read() {
        assert_eq!(
            read(
                r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1767225600000001","_HOSTNAME":"m1","SYSLOG_IDENTIFIER":"sshd",
                "_COMM":"sshd-session","_PID":"12","PRIORITY":"6","SYSLOG_FACILITY":"4","MESSAGE":"a \"b\"\n\u00e9","_X":["1","2"]}"#
            ),
            r#"{"timestamp":"2026-01-01T00:00:00.000001000Z","host":"m1","program":"sshd","pid":"12","facility":"auth","severity":"info","msg":"a \"b\"\né"}"#
        );
        let nothing = r#"{"timestamp":"1970-01-01T00:00:00.000000000Z"}"#;
        for entry in
            ["{}", r#"{"MESSAGE":null}"#, r#"{"MESSAGE":"","PRIORITY":"9","SYSLOG_FACILITY":"x","_PID":["1"]}"#]
        {
            assert_eq!(read(entry), nothing, "{entry}");
        }
        assert!(read(r#"{"_COMM":"cat","MESSAGE":[104,195,169,10]}"#).ends_with(r#""program":"cat","msg":"hé\n"}"#));
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (text, reason) in [
            ("hello", "not an entry of the journal in JSON"),
            ("[1,2,3,4,5,6,7,8]", "not an entry of the journal in JSON"),
            (r#"{"_PID":"1","_PID":"2"}"#, "not an entry of the journal in JSON"),
            ("{", "not an entry of the journal in JSON"),
            (r#"{"__REALTIME_TIMESTAMP":"soon"}"#, "__REALTIME_TIMESTAMP: not a time in microseconds"),
            (r#"{"__REALTIME_TIMESTAMP":"9999999999999999999"}"#, "__REALTIME_TIMESTAMP: not a time in microseconds"),
            (r#"{"MESSAGE":[300]}"#, "MESSAGE: neither text nor bytes"),
            (r#"{"MESSAGE":["a","b"]}"#, "MESSAGE: neither text nor bytes"),
            (r#"{"MESSAGE":[[104]]}"#, "MESSAGE: neither text nor bytes"),
            (r#"{"MESSAGE":{"a":[1]}}"#, "MESSAGE: neither text nor bytes"),
            (r#"{"MESSAGE":[255]}"#, "MESSAGE: not UTF-8"),
        ] {
            assert_eq!(read(text), format!("! {reason}"), "{text}");
        }
    }
}
