//! Placeholder.

pub mod keys;
pub mod state;
