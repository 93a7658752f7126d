//! `hb-log` holds the words that are signed: canonical encoding, hashes, the Merkle tree, checkpoints, packs.
//!
//! It is pure: bytes in, verdicts out; no files, no clock, no network. An auditor's tool needs this crate and nothing
//! else.
//!
//! Modules in reading order: [`hash`] names content, [`cbor`] gives it one encoding, [`entry`] is one line of the log,
//! [`tree`] binds entries to one root, [`checkpoint`] says that root, [`sign`] vouches for it.

pub mod cbor;
pub mod checkpoint;
pub mod entry;
pub mod hash;
pub mod sign;
pub mod tree;
