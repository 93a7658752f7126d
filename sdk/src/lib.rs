//! hb-sdk is what the author of a plugin needs: write one type, implement one trait, name it in one macro.
//!
//! | kind | trait | macro | does |
//! |---|---|---|---|
//! | normalizer | [`Normalizer`] | [`export_normalizer!`] | gives frames their meaning: samples, events, rejects |
//! | source | [`Source`] | [`export_source!`] | cuts what a transport delivers into frames |
//! | sink | [`Sink`] | [`export_sink!`] | carries documents and points outside |
//!
//! The contract itself is `wit/hb.wit`; its columns and ids stay hidden here. `cargo test` runs a plugin natively, with
//! [`testkit`] in the place of the host. `template/` holds a complete small plugin to start from.
//!
//! ```
//! use hb_sdk::{Fault, Frame, Normalizer, Out, Series, SeriesKind};
//!
//! struct Bare(Series);
//!
//! impl Normalizer for Bare {
//!     fn configure(_settings: &str) -> Result<Self, Fault> {
//!         let series = hb_sdk::define("temperature", "degC", SeriesKind::Gauge, &[]).map_err(Fault::Fatal)?;
//!         Ok(Self(series))
//!     }
//!
//!     fn frame(&mut self, frame: Frame<'_>, out: &mut Out) {
//!         match frame.text().map(|text| text.trim().parse()) {
//!             Ok(Ok(value)) => out.sample(self.0, frame.received_ns, value),
//!             _ => out.reject("expected a bare number"),
//!         }
//!     }
//! }
//!
//! hb_sdk::export_normalizer!(Bare);
//!
//! # fn main() {
//! let mut kit = hb_sdk::testkit::NormalizerKit::<Bare>::new("{}").unwrap();
//! let report = kit.run(&["21.5".into(), "warm".into()]);
//! assert_eq!(report.samples[0].value, 21.5);
//! assert_eq!(report.rejects[0].reason, "expected a bare number");
//! # }
//! ```

mod frame;
pub mod http;
pub mod log;
mod normalizer;
mod series;
mod sink;
pub mod socket;
mod source;
#[cfg(not(target_arch = "wasm32"))]
pub mod testkit;
pub mod time;
#[doc(hidden)]
pub mod wit;

pub use frame::{Batch, Frame, FrameIter, NotText};
pub use normalizer::{Normalizer, Out, TIMES_NS};
pub use series::{ByteHasher, Series, SeriesTable, define, state_code};
pub use sink::{Delivery, Document, Point, Points, Sink, write_output};
pub use source::{Inbox, Polled, Source};
pub use wit::types::{Attribute, Event, Failure, Fault, SeriesDef, SeriesKind};

/// What the export macros expand to; no part of the interface.
#[doc(hidden)]
pub mod glue {
    use crate::Fault;
    pub use crate::normalizer::run as normalizer_run;
    pub use crate::sink::deliver as sink_deliver;
    pub use crate::source::poll as source_poll;
    use std::cell::RefCell;

    /// Where a component keeps its one plugin.
    pub type Slot<T> = RefCell<Option<T>>;

    /// Puts a configured plugin into its slot and makes its panics readable.
    pub fn configure<T>(slot: &Slot<T>, made: impl FnOnce() -> Result<T, Fault>) -> Result<(), Fault> {
        crate::log::install_panic_hook();
        let made = made()?;
        *slot.borrow_mut() = Some(made);
        Ok(())
    }

    /// Calls the configured plugin.
    pub fn with<T, R>(slot: &Slot<T>, call: impl FnOnce(&mut T) -> Result<R, Fault>) -> Result<R, Fault> {
        match slot.borrow_mut().as_mut() {
            Some(plugin) => call(plugin),
            None => Err(Fault::Fatal("called before configure".to_owned())),
        }
    }
}
