//! An evidence pack is a signed bag that proves one decision: what was seen, what was decided, and that the log says so.
//!
//! ```text
//!  key trusted out of band
//!    | signs                                        signs
//!  tagmanifest-sha256.txt                        data/log/checkpoint.txt  (size and root of the log)
//!    | hashes                                       | inclusion proofs: data/log/proofs.cbor
//!  manifest-sha256.txt, bag-info.txt             data/log/entries.cbor    (the case's entries of the log)
//!    | hashes                                       | the field `decision` of one entry is the hash of
//!  every file under data/                        data/decision.cbor
//! ```
//!
//! [`seal`] and [`put_log`] make a pack, [`verify`] believes nothing in it but the trusted keys. Both sides take the
//! file names from [`names`].
//!
//! What a pack cannot show by itself: that the log was not cut and signed anew. Whoever holds the log's key can drop
//! the last entries, or write another history, sign a checkpoint over it and make a pack that verifies. Only a
//! witness (a sink or peer that remembers the highest checkpoint it saw and demands a consistency proof) shows that,
//! so every report carries the warning [`FRESHNESS_UNPROVEN`] as long as no witness is part of the check.

pub mod names;
mod verify;
mod write;

use serde::Serialize;

use crate::hash::Hash;

pub use crate::problem::Problem;
pub use verify::{verify, verify_zip};
pub use write::{PackError, put_log, root_name, seal};

/// The label in `bag-info.txt` that names the case.
pub const CASE_LABEL: &str = "External-Identifier";

/// Warning of every report made without a witness.
pub const FRESHNESS_UNPROVEN: &str = "freshness unproven: no witness";

/// Warning of a report whose key came from the pack itself: it shows that the pack is whole, not who made it.
pub const KEY_NOT_TRUSTED: &str = "key not trusted out of band";

/// The kind of log entry that records a decision.
pub const DECISION_KIND: &str = "decision";

/// The field of such an entry that holds the SHA-256 of the decision's bytes.
pub const DECISION_FIELD: &str = "decision";

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True when there is no problem at all.
    pub ok: bool,
    /// Every reason not to believe the pack.
    pub problems: Vec<Problem>,
    /// What the check could not show even when it is ok.
    pub warnings: Vec<String>,
    /// What the pack says. Only to be believed when `ok`.
    pub facts: Facts,
}

/// What a pack says about itself; `None` where the pack is too damaged to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Name of the case.
    pub case: Option<String>,
    /// Name of the log.
    pub log_origin: Option<String>,
    /// Entries in the log when the pack was sealed.
    pub log_size: Option<u64>,
    /// Root of the log when the pack was sealed.
    pub root: Option<Hash>,
    /// Position of the decision in the log.
    pub decision_seq: Option<u64>,
    /// Hash of the decision.
    pub decision: Option<Hash>,
    /// Id of the key that signed the pack, as minisign prints it.
    pub key_id: Option<String>,
    /// What the signer said under its signature.
    pub trusted_comment: Option<String>,
}

#[cfg(test)]
mod tests;
