//! What a syslog message says of a document: taken from an alert or a decision, whatever of it is there.

use hb_sdk::{Document, time};
use serde_json::{Map, Value};

/// Severities of syslog.
const CRIT: u8 = 2;
const ERR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// Members that become parameters of the structured data, in this order, behind `id` and `kind`.
const PARAMETERS: [&str; 8] = ["fingerprint", "program", "asset", "check", "status", "state", "severity", "run_id"];

/// Bytes of one parameter: names of assets and checks fit, and all of them into the shortest message.
const MAX_PARAMETER_BYTES: usize = 128;

/// A document that may be one of those that hb sends.
pub(crate) struct Known<'a> {
    document: &'a Document,
    members: Map<String, Value>,
}

impl<'a> Known<'a> {
    pub(crate) fn of(document: &'a Document) -> Self {
        let members = serde_json::from_slice(&document.json).unwrap_or_default();
        Self { document, members }
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member)?.as_str().filter(|text| !text.is_empty())
    }

    /// When it happened: an alert's `ts`, a decision's end.
    pub(crate) fn time_ns(&self) -> Option<i64> {
        let ts = self.text("ts").and_then(|ts| time::parse_rfc3339(ts.as_bytes()).ok());
        ts.or_else(|| self.members.get("end_ns")?.as_i64())
    }

    fn is_over(&self) -> bool {
        self.text("state") == Some("resolved") || self.text("status") == Some("resolved")
    }

    /// What is over is a notice, however bad it was; else the alert's severity counts, and without one the status.
    pub(crate) fn severity(&self) -> u8 {
        if self.is_over() {
            return NOTICE;
        }
        match (self.text("severity"), self.text("status")) {
            (Some("CRITICAL"), _) => CRIT,
            (Some("FAIL"), _) | (None, Some("FAIL" | "ERROR")) => ERR,
            (Some("WARN"), _) | (None, Some("DRIFT" | "NO_DATA")) => WARNING,
            (None, Some("PASS" | "ok")) => INFO,
            _ => NOTICE,
        }
    }

    /// Parameters of the structured data.
    pub(crate) fn data(&self) -> Vec<(&'static str, &str)> {
        let own = [("id", self.document.id.as_str()), ("kind", self.document.kind.as_str())];
        let members = PARAMETERS.iter().filter_map(|name| Some((*name, self.text(name)?)));
        own.into_iter().chain(members).map(|(name, value)| (name, cut(value))).collect()
    }

    /// What is wrong, as an alert says it, or as a decision's worst finding does.
    pub(crate) fn sentence(&self) -> Option<String> {
        let issue = match (self.text("primary_issue"), self.text("reason")) {
            (Some(issue), Some(reason)) if !reason.contains(issue) => Some(format!("{issue}: {reason}")),
            (Some(_) | None, Some(text)) | (Some(text), None) => Some(text.to_owned()),
            (None, None) => None,
        };
        let sentence = issue.or_else(|| self.decided())?;
        Some(if self.is_over() { format!("resolved: {sentence}") } else { sentence })
    }

    fn decided(&self) -> Option<String> {
        let (check, asset, status) = (self.text("check")?, self.text("asset")?, self.text("status")?);
        let worst = self.members.get("findings").and_then(|f| f.get(0)?.get("reason")?.as_str());
        let why = worst.map_or(String::new(), |why| format!(": {why}"));
        Some(format!("{check} of {asset} is {status}{why}"))
    }
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_PARAMETER_BYTES.min(text.len()));
    &text[..end]
}
