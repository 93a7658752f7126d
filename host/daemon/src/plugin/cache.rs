//! Compiled components on disk: native code, so nothing is run that this host did not write and hash itself.
//!
//! `<key>.cwasm` holds the code and `<key>.receipt` its SHA-256, with the key made of the component's hash, the
//! wasmtime version and the engine's settings. The receipt is compared with the very bytes that are then loaded. It
//! guards against torn, stale and foreign files, not against somebody who may write into the directory: the
//! directory belongs to the user of the daemon alone.

use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hb_log::hash::Hash;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler;
use super::host::HostOptions;
use super::manifest::Kind;

/// Layout of cache files; raised when it changes.
const CACHE_VERSION: &str = "hb-cwasm-1";

/// Components kept: a host runs some dozen, in two or three versions, at half a MiB each.
const MAX_COMPONENTS: usize = 64;

/// How a component was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Loaded from the cache.
    Cached,
    /// Compiled now; the cache had nothing for it.
    Compiled,
    /// Compiled now; what the cache had was damaged or foreign and has been replaced.
    Repaired,
}

/// The component for `wasm`, from the cache if that holds a sound copy, compiled otherwise.
///
/// A cache that cannot be written costs time only: the error is returned beside the component.
pub(super) fn compile(
    engine: &Engine,
    kind: Kind,
    wasm: &[u8],
    wasm_hash: Hash,
    options: &HostOptions,
) -> wasmtime::Result<(Component, Origin, Option<io::Error>)> {
    let Some(dir) = &options.cache_dir else {
        return Ok((Component::from_binary(engine, wasm)?, Origin::Compiled, None));
    };
    let files = Files::new(dir, engine, wasm_hash);
    let origin = match files.read() {
        Found::Sound(code) => match load(engine, &code) {
            Ok(component) => return Ok((component, Origin::Cached, None)),
            Err(_) => Origin::Repaired,
        },
        Found::Nothing => Origin::Compiled,
        Found::Damaged => Origin::Repaired,
    };
    let made_apart = options.compiler.as_ref().and_then(|program| compiler::code_from(program, kind, wasm));
    let made_apart = made_apart.and_then(|code| Some((load(engine, &code).ok()?, code)));
    let (component, code) = if let Some(made) = made_apart {
        made
    } else {
        let component = Component::from_binary(engine, wasm)?;
        let code = component.serialize()?;
        (component, code)
    };
    let written = files.write(&code);
    Ok((component, origin, written.err()))
}

/// Makes code of this host a component again.
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` comes from a process of this very program, or it hashes to what its receipt says, and receipts are
    // only written by `Files::write` for the output of wasmtime's own serialization; the key binds both to this wasmtime
    // version and these settings. The bytes are loaded from memory, so nothing changes between check and use.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize(engine, code)
    }
}

struct Files {
    code: PathBuf,
    receipt: PathBuf,
}

enum Found {
    Nothing,
    Damaged,
    Sound(Vec<u8>),
}

impl Files {
    fn new(dir: &Path, engine: &Engine, wasm_hash: Hash) -> Files {
        let key = Hash::of(format!("{CACHE_VERSION}\n{wasm_hash}\n{}", fingerprint(engine)).as_bytes());
        Files { code: dir.join(format!("{key}.cwasm")), receipt: dir.join(format!("{key}.receipt")) }
    }

    fn read(&self) -> Found {
        let (code, receipt) = match (fs::read(&self.code), fs::read_to_string(&self.receipt)) {
            (Ok(code), Ok(receipt)) => (code, receipt),
            (Err(_), Err(_)) => return Found::Nothing,
            _ => return Found::Damaged,
        };
        if receipt == receipt_of(&code) { Found::Sound(code) } else { Found::Damaged }
    }

    // The receipt last: code without a receipt is never loaded.
    fn write(&self, code: &[u8]) -> io::Result<()> {
        if let Some(dir) = self.code.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            make_room(dir)?;
        }
        write_whole(&self.code, code)?;
        write_whole(&self.receipt, receipt_of(code).as_bytes())
    }
}

fn receipt_of(code: &[u8]) -> String {
    format!("{CACHE_VERSION} sha256 {}\n", Hash::of(code))
}

// Old code goes first; what is still used is compiled again when it is missed.
fn make_room(dir: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cwasm") {
            files.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    files.sort();
    let excess = (files.len() + 1).saturating_sub(MAX_COMPONENTS);
    for (_, path) in files.into_iter().take(excess) {
        // The receipt first: code without one is never loaded.
        let _ = fs::remove_file(path.with_extension("receipt"));
        let _ = fs::remove_file(path);
    }
    Ok(())
}

// Through a temporary file in the same directory, so that no reader ever sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

// Wasmtime version and all settings that change code, as wasmtime itself compares them.
fn fingerprint(engine: &Engine) -> Hash {
    let mut gathered = Gathered(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut gathered);
    Hash::of(&gathered.0)
}

/// Takes what is fed to a hasher as bytes; nobody asks it for its 64 bits.
struct Gathered(Vec<u8>);

impl Hasher for Gathered {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cache_makes_room_for_one_more() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..MAX_COMPONENTS + 3 {
            fs::write(dir.path().join(format!("{i}.cwasm")), b"").unwrap();
            fs::write(dir.path().join(format!("{i}.receipt")), b"").unwrap();
        }
        make_room(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2 * (MAX_COMPONENTS - 1));
    }
}
