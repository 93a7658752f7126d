//! Verifies packs: every file, every signature, every proof, and that no byte is left over.

use super::write::{Proofs, render_keys, render_manifest, root_name};
use super::{
    CASE_LABEL, DECISION_FIELD, DECISION_KIND, FRESHNESS_UNPROVEN, Facts, KEY_NOT_TRUSTED, Problem, Report, names,
};
use crate::archive;
use crate::bag::{self, Files, Profile};
use crate::cbor::{self, Bytes};
use crate::checkpoint::Checkpoint;
use crate::entry::Entry;
use crate::hash::Hash;
use crate::sign::{self, PublicKey};
use crate::tree;

/// What the reader of a problem is told when bytes do not fit: the usual reason.
const CHANGED: &str = "the pack was changed after it was sealed, or damaged on its way";

/// Verifies a pack given as files by path relative to the bag's root.
///
/// `trusted` are the keys the reader has from elsewhere. Without any, the keys in the pack are taken: that shows
/// only that the pack is whole, and the report says so.
pub fn verify(files: &Files, trusted: &[PublicKey]) -> Report {
    let mut check =
        Check { files, keys: trusted.to_vec(), problems: Vec::new(), warnings: Vec::new(), facts: Facts::default() };
    check.problems.append(&mut bag::check(files, Profile::Sealed));
    check.case();
    check.keys(trusted.is_empty());
    check.pack_signature();
    check.manifest_json();
    let checkpoint = check.checkpoint();
    let entries = check.entries();
    check.audit_log(&entries);
    if let Some(checkpoint) = checkpoint {
        check.proofs(&entries, &checkpoint);
    }
    check.decision(&entries);
    // No form of witness is known to this version of the pack.
    check.warnings.push(FRESHNESS_UNPROVEN.to_owned());
    Report { ok: check.problems.is_empty(), problems: check.problems, warnings: check.warnings, facts: check.facts }
}

/// Verifies a pack given as a zip archive. Beyond [`verify`] this covers the archive itself, every byte of it: also the
/// folder's name, which must be the one of the case.
pub fn verify_zip(bytes: &[u8], trusted: &[PublicKey]) -> Report {
    let (root, files) = match archive::zip_read(bytes) {
        Ok(read) => read,
        Err(error) => {
            let help = "ask for the archive again, or unpack it and verify the folder";
            let problems = vec![Problem::new("", error.to_string(), help)];
            return Report { ok: false, problems, warnings: Vec::new(), facts: Facts::default() };
        }
    };
    let mut report = verify(&files, trusted);
    let expected = report.facts.case.as_deref().map(root_name);
    if let Some(expected) = expected.filter(|expected| *expected != root) {
        report.problems.push(Problem::new("", format!("the folder is {root:?}, not {expected:?}"), CHANGED));
        report.ok = false;
    }
    report
}

struct Check<'a> {
    files: &'a Files,
    /// The keys that count.
    keys: Vec<PublicKey>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    facts: Facts,
}

/// An entry with the bytes it came in.
struct Read {
    entry: Entry,
    leaf: Hash,
}

impl<'a> Check<'a> {
    fn case(&mut self) {
        let info = self.text(names::BAG_INFO).and_then(bag::info).unwrap_or_default();
        self.facts.case = info.into_iter().find(|(label, _)| label == CASE_LABEL).map(|(_, case)| case);
        if self.facts.case.is_none() {
            self.say(
                names::BAG_INFO,
                "it does not name the case",
                "a pack says in External-Identifier what it is about",
            );
        }
    }

    /// Reads the keys of the pack; they count only when the reader brought none.
    fn keys(&mut self, none_trusted: bool) {
        let Some(text) = self.text_or_say(names::KEYS) else { return };
        let lines: Vec<&str> = text.lines().collect();
        let keys: Result<Vec<PublicKey>, _> =
            lines.chunks(2).map(|lines| PublicKey::parse(&lines.join("\n"))).collect();
        let keys = match keys {
            Ok(keys) if !keys.is_empty() && render_keys(&keys) == text => keys,
            Ok(_) => return self.say(names::KEYS, "not public keys in the form minisign writes", CHANGED),
            Err(error) => return self.say(names::KEYS, error.to_string(), CHANGED),
        };
        if none_trusted {
            self.warnings.push(KEY_NOT_TRUSTED.to_owned());
            self.keys = keys;
        }
    }

    fn pack_signature(&mut self) {
        let Some((key_id, comment)) = self.signature(names::TAGMANIFEST, names::TAGMANIFEST_SIGNATURE) else { return };
        self.facts.key_id = Some(key_id);
        self.facts.trusted_comment = Some(comment);
    }

    /// Checks that `signature` is one over `signed` by a key that counts; gives the key's id and the trusted comment.
    fn signature(&mut self, signed: &str, signature: &str) -> Option<(String, String)> {
        let message = self.bytes_or_say(signed)?;
        let text = self.text_or_say(signature)?;
        let key_id = match sign::claimed_key_id(text) {
            Ok(key_id) => key_id,
            Err(error) => {
                self.say(signature, error.to_string(), CHANGED);
                return None;
            }
        };
        // Ids are no proof and may collide: every key with this id is tried.
        let mut outcome = None;
        for key in self.keys.iter().filter(|key| key.key_id() == key_id) {
            outcome = Some(sign::verify(key, message, text));
            if matches!(outcome, Some(Ok(_))) {
                break;
            }
        }
        match outcome {
            Some(Ok(comment)) => Some((key_id, comment.as_str().to_owned())),
            Some(Err(error)) => {
                self.say(signature, error.to_string(), format!("{signed} is not what was signed"));
                None
            }
            None => {
                let help = "get the host's public key from its operator, not from the pack, and name it";
                self.say(signature, format!("signed by key {key_id}, which is not a trusted key"), help);
                None
            }
        }
    }

