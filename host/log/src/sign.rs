//! Signatures are minisign's, so stock `minisign -V` checks them too; here no byte of a signature file is free.
//!
//! minisign itself ignores the untrusted comment, the end of the file and some base64 bits. Evidence must not have
//! bytes that can change unseen, so a signature is taken apart, written again and compared.

use std::fmt;

use data_encoding::{BASE64, HEXUPPER};

/// First line of each signature file. It is not signed, therefore it is fixed.
pub const UNTRUSTED_COMMENT: &str = "signature from hb";

/// Longest trusted comment, bytes: ours name origin, size, root and key in a third of it.
pub const MAX_COMMENT_BYTES: usize = 1_024;

/// Longest signature file that is read, bytes: the comment and 300 for the rest.
pub const MAX_SIGNATURE_BYTES: usize = MAX_COMMENT_BYTES + 300;

const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";
const KEY_COMMENT: &str = "minisign public key ";

/// Ed25519 over the message's BLAKE2b: the only algorithm that is accepted.
const PREHASHED: &[u8; 2] = b"ED";
/// Marks an Ed25519 key.
const KEY_ALGORITHM: &[u8; 2] = b"Ed";
/// Algorithm 2, key id 8, Ed25519 key 32.
const KEY_BYTES: usize = 42;
/// Algorithm 2, key id 8, Ed25519 signature 64.
const SIGNATURE_BYTES: usize = 74;

/// Why a key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not the text of a minisign public key.
    #[error("not a minisign public key: expected a .pub file or its base64 line")]
    BadKey,
    /// Not a signature file as hb writes it.
    #[error("not a signature file as hb writes it")]
    BadFile,
    /// The older algorithm, which signs the message itself.
    #[error("legacy signature: only prehashed ones are accepted")]
    Legacy,
    /// Made with another key.
    #[error("signed with another key")]
    OtherKey,
    /// The message or the trusted comment is not what was signed.
    #[error("the signature does not fit: message or comment was changed")]
    Mismatch,
}

/// A minisign public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; KEY_BYTES],
}

impl PublicKey {
    /// Reads the text of a `.pub` file, or its base64 line alone.
    pub fn parse(text: &str) -> Result<Self, SignError> {
        let text = text.trim_end_matches(['\r', '\n']);
        let base64 = match text.split_once('\n') {
            Some((comment, base64)) if comment.starts_with(UNTRUSTED) => base64,
            Some(_) => return Err(SignError::BadKey),
            None => text,
        };
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| SignError::BadKey)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| SignError::BadKey)?;
        if bytes.starts_with(KEY_ALGORITHM) { Ok(PublicKey { bytes }) } else { Err(SignError::BadKey) }
    }

    /// The key's id as minisign prints it: 16 upper-case hex digits.
    pub fn key_id(&self) -> String {
        printed_id(self.id())
    }

    /// The two-line `.pub` file; the only spelling of this key.
    pub fn to_text(&self) -> String {
        format!("{UNTRUSTED}{KEY_COMMENT}{}\n{}\n", self.key_id(), BASE64.encode(&self.bytes))
    }

    fn id(&self) -> &[u8] {
        &self.bytes[2..10]
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// Checks a signature file over a message and returns its trusted comment.
pub fn verify(key: &PublicKey, message: &[u8], signature_text: &str) -> Result<String, SignError> {
    let comment = check_file(key, signature_text)?;
    let broken = |_| SignError::BadFile;
    let signature = minisign_verify::Signature::decode(signature_text).map_err(broken)?;
    let key = minisign_verify::PublicKey::from_base64(&BASE64.encode(&key.bytes)).map_err(|_| SignError::BadKey)?;
    key.verify(message, &signature, false).map_err(|_| SignError::Mismatch)?;
    Ok(comment)
}

/// The id of the key a signature file claims, in the form of [`PublicKey::key_id`]: to find the key, proves nothing.
pub fn claimed_key_id(signature_text: &str) -> Option<String> {
    let line = signature_text.split('\n').nth(1)?;
    let bytes = BASE64.decode(line.as_bytes()).ok()?;
    bytes.get(2..10).map(printed_id)
}

/// minisign prints an id as a little-endian number.
fn printed_id(id: &[u8]) -> String {
    let reversed: Vec<u8> = id.iter().rev().copied().collect();
    HEXUPPER.encode(&reversed)
}

/// Takes a signature file apart, writes it again and demands the same bytes; returns the trusted comment.
fn check_file(key: &PublicKey, text: &str) -> Result<String, SignError> {
    if text.len() > MAX_SIGNATURE_BYTES {
        return Err(SignError::BadFile);
    }
    let mut lines = text.split('\n').skip(1);
    let mut line = || lines.next().ok_or(SignError::BadFile);
    let (signature, comment, global) = (line()?, line()?, line()?);
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| SignError::BadFile)?;
    let comment = comment.strip_prefix(TRUSTED).ok_or(SignError::BadFile)?;
    let global = BASE64.decode(global.as_bytes()).map_err(|_| SignError::BadFile)?;
    if signature.len() != SIGNATURE_BYTES || global.len() != 64 || !is_comment(comment) {
        return Err(SignError::BadFile);
    }
    let again = format!(
        "{UNTRUSTED}{UNTRUSTED_COMMENT}\n{}\n{TRUSTED}{comment}\n{}\n",
        BASE64.encode(&signature),
        BASE64.encode(&global)
    );
    if again != text {
        return Err(SignError::BadFile);
    }
    match &signature[..2] {
        algorithm if algorithm == PREHASHED => {}
        algorithm if algorithm == KEY_ALGORITHM => return Err(SignError::Legacy),
        _ => return Err(SignError::BadFile),
    }
    if &signature[2..10] == key.id() { Ok(comment.to_owned()) } else { Err(SignError::OtherKey) }
}

