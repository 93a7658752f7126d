//! `hb`: everything with effects. Plugins, policies, transports and state around the engine.

pub mod keys;
pub mod plugin;
pub mod state;
