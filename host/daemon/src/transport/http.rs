//! Requests over HTTP, to granted URLs alone: what a sink plugin asks for goes out here, or is refused in words.
//!
//! The connection, TLS, the time it may take and the size of the answer are the host's. Redirects are not followed, since
//! they lead where nobody granted; proxies of the environment are not used, since the environment grants nothing.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::http::{HeaderName, HeaderValue, Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, RequestExt as _};

use super::Unsent;
use super::tls::{self, TlsError, TlsOptions};
use crate::clock;

mod signature;
mod url;

pub use signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
pub use url::Url;

/// What may be granted: the methods that mean the same everywhere.
pub const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Longest time for a request, ms: as long as one call into a plugin may take.
const MAX_TIMEOUT_MS: u32 = 60_000;

/// Headers of a request, and of an answer as far as it is handed on.
const MAX_HEADERS: usize = 64;

/// Bytes of all headers, of a request and of an answer: servers refuse more.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Bytes of an answer that are handed on: a receiver's reason fits.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// How the other side is called in messages.
const PEER: &str = "the receiver";

/// Headers that say where a request goes and how it ends; `proxy-` ones too.
const HOSTS_OWN: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    TIMESTAMP_HEADER,
    SIGNATURE_HEADER,
];

/// What an operator grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpGrant {
    /// A URL; what lies below it is granted too.
    pub url: String,
    /// Methods.
    pub methods: Vec<String>,
    /// Certificates of the authorities that may have signed the receiver's, PEM; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Why a grant cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL.
    #[error("`{url}` cannot be granted: {reason}")]
    Url {
        /// As it was written.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No method.
    #[error("no method is granted")]
    NoMethod,
    /// Another method.
    #[error("`{0}` is no method that can be granted")]
    Method(String),
    /// Authorities for a URL without TLS.
    #[error("`ca_file` has no meaning for a URL without TLS")]
    CaWithoutTls,
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl HttpError {
    /// The way out.
    pub fn help(&self) -> String {
        match self {
            HttpError::Url { .. } => "write it as https://hooks.example/hb/, without user, query and fragment".into(),
            HttpError::NoMethod => "write `methods: [POST]`".into(),
            HttpError::Method(_) => format!("the methods are {}, in large letters", METHODS.join(", ")),
            HttpError::CaWithoutTls => "write https://, or remove `ca_file`".into(),
            HttpError::Tls(e) => e.help().into(),
        }
    }
}

/// A request as a plugin wants it.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// Method.
    pub method: &'a str,
    /// URL.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub body: &'a [u8],
    /// Longest time, ms.
    pub timeout_ms: u32,
    /// Name of the secret to sign with.
    pub sign_with: Option<&'a str>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status.
    pub status: u16,
    /// Names in lower case, and values that are text.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// The way out for one sink.
pub struct HttpClient {
    grants: Vec<Granted>,
    secrets: BTreeMap<String, String>,
    /// Where the grants stand, for messages.
    place: String,
}

struct Granted {
    url: Url,
    methods: Vec<Method>,
    agent: Agent,
}

impl HttpClient {
    /// Checks grants and reads their certificates; connects to nothing. An error comes with the grant's index.
    pub fn new(
        grants: &[HttpGrant],
        secrets: BTreeMap<String, String>,
        place: String,
    ) -> Result<HttpClient, (usize, HttpError)> {
        let grants = grants.iter().enumerate().map(|(i, grant)| Granted::new(grant).map_err(|e| (i, e)));
        Ok(HttpClient { grants: grants.collect::<Result<_, _>>()?, secrets, place })
    }

    /// Whether a request may be sent; the text says what may.
    pub fn granted(&self, method: &str, url: &str, sign_with: Option<&str>) -> Result<(), String> {
        self.find(method, url)?;
        self.secret(sign_with)?;
        Ok(())
    }

    /// Sends a request and waits for the answer, no longer than `time_left`.
    pub fn send(&self, request: &HttpRequest<'_>, time_left: Duration) -> Result<HttpResponse, Unsent> {
        let (granted, method, url) = self.find(request.method, request.url).map_err(Unsent::Refused)?;
        let built = self.build(request, method, &url).map_err(Unsent::Refused)?;
        let timeout = Duration::from_millis(request.timeout_ms.into()).min(time_left);
        let failed = |e: &ureq::Error| {
            // The query may hold what is nobody's business.
            let url = request.url.split('?').next().unwrap_or_default();
            Unsent::Unreachable(format!("{} {url}: {}", request.method, explain(e, timeout)))
        };
        // What has no body must not say that it has an empty one.
        let answer = if is_bodyless(request.method) {
            built.map(|_| ()).with_agent(&granted.agent).configure().timeout_global(Some(timeout)).run()
        } else {
            built.with_agent(&granted.agent).configure().timeout_global(Some(timeout)).run()
        };
        let mut answer = answer.map_err(|e| failed(&e))?;
        let headers = answer.headers().iter().take(MAX_HEADERS);
        let headers = headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let (status, headers) = (answer.status().as_u16(), headers.collect());
        let mut body = Vec::new();
        // The status has been given, and a body that breaks off does not take it back.
        let _ = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut body);
        Ok(HttpResponse { status, headers, body })
    }

    fn find(&self, method: &str, url: &str) -> Result<(&Granted, Method, Url), String> {
        let asked = Url::parse(url).map_err(|why| format!("the URL `{}` is refused: {why}", url.escape_debug()))?;
        let known = METHODS.contains(&method).then(|| Method::from_bytes(method.as_bytes()).ok()).flatten();
        let found = known.and_then(|method| {
            let granted = self.grants.iter().find(|g| g.url.covers(&asked) && g.methods.contains(&method))?;
            Some((granted, method, asked.clone()))
        });
        found.ok_or_else(|| {
            let granted: Vec<String> = self.grants.iter().map(Granted::in_words).collect();
            let method: String = method.escape_debug().take(16).collect();
            format!("{method} {asked} is not granted; the grants at {} are {}", self.place, granted.join("; "))
        })
    }

    fn secret(&self, name: Option<&str>) -> Result<Option<&str>, String> {
        let Some(name) = name else { return Ok(None) };
        let secret = self.secrets.get(name).map(|s| Some(s.as_str()));
        secret.ok_or_else(|| {
            let names: Vec<&str> = self.secrets.keys().map(String::as_str).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let name: String = name.escape_debug().take(64).collect();
            format!("the secret `{name}` is not granted; those granted at {} are {names}", self.place)
        })
    }

    fn build<'a>(&self, asked: &HttpRequest<'a>, method: Method, url: &Url) -> Result<Request<&'a [u8]>, String> {
        if !(1..=MAX_TIMEOUT_MS).contains(&asked.timeout_ms) {
            return Err(format!("a request takes 1 to {MAX_TIMEOUT_MS} ms, not {}", asked.timeout_ms));
        }
        if !asked.body.is_empty() && is_bodyless(asked.method) {
            return Err(format!("{method} has no body"));
        }
        let bytes: usize = asked.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if asked.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return Err(format!("a request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together"));
        }
        let mut built = Request::builder().method(method).uri(url.to_string());
        for (name, value) in asked.headers {
            let shown = || name.escape_debug().take(64).collect::<String>();
            let lower = name.to_ascii_lowercase();
            if HOSTS_OWN.contains(&lower.as_str()) || lower.starts_with("proxy-") {
                return Err(format!("the header `{}` is the host's own", shown()));
            }
            let name = HeaderName::from_bytes(lower.as_bytes()).map_err(|_| format!("`{}` is no header", shown()))?;
            let value = HeaderValue::from_str(value);
            built = built.header(name, value.map_err(|_| format!("the header `{}` holds odd characters", shown()))?);
        }
        if let Some(secret) = self.secret(asked.sign_with)? {
            let now_s = clock::now_ns() / hb_engine::NS_PER_SEC;
            let signature = signature::sign(secret, now_s, asked.body);
            built = built.header(TIMESTAMP_HEADER, now_s).header(SIGNATURE_HEADER, signature);
        }
        built.body(asked.body).map_err(|e| e.to_string())
    }
}