/// Whether a text can be a trusted comment: one line of printable text, not too long.
pub fn is_comment(text: &str) -> bool {
    text.len() <= MAX_COMMENT_BYTES && text.trim() == text && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::PathBuf;

    use minisign::KeyPair;
    use proptest::prelude::*;

    use super::*;

    fn sign(pair: &KeyPair, message: &[u8], untrusted: &str) -> String {
        minisign::sign(None, &pair.sk, Cursor::new(message), Some("size=1"), Some(untrusted)).unwrap().to_string()
    }

    fn pair() -> (KeyPair, PublicKey) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let key = PublicKey::parse(&pair.pk.to_base64()).unwrap();
        (pair, key)
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let (pair, key) = pair();
        let text = sign(&pair, b"message", UNTRUSTED_COMMENT);
        assert_eq!(verify(&key, b"message", &text), Ok("size=1".into()));
        assert_eq!(verify(&key, b"Message", &text), Err(SignError::Mismatch));
        assert_eq!(verify(&self::pair().1, b"message", &text), Err(SignError::OtherKey));
        assert_eq!(claimed_key_id(&text), Some(key.key_id()));
        // The same id on another key: only the mathematics tells.
        let mut forged = self::pair().1;
        forged.bytes[2..10].copy_from_slice(key.id());
        assert_eq!(verify(&forged, b"message", &text), Err(SignError::Mismatch));
    }

    #[test]
    fn no_byte_of_a_signature_file_is_free() {
        let (pair, key) = pair();
        let text = sign(&pair, b"message", UNTRUSTED_COMMENT);
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify(&key, b"message", &changed).is_err(), "byte {at} bit {bit}: {changed}");
            }
        }
        for bad in [
            String::new(),
            format!("{text}\n"),
            format!("{text} "),
            format!("\n{text}"),
            text.trim_end().to_owned(),
            text.replace('\n', "\r\n"),
            text.replace("size=1", "size=1\u{7}"),
            sign(&pair, b"message", "another comment"),
        ] {
            assert!(verify(&key, b"message", &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn legacy_signatures_are_refused() {
        let (pair, key) = pair();
        let text = sign(&pair, b"message", UNTRUSTED_COMMENT);
        // "RU" begins the base64 of ED, "RW" that of Ed.
        assert_eq!(verify(&key, b"message", &text.replacen("\nRU", "\nRW", 1)), Err(SignError::Legacy));
    }

    #[test]
    fn a_key_reads_its_own_text() {
        let (pair, key) = pair();
        assert_eq!(PublicKey::parse(&key.to_text()), Ok(key.clone()));
        assert_eq!(PublicKey::parse(&pair.pk.to_box().unwrap().into_string()), Ok(key.clone()));
        assert!(key.to_text().contains(&key.key_id()));
        assert_eq!(key.key_id().len(), 16);
        let line = pair.pk.to_base64();
        for bad in ["", "x", &line[1..], &format!("comment\n{line}"), &format!("{line}\n{line}"), &format!(" {line}")] {
            assert_eq!(PublicKey::parse(bad), Err(SignError::BadKey), "{bad:?}");
        }
        // The key of minisign's own documentation.
        let known = PublicKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
        assert_eq!(known.key_id(), "E7620F1842B4E81F");
    }

    /// The outside suite gives keys and one signature each, no secret keys. A minisign file needs a second signature by
    /// the same key, over the first and the comment, so a good vector cannot be shown to pass through this interface.
    /// What can be shown: no vector, good or hostile, passes with a second signature that was not made for it, and
    /// hostile keys and signatures do not panic.
    #[test]
    fn outside_vectors_never_pass_without_their_second_signature() {
        let folder = std::env::var_os("HB_CORPORA")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"), PathBuf::from);
        let path = folder.join("wycheproof/testvectors_v1/ed25519_test.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("skipped: no {}; set HB_CORPORA", path.display());
            return;
        };
        let suite: serde_json::Value = serde_json::from_str(&text).unwrap();
        let hex =
            |value: &serde_json::Value| data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let mut tried = 0;
        for group in suite["testGroups"].as_array().unwrap() {
            let key = [&b"Ed12345678"[..], &hex(&group["publicKey"]["pk"])].concat();
            let Ok(key) = minisign_verify::PublicKey::from_base64(&BASE64.encode(&key)) else { continue };
            for test in group["tests"].as_array().unwrap() {
                let (message, signature) = (hex(&test["msg"]), hex(&test["sig"]));
                let (first, second) =
                    (BASE64.encode(&[&b"Ed12345678"[..], &signature].concat()), BASE64.encode(&signature));
                let file = format!("{UNTRUSTED}x\n{first}\n{TRUSTED}x\n{second}\n");
                tried += 1;
                if let Ok(parsed) = minisign_verify::Signature::decode(&file) {
                    assert!(key.verify(&message, &parsed, true).is_err(), "vector {}", test["tcId"]);
                }
            }
        }
        eprintln!("{tried} vectors tried");
        assert!(tried > 100);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in ".*", lines in prop::collection::vec("[ -~]*", 0..6)) {
            let key = PublicKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
            for text in [text, lines.join("\n")] {
                let _ = PublicKey::parse(&text);
                let _ = claimed_key_id(&text);
                prop_assert!(verify(&key, b"", &text).is_err());
            }
        }
    }
}
