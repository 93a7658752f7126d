//! Integration tests: one binary, one module per theme.

mod plugins;

mod support {
    pub(crate) mod guests;
}
