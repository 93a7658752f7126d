//! The `hb` binary.
fn main() {}
