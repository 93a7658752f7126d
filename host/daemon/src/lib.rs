//! `hb`: everything with effects. Plugins, policies, transports and state around the engine.

pub mod diagnostic;
pub mod plugin;
pub mod policy;
