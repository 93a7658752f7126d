//! Signatures made by the signer's crate, every way to spell them differently, and the Wycheproof vectors.

use proptest::prelude::*;

use super::*;
use crate::testing::{Key, corpora};

#[test]
fn a_signature_holds_for_its_key_and_message_only() {
    let (key, other) = (Key::fixed(1), Key::fixed(2));
    let text = key.sign(b"message", "evidence case-7");
    let comment = verify(&key.public, b"message", &text).unwrap();
    assert_eq!(comment.as_str(), "evidence case-7");
    assert_eq!(claimed_key_id(&text).unwrap(), key.public.key_id());
    assert_eq!(verify(&key.public, b"massage", &text), Err(SignError::Mismatch));
    assert!(matches!(verify(&other.public, b"message", &text), Err(SignError::OtherKey { .. })));
    // The same id in front of another key does not help.
    let mut forged = other.public.clone();
    forged.0[2..10].copy_from_slice(&key.public.0[2..10]);
    assert_eq!(verify(&forged, b"message", &text), Err(SignError::Mismatch));
}

#[test]
fn every_changed_byte_of_a_signature_is_refused() {
    let key = Key::fixed(1);
    let text = key.sign(b"message", "evidence case-7").into_bytes();
    for at in 0..text.len() {
        for mask in [0x01, 0x02, 0x10, 0x20, 0x80] {
            let mut changed = text.clone();
            changed[at] ^= mask;
            if let Ok(changed) = String::from_utf8(changed) {
                assert!(verify(&key.public, b"message", &changed).is_err(), "byte {at} ^ {mask:#x}: {changed:?}");
            }
        }
        let mut shorter = text.clone();
        shorter.remove(at);
        assert!(verify(&key.public, b"message", &String::from_utf8(shorter).unwrap()).is_err(), "without byte {at}");
    }
}

#[test]
fn other_spellings_are_refused() {
    let key = Key::fixed(1);
    let text = key.sign(b"message", "c");
    for changed in [
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!("\n{text}"),
        text.replace(UNTRUSTED_COMMENT, "signature from minisign secret key"),
        text.replace("trusted comment: c", "trusted comment: c "),
        text.replace("trusted comment: c", "trusted comment:  c"),
        text.replacen("==", "", 1),
        String::new(),
    ] {
        assert_ne!(changed, text);
        assert!(verify(&key.public, b"message", &changed).is_err(), "{changed:?}");
    }
    for comment in ["ends with a space ", "a\tb", "ü", &"x".repeat(MAX_TRUSTED_COMMENT_BYTES + 1)] {
        assert!(verify(&key.public, b"message", &key.sign(b"message", comment)).is_err(), "{comment:?}");
    }
}

#[test]
fn legacy_signatures_are_refused() {
    // From the documentation of minisign: valid, but over the message itself.
    let key = PublicKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
    assert_eq!(key.key_id(), "E7620F1842B4E81F");
    let text = format!(
        "untrusted comment: {UNTRUSTED_COMMENT}\n\
         RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n\
         trusted comment: timestamp:1555779966 file:test\n\
         QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==\n"
    );
    assert!(matches!(verify(&key, b"test", &text), Err(SignError::Form { what }) if what.contains("prehashed")));
}

#[test]
fn key_files() {
    let key = Key::fixed(1).public;
    let file = key.to_file();
    assert_eq!(file.lines().count(), 2);
    assert_eq!(PublicKey::parse(&file), Ok(key.clone()));
    assert_eq!(PublicKey::parse(&file.replace('\n', "\r\n")), Ok(key.clone()));
    assert_eq!(PublicKey::parse(&key.to_base64()), Ok(key.clone()));
    // The signer's crate reads it too.
    let stock = minisign::PublicKeyBox::from_string(&file).unwrap().into_public_key().unwrap();
    assert_eq!(stock.to_base64(), key.to_base64());
    for wrong in [
        "",
        "\n\n",
        "untrusted comment: x",
        "RWQf",
        &file.repeat(2),
        &key.to_base64()[1..],
        &key.to_base64().replacen("RW", "RX", 1),
    ] {
        assert!(matches!(PublicKey::parse(wrong), Err(SignError::Key { .. })), "{wrong:?}");
    }
}

