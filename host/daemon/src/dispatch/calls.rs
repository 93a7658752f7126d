//! What a sink plugin asks of the host, and the outside worlds it was given.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;

use crate::config::{ConfigFile, HttpGrantConfig, OutputConfig, SecretRef, SinkConfig};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, Place, chain};
use crate::plugin::{Attribute, Capability, Failure, Grants, Header, HostCalls, Loaded, Request, Response, SeriesKind};
use crate::transport::http::HttpRequest;
use crate::transport::{HttpClient, HttpError, HttpGrant, Sender, Unsent};

/// The stream a sink may write to.
pub(super) enum Output {
    Stdout,
    File(File),
    /// Takes everything and keeps nothing.
    Nowhere,
}

impl Output {
    pub(super) fn open(config: &OutputConfig) -> std::io::Result<Self> {
        match config {
            OutputConfig::Stdout => Ok(Output::Stdout),
            OutputConfig::File(path) => Ok(Output::File(OpenOptions::new().create(true).append(true).open(path)?)),
        }
    }

    /// Whether it could be opened, without making the file.
    pub(super) fn check(config: &OutputConfig) -> std::io::Result<Self> {
        if let OutputConfig::File(path) = config {
            match OpenOptions::new().append(true).open(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let above = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK)?;
                }
                other => drop(other?),
            }
        }
        Ok(Output::Nowhere)
    }
}

/// What a sink plugin asks of the host.
pub(super) struct SinkCalls {
    pub(super) name: String,
    pub(super) output: Output,
    pub(super) worlds: Worlds,
}

/// The worlds a sink was granted beside its output.
#[derive(Default)]
pub(super) struct Worlds {
    http: Option<HttpClient>,
    socket: Option<Sender>,
}

/// What the config gives to a sink.
pub(super) fn grants(sink: &SinkConfig) -> Grants {
    let given = [
        (Capability::Output, true),
        (Capability::Http, !sink.grants.http.is_empty()),
        (Capability::Socket, !sink.grants.socket.is_empty()),
        (Capability::Secret, !sink.grants.secrets.is_empty()),
    ];
    Grants(given.into_iter().filter(|(_, given)| *given).map(|(capability, _)| capability).collect())
}

impl Worlds {
    /// Checks what the sink with this index is granted and reads its secrets and certificates; connects to nothing.
    pub(super) fn open(file: &ConfigFile, index: usize, loaded: &Loaded) -> Result<Worlds, Diagnostics> {
        let at = |key: &str| file.place(&format!("sinks[{index}].grants{key}"));
        let granted = &file.config.sinks[index].grants;
        let mut found = Diagnostics::new();
        // The output is there for every sink, without a word in the config.
        for given in grants(&file.config.sinks[index]).0 {
            if given != Capability::Output && !loaded.granted().contains(&given) {
                let (plugin, name) = (&loaded.manifest().name, given.name());
                let message = format!("plugin `{plugin}` does not ask for the capability `{name}` that is granted");
                let key = if given == Capability::Secret { ".secrets" } else { &format!(".{name}") };
                let help = format!("remove the grant, or write `capabilities: [{name}]` in its plugin.yaml");
                found.push(Diagnostic::error(Area::Config, message).at(at(key)).help(help));
            }
        }
        let secrets = secrets(&granted.secrets, &at, &mut found);
        let as_told = |g: &HttpGrantConfig| HttpGrant {
            url: g.url.clone(),
            methods: g.methods.clone(),
            ca_file: g.ca_file.clone(),
        };
        let http: Vec<HttpGrant> = granted.http.iter().map(as_told).collect();
        let http = match HttpClient::new(&http, secrets, at("").to_string()) {
            Ok(client) => Some(client).filter(|_| !http.is_empty()),
            Err((i, e)) => {
                let key = match e {
                    HttpError::Url { .. } => "url",
                    HttpError::NoMethod | HttpError::Method(_) => "methods",
                    HttpError::CaWithoutTls | HttpError::Tls(_) => "ca_file",
                };
                let help = e.help();
                let d = Diagnostic::error(Area::Config, chain(&e)).at(at(&format!(".http[{i}].{key}")));
                found.push(d.help(help));
                None
            }
        };
        let socket = match Sender::new(&granted.socket, at("").to_string()) {
            Ok(sender) => Some(sender).filter(|_| !granted.socket.is_empty()),
            Err((i, e)) => {
                let d = Diagnostic::error(Area::Config, e.to_string()).at(at(&format!(".socket[{i}]")));
                found.push(d.help(e.help()));
                None
            }
        };
        if found.has_errors() { Err(found) } else { Ok(Worlds { http, socket }) }
    }
}

