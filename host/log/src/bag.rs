//! A bag is a folder that knows what is in it: BagIt 1.0 (RFC 8493), the carrier of evidence packs.
//!
//! ```text
//! bagit.txt                     two fixed lines
//! bag-info.txt                  Label: value lines, the last one counts the payload (Payload-Oxum)
//! manifest-sha256.txt           "hash  path" of every file under data/
//! tagmanifest-sha256.txt        "hash  path" of the three files above
//! tagmanifest-sha256.txt.minisig   signs the line above, and so everything (written by `pack`)
//! data/...                      the payload
//! ```
//!
//! BagIt alone authenticates nothing and lets files lie around that no manifest names, so our own bags follow a
//! closed profile: everything but `bag-info.txt` and the payload follows from the payload, and is compared byte by
//! byte with what we would have written. `sha256sum -c` reads both manifests as they are.

mod info;
mod interop;
mod manifest;
mod names;

use std::collections::BTreeMap;

use crate::problem::Problem;

pub(crate) use info::clean_value;
pub use info::{info, oxum};
pub use names::{MAX_PATH_BYTES, is_clean_path};

/// Says that this is a bag, and which version.
pub const BAGIT: &str = "bagit.txt";
/// Who made the bag, about what.
pub const BAG_INFO: &str = "bag-info.txt";
/// Hashes of the payload.
pub const MANIFEST: &str = "manifest-sha256.txt";
/// Hashes of the tag files.
pub const TAGMANIFEST: &str = "tagmanifest-sha256.txt";
/// The signature over the tag manifest.
pub const TAGMANIFEST_SIGNATURE: &str = "tagmanifest-sha256.txt.minisig";
/// Where the payload lies.
pub const PAYLOAD_PREFIX: &str = "data/";
/// The label in `bag-info.txt` that counts the payload.
pub const PAYLOAD_OXUM: &str = "Payload-Oxum";
/// The exact content of [`BAGIT`] in our bags.
pub const BAGIT_TEXT: &str = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n";

/// Most files in one bag. An incident pack has some dozens; the bound keeps a hostile bag from costing more than it
/// brings.
pub const MAX_FILES: usize = 20_000;

/// The files of a bag by path relative to its root.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Which rules a bag is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The closed profile of the bags that [`seal`] makes: no file and no byte beyond it.
    Sealed,
    /// BagIt 1.0 as others write it: SHA-256 and SHA-512 manifests, extra tag files, other line ends and encodings.
    BagIt10,
}

/// Makes a bag: adds the four tag files to a payload whose paths begin with `data/`. Line breaks and other control
/// characters in the values of `bag_info` become spaces; `Payload-Oxum` is added as the last line.
///
/// # Panics
/// On a path outside of `data/` or one that [`is_clean_path`] refuses, and on a label that is no word: bugs of the
/// caller.
pub fn seal(payload: Files, bag_info: &[(String, String)]) -> Files {
    for path in payload.keys() {
        assert!(path.starts_with(PAYLOAD_PREFIX) && is_clean_path(path), "not a payload path: {path:?}");
    }
    let mut files = payload;
    let info = info::render(bag_info, &oxum(&files));
    let manifest = manifest::render(payload_of(&files));
    files.insert(BAGIT.to_owned(), BAGIT_TEXT.into());
    files.insert(BAG_INFO.to_owned(), info.into_bytes());
    files.insert(MANIFEST.to_owned(), manifest.into_bytes());
    let tagmanifest = manifest::render(covered_tags(&files));
    files.insert(TAGMANIFEST.to_owned(), tagmanifest.into_bytes());
    files
}

/// Everything that is wrong with a bag; empty when it is complete, unchanged and follows the profile. The signature
/// is not looked at.
pub fn check(files: &Files, profile: Profile) -> Vec<Problem> {
    if files.len() > MAX_FILES {
        let what = format!("{} files, the limit is {MAX_FILES}", files.len());
        return vec![Problem::new("", what, "this is no bag to be read by this program")];
    }
    match profile {
        Profile::Sealed => check_sealed(files),
        Profile::BagIt10 => interop::check(files),
    }
}

fn check_sealed(files: &Files) -> Vec<Problem> {
    let mut problems = names::check(files.keys());
    for path in files.keys() {
        let tag = [BAGIT, BAG_INFO, MANIFEST, TAGMANIFEST, TAGMANIFEST_SIGNATURE].contains(&path.as_str());
        if !tag && !path.starts_with(PAYLOAD_PREFIX) {
            problems.push(Problem::new(
                path,
                "a file that does not belong here",
                "a sealed bag has no other tag files",
            ));
        }
    }
    match files.get(BAGIT) {
        Some(text) if text == BAGIT_TEXT.as_bytes() => {}
        Some(_) => problems.push(Problem::new(BAGIT, "not the two lines of a BagIt 1.0 bag", CHANGED)),
        None => problems.push(Problem::missing(BAGIT)),
    }
    info::check(files, &mut problems);
    manifest::check_exact(files, MANIFEST, payload_of(files), &mut problems);
    manifest::check_exact(files, TAGMANIFEST, covered_tags(files), &mut problems);
    problems
}

/// What to say of bytes that are not as we would have written them.
const CHANGED: &str = "the bag was changed after it was sealed, or damaged on its way";

impl Problem {
    fn missing(path: &str) -> Problem {
        Problem::new(path, "the file is missing", CHANGED)
    }
}

fn payload_of(files: &Files) -> impl Iterator<Item = (&str, &[u8])> {
    files.iter().filter(|(path, _)| path.starts_with(PAYLOAD_PREFIX)).map(|(path, bytes)| (path.as_str(), &bytes[..]))
}

/// The tag files that the tag manifest must name: all but itself and its signature.
fn covered_tags(files: &Files) -> impl Iterator<Item = (&str, &[u8])> {
    let covered =
        |path: &str| !path.starts_with(PAYLOAD_PREFIX) && path != TAGMANIFEST && path != TAGMANIFEST_SIGNATURE;
    files.iter().filter(move |(path, _)| covered(path)).map(|(path, bytes)| (path.as_str(), &bytes[..]))
}

#[cfg(test)]
mod tests;