/// The order of the group, little-endian: adding it to S gives another spelling of the same signature to a verifier
/// that does not check the range.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn signatures_are_not_malleable() {
    let key = Key::fixed(1);
    let text = key.sign(b"message", "c");
    let lines: Vec<&str> = text.lines().collect();
    let mut global = BASE64.decode(lines[3].as_bytes()).unwrap();
    let mut carry = 0;
    for (byte, order) in global[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let malleated = text.replace(lines[3], &BASE64.encode(&global));
    assert_eq!(verify(&key.public, b"message", &malleated), Err(SignError::Mismatch));
}

/// Wycheproof's Ed25519 vectors.
///
/// A vector is one Ed25519 signature over a message. minisign's interface only checks *two* of them at once (message,
/// then comment) and has no word for which one failed, so for it a vector is wrapped as a legacy signature with a
/// broken second half: all of them must be refused, without panic. That alone says little about the valid ones; their
/// verdict is taken from the signer's crate, which carries the same Ed25519 code and does say which half failed.
#[test]
fn wycheproof_ed25519() {
    let Some(file) = corpora::corpus("wycheproof/testvectors_v1/ed25519_test.json") else { return };
    let suite: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let hex = |value: &serde_json::Value| data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let (mut valid, mut invalid, mut misshapen) = (0, 0, 0);
    for group in suite["testGroups"].as_array().unwrap() {
        let key = [b"Ed".as_slice(), &[7; 8], &hex(&group["publicKey"]["pk"])].concat();
        let strict = minisign_verify::PublicKey::from_base64(&BASE64.encode(&key)).unwrap();
        let twin = minisign::PublicKey::from_base64(&BASE64.encode(&key)).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let (message, signature) = (hex(&test["msg"]), hex(&test["sig"]));
            let text = format!(
                "untrusted comment: {UNTRUSTED_COMMENT}\n{}\ntrusted comment: c\n{}\n",
                BASE64.encode(&[b"Ed".as_slice(), &[7; 8], &signature].concat()),
                BASE64.encode(&[0; 64])
            );
            let Ok(strict_signature) = minisign_verify::Signature::decode(&text) else {
                assert_eq!((test["result"].as_str(), signature.len() == 64), (Some("invalid"), false), "{test}");
                misshapen += 1;
                continue;
            };
            assert!(strict.verify(&message, &strict_signature, true).is_err());
            let twin_signature = minisign::SignatureBox::from_string(&text).unwrap();
            let error = minisign::verify(&twin, &twin_signature, std::io::Cursor::new(message), true, false, true);
            let error = error.unwrap_err().to_string();
            let holds = error.contains("Comment signature verification failed");
            assert!(holds || error.contains("Signature verification failed"), "{error}");
            assert_eq!(test["result"], if holds { "valid" } else { "invalid" }, "{test}");
            *(if holds { &mut valid } else { &mut invalid }) += 1;
        }
    }
    println!("Ed25519: {valid} valid, {invalid} invalid, {misshapen} misshapen vectors as expected");
    assert_eq!(suite["numberOfTests"], valid + invalid + misshapen);
    assert!(valid > 0 && invalid > 0);
}

proptest! {
    #[test]
    fn hostile_texts_never_panic(text in "(untrusted comment: )?(signature by a Harmony Bridge key)?(\\PC|\n|\r)*") {
        let key = Key::fixed(1).public;
        prop_assert!(verify(&key, b"", &text).is_err());
        let _ = PublicKey::parse(&text);
        let _ = claimed_key_id(&text);
    }

    #[test]
    fn hostile_signatures_never_panic(signature in any::<[u8; 32]>(), rest in any::<[u8; 32]>(), comment in "[ -~]{0,20}") {
        let key = Key::fixed(1).public;
        let signature = [b"ED".as_slice(), &key.0[2..10], &signature, &rest].concat();
        let text = format!(
            "untrusted comment: {UNTRUSTED_COMMENT}\n{}\ntrusted comment: {comment}\n{}\n",
            BASE64.encode(&signature), BASE64.encode(&signature[10..])
        );
        prop_assert!(verify(&key, b"", &text).is_err());
    }
}
