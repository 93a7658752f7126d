//! What plugins ask of the host in a pipeline: to say something, and to be given numbers for names.

use hb_engine::series::{SeriesDef, SeriesKind};

use super::series::SeriesBook;
use crate::plugin::{self, Attribute, HostCalls};

/// What plugins ask of the host in a pipeline.
pub struct Calls {
    /// The plugin, for its log lines.
    pub plugin: String,
    /// The series table.
    pub book: SeriesBook,
}

impl HostCalls for Calls {
    fn log(&mut self, level: u8, text: &str) {
        match level {
            0 => tracing::error!(plugin = self.plugin, "{text}"),
            1 => tracing::warn!(plugin = self.plugin, "{text}"),
            2 => tracing::info!(plugin = self.plugin, "{text}"),
            _ => tracing::debug!(plugin = self.plugin, "{text}"),
        }
    }

    fn define_series(
        &mut self,
        metric: &str,
        unit: &str,
        kind: plugin::SeriesKind,
        labels: &[Attribute],
    ) -> Result<u32, String> {
        let kind = match kind {
            plugin::SeriesKind::Gauge => SeriesKind::Gauge,
            plugin::SeriesKind::Counter => SeriesKind::Counter,
            plugin::SeriesKind::Boolean => SeriesKind::Boolean,
            plugin::SeriesKind::State => SeriesKind::State,
        };
        let labels = labels.iter().map(|l| (l.key.clone(), l.value.clone()));
        self.book.define(SeriesDef::new(metric, unit, kind, labels)?)
    }

    fn state_code(&mut self, series: u32, text: &str) -> Result<f64, String> {
        self.book.state_code(series, text)
    }

    fn output(&mut self, _bytes: &[u8]) -> Result<(), String> {
        Err("sources and normalizers have no output".into())
    }
}
