//! Integration tests: one binary, one module per theme.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, its helpers too")]

mod cli;
mod crash;
mod determinism;
mod evidence;
mod hostile;
mod live;
mod plugins;
mod readme;
mod reload;
