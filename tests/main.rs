//! Integration tests: one binary, one module per theme.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, its helpers too")]

mod determinism;
mod plugins;

mod support {
    pub(crate) mod guests;
    pub(crate) mod hb;
}
