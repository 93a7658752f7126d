//! What several test modules share: fixed keys and the folder of outside test cases.

#[path = "../../../tests/support/corpora.rs"]
pub(crate) mod corpora;

use crate::sign::{PublicKey, UNTRUSTED_COMMENT};

/// A key pair that is the same in every run.
pub(crate) struct Key {
    secret: minisign::SecretKey,
    pub(crate) public: PublicKey,
}

impl Key {
    pub(crate) fn fixed(number: u8) -> Key {
        let text = match number {
            1 => KEY_1,
            _ => KEY_2,
        };
        let secret = minisign::SecretKeyBox::from_string(text).unwrap().into_unencrypted_secret_key().unwrap();
        let public = minisign::PublicKey::from_secret_key(&secret).unwrap();
        Key { secret, public: PublicKey::parse(&public.to_base64()).unwrap() }
    }

    /// Signs as the daemon does.
    pub(crate) fn sign(&self, message: &[u8], trusted_comment: &str) -> String {
        let signature = minisign::sign(None, &self.secret, message, Some(trusted_comment), Some(UNTRUSTED_COMMENT));
        signature.unwrap().into_string()
    }
}

/// Made for these tests; guards nothing.
const KEY_1: &str = "untrusted comment: test key, guards nothing\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk5K5hRdNEVN0B6/MY7XZ3O+66DWZnHSuW6+hlDiCdJPg9WZ5mNvkDZ9x6ig0pJXWGH1VlXUmIC4gax6wvz0GpdlqQgyr/meE4z3tdz0QLtAETRETR3HqTDdqvUpNpRaVuby5/FDGqfE=\n";

/// Made for these tests; guards nothing.
const KEY_2: &str = "untrusted comment: test key, guards nothing\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAunBm21Vnng3lVpGGi94jf+0gZs3+vDit//OQqji0JuZGRuHQmp8OkwueYuFCCTTawQzgR9o4eAG0QHiz+Pk8/Bt+97xB6yo+hboU6MUZ07nsh7LyLsPm0DEX69quA5v1dKc+koo50UY=\n";
