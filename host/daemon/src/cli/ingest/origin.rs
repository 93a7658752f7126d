//! Where `hb ingest` reads from: a file, a broker or a socket, as flags say it, or as a source of the config does.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Failure;
use crate::config::transport::{
    DEFAULT_IN_FLIGHT_WINDOW, DEFAULT_KEEP_ALIVE_SEC, DEFAULT_MAX_CONNECTIONS, DEFAULT_SESSION_EXPIRY_SEC,
};
use crate::config::{
    FileTransportConfig, MqttTransportConfig, SecretRef, SocketTransportConfig, SourceConfig, TransportConfig,
};
use crate::generation::transport_options;

/// Plugins whose way of reading is known, and the argument that names what they read.
const READERS: [(&str, &str); 3] = [("file-replay", "PATH"), ("mqtt", "--broker"), ("syslog", "--listen")];

/// Where to read from.
#[derive(Args)]
pub(super) struct OriginArgs {
    /// The file to read.
    path: Option<PathBuf>,
    /// Broker to read from, tcp://HOST:PORT or tls://HOST:PORT. A message of QoS 1 is acknowledged once it is on disk in
    /// DIR; one that comes twice is written twice.
    #[arg(long, value_name = "URL", help_heading = "MQTT")]
    broker: Option<String>,
    /// Topic or filter, as plant/+/temp or plant/#; may be given again.
    #[arg(long = "topic", value_name = "FILTER", help_heading = "MQTT")]
    topics: Vec<String>,
    /// Quality of service asked for, 0 to 2; 1 by default, and 2 is asked for as 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "MQTT")]
    qos: Option<u8>,
    /// Name of a session that the broker keeps from one run to the next. Without it the session ends with the
    /// connection, and what is published while there is none is missed. Never that of a daemon: it would miss what is
    /// read here.
    #[arg(long, value_name = "ID", help_heading = "MQTT")]
    client_id: Option<String>,
    /// MQTT version, 5 (default) or 3.1.1; 3.1.1 needs --client-id.
    #[arg(long, value_name = "V", value_parser = ["5", "3.1.1"], help_heading = "MQTT")]
    protocol: Option<String>,
    /// User name.
    #[arg(long, value_name = "NAME", help_heading = "MQTT")]
    user: Option<String>,
    /// File with the password.
    #[arg(long, value_name = "FILE", help_heading = "MQTT")]
    password_file: Option<PathBuf>,
    /// Certificate authorities of a tls:// broker, PEM; by default those of the system.
    #[arg(long, value_name = "FILE", help_heading = "MQTT")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "MQTT")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "MQTT")]
    key: Option<PathBuf>,
    /// Address to listen on, udp://IP:PORT, tcp://IP:PORT, unix:///PATH (datagrams) or unix-stream:///PATH.
    #[arg(long, value_name = "URL", help_heading = "Sockets")]
    listen: Option<String>,
    /// How streams are cut: auto (default), newline or octet_count.
    #[arg(long, value_name = "HOW", value_parser = ["auto", "newline", "octet_count"], help_heading = "Sockets")]
    framing: Option<String>,
}

