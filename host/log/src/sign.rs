//! A signature is believed only in the exact bytes our signer writes: minisign files, checked strictly.
//!
//! ```text
//! untrusted comment: signature by a Harmony Bridge key      fixed text: UNTRUSTED_COMMENT
//! base64( "ED" | key id | Ed25519 over BLAKE2b-512 of the message )
//! trusted comment: evidence case-7                          covered by the signature on the next line
//! base64( Ed25519 over the signature above and the trusted comment )
//! ```
//!
//! Stock `minisign -V` accepts more than one spelling of the same signature (any first line, other line ends). Here
//! the four lines are written again and must be equal, so that no byte of a pack can change unnoticed.

use std::fmt;

use data_encoding::BASE64;

/// What the first line of every signature says after `untrusted comment: `. The signer must pass exactly this.
pub const UNTRUSTED_COMMENT: &str = "signature by a Harmony Bridge key";

/// Longest trusted comment in bytes: one line for a person to read.
pub const MAX_TRUSTED_COMMENT_BYTES: usize = 512;

/// Longest public key file in bytes: a comment line and 56 characters of base64.
const MAX_KEY_FILE_BYTES: usize = 4096;

/// `Ed`, key id, Ed25519 key.
const KEY_BYTES: usize = 2 + KEY_ID_BYTES + 32;
const KEY_ID_BYTES: usize = 8;
const ALGORITHM_KEY: &[u8] = b"Ed";
/// Prehashed; `Ed` would be the legacy form, which signs the message itself.
const ALGORITHM_SIGNATURE: &[u8] = b"ED";
/// Algorithm, key id and signature.
const SIGNATURE_BYTES: usize = 2 + KEY_ID_BYTES + 64;

const UNTRUSTED_PREFIX: &str = "untrusted comment: ";
const TRUSTED_PREFIX: &str = "trusted comment: ";

/// Why a key cannot be read or a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// Not a minisign public key.
    #[error("not a minisign public key: {what}")]
    Key {
        /// Which rule is broken.
        what: &'static str,
    },
    /// Not a signature in the one accepted spelling.
    #[error("not a signature as Harmony Bridge writes it: {what}")]
    Form {
        /// Which rule is broken.
        what: &'static str,
    },
    /// Made by another key.
    #[error("signed by key {found}, not by key {expected}")]
    OtherKey {
        /// Id of the key that was asked for.
        expected: String,
        /// Id of the key named in the signature.
        found: String,
    },
    /// The right key, but not over these bytes.
    #[error("the signature does not fit the signed bytes")]
    Mismatch,
}

/// A minisign (Ed25519) public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Reads the text of a `.pub` file (comment line and key line) or the bare base64 of the key.
    pub fn parse(text: &str) -> Result<PublicKey, SignError> {
        let wrong = |what| SignError::Key { what };
        if text.len() > MAX_KEY_FILE_BYTES {
            return Err(wrong("the file is too long"));
        }
        let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
        let key = match lines[..] {
            [key] => key,
            [comment, key] if comment.starts_with(UNTRUSTED_PREFIX) => key,
            _ => return Err(wrong("expected a comment line and a line of base64")),
        };
        let bytes = BASE64.decode(key.as_bytes()).map_err(|_| wrong("the key is not base64"))?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| wrong("the key is not 42 bytes long"))?;
        if !bytes.starts_with(ALGORITHM_KEY) {
            return Err(wrong("the key is not of the kind `Ed`"));
        }
        Ok(PublicKey(bytes))
    }

    /// The key's id as minisign prints it: 16 upper-case hex digits.
    pub fn key_id(&self) -> String {
        key_id(&self.0[2..2 + KEY_ID_BYTES])
    }

    /// The text of the `.pub` file, as stock minisign reads it.
    pub fn to_file(&self) -> String {
        format!("{UNTRUSTED_PREFIX}minisign public key {}\n{}\n", self.key_id(), self.to_base64())
    }

    fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// The comment that the signature covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedComment(String);

impl TrustedComment {
    /// Its text: printable ASCII, no line break.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustedComment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that `signature_text` is the signature of `message` by `key`, in the one accepted spelling.
pub fn verify(key: &PublicKey, message: &[u8], signature_text: &str) -> Result<TrustedComment, SignError> {
    let parts = Parts::parse(signature_text)?;
    if parts.key_id() != key.key_id() {
        return Err(SignError::OtherKey { expected: key.key_id(), found: parts.key_id() });
    }
    let verifier = minisign_verify::PublicKey::from_base64(&key.to_base64())
        .map_err(|_| SignError::Key { what: "the key cannot be used" })?;
    let signature = minisign_verify::Signature::decode(signature_text)
        .map_err(|_| SignError::Form { what: "the signature cannot be decoded" })?;
    verifier.verify(message, &signature, false).map_err(|_| SignError::Mismatch)?;
    Ok(TrustedComment(parts.trusted_comment.to_owned()))
}

/// The id of the key that a signature says it was made by, without checking it: to pick the key to verify with.
pub fn claimed_key_id(signature_text: &str) -> Result<String, SignError> {
    Ok(Parts::parse(signature_text)?.key_id())
}

/// True for a comment that [`verify`] accepts: printable ASCII (spaces inside, not at the ends), not too long.
/// Tools trim and escape anything else in different ways.
pub fn is_trusted_comment(comment: &str) -> bool {
    let printable = comment.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    printable && comment.trim() == comment && comment.len() <= MAX_TRUSTED_COMMENT_BYTES
}

/// The four lines of a signature, already known to be in the one spelling.
struct Parts<'a> {
    signature: [u8; SIGNATURE_BYTES],
    trusted_comment: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Parts<'a>, SignError> {
        let wrong = |what| SignError::Form { what };
        let mut lines = text.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let (untrusted, signature, trusted, global) = (line(), line(), line(), line());
        if untrusted.strip_prefix(UNTRUSTED_PREFIX) != Some(UNTRUSTED_COMMENT) {
            return Err(wrong("the first line is not the fixed untrusted comment"));
        }
        let signature = BASE64.decode(signature.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let signature: [u8; SIGNATURE_BYTES] = signature.ok_or(wrong("the second line is not 74 bytes in base64"))?;
        if !signature.starts_with(ALGORITHM_SIGNATURE) {
            return Err(wrong("it is not a prehashed (`ED`) signature"));
        }
        let trusted_comment = trusted.strip_prefix(TRUSTED_PREFIX).filter(|comment| is_trusted_comment(comment));
        let trusted_comment = trusted_comment.ok_or(wrong("the third line is not a printable trusted comment"))?;
        let global = BASE64.decode(global.as_bytes()).map_err(|_| wrong("the fourth line is not base64"))?;
        let again = format!(
            "{UNTRUSTED_PREFIX}{UNTRUSTED_COMMENT}\n{}\n{TRUSTED_PREFIX}{trusted_comment}\n{}\n",
            BASE64.encode(&signature),
            BASE64.encode(&global)
        );
        if global.len() != 64 || again != text {
            return Err(wrong("it is not exactly four lines in the one spelling"));
        }
        Ok(Parts { signature, trusted_comment })
    }

    fn key_id(&self) -> String {
        key_id(&self.signature[2..2 + KEY_ID_BYTES])
    }
}

/// minisign stores the id as a little-endian number and prints the number.
fn key_id(bytes: &[u8]) -> String {
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    data_encoding::HEXUPPER.encode(&reversed)
}

#[cfg(test)]
mod tests;
