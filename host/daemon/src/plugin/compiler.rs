//! The compiler in a process of its own: it needs tens of MB that an allocator does not give back, and a daemon that has
//! compiled its plugins once would carry them as long as it runs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use wasmtime::Engine;

use super::host::config_of;
use super::manifest::Kind;

/// The verb that makes a process of this program the compiler.
pub const VERB: &str = "compile";

/// Machine code of a component, for a plugin of this kind and for this build of hb alone.
pub fn code_of(kind: Kind, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    Engine::new(&config_of(kind))?.precompile_component(wasm)
}

/// The same, by `program`, which is this program. None when it did not work, for whatever reason: then it is tried here,
/// where what is wrong can be told.
pub(super) fn code_from(program: &Path, kind: Kind, wasm: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args([VERB, &kind.to_string()]).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    // It reads everything before it writes anything, so neither waits for the other.
    let given = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(wasm).is_ok());
    let output = child.wait_with_output().ok()?;
    (given && output.status.success()).then_some(output.stdout)
}
