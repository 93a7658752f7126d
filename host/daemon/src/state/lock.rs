//! One process at a time works on a state: it holds `lock`, and its id stands inside.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::StateError;

const LOCK_NAME: &str = "lock";

/// Held for as long as this process works on the state; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock, or says who holds it.
    pub(super) fn take(dir: &Path) -> Result<Self, StateError> {
        let world = || StateError::world("locking the state directory");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(LOCK_NAME))
            .map_err(world())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::Locked { dir: dir.to_path_buf(), pid: holder(&mut file) });
            }
            Err(errno) => return Err(world()(errno.into())),
        }
        file.set_len(0).map_err(world())?;
        file.rewind().map_err(world())?;
        writeln!(file, "{}", std::process::id()).map_err(world())?;
        Ok(Self { _file: file })
    }

    /// Whether nobody holds the lock now; who asks does not hold it either.
    pub(super) fn is_free(dir: &Path) -> bool {
        let Ok(file) = File::open(dir.join(LOCK_NAME)) else { return true };
        flock(&file, FlockOperation::NonBlockingLockShared) != Err(rustix::io::Errno::WOULDBLOCK)
    }
}

/// The process named inside the lock file; 0 when it is not there yet.
fn holder(file: &mut File) -> u32 {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

/// Makes a rename or a new file in `dir` survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StateError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(StateError::world("syncing the state directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StateLock::take(dir.path()).unwrap();
        let error = StateLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, StateError::Locked { pid, .. } if pid == std::process::id()), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()));
        assert!(!StateLock::is_free(dir.path()));
        drop(lock);
        assert!(StateLock::is_free(dir.path()) && StateLock::is_free(&dir.path().join("none")));
        StateLock::take(dir.path()).unwrap();
    }
}
