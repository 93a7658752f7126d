//! A `Hash` is the SHA-256 of some bytes, the only name for content in Harmony Bridge.
//!
//! SHA-256 and not a faster hash, because `sha256sum` is on every machine that will ever have to check evidence.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Bytes gathered before they are fed to SHA-256; samples arrive 32 bytes at a time and a call per sample costs more
/// than the hashing itself. No more than 16 of its blocks, because each asset has a buffer and the cache is shared.
const BUFFER_BYTES: usize = 1024;

/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 value; written as 64 lower-case hex digits in text and as 32 bytes in CBOR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// All zero: "no hash yet". No known bytes hash to it.
    pub const ZERO: Hash = Hash([0; HASH_BYTES]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// Takes 32 bytes that are already a hash.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Hash {
        Hash(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The first 12 hex digits: enough to tell two things apart in a message, not enough to prove anything.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..6])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hex digits")]
pub struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;

    // Upper case is refused: one hash has one spelling, or signed text would have free bytes.
    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAHash)?;
        Hash::try_from(bytes.as_slice())
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = NotAHash;

    fn try_from(bytes: &[u8]) -> Result<Hash, NotAHash> {
        bytes.try_into().map(Hash).map_err(|_| NotAHash)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(HashVisitor)
        } else {
            deserializer.deserialize_bytes(HashVisitor)
        }
    }
}

struct HashVisitor;

impl serde::de::Visitor<'_> for HashVisitor {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-256 hash (64 hex digits or 32 bytes)")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hash, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Hash, E> {
        Hash::try_from(bytes).map_err(E::custom)
    }
}

/// SHA-256 over bytes that come in small pieces.
#[derive(Clone)]
pub struct Hasher {
    sha: Sha256,
    buffer: Box<[u8; BUFFER_BYTES]>,
    filled: usize,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Hasher {
        Hasher { sha: Sha256::new(), buffer: Box::new([0; BUFFER_BYTES]), filled: 0 }
    }

    /// Takes in more bytes; how they are cut into pieces does not change the result.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.filled..self.filled + bytes.len()) {
            room.copy_from_slice(bytes);
            self.filled += bytes.len();
        } else {
            self.flush();
            self.sha.update(bytes);
        }
    }

    /// The hash of everything taken in so far; more may follow.
    pub fn so_far(&mut self) -> Hash {
        self.flush();
        Hash(self.sha.clone().finalize().into())
    }

    /// The hash of everything taken in.
    pub fn finalize(mut self) -> Hash {
        self.flush();
        Hash(self.sha.finalize().into())
    }

    #[cold]
    fn flush(&mut self) {
        self.sha.update(&self.buffer[..self.filled]);
        self.filled = 0;
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        // FIPS 180-4, and the empty string.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hash::of(b"abc").to_string(), abc);
        assert_eq!(Hash::of(b"").to_string(), empty);
        assert_eq!(Hasher::new().finalize().to_string(), empty);
        assert_eq!(Hash::of(b"abc").short(), "ba7816bf8f01");
        assert_eq!(format!("{:?}", Hash::of(b"abc")), abc);
        assert_eq!(abc.parse(), Ok(Hash::of(b"abc")));
    }

    #[test]
    fn one_hash_has_one_spelling() {
        let text = Hash::of(b"abc").to_string();
        for wrong in [text.to_uppercase(), format!(" {text}"), text[1..].to_owned(), format!("{text}0"), String::new()]
        {
            assert_eq!(wrong.parse::<Hash>(), Err(NotAHash), "{wrong}");
        }
    }

    #[test]
    fn text_in_json_and_bytes_in_cbor() {
        let hash = Hash::of(b"abc");
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{hash}\""));
        assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
        let cbor = crate::cbor::encode(&hash);
        assert_eq!((cbor.len(), cbor[0], cbor[1]), (34, 0x58, 32));
        assert_eq!(crate::cbor::decode::<Hash>(&cbor).unwrap(), hash);
        assert!(crate::cbor::decode::<Hash>(&cbor[1..]).is_err());
        assert!(crate::cbor::decode::<Hash>(&crate::cbor::encode(hash.to_string().as_str())).is_err());
    }

    proptest! {
        #[test]
        fn cutting_into_pieces_changes_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            step in 1_usize..9_000,
        ) {
            let mut hasher = Hasher::new();
            for (nth, piece) in bytes.chunks(step).enumerate() {
                if nth % 3 == 1 {
                    prop_assert_eq!(hasher.so_far(), Hash::of(&bytes[..nth * step]));
                }
                hasher.update(piece);
            }
            prop_assert_eq!(hasher.clone().finalize(), Hash::of(&bytes));
            hasher.update(b"");
            prop_assert_eq!(hasher.finalize(), Hash::of(&bytes));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<Hash>();
        }
    }
}