    fn manifest_json(&mut self) {
        let Some(bytes) = self.bytes_or_say(names::MANIFEST_JSON) else { return };
        if bytes != render_manifest(self.files).as_bytes() {
            self.say(names::MANIFEST_JSON, "it does not list exactly the payload that is there", CHANGED);
        }
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        self.signature(names::CHECKPOINT, names::CHECKPOINT_SIGNATURE);
        let text = self.text_or_say(names::CHECKPOINT)?;
        match Checkpoint::parse(text) {
            Ok(checkpoint) => {
                self.facts.log_origin = Some(checkpoint.origin.clone());
                self.facts.log_size = Some(checkpoint.size);
                self.facts.root = Some(checkpoint.root);
                Some(checkpoint)
            }
            Err(error) => {
                self.say(names::CHECKPOINT, error.to_string(), CHANGED);
                None
            }
        }
    }

    fn entries(&mut self) -> Vec<Read> {
        let Some(entries) = self.decode::<Vec<Bytes>>(names::ENTRIES) else { return Vec::new() };
        let mut read: Vec<Read> = Vec::with_capacity(entries.len());
        for (at, Bytes(bytes)) in entries.iter().enumerate() {
            match Entry::decode(bytes) {
                Ok(entry) if read.last().is_some_and(|before| before.entry.seq >= entry.seq) => {
                    let what = format!("entry {} does not follow the one before it", entry.seq);
                    self.say(names::ENTRIES, what, "entries stand in the order of the log, each once");
                }
                Ok(entry) => read.push(Read { entry, leaf: tree::leaf_hash(bytes) }),
                Err(error) => self.say(names::ENTRIES, format!("item {at} is not an entry: {error}"), CHANGED),
            }
        }
        read
    }

    fn audit_log(&mut self, entries: &[Read]) {
        let Some(bytes) = self.bytes_or_say(names::AUDIT_LOG) else { return };
        let expected: String = entries.iter().map(|read| read.entry.to_json_line()).collect();
        if bytes != expected.as_bytes() {
            self.say(names::AUDIT_LOG, "it does not say what the entries of the log say", CHANGED);
        }
    }

    fn proofs(&mut self, entries: &[Read], checkpoint: &Checkpoint) {
        let Some(proofs) = self.decode::<Proofs>(names::PROOFS) else { return };
        if proofs.size != checkpoint.size {
            let what = format!("proofs for a log of {} entries, the checkpoint has {}", proofs.size, checkpoint.size);
            self.say(names::PROOFS, what, CHANGED);
        }
        if proofs.proofs.len() != entries.len() {
            let what = format!("{} proofs for {} entries", proofs.proofs.len(), entries.len());
            return self.say(names::PROOFS, what, CHANGED);
        }
        for (read, proof) in entries.iter().zip(&proofs.proofs) {
            let seq = read.entry.seq;
            if let Err(error) = tree::verify_inclusion(&read.leaf, seq, checkpoint.size, proof, &checkpoint.root) {
                let help = "the entry is not the one the log holds at this place";
                self.say(names::PROOFS, format!("entry {seq} is not proven: {error}"), help);
            }
        }
    }

    /// The decision's bytes must be the ones exactly one entry speaks of.
    fn decision(&mut self, entries: &[Read]) {
        let Some(bytes) = self.bytes_or_say(names::DECISION) else { return };
        let decision = Hash::of(bytes);
        self.facts.decision = Some(decision);
        if let Err(error) = cbor::decode::<ciborium::Value>(bytes) {
            self.say(names::DECISION, error.to_string(), CHANGED);
        }
        let names_it = |read: &&Read| {
            let field = read.entry.field(DECISION_FIELD).and_then(ciborium::Value::as_bytes);
            read.entry.kind == DECISION_KIND && field.is_some_and(|field| field[..] == decision.as_bytes()[..])
        };
        match &entries.iter().filter(names_it).collect::<Vec<_>>()[..] {
            [one] => self.facts.decision_seq = Some(one.entry.seq),
            [] => self.say(names::DECISION, format!("no entry of the log records decision {decision}"), CHANGED),
            many => self.say(names::DECISION, format!("{} entries record this decision", many.len()), CHANGED),
        }
    }

    fn decode<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match cbor::decode(self.bytes_or_say(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(name, error.to_string(), CHANGED);
                None
            }
        }
    }

    fn bytes_or_say(&mut self, name: &str) -> Option<&'a [u8]> {
        let bytes = self.files.get(name).map(|bytes| &bytes[..]);
        if bytes.is_none() {
            self.say(name, "the file is missing", "a pack without it proves nothing");
        }
        bytes
    }

    fn text_or_say(&mut self, name: &str) -> Option<&'a str> {
        self.bytes_or_say(name)?;
        let text = self.text(name);
        if text.is_none() {
            self.say(name, "it is not text", CHANGED);
        }
        text
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.files.get(name)?).ok()
    }

    /// Adds a problem, once.
    fn say(&mut self, path: &str, what: impl Into<String>, help: impl Into<String>) {
        let problem = Problem::new(path, what, help);
        if !self.problems.iter().any(|known| known.path == problem.path && known.what == problem.what) {
            self.problems.push(problem);
        }
    }
}
