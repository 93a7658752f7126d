//! Sinks: documents and points go outside, and each gets an answer.
//!
//! A sink acts on the world, so nothing is repeated here: a fault is the fault of the whole delivery, and the caller
//! decides what to offer again. Ids stay the same, so that a receiver can drop what it has seen.

use wasmtime::Store;
use wasmtime::component::{Instance as Component, InstancePre};

use super::bindings::exports::hb::plugin::consume;
use super::fault::{PluginFault, reason};
use super::guest::{Counters, Guest, HostCalls};
use super::instance::{Answer, Exports, Instance};
use super::limits::Budget;
use super::load::Loaded;
use super::{Delivered, Delivery, Document, SamplesParam, SeriesDef};

/// A sink at work.
pub struct SinkInstance {
    instance: Instance<consume::Guest>,
}

impl SinkInstance {
    /// Starts a sink with settings (JSON) that its schema has accepted.
    pub fn new(loaded: &Loaded, settings_json: &str, calls: Box<dyn HostCalls>) -> Result<Self, PluginFault> {
        Ok(SinkInstance { instance: Instance::start(loaded, settings_json, calls)? })
    }

    /// Delivers documents, and points with the definitions of their series. The answer has one outcome per document,
    /// in order, and one for all points.
    pub fn deliver(
        &mut self,
        batch_id: u64,
        documents: &[Document<'_>],
        defs: &[SeriesDef<'_>],
        points: SamplesParam<'_>,
    ) -> Result<Delivery, PluginFault> {
        let budget = Budget::Ms(self.instance.loaded().inner.limits.deadline_ms);
        let (answer, _) =
            self.instance.call(budget, |e, store| e.call_deliver(store, batch_id, documents, defs, points));
        let mut delivery = answer?;
        if delivery.documents.len() != documents.len() {
            self.instance.count_fault();
            self.instance.retire();
            return Err(PluginFault::BadOutput(format!(
                "{} documents were offered, {} are answered",
                documents.len(),
                delivery.documents.len()
            )));
        }
        for outcome in delivery.documents.iter_mut().chain([&mut delivery.points]) {
            match outcome {
                Delivered::Delivered => {}
                Delivered::RetryAfterMs((_, text)) | Delivered::Rejected(text) => *text = reason(text),
            }
        }
        Ok(delivery)
    }

    /// Calls, faults, rebuilds.
    pub fn counters(&self) -> Counters {
        self.instance.counters()
    }
}

impl Exports for consume::Guest {
    fn find(store: &mut Store<Guest>, instance: &Component, pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        consume::GuestIndices::new(pre)?.load(store, instance)
    }

    fn configure(&self, store: &mut Store<Guest>, settings: &str) -> Answer<()> {
        self.call_configure(store, settings)
    }
}
