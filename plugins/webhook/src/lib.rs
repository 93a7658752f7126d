//! webhook sends each document as a POST to one URL: the body is the document's JSON as it is, and the id of the document
//! is the idempotency key.

mod answer;

use answer::Verdict;
use hb_sdk::http::{self, Header, Request};
use hb_sdk::{Delivery, Document, Failure, Fault, Points, Sink};
use serde::Deserialize;
use std::collections::BTreeMap;

/// When a receiver is not there, or does not say when to come again: the host waits longer each time.
const RETRY_MS: u32 = 1_000;

/// The secret that signs where the settings name none.
const USUAL_SECRET: &str = "signing";

/// Headers that this plugin sets itself.
const OWN: [&str; 2] = ["content-type", "idempotency-key"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    sign_with: Option<String>,
    #[serde(default = "usual_timeout_ms")]
    timeout_ms: u32,
}

fn usual_timeout_ms() -> u32 {
    5_000
}

/// Sends documents to a URL.
pub struct Webhook {
    settings: Settings,
    sign_with: Option<String>,
}

impl Sink for Webhook {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        if let Some(name) = settings.headers.keys().find(|name| OWN.contains(&name.to_ascii_lowercase().as_str())) {
            let text = format!("headers: `{name}` is set by the plugin itself; remove it");
            return Err(Fault::BadSettings(text));
        }
        let allowed = |secret: Option<&str>| http::granted("POST", &settings.url, secret);
        // A secret that the settings name must be there; the usual one is taken if it is.
        let sign_with = match &settings.sign_with {
            Some(name) => Some(name.clone()),
            None => allowed(Some(USUAL_SECRET)).is_ok().then(|| USUAL_SECRET.to_owned()),
        };
        allowed(None).map_err(|why| Fault::BadSettings(format!("url: {why}")))?;
        allowed(sign_with.as_deref()).map_err(|why| Fault::BadSettings(format!("sign_with: {why}")))?;
        Ok(Self { settings, sign_with })
    }

    fn deliver(
        &mut self,
        _batch_id: u64,
        documents: &[Document],
        points: &Points<'_>,
        out: &mut Delivery,
    ) -> Result<(), Fault> {
        if !points.is_empty() {
            out.points_rejected("a webhook takes documents, no points");
        }
        for (i, document) in documents.iter().enumerate() {
            match self.post(document) {
                Verdict::Delivered => out.delivered(i),
                Verdict::Rejected(why) => out.rejected(i, why),
                // Who is not there, or has too much to do, is spared the rest.
                Verdict::Retry(after_ms, why) => {
                    (i..documents.len()).for_each(|left| out.retry(left, after_ms, &*why));
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Webhook {
    fn post(&self, document: &Document) -> Verdict {
        let own = [("Content-Type", "application/json"), ("Idempotency-Key", &document.id)];
        let further = self.settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let header = |(name, value): (&str, &str)| Header { name: name.to_owned(), value: value.to_owned() };
        let request = Request {
            method: "POST".to_owned(),
            url: self.settings.url.clone(),
            headers: own.into_iter().chain(further).map(header).collect(),
            body: document.json.clone(),
            timeout_ms: self.settings.timeout_ms,
            sign_with: self.sign_with.clone(),
        };
        match http::send(&request) {
            Ok(response) => answer::judge(&response),
            Err(Failure::Unreachable(why)) => Verdict::Retry(RETRY_MS, why),
            Err(Failure::Refused(why)) => Verdict::Rejected(why),
        }
    }
}

hb_sdk::export_sink!(Webhook);

#[cfg(test)]
mod tests;
