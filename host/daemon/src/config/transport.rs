//! The ways bytes come in, as the config names them: each source has exactly one.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::read::{Fields, FromNode, Reader};
use crate::config::secret::SecretRef;
use crate::config::yaml::{Node, Value};

/// Most connections of one socket: more than a machine may have files open is no use.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// Connections when nothing else is said: a thousand machines on one collector, and poll(2) still takes well below a
/// millisecond.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 1_024;

/// Session expiry when nothing else is said: a week, as long as a broken machine may take to be mended.
pub const DEFAULT_SESSION_EXPIRY_SEC: u32 = 7 * 24 * 3_600;

/// Signs of life to a broker when nothing else is said.
pub const DEFAULT_KEEP_ALIVE_SEC: u16 = 30;

/// In-flight window when nothing else is said: mosquitto's `max_inflight_messages`.
pub const DEFAULT_IN_FLIGHT_WINDOW: u16 = 20;

/// The transports the host offers; exactly one is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportConfig {
    /// Lines of a file.
    File(FileTransportConfig),
    /// Frames that peers send to a socket.
    Socket(SocketTransportConfig),
    /// Lines that a command writes.
    Exec(ExecTransportConfig),
    /// Messages of a broker.
    Mqtt(MqttTransportConfig),
}

/// Words for [`TransportConfig`].
const TRANSPORTS: [&str; 4] = ["file", "socket", "exec", "mqtt"];

/// Lines of a file, from the position that was committed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileTransportConfig {
    /// The file; a relative path starts at the config's directory. Example: `telemetry.jsonl`.
    pub path: PathBuf,
    /// Whether to wait for more at the end of the file, as `tail -F` does. Default: false, the source ends there.
    /// Example: `true`.
    pub follow: bool,
}

/// Datagrams or streams that peers send: at most once across a crash, since a socket cannot be asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketTransportConfig {
    /// `udp://IP:PORT`, `tcp://IP:PORT`, `unix:///PATH` (datagrams) or `unix-stream:///PATH`. Example:
    /// `udp://127.0.0.1:5514`.
    pub listen: String,
    /// How streams are cut, one of `auto`, `newline`, `octet_count`. A datagram is one frame. Default: `auto`. Example:
    /// `newline`.
    pub framing: String,
    /// Connections at a time, 1 to 65,536. Default: 1,024. Example: `64`.
    pub max_connections: u32,
}

/// A command whose lines are frames, such as `[journalctl, -f, -o, json]`; it is started again when it ends. Lines are
/// there once each where they carry a cursor that the command can go on from: `cursor_field` and `cursor_argument`
/// belong together. Without them a start brings what the command shows first once more, and what came meanwhile is
/// missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExecTransportConfig {
    /// The command and its arguments; no shell. Example: `["journalctl", "-f", "-o", "json"]`.
    pub argv: Vec<String>,
    /// Field of each line, a JSON object, that says where to go on: `__CURSOR` for journald. Default: none. Example:
    /// `__CURSOR`.
    pub cursor_field: Option<String>,
    /// Argument that makes the command go on there, as `--after-cursor={}`. Default: none. Example:
    /// `--after-cursor={}`.
    pub cursor_argument: Option<String>,
}

/// Messages of an MQTT broker: at least once from the broker, and exactly once into the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MqttTransportConfig {
    /// `tcp://HOST:PORT` or `tls://HOST:PORT`; without a port 1883 and 8883. Example: `tcp://127.0.0.1:1883`.
    pub broker: String,
    /// Topic filters, with `+` and `#`. Example: `["plant/#"]`.
    pub topics: Vec<String>,
    /// 0 to 2; 2 is subscribed as 1. Default: 1. Example: `0`.
    pub qos: u8,
    /// Version of MQTT in quotes, one of `5`, `3.1.1`. Default: `5`. Example: `3.1.1`.
    pub version: String,
    /// Stable and unique at the broker: its session is kept under it. Default: `hb-<program>-<source>`. Example:
    /// `hb-plant-7`.
    pub client_id: Option<String>,
    /// Seconds the broker keeps the session without a connection, with MQTT 5, 0 to 4,294,967,295; 0 ends both
    /// together, and what is published meanwhile is missed. Default: 604,800, a week. Example: `86400`.
    pub session_expiry_sec: u32,
    /// User name. Default: none. Example: `hb`.
    pub user: Option<String>,
    /// Password, as a secret reference. Default: none. Example: `${credential:mqtt}`.
    #[serde(skip)]
    pub password: Option<SecretRef>,
    /// Certificate authorities, PEM. Default: with `tls://` those of the system. Example: `/etc/hb/ca.pem`.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM. Default: none. Example: `/etc/hb/client.pem`.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM. Default: none. Example: `/etc/hb/client.key`.
    pub key_file: Option<PathBuf>,
    /// Seconds between signs of life, 5 to 3,600. Default: 30. Example: `60`.
    pub keep_alive_sec: u16,
    /// Messages the broker sends without acknowledgement (mosquitto: `max_inflight_messages`), 1 to 65,535; half of it
    /// makes a commit. Default: 20, mosquitto's own. Example: `100`.
    pub in_flight_window: u16,
    /// How a message is recognised that the broker sends again on a new connection: `mark`, by the DUP mark that MQTT
    /// demands, or `content`, for brokers that do not set it (rumqttd), and only where payloads carry a time or a
    /// number. Default: `mark`. Example: `content`.
    pub redelivery: String,
}

