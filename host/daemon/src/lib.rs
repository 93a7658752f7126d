//! `hb` turns telemetry into decisions it can prove: everything with effects, around the pure engine.
//!
//! Modules in reading order: [`diagnostic`] and [`config`] talk with the operator, [`systemd`] with the service manager,
//! [`telemetry`] is what a daemon knows of itself, [`plant`] is a simulated one to try it on; [`transport`], [`plugin`],
//! [`policy`] and [`state`] each own one outside world; [`generation`] puts them together, [`pipeline`] runs them;
//! [`alert`] says what is told, [`dispatch`] tells the sinks; [`case`], [`evidence`] and [`replay`] prove what was
//! decided; [`observe`] and [`report`] show it, [`artifact`] keeps telemetry as files; [`daemon`] is the loop around all
//! of it, [`cli`] and [`api`] are the faces.

pub mod alert;
pub mod api;
pub mod artifact;
pub mod case;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod diagnostic;
pub mod dispatch;
pub mod evidence;
pub mod generation;
pub mod keys;
pub mod observe;
pub mod pipeline;
pub mod plant;
pub mod plugin;
pub mod policy;
pub mod replay;
pub mod report;
pub mod state;
pub mod systemd;
pub mod telemetry;
pub mod transport;
