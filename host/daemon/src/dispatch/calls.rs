//! What a sink plugin asks of the host, and the outside worlds it was given.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use rustix::fs::Access;

use crate::config::OutputConfig;
use crate::plugin::{Attribute, HostCalls, SeriesKind};

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
