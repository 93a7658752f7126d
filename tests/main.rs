//! Integration tests: one binary, one module per theme.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, its helpers too")]

mod alerts;
mod broker;
mod cli;
mod control;
mod crash;
mod demo;
mod deploy;
mod determinism;
mod evidence;
mod gate;
mod hardship;
mod health;
mod hostile;
mod ingest;
mod live;
mod outage;
mod outside;
mod plant;
mod plugins;
mod readme;
mod reference;
mod reload;
mod report_browser;
mod reports;
mod retain;
mod silence;
mod sinks;
mod sources;
mod tail;
mod tls;
mod top;
mod verbs;
mod yardstick;

mod support {
    pub(crate) mod broker;
    pub(crate) mod browser;
    pub(crate) mod corpora;
    pub(crate) mod guests;
    pub(crate) mod hb;
    pub(crate) mod machine;
    pub(crate) mod terminal;
}
