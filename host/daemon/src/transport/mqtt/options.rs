//! What the MQTT transport is told, and what can be wrong with it before anything is connected.

use std::fmt;
use std::io;

use super::tls::{self, TlsError, TlsOptions};

/// Shortest keep-alive: the library's limit for MQTT 5.
const MIN_KEEP_ALIVE_S: u16 = 5;

/// The protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttVersion {
    /// MQTT 3.1.1, spoken by every broker. Its sessions end when the broker decides.
    #[default]
    V3,
    /// MQTT 5.
    V5,
}

/// Quality of service that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos {
    /// 0: what comes while hb is away is lost.
    AtMostOnce,
    /// 1.
    #[default]
    AtLeastOnce,
    /// 2: subscribed as 1, which recognises repetitions as well and costs half the packets.
    ExactlyOnce,
}

/// What the transport is told.
#[derive(Clone, PartialEq, Eq)]
pub struct MqttOptions {
    /// Name or address of the broker.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, if the port speaks it.
    pub tls: Option<TlsOptions>,
    /// Protocol.
    pub version: MqttVersion,
    /// Names the session at the broker. It must be stable, and no other client may use it.
    pub client_id: String,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Topic filters.
    pub topics: Vec<String>,
    /// Quality of service of all of them.
    pub qos: Qos,
    /// The broker hears from hb at least this often.
    pub keep_alive_s: u16,
    /// How long the broker keeps the session without a connection. MQTT 5 only.
    pub session_expiry_s: u32,
    /// How many messages the broker sends before it waits for acknowledgements, as it is configured. No broker says it,
    /// and hb commits when half of it is used up. Too high a number makes the broker wait; too low a one costs commits.
    pub in_flight_window: u16,
    /// The broker does not mark what it sends again: it is recognised by its content.
    pub unmarked: bool,
    /// Longest payload. Of a longer message the beginning is handed out, marked.
    pub max_payload_bytes: usize,
}

impl MqttOptions {
    /// The broker as it is written in messages.
    pub fn broker(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Messages the broker sends before it waits.
    pub(super) fn window(&self) -> u32 {
        u32::from(self.in_flight_window.max(1))
    }

    /// Whether a connection could be tried with them. Reads the certificates, but connects to nothing.
    pub fn check(&self) -> Result<(), MqttError> {
        if self.host.is_empty() {
            return Err(MqttError::Host);
        }
        if self.client_id.is_empty() || u16::try_from(self.client_id.len()).is_err() {
            return Err(MqttError::ClientId);
        }
        if self.topics.is_empty() {
            return Err(MqttError::NoTopic);
        }
        let valid = |t: &&String| u16::try_from(t.len()).is_ok() && rumqttc::valid_filter(t) && !t.contains('\0');
        if let Some(topic) = self.topics.iter().find(|t| !valid(t)) {
            return Err(MqttError::Topic(topic.clone()));
        }
        if self.keep_alive_s < MIN_KEEP_ALIVE_S {
            return Err(MqttError::KeepAlive(self.keep_alive_s));
        }
        if self.password.is_some() && self.user.is_none() {
            return Err(MqttError::PasswordAlone);
        }
        if let Some(tls) = &self.tls {
            tls::client_config(tls)?;
        }
        Ok(())
    }
}

impl fmt::Debug for MqttOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither user nor password: this text ends up in logs.
        f.debug_struct("MqttOptions")
            .field("broker", &self.broker())
            .field("tls", &self.tls)
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("topics", &self.topics)
            .field("qos", &self.qos)
            .finish_non_exhaustive()
    }
}

/// Why the transport cannot be opened: mistakes in the options only, a missing broker is none.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// Empty.
    #[error("the broker has no host")]
    Host,
    /// Empty or too long.
    #[error("the client id must have 1 to 65535 bytes")]
    ClientId,
    /// Nothing to subscribe to.
    #[error("there is no topic to subscribe to")]
    NoTopic,
    /// A filter MQTT does not allow.
    #[error("`{0}` is no topic filter")]
    Topic(String),
    /// Too short.
    #[error("a keep-alive of {0} s is shorter than {MIN_KEEP_ALIVE_S} s")]
    KeepAlive(u16),
    /// MQTT 3.1.1 forbids it.
    #[error("there is a password and no user")]
    PasswordAlone,
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No thread, or none of what it needs.
    #[error("cannot start the MQTT thread")]
    Thread(#[source] io::Error),
}

impl MqttError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            MqttError::Host => "name the broker, as `broker.example:1883`",
            MqttError::ClientId => "the session needs a name that stays the same, such as `hb-` and the machine's name",
            MqttError::NoTopic => "name a topic or a filter, as `telemetry/#`",
            MqttError::Topic(_) => "`+` stands for a whole level, `#` for all that follow and comes last",
            MqttError::KeepAlive(_) => "30 s suits most networks",
            MqttError::PasswordAlone => "name the user too",
            MqttError::Tls(e) => e.help(),
            MqttError::Thread(_) => "check the limits on threads and open files",
        }
    }
}
