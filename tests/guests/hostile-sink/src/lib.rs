//! hostile-sink reaches for whatever its settings name, without asking before, and calls everything delivered.

use hb_sdk::http::{self, Header, Request};
use hb_sdk::{Delivery, Document, Fault, Points, Sink, log, socket};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    method: String,
    urls: Vec<String>,
    /// Name and value.
    headers: Vec<(String, String)>,
    sign_with: Option<String>,
    addresses: Vec<String>,
    timeout_ms: u32,
    /// Reach for it before anything was offered, too.
    early: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: "POST".to_owned(),
            urls: Vec::new(),
            headers: Vec::new(),
            sign_with: None,
            addresses: Vec::new(),
            timeout_ms: 60_000,
            early: false,
        }
    }
}

/// Takes what it can get.
pub struct HostileSink(Settings);

impl Sink for HostileSink {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        let sink = Self(settings);
        if sink.0.early {
            sink.reach(b"early");
        }
        Ok(sink)
    }

    fn deliver(
        &mut self,
        _batch_id: u64,
        documents: &[Document],
        _points: &Points<'_>,
        out: &mut Delivery,
    ) -> Result<(), Fault> {
        if let Some(document) = documents.first() {
            self.reach(&document.json);
        }
        out.all_delivered();
        Ok(())
    }
}

impl HostileSink {
    fn reach(&self, body: &[u8]) {
        for address in &self.0.addresses {
            log::warn(&format!("{address} answered {:?}", socket::send(address, body)));
        }
        for url in &self.0.urls {
            let headers = self.0.headers.iter();
            let headers = headers.map(|(name, value)| Header { name: name.clone(), value: value.clone() });
            let answer = http::send(&Request {
                method: self.0.method.clone(),
                url: url.clone(),
                headers: headers.collect(),
                body: body.to_vec(),
                timeout_ms: self.0.timeout_ms,
                sign_with: self.0.sign_with.clone(),
            });
            log::warn(&format!("{url} answered {:?}", answer.map(|r| r.status)));
        }
    }
}

hb_sdk::export_sink!(HostileSink);
