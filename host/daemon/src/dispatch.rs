//! Carries decisions to sink plugins, after they are durable.
//!
//! A crash between a commit and its delivery can repeat or lose a delivery, never a decision: ids stay the same, so a
//! receiver can tell a repetition. Retries from an outbox that outlives the process are not part of this yet.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use hb_engine::decision::Decision;
use hb_log::hash::Hash;
use rustix::fs::Access;

use crate::config::{ConfigFile, OutputConfig};
use crate::diagnostic::{Area, Diagnostic, Diagnostics};
use crate::generation::Plugins;
use crate::plugin::{
    Attribute, Capability, Delivered, Document, Grants, HostCalls, Kind, SamplesParam, SeriesKind, SinkInstance,
};

/// Attempts to deliver one batch; a sink that refuses longer is told of in the log and passed over.
const ATTEMPTS: u32 = 3;

/// Longest wait between two attempts, ms, whatever the sink asks for: the pipeline waits with it.
const WAIT_MS_MAX: u32 = 1_000;

/// The sinks of a config.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
    batch: u64,
}

struct Sink {
    name: String,
    instance: SinkInstance,
}

impl Sinks {
    /// Loads and starts the sinks of a config. All mistakes are returned, not the first.
    pub fn open(file: &ConfigFile) -> Result<Sinks, Diagnostics> {
        Sinks::start(file, Output::open)
    }

    /// Like [`Sinks::open`], but leaves nothing behind: files are not made, and nothing is written.
    pub fn check(file: &ConfigFile) -> Result<(), Diagnostics> {
        Sinks::start(file, Output::check).map(drop)
    }

    fn start(file: &ConfigFile, open: impl Fn(&OutputConfig) -> std::io::Result<Output>) -> Result<Sinks, Diagnostics> {
        let mut found = Diagnostics::new();
        let mut sinks = Vec::new();
        if file.config.sinks.is_empty() {
            return Ok(Sinks::default());
        }
        let plugins = Plugins::of(file)?;
        for (i, sink) in file.config.sinks.iter().enumerate() {
            let at = file.place(&format!("sinks[{i}]"));
            let output = match open(&sink.output) {
                Ok(output) => output,
                Err(e) => {
                    let message = format!("the output of sink `{}` cannot be opened: {e}", sink.name);
                    found.push(Diagnostic::error(Area::Config, message).at(at));
                    continue;
                }
            };
            let grants = Grants([Capability::Output].into());
            let part = match plugins.load(sink.plugin.as_str(), Kind::Sink, &sink.settings, &grants) {
                Ok((part, _, _)) => part,
                Err(problems) => {
                    found.append(problems);
                    continue;
                }
            };
            let calls = Box::new(SinkCalls { name: sink.name.to_string(), output });
            match SinkInstance::new(&part.loaded, &part.settings, calls) {
                Ok(instance) => sinks.push(Sink { name: sink.name.to_string(), instance }),
                Err(fault) => {
                    let message = format!("sink `{}` does not start: {fault}", sink.name);
                    found.push(Diagnostic::error(Area::Plugin, message).at(at));
                }
            }
        }
        if found.has_errors() { Err(found) } else { Ok(Sinks { sinks, batch: 0 }) }
    }

    /// Delivers decisions to every sink; the id of a document is the hash of its decision.
    pub fn deliver(&mut self, decisions: &[Decision]) {
        if self.sinks.is_empty() || decisions.is_empty() {
            return;
        }
        self.batch += 1;
        let texts: Vec<(String, Vec<u8>)> = decisions
            .iter()
            .map(|d| (Hash::of(&d.to_bytes()).to_string(), serde_json::to_vec(d).unwrap_or_default()))
            .collect();
        let documents: Vec<Document<'_>> =
            texts.iter().map(|(id, json)| Document { id, kind: "decision", json }).collect();
        for sink in &mut self.sinks {
            sink.deliver(self.batch, &documents);
        }
    }
}

impl Sink {
    /// Offers documents until each is delivered or rejected, a bounded number of times.
    fn deliver(&mut self, batch: u64, documents: &[Document<'_>]) {
        let mut left: Vec<usize> = (0..documents.len()).collect();
        for attempt in 1..=ATTEMPTS {
            let offered: Vec<Document<'_>> = left.iter().map(|&i| documents[i].clone()).collect();
            let none = SamplesParam { frame: &[], series: &[], time_ns: &[], value: &[] };
            let mut wait = None;
            match self.instance.deliver(batch, &offered, &[], none) {
                Ok(answer) => {
                    let mut again = Vec::new();
                    for (&i, outcome) in left.iter().zip(&answer.documents) {
                        match outcome {
                            Delivered::Delivered => {}
                            Delivered::Rejected(why) => {
                                tracing::warn!(sink = self.name, id = documents[i].id, why, "sink rejected a document");
                            }
                            Delivered::RetryAfterMs((ms, _)) => {
                                wait = wait.max(Some(*ms));
                                again.push(i);
                            }
                        }
                    }
                    left = again;
                }
                Err(fault) => {
                    tracing::warn!(sink = self.name, %fault, "sink plugin failed");
                    wait = Some(WAIT_MS_MAX / 10);
                }
            }
            if left.is_empty() {
                return;
            }
            if let Some(ms) = wait.filter(|_| attempt < ATTEMPTS) {
                std::thread::sleep(Duration::from_millis(ms.min(WAIT_MS_MAX).into()));
            }
        }
        tracing::error!(sink = self.name, documents = left.len(), "documents were not delivered");
    }
}

/// The stream a sink may write to.
enum Output {
    Stdout,
    File(File),
    /// Takes everything and keeps nothing.
    Nowhere,
}

impl Output {
    fn open(config: &OutputConfig) -> std::io::Result<Self> {
        match config {
            OutputConfig::Stdout => Ok(Output::Stdout),
            OutputConfig::File(path) => Ok(Output::File(OpenOptions::new().create(true).append(true).open(path)?)),
        }
    }

    /// Whether it could be opened, without making the file.
    fn check(config: &OutputConfig) -> std::io::Result<Self> {
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
struct SinkCalls {
    name: String,
    output: Output,
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
            let mut calls = SinkCalls { name: "s".into(), output: Output::Nowhere };
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
