//! The state is one file in which everything that must be true together becomes true together.
//!
//! A [`Commit`] holds what one step of the daemon produced: inputs, frames, decisions, log entries with a freshly
//! signed head, cursors, snapshots. It is written in one durable transaction, and only after that may a transport be
//! acknowledged or an effect be carried out. One commit is written at a time; any number of [`Reader`]s see a commit's
//! end and nothing in between. A [`State`] is a handle: its clones are the same state, on any thread.
//!
//! After an error whose outcome is unknown the state refuses further work until [`State::reopen`]; the owner then
//! reads the cursors again and goes on from what is really stored.

mod block;
mod commit;
#[cfg(test)]
mod crash;
mod error;
#[cfg(test)]
mod golden;
mod holds;
mod host;
mod lanes;
mod lists;
mod lock;
mod log;
mod outbox;
mod prune;
mod quarantine;
mod reader;
mod retain;
#[cfg(test)]
mod retain_tests;
mod ring;
mod tables;
#[cfg(test)]
mod tests;
mod usage;
mod value;
mod write;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, WriteTransaction};

pub use self::commit::{
    BaselineRow, Commit, Committed, DeadRow, DecisionRow, DeliveryRows, FrameBlock, JournalRow, NewEntry,
    OutboxDocument, QuarantineRow, Settled, Settlement, SnapshotRow,
};
pub use self::error::StateError;
pub use self::holds::{HoldChange, HoldRow, Kept};
pub use self::lists::{DeadCount, QuarantineCount, QuarantineSample};
pub use self::log::{LogProblem, LogSummary, SignedHead};
pub use self::outbox::{DocumentOutcome, DocumentOutcomes, OutboxRow, OutboxSum};
pub use self::reader::{DecisionFilter, Lookup, Reader};
pub use self::usage::Usage;

use self::block::Packer;
use self::host::{Identity, LastRun};
use self::lock::StateLock;
use self::usage::Tally;
use self::write::Writer;
use crate::keys::Signer;

/// Version of the whole file's layout.
pub const SCHEMA_VERSION: u32 = 1;

/// Bytes the store may keep in memory. More does not make it faster at our commit sizes; its default is 1 GiB.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of dead letters kept per plugin; some thousand frames, enough to see why they died.
const DEAD_CAP_BYTES: u64 = 8 << 20;
/// Bytes of refused frames kept per plugin as samples.
const QUARANTINE_CAP_BYTES: u64 = 1 << 20;
/// Refused frames kept per plugin as samples; more of the same teach nothing.
const QUARANTINE_CAP_ITEMS: u64 = 64;
/// Documents that wait for one sink at most: a day of one alert every nine seconds.
const OUTBOX_CAP_ROWS: u64 = 10_000;
/// Bytes of documents that wait for one sink.
const OUTBOX_CAP_BYTES: u64 = 16 << 20;

/// Bytes that compacting a file at the start may move: about four seconds on a slow disk.
const COMPACT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a file that is worth compacting.
const COMPACT_FILE_MIN: u64 = 64 << 20;

const FILE_NAME: &str = "hb.redb";
const NEW_FILE_NAME: &str = "hb.redb.new";

/// Limits of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes the store may keep in memory.
    pub cache_bytes: usize,
    /// Bytes of dead letters kept per plugin.
    pub dead_cap_bytes: u64,
    /// Bytes of refused frames kept per plugin.
    pub quarantine_cap_bytes: u64,
    /// Refused frames kept per plugin.
    pub quarantine_cap_items: u64,
    /// Documents that wait for one sink.
    pub outbox_cap_rows: u64,
    /// Bytes of documents that wait for one sink.
    pub outbox_cap_bytes: u64,
    /// Bytes the state may need: at 80 % what is old goes, at 95 % nothing more may come.
    pub cap_bytes: u64,
    /// Bytes the log may need.
    pub log_cap_bytes: u64,
    /// Whether cases wait for their packs: until one is written, nothing that it is made from goes.
    pub waits_for_packs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            dead_cap_bytes: DEAD_CAP_BYTES,
            quarantine_cap_bytes: QUARANTINE_CAP_BYTES,
            quarantine_cap_items: QUARANTINE_CAP_ITEMS,
            outbox_cap_rows: OUTBOX_CAP_ROWS,
            outbox_cap_bytes: OUTBOX_CAP_BYTES,
            cap_bytes: u64::MAX,
            log_cap_bytes: u64::MAX,
            waits_for_packs: false,
        }
    }
}

