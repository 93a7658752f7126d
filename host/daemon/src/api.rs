//! What a daemon says of itself over HTTP: whether it lives, whether it is ready, its numbers. It only reads.
//!
//! One thread serves all, and nothing it is sent can hold it: connections, the size of a request and the time without
//! an answer have limits, see [`listen`]. An answer never waits for the pipeline.

mod listen;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::oneshot;

use crate::telemetry::{Format, Vitals};

use listen::Door;

/// A server at work; it ends when this is dropped.
pub struct Api {
    address: SocketAddr,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HTTP on {address}")]
pub struct ApiError {
    /// Where it should have listened.
    pub address: SocketAddr,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl ApiError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::AddrInUse => {
                "another program has the port, perhaps another hb: `ss -ltnp` names it; end it, or choose another port \
                 (0 takes a free one)"
            }
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
            ErrorKind::AddrNotAvailable => "this machine has no such address: `ip address` lists those it has",
            _ => "choose another address or port",
        }
    }
}

impl Api {
    /// Serves `vitals` on a thread of its own from now on.
    pub fn start(address: SocketAddr, vitals: Arc<Vitals>) -> Result<Api, ApiError> {
        let failed = |source| ApiError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let door = {
            let _inside = runtime.enter();
            Door::new(tokio::net::TcpListener::from_std(listener).map_err(failed)?)
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            tokio::select! {
                // It fails only where accepting does, and that is tried again.
                _ = axum::serve(door, routes(vitals)) => {}
                _ = stopped => {}
            }
        };
        let run = move || {
            runtime.block_on(serve);
            // Whoever is being answered is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("hb-http".into()).spawn(run).map_err(failed)?;
        Ok(Api { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, with the port the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been told on stderr.
            let _ = thread.join();
        }
    }
}

fn routes(vitals: Arc<Vitals>) -> Router {
    let router = Router::new()
        .route("/live", get(live))
        .route("/livez", get(live))
        .route("/ready", get(ready))
        .route("/readyz", get(ready))
        // Whoever asks here mostly restarts what is not well, and no restart brings a broker back.
        .route("/health", get(live))
        .route("/healthz", get(live))
        .route("/health/detailed", get(detailed))
        .route("/metrics", get(metrics))
        .fallback(unknown);
    router.with_state(vitals)
}

/// Whether the process and its loop are alive: a supervisor that finds it is not should restart it.
async fn live(State(vitals): State<Arc<Vitals>>, headers: HeaderMap) -> Response {
    let is_live = vitals.is_live();
    let age_sec = vitals.loop_age().as_secs_f64();
    let status = if is_live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if wants_text(&headers) {
        let text = if is_live { "live\n".to_owned() } else { format!("the loop hangs since {age_sec:.0} s\n") };
        return plain(status, text);
    }
    answer(status, JSON, json!({ "live": is_live, "loop_age_sec": age_sec }).to_string())
}

/// Whether it can do its work, and every reason why not.
async fn ready(State(vitals): State<Arc<Vitals>>, headers: HeaderMap) -> Response {
    let reasons = vitals.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if wants_text(&headers) {
        let mut text = if reasons.is_empty() { "ready\n".to_owned() } else { "not ready\n".to_owned() };
        for reason in &reasons {
            text.push_str(&format!("{}: {} (since {} s)\n", reason.what, reason.why, reason.since_sec));
        }
        return plain(status, text);
    }
    answer(status, JSON, format!("{}\n", json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

async fn detailed(State(vitals): State<Arc<Vitals>>) -> Response {
    answer(StatusCode::OK, JSON, format!("{:#}\n", vitals.detail()))
}

async fn metrics(State(vitals): State<Arc<Vitals>>, headers: HeaderMap) -> Response {
    let accept = accept(&headers);
    let open = quality(&accept, "application/openmetrics-text");
    // Whoever accepts anything gets what everything reads.
    let format = if open > quality(&accept, "text/plain") { Format::OpenMetrics } else { Format::Prometheus };
    answer(StatusCode::OK, format.content_type(), vitals.metrics(format))
}

async fn unknown() -> Response {
    plain(StatusCode::NOT_FOUND, "here are /live, /ready, /metrics and /health/detailed\n".to_owned())
}

const JSON: &str = "application/json";

fn plain(status: StatusCode, text: String) -> Response {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// A person's browser, or whoever asks for text; programs get JSON.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = accept(headers);
    let text = quality(&accept, "text/plain").max(quality(&accept, "text/html"));
    text > quality(&accept, JSON)
}

fn accept(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    all.join(",").to_ascii_lowercase()
}

/// How much a type is wanted, in thousandths, by the most exact range that names it; an absent header takes anything.
fn quality(accept: &str, wanted: &str) -> u32 {
    let family = wanted.split('/').next().unwrap_or_default();
    let exactness = |range: &str| match range {
        _ if range == wanted => Some(2),
        "*/*" => Some(0),
        _ => (range.strip_suffix("/*") == Some(family)).then_some(1),
    };
    let ranges = accept.split(',').filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let exact = exactness(parts.next()?)?;
        let q = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0_f64));
        Some((exact, (q.clamp(0.0, 1.0) * 1_000.0) as u32))
    });
    if accept.trim().is_empty() { 1 } else { ranges.max().map_or(0, |(_, q)| q) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_range_says_how_much_a_type_is_wanted() {
        // What Prometheus 3 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
        assert_eq!(quality(prometheus, "application/openmetrics-text"), 500);
        assert_eq!(quality(prometheus, "text/plain"), 400);
        assert_eq!(quality(prometheus, JSON), 200);
        assert_eq!(quality("text/*;q=0.3, text/plain;q=0", "text/plain"), 0);
        assert_eq!((quality("", JSON), quality("image/png", JSON), quality("*/*;q=x", JSON)), (1, 0, 0));
    }

    #[test]
    fn programs_get_json_and_persons_text() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_text(&headers)
        };
        assert!(
            !wants("*/*") && !wants("") && !wants("application/json, text/plain") && !wants_text(&HeaderMap::new())
        );
        assert!(wants("text/plain") && wants("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    }

    #[test]
    fn a_taken_port_is_told_with_the_way_out() {
        let vitals = Arc::new(Vitals::new());
        let first = Api::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&vitals)).unwrap();
        let taken = Api::start(first.address(), Arc::clone(&vitals)).err().unwrap();
        assert!(
            taken.to_string().contains(&first.address().to_string()) && taken.help().contains("ss -ltnp"),
            "{taken}"
        );
        let address = first.address();
        drop(first);
        assert_eq!(Api::start(address, vitals).unwrap().address(), address);
    }
}
