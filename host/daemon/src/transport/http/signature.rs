//! A signature over a request: who holds the same secret can tell that the body is hb's, and when it was sent.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Says when the request was signed, in seconds since the Unix epoch.
pub const TIMESTAMP_HEADER: &str = "x-hb-timestamp";

/// Holds `sha256=` and the hexadecimal HMAC-SHA256 over timestamp, `.` and body.
pub const SIGNATURE_HEADER: &str = "x-hb-signature";

/// The value of [`SIGNATURE_HEADER`]. With the time inside, a request that was overheard cannot be played again later.
pub(super) fn sign(secret: &str, timestamp_s: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length, so there is no error to tell.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_other_tools() {
        // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac key
        let want = "sha256=80f7b75f8618b9b24d72673996a625f1a43f7387a26b6739d667431724fe4d23";
        assert_eq!(sign("key", 1_767_225_600, br#"{"a":1}"#), want);
        assert_ne!(sign("key", 1_767_225_601, br#"{"a":1}"#), want);
    }
}