/// What opening a state found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The state was created now.
    pub created: bool,
    /// The last run did not end cleanly.
    pub unclean: bool,
    /// What verifying every page found, where that was needed.
    pub verified: Verified,
}

/// Whether the pages were verified, which is needed when the machine went down under the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The last run ended cleanly, or the machine kept running.
    NotNeeded,
    /// Everything was as it should be.
    Sound,
    /// Damage beside the acknowledged data was found and repaired.
    Repaired,
}

/// The state of one host, open for writing.
#[derive(Clone)]
pub struct State(Arc<Shared>);

struct Shared {
    identity: Identity,
    /// Empty after a reopening that failed.
    database: RwLock<Option<Database>>,
    place: Place,
    options: RwLock<Options>,
    opened: Opened,
    /// As of the newest commit.
    usage: Mutex<Usage>,
    /// Held from the beginning of a commit to its end.
    writing: Mutex<Writing>,
    _lock: Option<StateLock>,
}

struct Writing {
    packer: Packer,
    /// An earlier error left the outcome of a commit unknown.
    poisoned: bool,
}

type Open = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync>;

/// Where the database comes from, again after an error.
struct Place {
    open: Open,
    path: Option<PathBuf>,
    boot_id: fn() -> String,
}

impl State {
    /// Opens the state in a directory, creating both when absent, and keeps others out.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(StateError::world("creating the state directory"))?;
        let lock = StateLock::take(dir)?;
        let path = dir.join(FILE_NAME);
        let created = !path.try_exists().map_err(StateError::world("looking for hb.redb"))?;
        if created {
            create_file(dir, &path, &options)?;
        }
        let open_path = path.clone();
        let open = Box::new(move |builder: &Builder| builder.open(&open_path));
        let place = Place { open, path: Some(path), boot_id: host::boot_id };
        Self::open_at(place, options, created, Some(lock))
    }

    fn open_at(place: Place, options: Options, created: bool, lock: Option<StateLock>) -> Result<Self, StateError> {
        let (database, identity, mut opened) = open_database(&place, &options)?;
        opened.created = created;
        let writing = Mutex::new(Writing { packer: Packer::new()?, poisoned: false });
        let usage = Mutex::new(read_usage(&database, &options)?);
        let (database, options) = (RwLock::new(Some(database)), RwLock::new(options));
        Ok(Self(Arc::new(Shared { identity, database, place, options, opened, usage, writing, _lock: lock })))
    }

    /// The host's id: 16 hex digits drawn when the state was created.
    pub fn host_id(&self) -> &str {
        &self.0.identity.host_id
    }

    /// The state's epoch; the log of another epoch is another log.
    pub fn epoch(&self) -> u32 {
        self.0.identity.epoch
    }

    /// The log's name in its checkpoints.
    pub fn origin(&self) -> String {
        self.0.identity.origin()
    }

    /// Whether no process works on the state in a directory now.
    pub fn is_free(dir: &Path) -> bool {
        StateLock::is_free(dir)
    }

    /// What opening the state found.
    pub fn opened(&self) -> Opened {
        self.0.opened
    }

    /// Makes everything in the commit durable, or nothing of it.
    ///
    /// After any error but a harmless one (see [`StateError::is_harmless`]) the outcome is unknown and the state is
    /// poisoned.
    pub fn commit(&self, commit: Commit, signer: &Signer) -> Result<Committed, StateError> {
        self.commit_behind(|_| commit, signer)
    }

    /// Like [`State::commit`], for a commit that names its own log entries: `make` is told the index of the first.
    pub fn commit_behind(&self, make: impl FnOnce(u64) -> Commit, signer: &Signer) -> Result<Committed, StateError> {
        let mut writing = self.0.writing();
        if writing.poisoned {
            return Err(StateError::Poisoned);
        }
        let result = self.0.try_commit(make, &mut writing.packer, signer);
        writing.poisoned = result.as_ref().is_err_and(|error| !error.is_harmless());
        result
    }

    /// Whether a commit, of whomever, has failed so that [`State::reopen`] is due; false while one is under way.
    pub fn is_poisoned(&self) -> bool {
        self.0.writing.try_lock().is_ok_and(|writing| writing.poisoned)
    }

    /// Closes the database and opens it again: the way out of a poisoned state. Readers given out before end.
    pub fn reopen(&self) -> Result<(), StateError> {
        let mut writing = self.0.writing();
        writing.poisoned = true;
        let mut place = self.0.database.write().unwrap_or_else(PoisonError::into_inner);
        drop(place.take());
        let (database, identity, _) = open_database(&self.0.place, &self.options())?;
        if identity != self.0.identity {
            let what = "another state lies in the place of the one that was open".to_owned();
            return Err(StateError::Corrupt { table: "host", key: "\"host_id\"".to_owned(), what });
        }
        *place = Some(database);
        writing.poisoned = false;
        Ok(())
    }

    /// A snapshot of what is stored now.
    pub fn reader(&self) -> Result<Reader, StateError> {
        let txn = self.0.database().as_ref().ok_or(StateError::Poisoned)?.begin_read()?;
        Ok(Reader { txn, identity: self.0.identity.clone() })
    }

    /// What is needed of what is allowed, as of the newest commit.
    pub fn usage(&self) -> Usage {
        *self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits it keeps.
    pub fn options(&self) -> Options {
        self.0.options()
    }

    /// Keeps other limits from the next commit on; its cache stays as large as it is.
    pub fn limit(&self, options: Options) {
        // The next commit waits until all of it has changed.
        let _writing = self.0.writing();
        *self.0.options.write().unwrap_or_else(PoisonError::into_inner) = options;
        let mut usage = self.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
        (usage.cap_bytes, usage.log_cap_bytes) = (options.cap_bytes, options.log_cap_bytes);
        usage.is_log_full &= usage.log_bytes > usage.log_cap_bytes;
    }

    /// The directory it lies in; none for one in memory.
    pub fn dir(&self) -> Option<&Path> {
        self.0.place.path.as_deref().and_then(Path::parent)
    }

    /// Bytes the file takes on disk; never shrinks by itself.
    pub fn disk_bytes(&self) -> Result<u64, StateError> {
        self.0.place.path.as_deref().map_or(Ok(0), blocks_bytes)
    }
}