fn secrets(
    granted: &BTreeMap<String, SecretRef>,
    at: &dyn Fn(&str) -> Place,
    found: &mut Diagnostics,
) -> BTreeMap<String, String> {
    let read = granted.iter().filter_map(|(name, secret)| match secret.resolve() {
        Ok(secret) => Some((name.clone(), secret.expose().to_owned())),
        Err(e) => {
            let d = Diagnostic::error(Area::Config, chain(&e)).at(at(&format!(".secrets.{name}")));
            found.push(d.help("let the user hb runs as read the secret"));
            None
        }
    });
    read.collect()
}

impl HostCalls for SinkCalls {
    fn log(&mut self, level: u8, text: &str) {
        match level {
            0 => tracing::error!(sink = self.name, "{text}"),
            1 => tracing::warn!(sink = self.name, "{text}"),
            2 => tracing::info!(sink = self.name, "{text}"),
            _ => tracing::debug!(sink = self.name, "{text}"),
        }
    }

    fn define_series(&mut self, _: &str, _: &str, _: SeriesKind, _: &[Attribute]) -> Result<u32, String> {
        Err("a sink defines no series".into())
    }

    fn state_code(&mut self, _: u32, _: &str) -> Result<f64, String> {
        Err("a sink defines no states".into())
    }

    fn output(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = match &mut self.output {
            Output::Stdout => std::io::stdout().write_all(bytes),
            Output::File(file) => file.write_all(bytes).and_then(|()| file.sync_data()),
            Output::Nowhere => Ok(()),
        };
        written.map_err(|e| e.to_string())
    }

    fn http(&mut self, request: &Request, time_left: Duration) -> Result<Response, Failure> {
        let http = self.worlds.http.as_ref().ok_or_else(|| Failure::Refused(NOT_GRANTED.into()))?;
        let headers: Vec<_> = request.headers.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
        let asked = HttpRequest {
            method: &request.method,
            url: &request.url,
            headers: &headers,
            body: &request.body,
            timeout_ms: request.timeout_ms,
            sign_with: request.sign_with.as_deref(),
        };
        let answer = http.send(&asked, time_left).map_err(failure)?;
        let headers = answer.headers.into_iter().map(|(name, value)| Header { name, value });
        Ok(Response { status: answer.status, headers: headers.collect(), body: answer.body })
    }

    fn http_granted(&mut self, method: &str, url: &str, sign_with: Option<&str>) -> Result<(), String> {
        let http = self.worlds.http.as_ref().ok_or(NOT_GRANTED)?;
        http.granted(method, url, sign_with)
    }

    fn socket(&mut self, address: &str, bytes: &[u8], time_left: Duration) -> Result<(), Failure> {
        let sender = self.worlds.socket.as_mut().ok_or_else(|| Failure::Refused(NOT_GRANTED.into()))?;
        sender.send(address, bytes, time_left).map_err(failure)
    }

    fn socket_granted(&mut self, address: &str) -> Result<(), String> {
        self.worlds.socket.as_ref().ok_or(NOT_GRANTED)?.granted(address)
    }
}

/// A component that imports what was not granted does not load, so nobody should hear this.
const NOT_GRANTED: &str = "nothing of this kind is granted";

fn failure(unsent: Unsent) -> Failure {
    match unsent {
        Unsent::Refused(why) => Failure::Refused(why),
        Unsent::Unreachable(why) => Failure::Unreachable(why),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_is_heard_at_the_level_it_speaks_at() {
        let heard = Heard::default();
        let to = heard.clone();
        let listener = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        tracing::subscriber::with_default(listener.with_writer(move || to.clone()).finish(), || {
            let mut calls = SinkCalls { name: "s".into(), output: Output::Nowhere, worlds: Worlds::default() };
            (0..4).for_each(|level| calls.log(level, &format!("word {level}")));
        });
        let heard = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = heard.lines().collect();
        assert_eq!(lines.len(), 4, "{heard}");
        for (level, (line, word)) in lines.iter().zip(["ERROR", "WARN", "INFO", "DEBUG"]).enumerate() {
            assert!(line.contains(word) && line.contains(&format!("word {level}")), "{line}");
        }
    }
}
