//! Outside test cases that are no part of the repository, for the tests of all crates: each takes this file in.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A file or folder of the outside test cases (`HB_CORPORA`, else `shared/corpora` beside the clone). Where it is absent
/// the test that asks for it proves nothing, and the notes of the run say so (`HB_TEST_NOTES`).
pub(crate) fn corpus(name: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clone = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).unwrap_or(here);
    let beside = || clone.join("../shared/corpora");
    let path = std::env::var_os("HB_CORPORA").map_or_else(beside, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    let note = format!("skipped: {name}: neither HB_CORPORA nor a folder beside the repository has it\n");
    let notes =
        std::env::var_os("HB_TEST_NOTES").map(|file| std::fs::OpenOptions::new().append(true).create(true).open(file));
    match notes {
        Some(file) => file.and_then(|mut file| file.write_all(note.as_bytes())).expect("the file of notes"),
        None => eprint!("{note}"),
    }
    None
}
