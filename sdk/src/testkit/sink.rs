//! Hands documents and points to a sink.

use crate::sink::{Document, Sink, deliver};
use crate::wit::sink::exports::hb::plugin::consume::Delivery;
use crate::wit::types::{Fault, Samples, SeriesDef};

/// A sink under test. What it writes is in [`host::take_output`](super::host::take_output).
pub struct SinkKit<S> {
    plugin: S,
}

impl<S: Sink> SinkKit<S> {
    /// Configures a plugin.
    pub fn new(settings: &str) -> Result<Self, Fault> {
        Ok(Self { plugin: S::configure(settings)? })
    }

    /// Delivers documents (id, kind, JSON) and points (id in `defs`, time, value).
    ///
    /// # Panics
    /// If the answer has not one entry per document.
    pub fn deliver(
        &mut self,
        documents: &[(&str, &str, &str)],
        defs: &[SeriesDef],
        points: &[(u32, i64, f64)],
    ) -> Result<Delivery, Fault> {
        let documents: Vec<_> = documents
            .iter()
            .map(|&(id, kind, json)| Document { id: id.into(), kind: kind.into(), json: json.into() })
            .collect();
        let samples = Samples {
            frame: (0..points.len() as u32).collect(),
            series: points.iter().map(|p| p.0).collect(),
            time_ns: points.iter().map(|p| p.1).collect(),
            value: points.iter().map(|p| p.2).collect(),
        };
        let answer = deliver(&mut self.plugin, 1, &documents, defs, &samples)?;
        assert_eq!(answer.documents.len(), documents.len(), "one outcome per document");
        Ok(answer)
    }
}
