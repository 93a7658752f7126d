//! What can go wrong with the state, sorted by who must act.

use std::io;
use std::path::PathBuf;

/// Why the state could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The disk or the operating system refused: wait, free space, repair; then reopen.
    #[error("the state store failed while {doing}; acknowledged data is safe, reopen the state to go on{}", full_help(.source))]
    World {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what was written; nothing is guessed in their place.
    #[error(
        "the state is damaged: table `{table}`, key {key}: {what}; restore the state from a backup, or start a new one"
    )]
    Corrupt {
        /// The table the bytes lie in.
        table: &'static str,
        /// The key, as the table shows it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// Another process works on this state.
    #[error("the state {} is in use by process {}; stop it first, or name another state directory", .dir.display(), pid_text(*.pid))]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The process that holds the lock; 0 when it has not written its id yet.
        pid: u32,
    },
    /// The source's cursor is not where the batch says it was: the batch was stored before. Nothing was written.
    #[error("the batch of source `{cursor}` was stored before; drop it and go on from the stored cursor")]
    Duplicate {
        /// The source whose cursor differs.
        cursor: String,
    },
    /// The commit contradicts what is stored, or exceeds a limit; a bug of the caller. Nothing was written.
    #[error("the state refused a write to `{table}`: {what}; nothing was written, please report this")]
    Refused {
        /// The table.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// What a case needs is not stored any more. Nothing was written.
    #[error("nothing is kept of case `{case}` any more: the state reached its cap; its evidence pack is what there is")]
    Forgotten {
        /// The case.
        case: String,
    },
    /// The log is full, and nothing of it may go. Nothing was written.
    #[error(
        "the audit log needs {used} bytes and is allowed {cap}, and what is left of it may not go; raise \
         limits.max_audit_log_mb, or unpin cases by `hb cases unpin`"
    )]
    LogFull {
        /// Bytes it needs.
        used: u64,
        /// Bytes it is allowed.
        cap: u64,
    },
    /// An earlier commit failed with unknown outcome, or the state was reopened under a reader.
    #[error(
        "this handle of the state is no longer valid after an earlier error; reopen the state and read the cursors again"
    )]
    Poisoned,
    /// Another release wrote this state.
    #[error(
        "the state has schema version {found}, this program reads {supported}; use the release that wrote it, or a new state directory"
    )]
    Version {
        /// The version found.
        found: u32,
        /// The version this program reads and writes.
        supported: u32,
    },
}

impl StateError {
    /// Whether the disk is full: the one world error that waiting alone does not cure.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::World { source, .. } if disk_full(source))
    }

    /// Whether the world failed and not the state: what is stored is as it should be, and it goes on once there is room.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::World { .. } | Self::Poisoned | Self::LogFull { .. })
    }

    /// Whether nothing was written and the handle is as good as before.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Duplicate { .. } | Self::Refused { .. } | Self::Forgotten { .. } | Self::LogFull { .. })
    }

    pub(super) fn world(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::World { doing, source }
    }
}

fn disk_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

fn full_help(error: &io::Error) -> &'static str {
    if disk_full(error) { "; the disk is full: free space first" } else { "" }
}

fn pid_text(pid: u32) -> String {
    if pid == 0 { "(unknown)".to_owned() } else { pid.to_string() }
}

impl From<redb::StorageError> for StateError {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Io(source) => Self::World { doing: "reading or writing hb.redb", source },
            redb::StorageError::PreviousIo
            | redb::StorageError::DatabaseClosed
            | redb::StorageError::LockPoisoned(_) => Self::Poisoned,
            other => Self::Corrupt { table: "hb.redb", key: "-".to_owned(), what: other.to_string() },
        }
    }
}

impl From<redb::TableError> for StateError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(storage) => storage.into(),
            other => Self::Corrupt { table: "hb.redb", key: "-".to_owned(), what: other.to_string() },
        }
    }
}

impl From<redb::TransactionError> for StateError {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(storage) => storage.into(),
            _ => Self::Poisoned,
        }
    }
}

impl From<redb::CommitError> for StateError {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(storage) => storage.into(),
            _ => Self::Poisoned,
        }
    }
}

impl From<redb::DatabaseError> for StateError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::Storage(storage) => storage.into(),
            // Our own lock comes first, so this is a foreign tool with the file open.
            redb::DatabaseError::DatabaseAlreadyOpen => Self::Locked { dir: PathBuf::from("hb.redb"), pid: 0 },
            redb::DatabaseError::UpgradeRequired(found) => {
                Self::Version { found: u32::from(found), supported: super::SCHEMA_VERSION }
            }
            other => Self::Corrupt { table: "hb.redb", key: "-".to_owned(), what: other.to_string() },
        }
    }
}
