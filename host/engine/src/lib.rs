//! `hb-engine` decides: it files samples into event-time windows, compares each closed window with a baseline,
//! asks the rules for verdicts and returns what should happen as values.
//!
//! ```text
//! Input --> Engine::step --> partition (program, lane, asset) --> window closes --> Judge --> Decision
//! ```
//!
//! The crate is pure: no clock, no files, no network, no random numbers, no iteration over hash maps. The same
//! journal of [`Input`]s gives the same bytes, on any machine, in any batching. Transcendental functions come from
//! the `libm` crate, sums run in journal order.
//!
//! Modules in reading order: [`series`] names what is measured, [`stats`] summarises it, [`window`] files it by event
//! time, [`baseline`] is what it is compared with, [`judge`] is the question put to a rule, [`decision`] the recorded
//! answer, [`spec`] what an operator configures, [`partition`] one asset's state and [`engine`] the whole;
//! [`alert`] makes one alert of one fault, [`inject`] damages telemetry on purpose.

pub mod alert;
pub mod baseline;
pub mod decision;
pub mod engine;
pub mod inject;
pub mod judge;
pub mod partition;
pub mod series;
pub mod spec;
pub mod stats;
pub mod window;

pub use engine::{Effect, Engine, Input};

/// Version of the decision semantics; part of every decision. It changes only when the same journal could give
/// other bytes, not with every release.
pub const ENGINE_VERSION: &str = "1";

/// Farthest event time from the epoch, ns: 291 years, up to the year 2261. The rest of an `i64` is room for windows and
/// lateness, so that sums of times never overflow.
pub const TIME_MAX_NS: i64 = 9_200_000_000_000_000_000;

/// Nanoseconds in a second.
pub const NS_PER_SEC: i64 = 1_000_000_000;