impl OriginArgs {
    /// The plugin that reads this, when nobody names one.
    pub(super) fn default_plugin(&self) -> &'static str {
        let argument = self.argument().unwrap_or("PATH");
        READERS.iter().find(|(_, reads)| *reads == argument).map_or(READERS[0].0, |(plugin, _)| plugin)
    }

    /// The transport, for `plugin`; that of the config's source when no argument names one.
    pub(super) fn transport(
        &self,
        plugin: &str,
        configured: Option<&SourceConfig>,
        max_bytes: usize,
    ) -> Result<TransportConfig, Failure> {
        self.check(plugin)?;
        let transport = if let Some(path) = &self.path {
            return Ok(TransportConfig::File(FileTransportConfig { path: path.clone(), follow: false }));
        } else if let Some(broker) = &self.broker {
            self.subscription(broker)?
        } else if let Some(listen) = &self.listen {
            let framing = self.framing.clone().unwrap_or_else(|| "auto".to_owned());
            let max_connections = DEFAULT_MAX_CONNECTIONS;
            TransportConfig::Socket(SocketTransportConfig { listen: listen.clone(), framing, max_connections })
        } else {
            match configured.map(|source| source.transport.clone()) {
                Some(TransportConfig::Mqtt(mqtt)) => TransportConfig::Mqtt(self.session(mqtt)?),
                Some(transport @ (TransportConfig::Socket(_) | TransportConfig::Exec(_))) => transport,
                _ => return Err(nothing_to_read(plugin)),
            }
        };
        // What is wrong with an argument is said before anything is written.
        let checked = transport_options(&transport, false, max_bytes);
        checked.map_err(|e| Failure::usage(e.to_string(), e.help()))?;
        Ok(transport)
    }

    /// The argument that says what is read.
    fn argument(&self) -> Option<&'static str> {
        let given =
            [("PATH", self.path.is_some()), ("--broker", self.broker.is_some()), ("--listen", self.listen.is_some())];
        given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }

    /// Every argument belongs to what is read, and what is read to the plugin.
    fn check(&self, plugin: &str) -> Result<(), Failure> {
        let given = [self.path.is_some(), self.broker.is_some(), self.listen.is_some()];
        if given.iter().filter(|is_given| **is_given).count() > 1 {
            let message = "PATH, --broker and --listen are three places to read from";
            return Err(Failure::usage(message, "give one of them; two runs write two directories"));
        }
        let of_broker = [
            ("--topic", !self.topics.is_empty()),
            ("--qos", self.qos.is_some()),
            ("--protocol", self.protocol.is_some()),
            ("--user", self.user.is_some()),
            ("--password-file", self.password_file.is_some()),
            ("--ca", self.ca.is_some()),
            ("--cert", self.cert.is_some()),
            ("--key", self.key.is_some()),
        ];
        let astray = |flags: &[(&'static str, bool)]| flags.iter().find(|f| f.1).map(|f| f.0);
        if let Some(flag) = astray(&of_broker).filter(|_| self.broker.is_none()) {
            let help = "give --broker tcp://HOST:1883 too, or leave it out: a source of the config has its own";
            return Err(Failure::usage(format!("`{flag}` belongs to --broker"), help));
        }
        if self.framing.is_some() && self.listen.is_none() {
            return Err(Failure::usage("`--framing` belongs to --listen", "give --listen tcp://IP:PORT too"));
        }
        let reads = READERS.iter().find(|(name, _)| *name == plugin).map(|(_, reads)| *reads);
        match (self.argument(), reads) {
            (Some(argument), Some(reads)) if argument != reads => {
                let message = format!("source `{plugin}` reads from {reads}, not from {argument}");
                Err(Failure::usage(message, "name the --source that reads it, or leave --source out"))
            }
            _ => Ok(()),
        }
    }

    fn subscription(&self, broker: &str) -> Result<TransportConfig, Failure> {
        if self.topics.is_empty() {
            return Err(Failure::usage("--broker without --topic", "name a topic or a filter, as --topic 'plant/#'"));
        }
        self.session(MqttTransportConfig {
            broker: broker.to_owned(),
            topics: self.topics.clone(),
            qos: self.qos.unwrap_or(1),
            version: self.protocol.clone().unwrap_or_else(|| "5".to_owned()),
            client_id: None,
            session_expiry_sec: 0,
            user: self.user.clone(),
            password: self.password_file.clone().map(SecretRef::File),
            ca_file: self.ca.clone(),
            cert_file: self.cert.clone(),
            key_file: self.key.clone(),
            keep_alive_sec: DEFAULT_KEEP_ALIVE_SEC,
            in_flight_window: DEFAULT_IN_FLIGHT_WINDOW,
            redelivery: "mark".to_owned(),
        })
        .map(TransportConfig::Mqtt)
    }

    /// Gives a subscription a session: one that is kept under the name given, or one that nobody else has and that
    /// leaves nothing at the broker.
    fn session(&self, mqtt: MqttTransportConfig) -> Result<MqttTransportConfig, Failure> {
        if let Some(id) = &self.client_id {
            let session_expiry_sec = DEFAULT_SESSION_EXPIRY_SEC;
            return Ok(MqttTransportConfig { client_id: Some(id.clone()), session_expiry_sec, ..mqtt });
        }
        if mqtt.version != "5" {
            let message = format!("MQTT {} without --client-id would leave a session at the broker", mqtt.version);
            return Err(Failure::usage(message, "name the session: --client-id, the same at every run"));
        }
        let id = format!("hb-ingest-{:016x}", fastrand::u64(..));
        Ok(MqttTransportConfig { client_id: Some(id), session_expiry_sec: 0, ..mqtt })
    }
}

fn nothing_to_read(plugin: &str) -> Failure {
    let reads = READERS.iter().find(|(name, _)| *name == plugin).map_or("PATH, --broker or --listen", |r| r.1);
    let help = "name a file; or --broker tcp://HOST:1883 --topic 'plant/#'; or --listen udp://127.0.0.1:5514";
    Failure::usage(format!("nothing says what `{plugin}` is to read: {reads} is missing"), help)
}
