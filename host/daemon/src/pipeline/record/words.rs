//! How a decision is told to the log and counted.

use ciborium::Value;
use hb_engine::decision::{Decision, Severity, Status};
use hb_log::hash::Hash;

/// Body of the log entry that records a decision in full.
pub fn decision_entry(hash: Hash, d: &Decision) -> Value {
    let mut body = vec![(Value::Text("decision".into()), Value::Bytes(hash.as_bytes().to_vec()))];
    let severity = d.severity.map_or("", Severity::as_str);
    let baseline = d.baseline.as_ref().map_or(String::new(), |b| format!("{} v{}", b.tag, b.version));
    let texts = [
        ("program", d.program.as_str()),
        ("lane", &d.lane),
        ("asset", &d.asset),
        ("check", &d.check),
        ("status", d.status.as_str()),
        ("previous", d.previous.as_str()),
        ("severity", severity),
        ("baseline", &baseline),
    ];
    body.extend(texts.map(|(k, v)| (Value::Text(k.into()), Value::Text(v.into()))));
    body.push((Value::Text("start_ns".into()), Value::Integer(d.start_ns.into())));
    body.push((Value::Text("end_ns".into()), Value::Integer(d.end_ns.into())));
    Value::Map(body)
}

/// The counter of a status.
pub fn counter_of(status: Status) -> &'static str {
    match status {
        Status::Pass => "decisions.pass",
        Status::NoData => "decisions.no_data",
        Status::Drift => "decisions.drift",
        Status::Error => "decisions.error",
        Status::Fail => "decisions.fail",
    }
}

/// A map of texts, as the body of a log entry.
pub fn text_map(fields: &[(&str, &str)]) -> Value {
    Value::Map(fields.iter().map(|(k, v)| (Value::Text((*k).into()), Value::Text((*v).into()))).collect())
}
