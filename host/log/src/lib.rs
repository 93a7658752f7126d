//! hb-log is the words that are signed: how Harmony Bridge writes down what it decided so that anyone can check it.
//!
//! ```text
//!  value --cbor--> entry --hash--> leaf --tree--> root --> checkpoint --sign--> signature
//!                    \                                        |
//!                     \___________ pack: entry + proof + signed root + payload ________/
//!                                    |
//!                                   bag (BagIt folder) --archive--> one .zip file
//! ```
//!
//! The crate is pure: bytes in, bytes or problems out. It has no clock, no files, no network and no private keys
//! (signing lives in the daemon and comes in as a closure), so an auditor's tool needs this crate and nothing else.
//!
//! Modules in reading order:
//!
//! 1. [`hash`]: SHA-256 and the type of its result.
//! 2. [`cbor`]: the one byte string of a value (canonical CBOR), and a reader that accepts nothing else.
//! 3. [`tree`]: the RFC 6962 Merkle tree, its proofs and their checks.
//! 4. [`entry`]: one line of the log.
//! 5. [`checkpoint`]: the head of the log, as a text to be signed.
//! 6. [`sign`]: strict verification of minisign signatures.
//! 7. [`bag`]: BagIt folders, in which evidence travels.
//! 8. [`archive`]: the zip form of such a folder, with no free byte.
//! 9. [`pack`]: sealing and verifying an evidence pack, with all of the above.

pub mod archive;
pub mod bag;
pub mod cbor;
pub mod checkpoint;
pub mod entry;
pub mod hash;
pub mod pack;
pub mod problem;
pub mod sign;
pub mod tree;

#[cfg(test)]
mod testing;

pub use cbor::Bytes;
pub use checkpoint::Checkpoint;
pub use entry::Entry;
pub use hash::{Hash, Hasher};
pub use problem::Problem;
pub use sign::PublicKey;