impl Granted {
    fn new(grant: &HttpGrant) -> Result<Granted, HttpError> {
        let bad_url = |reason: String| HttpError::Url { url: grant.url.clone(), reason };
        let url = Url::parse(&grant.url).map_err(bad_url)?;
        if url.has_query() {
            return Err(bad_url("a grant has no query; it covers all".into()));
        }
        if grant.methods.is_empty() {
            return Err(HttpError::NoMethod);
        }
        let method = |name: &String| {
            let known = METHODS.contains(&name.as_str()).then(|| Method::from_bytes(name.as_bytes()).ok()).flatten();
            known.ok_or_else(|| HttpError::Method(name.clone()))
        };
        let methods = grant.methods.iter().map(method).collect::<Result<_, _>>()?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("hb/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(MAX_HEADER_BYTES)
            .tls_config(tls_config(&url, grant)?)
            .build();
        Ok(Granted { url, methods, agent: agent.into() })
    }

    fn in_words(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        format!("{} {}", methods.join("/"), self.url)
    }
}

fn tls_config(url: &Url, grant: &HttpGrant) -> Result<TlsConfig, HttpError> {
    let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    if !url.is_tls() {
        // Without TLS there is nothing to trust.
        let none = RootCerts::new_with_certs(&[]);
        return if grant.ca_file.is_some() {
            Err(HttpError::CaWithoutTls)
        } else {
            Ok(builder.root_certs(none).build())
        };
    }
    // The library passes over certificates it cannot use; an operator wants to know.
    tls::client_config(&TlsOptions { ca_file: grant.ca_file.clone(), client: None })?;
    let trusted = tls::trusted(grant.ca_file.as_deref())?;
    let roots: Vec<_> = trusted.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
    Ok(builder.root_certs(RootCerts::new_with_certs(&roots)).build())
}

fn is_bodyless(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "DELETE")
}

