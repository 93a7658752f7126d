//! Makes packs: the log's part of the payload, and the sealing.

use serde::{Deserialize, Serialize};

use super::{CASE_LABEL, names};
use crate::bag::{self, Files, PAYLOAD_PREFIX};
use crate::cbor::{self, Bytes};
use crate::checkpoint::Checkpoint;
use crate::entry::{Entry, EntryError};
use crate::hash::Hash;
use crate::sign::PublicKey;
use crate::tree::{self, TreeError};

/// Why the log's part of a pack cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Stored bytes are not an entry.
    #[error("an entry for the pack cannot be read")]
    Entry(#[from] EntryError),
    /// A proof cannot be built.
    #[error("the proof of entry {seq} cannot be built")]
    Proof {
        /// The entry's position in the log.
        seq: u64,
        /// Why.
        source: TreeError,
    },
}

/// Characters of a case name that go into file names and comments; the whole name stands in `bag-info.txt`.
const MAX_PLAIN_CASE_CHARS: usize = 80;

/// Content of [`names::PROOFS`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proofs {
    pub(super) size: u64,
    pub(super) proofs: Vec<Vec<Hash>>,
}

/// Adds the log's files to a payload: the stored bytes of the case's entries (in any order), their proofs under
/// `checkpoint`, the checkpoint with its signature, the keys, and the audit log for people.
pub fn put_log(
    payload: &mut Files,
    entries: &[Vec<u8>],
    checkpoint: &Checkpoint,
    checkpoint_signature: &str,
    keys: &[PublicKey],
    nodes: &tree::Nodes,
) -> Result<(), PackError> {
    let read =
        |bytes: &Vec<u8>| Entry::decode(bytes).map(|entry| (entry.seq, entry.to_json_line(), Bytes(bytes.clone())));
    let mut entries: Vec<(u64, String, Bytes)> = entries.iter().map(read).collect::<Result<_, _>>()?;
    entries.sort();
    entries.dedup();
    let mut proofs = Vec::with_capacity(entries.len());
    for (seq, _, _) in &entries {
        let proof = tree::inclusion_proof(*seq, checkpoint.size, nodes);
        proofs.push(proof.map_err(|source| PackError::Proof { seq: *seq, source })?);
    }
    let lines: String = entries.iter().map(|(_, line, _)| line.as_str()).collect();
    let bytes: Vec<Bytes> = entries.into_iter().map(|(_, _, bytes)| bytes).collect();
    let mut put = |name: &str, content: Vec<u8>| payload.insert(name.to_owned(), content);
    put(names::ENTRIES, cbor::encode(&bytes));
    put(names::PROOFS, cbor::encode(&Proofs { size: checkpoint.size, proofs }));
    put(names::CHECKPOINT, checkpoint.body().into_bytes());
    put(names::CHECKPOINT_SIGNATURE, checkpoint_signature.as_bytes().to_vec());
    put(names::KEYS, render_keys(keys).into_bytes());
    put(names::AUDIT_LOG, lines.into_bytes());
    Ok(())
}

/// Seals a payload (paths beginning with `data/`): adds `manifest.json` and the bag's files and has the tag manifest
/// signed. `sign` gets the bytes to sign and the trusted comment, and returns the text of the signature.
///
/// `bag_info` should name the case under [`CASE_LABEL`].
///
/// # Panics
/// As [`bag::seal`]: on paths and labels that only a bug can bring.
pub fn seal(payload: Files, bag_info: &[(String, String)], sign: &mut dyn FnMut(&[u8], &str) -> String) -> Files {
    let mut payload = payload;
    let manifest = render_manifest(&payload);
    payload.insert(names::MANIFEST_JSON.to_owned(), manifest.into_bytes());
    let mut files = bag::seal(payload, bag_info);
    let case = bag_info.iter().find(|(label, _)| label == CASE_LABEL).map_or("unnamed", |(_, case)| case);
    let signature = sign(&files[names::TAGMANIFEST], &trusted_comment(case));
    files.insert(names::TAGMANIFEST_SIGNATURE.to_owned(), signature.into_bytes());
    files
}

/// The name of a pack's folder and archive: `evidence_` and the case, as far as file names can hold it.
pub fn root_name(case: &str) -> String {
    format!("evidence_{}", plain(case, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
}

/// What the signer says under the signature of a pack: plain ASCII whatever the case is called.
fn trusted_comment(case: &str) -> String {
    format!("hb evidence {}", plain(case, |c| c.is_ascii_graphic()))
}

/// The case's name with other characters as `_`, cut to what fits a file name beside its extension.
fn plain(case: &str, keep: impl Fn(char) -> bool) -> String {
    bag::clean_value(case).chars().take(MAX_PLAIN_CASE_CHARS).map(|c| if keep(c) { c } else { '_' }).collect()
}

/// `manifest.json` of a payload: a fixed form, so that it can be compared byte by byte.
pub(super) fn render_manifest(files: &Files) -> String {
    #[derive(Serialize)]
    struct Listed<'a> {
        path: &'a str,
        bytes: usize,
        sha256: Hash,
    }
    #[derive(Serialize)]
    struct Manifest<'a> {
        schema_version: u32,
        files: Vec<Listed<'a>>,
    }
    let payload = files.iter().filter(|(path, _)| path.starts_with(PAYLOAD_PREFIX) && *path != names::MANIFEST_JSON);
    let files = payload.map(|(path, bytes)| Listed { path, bytes: bytes.len(), sha256: Hash::of(bytes) }).collect();
    // Strings and numbers only: this cannot fail.
    let mut text = serde_json::to_string_pretty(&Manifest { schema_version: 1, files }).unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn render_keys(keys: &[PublicKey]) -> String {
    keys.iter().map(PublicKey::to_file).collect()
}
