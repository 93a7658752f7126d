//! Whether what a config only refers to is still what it was: secrets and certificates.
//!
//! A reload compares digests under a key that lives and dies with this process. They are shown and stored nowhere: not
//! in the log, not in the state, not in the name of a generation.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::path::Path;

use hb_log::hash::{Hash, Hasher};

use crate::config::{SecretRef, SinkConfig, TransportConfig};

/// Bytes of a certificate file that are looked at: the authorities of a whole system have about 200 kB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The key of this process.
pub struct DigestKey(Hash);

/// What secrets and certificates were, of use for a comparison under the same key alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretDigest(Option<Hash>);

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(...)")
    }
}

impl DigestKey {
    /// One that nobody can guess: the standard library keys its hash by what the system calls random.
    pub fn random() -> Self {
        let (mut hasher, state) = (Hasher::new(), RandomState::new());
        (0..4).for_each(|n: u64| hasher.update(&state.hash_one(n).to_le_bytes()));
        DigestKey(hasher.finalize())
    }

    /// What a transport shows and trusts, as it is now.
    pub fn of_transport(&self, transport: &TransportConfig) -> SecretDigest {
        let TransportConfig::Mqtt(mqtt) = transport else { return SecretDigest::default() };
        let mut sum = self.begin();
        sum.secret("password", mqtt.password.as_ref());
        for (name, path) in [("ca", &mqtt.ca_file), ("certificate", &mqtt.cert_file), ("key", &mqtt.key_file)] {
            sum.file(name, path.as_deref());
        }
        sum.end()
    }

    /// What sinks show and trust, as it is now.
    pub fn of_sinks(&self, sinks: &[SinkConfig]) -> SecretDigest {
        let mut sum = self.begin();
        for sink in sinks {
            sum.part(sink.name.as_str(), None);
            sink.grants.secrets.iter().for_each(|(name, secret)| sum.secret(name, Some(secret)));
            sink.grants.http.iter().for_each(|grant| sum.file(&grant.url, grant.ca_file.as_deref()));
        }
        sum.end()
    }

    fn begin(&self) -> Sum {
        let mut hasher = Hasher::new();
        hasher.update(self.0.as_bytes());
        Sum(hasher)
    }
}

/// A digest in the making.
struct Sum(Hasher);

impl Sum {
    /// One that cannot be read is as good as none: whoever needs it says what is wrong.
    fn secret(&mut self, name: &str, secret: Option<&SecretRef>) {
        let secret = secret.and_then(|secret| secret.resolve().ok());
        self.part(name, secret.as_ref().map(|secret| secret.expose().as_bytes()));
    }

    fn file(&mut self, name: &str, path: Option<&Path>) {
        let mut bytes = Vec::new();
        let file = path.and_then(|path| std::fs::File::open(path).ok());
        let read = file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok());
        self.part(name, read.is_some().then_some(bytes.as_slice()));
    }

    /// A name and what it stands for, so that no two lists of them look alike.
    fn part(&mut self, name: &str, content: Option<&[u8]>) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&content.map_or(u64::MAX, |content| content.len() as u64).to_le_bytes());
        self.0.update(content.unwrap_or_default());
    }

    fn end(self) -> SecretDigest {
        SecretDigest(Some(self.0.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::MqttTransportConfig;

    fn broker(password: &Path, ca: Option<PathBuf>) -> TransportConfig {
        TransportConfig::Mqtt(MqttTransportConfig {
            broker: "tls://127.0.0.1".into(),
            topics: vec!["a".into()],
            qos: 1,
            version: "5".into(),
            client_id: None,
            session_expiry_sec: 0,
            user: Some("hb".into()),
            password: Some(SecretRef::File(password.to_owned())),
            ca_file: ca,
            cert_file: None,
            key_file: None,
            keep_alive_sec: 30,
            in_flight_window: 20,
            redelivery: "mark".into(),
        })
    }

    #[test]
    fn a_digest_changes_with_what_is_referred_to_and_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (password, ca) = (dir.path().join("password"), dir.path().join("ca.pem"));
        std::fs::write(&password, "hunter2").unwrap();
        let key = DigestKey::random();
        let of = |ca: Option<&PathBuf>| key.of_transport(&broker(&password, ca.cloned()));
        let first = of(None);
        assert_eq!(first, of(None));
        assert_ne!(first, of(Some(&password)));
        // A file that is not there is none, and one that comes is another.
        assert_eq!(first, of(Some(&ca)));
        std::fs::write(&ca, "").unwrap();
        assert_ne!(first, of(Some(&ca)));
        std::fs::write(&password, "hunter3").unwrap();
        assert_ne!(first, of(None));
        std::fs::write(&password, "hunter2").unwrap();
        assert_eq!(first, of(None));

        let other = DigestKey::random().of_transport(&broker(&password, None));
        assert_ne!(first, other, "each process has a key of its own");
        assert_eq!(format!("{first:?}"), "SecretDigest(...)");
    }
}
