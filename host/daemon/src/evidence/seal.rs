//! How a case was sealed, so that it is sealed the same way again, also when the host has another key meanwhile.

use hb_log::cbor;
use hb_log::checkpoint::Checkpoint;
use hb_log::hash::Hash;
use hb_log::sign::{PublicKey, claimed_key_id};
use serde::{Deserialize, Serialize};

use crate::case::{Case, seal_name};
use crate::keys;
use crate::pipeline::PipelineError;
use crate::state::{Reader, SignedHead, State};

/// A seal as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub(super) v: u8,
    /// The log's head the proofs lead to.
    pub(super) body: String,
    pub(super) head_signature: String,
    /// Time of the entry the pack is sealed at, ns.
    pub(super) time_ns: i64,
    /// What was signed, and the signature.
    pub(super) signed: Hash,
    pub(super) signature: String,
    /// The public key it was signed under; none in seals of version 1.
    #[serde(default)]
    pub(super) key: Option<String>,
}

impl Seal {
    /// Version of the structure written now.
    pub(super) const V: u8 = 2;

    /// The seal of a case; none when it was not sealed yet.
    pub(super) fn load(reader: &Reader, case: &Case) -> Result<Option<Seal>, PipelineError> {
        let stored = reader.meta(&case.program, &seal_name(&case.id))?;
        stored.map(|bytes| cbor::decode(&bytes).map_err(unreadable)).transpose()
    }

    /// The log's head the proofs lead to.
    pub(super) fn head(&self) -> Result<SignedHead, PipelineError> {
        Ok(SignedHead {
            checkpoint: Checkpoint::parse(&self.body).map_err(unreadable)?,
            body: self.body.clone(),
            signature: self.head_signature.clone(),
        })
    }

    /// The key that head and seal verify with.
    pub(super) fn key(&self, state: &State) -> Result<PublicKey, PipelineError> {
        if let Some(text) = &self.key {
            return PublicKey::parse(text).map_err(unreadable);
        }
        let id = claimed_key_id(&self.signature).map_err(unreadable)?;
        let known = state.dir().map(keys::public_keys).unwrap_or_default();
        known.into_iter().find(|key| key.key_id() == id).ok_or_else(|| {
            let why =
                format!("the case was sealed under key {id}; put its public key into `keys` of the state directory");
            PipelineError::corrupt("public key", why)
        })
    }
}

fn unreadable(e: impl ToString) -> PipelineError {
    PipelineError::corrupt("seal", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_of_the_first_version_is_read() {
        #[derive(Serialize)]
        struct First {
            v: u8,
            body: String,
            head_signature: String,
            time_ns: i64,
            signed: Hash,
            signature: String,
        }
        let text = || "text".to_owned();
        let first =
            First { v: 1, body: text(), head_signature: text(), time_ns: 7, signed: Hash::of(b"x"), signature: text() };
        let seal: Seal = cbor::decode(&cbor::encode(&first)).unwrap();
        assert_eq!((seal.v, seal.time_ns, seal.key), (1, 7, None));
    }
}
