//! `hb-log` holds the words that are signed: canonical encoding, hashes, the Merkle tree, checkpoints, packs.
//!
//! It is pure: bytes in, verdicts out; no files, no clock, no network. An auditor's tool needs this crate and nothing
//! else.
//!
//! Modules in reading order: [`hash`] names content, [`cbor`] gives it one encoding, [`tree`] binds entries to one root.

pub mod cbor;
pub mod hash;
pub mod tree;