impl Shared {
    fn writing(&self) -> MutexGuard<'_, Writing> {
        // Whoever panicked while writing left a transaction that was never committed.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> Options {
        *self.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_commit(
        &self,
        make: impl FnOnce(u64) -> Commit,
        packer: &mut Packer,
        signer: &Signer,
    ) -> Result<Committed, StateError> {
        let txn = begin_write(self.database().as_ref().ok_or(StateError::Poisoned)?)?;
        let first = host::log_head(&txn.open_table(tables::HOST)?)?.map_or(0, |head| head.size);
        let mut commit = make(first);
        for hold in &mut commit.holds {
            hold.entries.iter_mut().for_each(|entry| *entry += first);
        }
        let (tally, options) = (Tally::default(), self.options());
        let mut writer = Writer {
            txn: &txn,
            packer,
            identity: &self.identity,
            options: &options,
            tally: &tally,
            program: &commit.program,
            lane: &commit.lane,
        };
        let written = writer.write(&commit).and_then(|()| {
            let (bytes, log_bytes) = usage::load(&txn)?;
            let before = Usage { bytes, log_bytes, ..usage_of(&options) };
            // Behind the commit's own entries: it may have counted on where those come.
            let mut entries = std::mem::take(&mut commit.entries);
            entries.extend(retain::slice(&txn, before, &tally)?);
            let (pruned, is_log_full) = prune::slice(&txn, before, &tally)?;
            entries.extend(pruned);
            let (first_entry, checkpoint, head) = log::append(&txn, &self.identity, entries, signer, &tally)?;
            let usage = Usage { is_log_full, ..tally.since(before) };
            usage::store(&txn, usage)?;
            let txn = host::next_commit(&txn)?;
            Ok((Committed { txn, first_entry, checkpoint, body: head.body, signature: head.signature }, usage))
        });
        match written {
            Ok((committed, usage)) => {
                txn.commit()?;
                *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
                Ok(committed)
            }
            Err(error) => {
                txn.abort()?;
                Err(error)
            }
        }
    }
}

impl Drop for Shared {
    /// Notes a clean end, so that the next start need not verify the file.
    fn drop(&mut self) {
        let poisoned = self.writing().poisoned;
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(database) = database
            && !poisoned
        {
            // Failing here costs a verification at the next start, nothing else.
            let _ = note_run(&database, &LastRun { boot_id: (self.place.boot_id)(), clean: true });
        }
    }
}

