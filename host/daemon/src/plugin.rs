//! The plugin host runs other people's code in a sandbox and turns whatever it does wrong into a value.
//!
//! ```text
//! plugin.yaml --Manifest--+
//! plugin.wasm ------------+--> Host::load --> Loaded --> NormalizerInstance::run(frames)  -> Outcome
//! grants, trusted keys ---+    (compile,                 SourceInstance::poll(inbox)      -> Polled
//!                               cache, check)            SinkInstance::deliver(documents) -> Delivery
//! ```
//!
//! Permission is what a component imports: the linker holds `log`, for normalizers `series`, and the capabilities
//! that the manifest asks for *and* the host's configuration gives. Nothing else links, so nothing else loads.
//!
//! A guest that traps, loops, hoards memory or answers nonsense is a [`PluginFault`], never an error of the host. The
//! batch is cut in halves on fresh instances until only the guilty frames are left over; everything else is kept.
//!
//! All calls are synchronous and each instance lives on the thread of its caller; queues, retries, backoff and dead
//! letters are the caller's. Modules in reading order: [`manifest`] what a plugin asks for, [`limits`] what it may use,
//! [`host`] and [`load`] from bytes to a checked component, [`cache`] compiled code on disk, [`compiler`] where it is
//! made, [`frames`] the batch, [`guest`] what it may reach and `instance` one living guest, [`normalizer`] with its
//! [`outcome`], [`source`] and [`sink`] the three kinds, [`refusal`] why one was not loaded, [`fault`] what goes wrong
//! later.

mod bindings;
pub mod cache;
pub mod compiler;
pub mod fault;
pub mod frames;
pub mod guest;
pub mod host;
mod instance;
pub mod limits;
pub mod load;
pub mod manifest;
pub mod normalizer;
pub mod outcome;
pub mod refusal;
pub mod sink;
pub mod source;

pub use bindings::exports::hb::plugin::consume::{Delivery, Document, Outcome as Delivered};
pub use bindings::hb::plugin::http::{Header, Request, Response};
pub use bindings::hb::plugin::types::{
    AttributeParam, AttributeResult as Attribute, Event, Failure, Reject, SamplesParam, SeriesDef, SeriesKind,
};
pub use fault::PluginFault;
pub use frames::Frames;
pub use guest::{Counters, HostCalls};
pub use host::{Host, HostOptions};
pub use limits::Limits;
pub use load::{Grants, Loaded, Trust};
pub use manifest::{Capability, Kind, Manifest, ManifestError};
pub use normalizer::NormalizerInstance;
pub use outcome::Outcome;
pub use refusal::LoadError;
pub use sink::SinkInstance;
pub use source::{Polled, SourceInstance};
