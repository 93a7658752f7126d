//! TLS to a broker or a receiver: what it is made of, and what went wrong in words an operator can act on.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, RootCertStore};

/// How the other side is recognised, and how hb shows who it is. The name in the certificate must be the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificates of the authorities that may have signed its own, PEM; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
    /// What hb shows to one that asks for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain in PEM, hb's own certificate first.
    pub certificate_file: PathBuf,
    /// Its private key in PEM.
    pub key_file: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file without a certificate in it.
    #[error("{0} holds no certificate in PEM")]
    NoCertificate(PathBuf),
    /// A file without a private key in it.
    #[error("{0} holds no private key in PEM")]
    NoKey(PathBuf),
    /// A certificate that cannot stand for an authority.
    #[error("a certificate in {path} cannot be used")]
    Authority {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The system has no authorities.
    #[error("the system has no certificate authorities")]
    NoSystemAuthorities,
    /// The certificate is not usable, or the key is another's.
    #[error("the client certificate {path} and its key cannot be used")]
    Client {
        /// The certificate.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The library refuses.
    #[error("TLS cannot be set up")]
    Setup(#[source] Box<dyn Error + Send + Sync>),
}

impl TlsError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            TlsError::Read { .. } => "check the path, and let the user hb runs as read it",
            TlsError::NoCertificate(_) | TlsError::Authority { .. } => "name a PEM file with `BEGIN CERTIFICATE`",
            TlsError::NoKey(_) => "name a PEM file with `BEGIN PRIVATE KEY`; a key with a passphrase cannot be used",
            TlsError::NoSystemAuthorities => "install the package ca-certificates, or name a CA file",
            TlsError::Client { .. } => "the key must be the one the certificate was made for",
            TlsError::Setup(_) => "check the certificates",
        }
    }
}

/// Reads the files. They are read at every connection, so that a renewed certificate is taken without a restart.
pub(super) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let authorities = Arc::new(authorities(options.ca_file.as_deref())?);
    let verifier = WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|e| TlsError::Setup(e.into()))?;
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = builder.map_err(|e| TlsError::Setup(e.into()))?.with_webpki_verifier(verifier);
    let config = match &options.client {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate_file, key_file }) => {
            let chain = certificates(certificate_file)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key_file)?);
            let key = key.map_err(|_| TlsError::NoKey(key_file.clone()))?;
            let refused = |source| TlsError::Client { path: certificate_file.clone(), source };
            builder.with_client_auth_cert(chain, key).map_err(refused)?
        }
    };
    Ok(Arc::new(config))
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let trusted = trusted(ca_file)?;
    match ca_file {
        Some(path) => {
            for certificate in trusted {
                store.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
            }
        }
        // A single odd certificate of the system is no reason to trust none.
        None => drop(store.add_parsable_certificates(trusted)),
    }
    if store.is_empty() { Err(TlsError::NoSystemAuthorities) } else { Ok(store) }
}

/// Certificates of authorities: those of a file, else those of the system.
pub(super) fn trusted(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match ca_file {
        Some(path) => certificates(path),
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// An I/O error in words; `peer` is who the other side is, as `the broker`. TLS hides its own errors in them.
pub(super) fn explain_io(peer: &str, error: &io::Error) -> String {
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return explain(peer, tls);
    }
    if let Some(nested) = inner.and_then(|e| e.downcast_ref::<io::Error>()) {
        return explain_io(peer, nested);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            format!("{peer} closed the connection")
        }
        _ => error.to_string(),
    }
}

/// A TLS error in words.
pub(super) fn explain(peer: &str, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(e) => explain_certificate(peer, e),
        rustls::Error::NoCertificatesPresented => format!("{peer} shows no certificate"),
        rustls::Error::InvalidMessage(_) => format!("{peer} does not speak TLS on this port"),
        rustls::Error::AlertReceived(alert) => explain_alert(peer, *alert),
        e => format!("TLS failed: {e}"),
    }
}

fn explain_certificate(peer: &str, error: &CertificateError) -> String {
    let what = match error {
        CertificateError::UnknownIssuer => {
            "is not signed by a certificate authority that is trusted here; name its own as ca_file".to_owned()
        }
        // Two authorities of one name: the trusted one did not sign this.
        CertificateError::BadSignature => {
            "is not signed by the certificate authority it names; name its own as ca_file".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired; have it renewed, or check the clocks".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; check the clocks".to_owned()
        }
        CertificateError::NotValidForName => "is for another host; connect to the one it is for".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let (host, names) = (expected.to_str(), names(presented));
            format!("is for another host than `{host}`: it names {names}; connect to one of these, or have it renewed")
        }
        CertificateError::Revoked => "has been revoked".to_owned(),
        e => format!("cannot be used: {e}"),
    };
    format!("{peer}'s certificate {what}")
}

/// The names of a certificate come from outside: few, short and printable. The library gives each as `DnsName("a.b")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_matches(['(', ')', '"']).escape_debug().take(256).collect::<String>()
    };
    let shown: Vec<String> = presented.iter().take(4).map(bare).collect();
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

fn explain_alert(peer: &str, alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            format!("{peer} asks for a client certificate; a broker is shown that of cert_file and key_file")
        }
        AlertDescription::UnknownCA => format!("{peer} does not know who signed the client certificate"),
        AlertDescription::CertificateExpired => format!("{peer} says that the client certificate has expired"),
        AlertDescription::CertificateRevoked => format!("{peer} says that the client certificate was revoked"),
        AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate => format!("{peer} does not accept the client certificate"),
        AlertDescription::ProtocolVersion => format!("{peer} speaks neither TLS 1.2 nor 1.3"),
        // Some on TLS 1.2 say no more than this when they miss a certificate.
        AlertDescription::HandshakeFailure => {
            format!("{peer} refused the TLS handshake; it may ask for a client certificate: cert_file and key_file")
        }
        alert => format!("{peer} refused TLS: {alert:?}"),
    }
}