/// Creates the file under another name first: one that is there is whole.
fn create_file(dir: &Path, path: &Path, options: &Options) -> Result<(), StateError> {
    let new = dir.join(NEW_FILE_NAME);
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(StateError::world("removing an unfinished hb.redb.new")(error));
    }
    let database = builder(options).create(&new)?;
    create_facts(&database)?;
    drop(database);
    fs::File::open(&new)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&new, path))
        .map_err(StateError::world("creating hb.redb"))?;
    lock::sync_dir(dir)
}

fn create_facts(database: &Database) -> Result<(), StateError> {
    let txn = begin_write(database)?;
    host::create(&txn)?;
    Ok(txn.commit()?)
}

/// What the options allow.
fn usage_of(options: &Options) -> Usage {
    Usage { cap_bytes: options.cap_bytes, log_cap_bytes: options.log_cap_bytes, ..Usage::default() }
}

/// What is needed, as the newest commit left it.
fn read_usage(database: &Database, options: &Options) -> Result<Usage, StateError> {
    let table = database.begin_read()?.open_table(tables::USAGE)?;
    let number = |name| Ok::<u64, StateError>(usage::number(&table, name)?.unwrap_or(0));
    Ok(Usage { bytes: number("rows")?, log_bytes: number("log")?, ..usage_of(options) })
}

/// Opens the database, verifies it if the machine went down under it, and notes that a run begins.
fn open_database(place: &Place, options: &Options) -> Result<(Database, Identity, Opened), StateError> {
    let mut database = (place.open)(&builder(options))?;
    complete(&database)?;
    compact(&mut database, place)?;
    let (identity, last) = host::load(&database.begin_read()?.open_table(tables::HOST)?)?;
    let boot_id = (place.boot_id)();
    let unclean = !last.clean;
    // A killed process loses nothing the kernel still holds. A machine that went down may have torn pages, and the
    // store's quick recovery does not look for them.
    let verified = match unclean && (boot_id.is_empty() || boot_id != last.boot_id) {
        false => Verified::NotNeeded,
        true if database.check_integrity()? => Verified::Sound,
        true => Verified::Repaired,
    };
    let now = LastRun { boot_id, clean: false };
    if now != last {
        // Skipped when it stands there already: a reopen on a full disk must not need room.
        note_run(&database, &now)?;
    }
    Ok((database, identity, Opened { created: false, unclean, verified }))
}

/// Adds the tables of later releases to a state of an earlier one.
fn complete(database: &Database) -> Result<(), StateError> {
    match database.begin_read()?.open_table(tables::USAGE) {
        Ok(_) => Ok(()),
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let txn = begin_write(database)?;
            tables::create_all(&txn)?;
            Ok(txn.commit()?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives the disk back what a file has too much, at the start alone and when it is worth it: more than half of the
/// file is free, and what moves is at most [`COMPACT_BYTES_MAX`]. Otherwise free pages are used again in their turn.
fn compact(database: &mut Database, place: &Place) -> Result<(), StateError> {
    let Some(path) = &place.path else { return Ok(()) };
    let table = database.begin_read()?.open_table(tables::USAGE)?;
    let used = usage::number(&table, "rows")?.unwrap_or(0);
    drop(table);
    let on_disk = blocks_bytes(path)?;
    if used > COMPACT_BYTES_MAX || on_disk < COMPACT_FILE_MIN || on_disk / 2 < used {
        return Ok(());
    }
    match database.compact() {
        Ok(_) => Ok(()),
        Err(redb::CompactionError::Storage(error)) => Err(error.into()),
        // Nobody reads or writes yet; and a file that stays long is no reason not to start.
        Err(error) => {
            tracing::warn!(%error, "the state file was not compacted");
            Ok(())
        }
    }
}

fn blocks_bytes(path: &Path) -> Result<u64, StateError> {
    /// Unit of `st_blocks`, whatever the file system's own block size.
    const STAT_BLOCK_BYTES: u64 = 512;
    let meta = fs::metadata(path).map_err(StateError::world("measuring hb.redb"))?;
    Ok(meta.blocks() * STAT_BLOCK_BYTES)
}

fn note_run(database: &Database, run: &LastRun) -> Result<(), StateError> {
    let txn = begin_write(database)?;
    host::note_run(&txn, run)?;
    Ok(txn.commit()?)
}

/// Every transaction is durable when it returns and leaves the allocator's state behind, so that opening after a kill
/// is instant; it is only if the last transaction did so.
fn begin_write(database: &Database) -> Result<WriteTransaction, StateError> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}

fn builder(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}
