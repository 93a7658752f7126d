//! `hb` turns telemetry into decisions it can prove: everything with effects, around the pure engine.
//!
//! Modules in reading order: [`diagnostic`] and [`config`] talk with the operator; [`transport`], [`plugin`],
//! [`policy`] and [`state`] each own one outside world; [`generation`] puts them together, [`pipeline`] runs them;
//! [`case`] and `evidence` prove what was decided; [`report`] shows it.

pub mod artifact;
pub mod case;
pub mod clock;
pub mod config;
pub mod diagnostic;
pub mod generation;
pub mod keys;
pub mod pipeline;
pub mod plugin;
pub mod policy;
pub mod state;
pub mod transport;