impl FromNode for TransportConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            reader.expected(node, "a transport with its settings, as `{ file: { path: telemetry.jsonl } }`");
            return None;
        };
        let [entry] = entries.as_slice() else {
            let d = reader.error(format!("a source has exactly one transport, found {}", entries.len()));
            reader.push(node.at, d.help(format!("known here: {}", TRANSPORTS.join(", "))));
            return None;
        };
        match entry.key.as_str() {
            "file" => FileTransportConfig::from_node(&entry.value, reader).map(TransportConfig::File),
            "socket" => SocketTransportConfig::from_node(&entry.value, reader).map(TransportConfig::Socket),
            "exec" => ExecTransportConfig::from_node(&entry.value, reader).map(TransportConfig::Exec),
            "mqtt" => MqttTransportConfig::from_node(&entry.value, reader).map(TransportConfig::Mqtt),
            other => {
                let d = reader.error(format!("unknown transport `{other}`")).suggest(other, TRANSPORTS);
                reader.push(entry.key_at, d);
                None
            }
        }
    }
}

impl FromNode for FileTransportConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "the file transport", reader)?;
        let path = f.need("path", reader);
        let follow = f.or("follow", false, reader);
        f.close(reader);
        Some(FileTransportConfig { path: path?, follow: follow? })
    }
}

impl FromNode for SocketTransportConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "the socket transport", reader)?;
        let listen = f.need("listen", reader);
        let words = ["auto", "newline", "octet_count"].map(|word| (word, word));
        let framing = f.choice("framing", "auto", &words, reader);
        let max_connections = f.whole("max_connections", DEFAULT_MAX_CONNECTIONS, &(1..=MAX_CONNECTIONS), reader);
        f.close(reader);
        Some(SocketTransportConfig { listen: listen?, framing: framing?.to_owned(), max_connections: max_connections? })
    }
}

impl FromNode for ExecTransportConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "the exec transport", reader)?;
        let argv: Option<Vec<String>> = f.need("argv", reader);
        let cursor_field: Option<Option<String>> = f.optional("cursor_field", reader);
        let cursor_argument: Option<Option<String>> = f.optional("cursor_argument", reader);
        f.close(reader);
        Some(ExecTransportConfig { argv: argv?, cursor_field: cursor_field?, cursor_argument: cursor_argument? })
    }
}

impl FromNode for MqttTransportConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "the mqtt transport", reader)?;
        let broker = f.need("broker", reader);
        let topics = f.need("topics", reader);
        let qos = f.whole("qos", 1, &(0..=2), reader);
        let versions = ["5", "3.1.1"].map(|word| (word, word));
        let version = f.choice("version", "5", &versions, reader);
        let client_id: Option<Option<String>> = f.optional("client_id", reader);
        let session_expiry_sec = f.whole("session_expiry_sec", DEFAULT_SESSION_EXPIRY_SEC, &(0..=u32::MAX), reader);
        let user: Option<Option<String>> = f.optional("user", reader);
        let password: Option<Option<SecretRef>> = f.optional("password", reader);
        let ca_file: Option<Option<PathBuf>> = f.optional("ca_file", reader);
        let cert_file: Option<Option<PathBuf>> = f.optional("cert_file", reader);
        let key_file: Option<Option<PathBuf>> = f.optional("key_file", reader);
        let keep_alive_sec = f.whole("keep_alive_sec", DEFAULT_KEEP_ALIVE_SEC, &(5..=3_600), reader);
        let in_flight_window = f.whole("in_flight_window", DEFAULT_IN_FLIGHT_WINDOW, &(1..=u16::MAX), reader);
        let words = ["mark", "content"].map(|word| (word, word));
        let redelivery = f.choice("redelivery", "mark", &words, reader);
        f.close(reader);
        Some(MqttTransportConfig {
            broker: broker?,
            topics: topics?,
            qos: qos?,
            version: version?.to_owned(),
            client_id: client_id?,
            session_expiry_sec: session_expiry_sec?,
            user: user?,
            password: password?,
            ca_file: ca_file?,
            cert_file: cert_file?,
            key_file: key_file?,
            keep_alive_sec: keep_alive_sec?,
            in_flight_window: in_flight_window?,
            redelivery: redelivery?.to_owned(),
        })
    }
}