fn explain(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Io(e) => tls::explain_io(PEER, e),
        ureq::Error::Rustls(e) => tls::explain(PEER, e),
        ureq::Error::Timeout(_) => format!("no answer within {} ms", timeout.as_millis()),
        ureq::Error::HostNotFound => "no such host".into(),
        ureq::Error::LargeResponseHeader(..) => {
            format!("{PEER} answers with more than {MAX_HEADER_BYTES} bytes of headers")
        }
        ureq::Error::Protocol(e) => format!("{PEER} does not speak HTTP/1.1: {e}"),
        e => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(url: &str, methods: &[&str]) -> HttpGrant {
        HttpGrant { url: url.into(), methods: methods.iter().map(|&m| m.to_owned()).collect(), ca_file: None }
    }

    fn client(grants: &[HttpGrant]) -> HttpClient {
        let secrets = BTreeMap::from([("signing".to_owned(), "s".to_owned())]);
        HttpClient::new(grants, secrets, "hb.yaml:3:5".into()).unwrap_or_else(|(i, e)| panic!("{i}: {e}"))
    }

    #[test]
    fn a_refusal_names_what_is_granted_and_where() {
        let client = client(&[grant("http://h/hb/", &["POST", "PUT"]), grant("http://i", &["GET"])]);
        let granted = "the grants at hb.yaml:3:5 are POST/PUT http://h/hb/; GET http://i/";
        for (method, url) in [
            ("GET", "http://h/hb/x"),
            ("POST", "http://h/x"),
            ("POST", "http://evil/hb/"),
            ("post", "http://h/hb/"),
            ("CONNECT", "http://h/hb/"),
        ] {
            let why = client.granted(method, url, None).unwrap_err();
            assert_eq!(why, format!("{method} {url} is not granted; {granted}"));
        }
        let why = client.granted("POST", "http://h/hb/../x", None).unwrap_err();
        assert_eq!(why, "the URL `http://h/hb/../x` is refused: `.` and `..` are no segments of a path");
        assert_eq!(client.granted("POST", "http://h/hb/x", Some("signing")), Ok(()));
        let why = client.granted("POST", "http://h/hb/x", Some("other")).unwrap_err();
        assert_eq!(why, "the secret `other` is not granted; those granted at hb.yaml:3:5 are signing");
    }

    #[test]
    fn a_grant_that_means_nothing_is_refused() {
        for (grant, why) in [
            (grant("hooks.example", &["POST"]), "`hooks.example` cannot be granted: a URL begins with https://"),
            (grant("http://h/?a=b", &["POST"]), "a grant has no query"),
            (grant("http://h/", &[]), "no method is granted"),
            (grant("http://h/", &["POST", "TRACE"]), "`TRACE` is no method"),
            (grant("http://h/", &["post"]), "`post` is no method"),
            (HttpGrant { ca_file: Some("ca.pem".into()), ..grant("http://h/", &["POST"]) }, "without TLS"),
            (HttpGrant { ca_file: Some("missing".into()), ..grant("https://h/", &["POST"]) }, "cannot read missing"),
        ] {
            let Err((0, e)) = HttpClient::new(std::slice::from_ref(&grant), BTreeMap::new(), String::new()) else {
                panic!("{grant:?} is taken")
            };
            assert!(e.to_string().contains(why) && !e.help().is_empty(), "{e}");
        }
    }

    #[test]
    fn a_plugin_cannot_touch_what_is_the_hosts() {
        let client = client(&[grant("http://h/", &["GET", "POST"])]);
        let base = HttpRequest {
            method: "POST",
            url: "http://h/",
            headers: &[],
            body: b"x",
            timeout_ms: 1_000,
            sign_with: None,
        };
        let long = "x".repeat(MAX_HEADER_BYTES);
        let many: Vec<_> = (0..=MAX_HEADERS).map(|_| ("a", "b")).collect();
        for (request, why) in [
            (HttpRequest { headers: &[("Host", "evil")], ..base }, "`Host` is the host's own"),
            (HttpRequest { headers: &[("X-HB-Signature", "sha256=0")], ..base }, "is the host's own"),
            (HttpRequest { headers: &[("proxy-authorization", "x")], ..base }, "is the host's own"),
            (HttpRequest { headers: &[("a b", "x")], ..base }, "is no header"),
            (HttpRequest { headers: &[("a", "x\r\nhost: evil")], ..base }, "odd characters"),
            (HttpRequest { headers: &[("a", &long)], ..base }, "at most 64 headers"),
            (HttpRequest { headers: &many, ..base }, "at most 64 headers"),
            (HttpRequest { method: "GET", ..base }, "GET has no body"),
            (HttpRequest { timeout_ms: 0, ..base }, "1 to 60000 ms"),
            (HttpRequest { sign_with: Some("none"), ..base }, "`none` is not granted"),
        ] {
            match client.send(&request, Duration::from_secs(1)) {
                Err(Unsent::Refused(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{request:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn nobody_at_home_is_told_in_words() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/hb?token=x");
        let client = client(&[grant(&format!("http://127.0.0.1:{port}"), &["GET"])]);
        let request =
            HttpRequest { method: "GET", url: &url, headers: &[], body: b"", timeout_ms: 5_000, sign_with: None };
        let told = client.send(&request, Duration::from_secs(5));
        let want = format!("GET http://127.0.0.1:{port}/hb: connection refused");
        assert_eq!(told, Err(Unsent::Unreachable(want)));
    }
}
