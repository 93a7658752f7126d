//! Requests over HTTP to the URLs that the operator granted; the host connects, checks certificates and signs.

use crate::Failure;
pub use crate::wit::http::{Header, Request, Response};

impl Response {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.name == name).map(|h| h.value.as_str())
    }
}

/// Sends a request and waits for the answer. A status such as 404 or 503 is an answer, not a failure.
pub fn send(request: &Request) -> Result<Response, Failure> {
    host::send(request)
}

/// Whether [`send`] would be allowed. Ask in `configure`: then the operator hears of it at the start.
pub fn granted(method: &str, url: &str, sign_with: Option<&str>) -> Result<(), String> {
    host::granted(method, url, sign_with)
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::wit::http::{granted, send};
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) use crate::testkit::host::{http_granted as granted, http_send as send};
}
