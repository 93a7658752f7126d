//! `hb` turns telemetry into decisions it can prove: everything with effects, around the pure engine.

pub mod config;
pub mod diagnostic;
pub mod plugin;
pub mod report;
pub mod transport;
