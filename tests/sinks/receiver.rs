//! Receivers of documents on loopback ports: an HTTP server that says what it is told to, one behind TLS, and sockets.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An answer: status, headers, body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, &'static str);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    /// The value of a header, which must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

/// An HTTP server; it ends with the process.
pub(crate) struct Http {
    /// Where it listens.
    pub(crate) port: u16,
    heard: Receiver<Heard>,
}

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    heard: Sender<Heard>,
}

impl Http {
    /// Starts one that gives these answers in turn, and then always 200.
    pub(crate) fn start(answers: impl IntoIterator<Item = Answer>) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, heard) = channel();
        let script = Script { answers: Arc::new(Mutex::new(answers.into_iter().collect())), heard: sender };
        let app = axum::Router::new().fallback(take).with_state(script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Http { port, heard }
    }

    /// Waits for the next request.
    pub(crate) fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("nothing is delivered")
    }

    /// All requests that have arrived.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.try_iter().collect()
    }
}

async fn take(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    let heard = Heard { method: method.to_string(), path: uri.to_string(), headers, body: body.to_vec() };
    // A test that has ended listens no more.
    let _ = script.heard.send(heard);
    let (status, headers, body) = script.answers.lock().unwrap().pop_front().unwrap_or((200, Vec::new(), ""));
    let header = |(name, value): (&'static str, String)| (name.parse().unwrap(), value.parse().unwrap());
    (StatusCode::from_u16(status).unwrap(), headers.into_iter().map(header).collect(), body)
}

/// A server behind TLS that takes every request; it ends with the process. `ca.pem`, which signed its certificate, is
/// written to `dir`.
pub(crate) fn behind_tls(dir: &Path) -> (u16, Receiver<String>) {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "plant authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
            // A client that does not trust it goes away in the middle.
            let _ = answer_once(stream).map(|line| sender.send(line));
        }
    });
    (port, heard)
}

/// Takes one request, says 200, and closes.
fn answer_once(stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.by_ref().take(length).read_to_end(&mut Vec::new())?;
    let stream = reader.get_mut();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(first.trim_end().to_owned())
}

/// Cuts a stream of messages that say their length before each.
pub(crate) fn octet_counted(mut stream: impl Read) -> Vec<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (mut rest, mut messages) = (text.as_str(), Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_once(' ').unwrap_or_else(|| panic!("no length in {rest}"));
        let (message, after) = after.split_at(length.parse().unwrap_or_else(|e| panic!("{e}: {length}")));
        messages.push(message.to_owned());
        rest = after;
    }
    messages
}
