//! Facts about the whole file: who made it, which boot used it last, how many commits it took, where the log stands.

use std::fs::File;
use std::io::Read;

use hb_log::hash::Hash;
use redb::{ReadableTable, WriteTransaction};

use super::SCHEMA_VERSION;
use super::error::StateError;
use super::tables;
use super::value::{Put, Take};

/// Random bytes in a host id; 64 bits keep the hosts of any fleet apart.
const HOST_ID_BYTES: usize = 8;
/// The first epoch of a new state. A restored or forked state gets the next one, and its log a new origin.
const FIRST_EPOCH: u32 = 1;
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Who this state is; fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) host_id: String,
    pub(super) epoch: u32,
}

impl Identity {
    /// The log's name in its checkpoints.
    pub(super) fn origin(&self) -> String {
        format!("hb/{}/{}", self.host_id, self.epoch)
    }
}

/// How the last run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastRun {
    pub(super) boot_id: String,
    pub(super) clean: bool,
}

/// The log's signed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogHead {
    pub(super) size: u64,
    /// Roots of the complete subtrees, largest first.
    pub(super) frontier: Vec<Hash>,
    /// The checkpoint body that was signed.
    pub(super) body: String,
    pub(super) signature: String,
}

impl LogHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut put = Put::new().u64(self.size).u32(self.frontier.len() as u32);
        for hash in &self.frontier {
            put = put.rest(hash.as_bytes());
        }
        put.text(&self.body).text(&self.signature).done()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("host", &"log_head", value)?;
        let size = take.u64()?;
        let mut frontier = Vec::new();
        for _ in 0..take.u32()? {
            frontier.push(take.hash()?);
        }
        let head = Self { size, frontier, body: take.text()?, signature: take.text()? };
        take.end()?;
        Ok(head)
    }
}

type HostTable<'a> = &'a dyn Fn(&'static str) -> Result<Option<Vec<u8>>, StateError>;

/// Writes the facts of a new state.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), StateError> {
    tables::create_all(txn)?;
    let mut table = txn.open_table(tables::HOST)?;
    table.insert("schema", Put::new().u32(SCHEMA_VERSION).done().as_slice())?;
    table.insert("host_id", Put::new().text(&random_id()?).done().as_slice())?;
    table.insert("epoch", Put::new().u32(FIRST_EPOCH).done().as_slice())?;
    table.insert("commits", Put::new().u64(0).done().as_slice())?;
    table.insert("last_run", Put::new().u8(1).text("").done().as_slice())?;
    Ok(())
}

/// Reads who the state is and how it was left; refuses another schema.
pub(super) fn load(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<(Identity, LastRun), StateError> {
    let get = |name: &'static str| fact(table, name);
    let schema = number(&get, "schema")?;
    if schema != SCHEMA_VERSION {
        return Err(StateError::Version { found: schema, supported: SCHEMA_VERSION });
    }
    let epoch = number(&get, "epoch")?;
    let bytes = required(&get, "host_id")?;
    let mut take = Take::new("host", &"host_id", &bytes)?;
    let host_id = take.text()?;
    take.end()?;
    let bytes = required(&get, "last_run")?;
    let mut take = Take::new("host", &"last_run", &bytes)?;
    let last = LastRun { clean: take.u8()? == 1, boot_id: take.text()? };
    take.end()?;
    Ok((Identity { host_id, epoch }, last))
}

/// Notes that a run begins (not clean) or ended (clean).
pub(super) fn note_run(txn: &WriteTransaction, run: &LastRun) -> Result<(), StateError> {
    let value = Put::new().u8(u8::from(run.clean)).text(&run.boot_id).done();
    txn.open_table(tables::HOST)?.insert("last_run", value.as_slice())?;
    Ok(())
}

/// Counts one more commit and returns its number.
pub(super) fn next_commit(txn: &WriteTransaction) -> Result<u64, StateError> {
    let mut table = txn.open_table(tables::HOST)?;
    let next = commits(&table)? + 1;
    table.insert("commits", Put::new().u64(next).done().as_slice())?;
    Ok(next)
}

/// How many commits were made.
pub(super) fn commits(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, StateError> {
    let bytes = required(&|name| fact(table, name), "commits")?;
    Take::new("host", &"commits", &bytes)?.u64()
}

/// The log's head; none before the first commit.
pub(super) fn log_head(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<LogHead>, StateError> {
    fact(table, "log_head")?.map(|bytes| LogHead::decode(&bytes)).transpose()
}

/// Stores the log's new head.
pub(super) fn set_log_head(txn: &WriteTransaction, head: &LogHead) -> Result<(), StateError> {
    txn.open_table(tables::HOST)?.insert("log_head", head.encode().as_slice())?;
    Ok(())
}

/// This boot of the machine; empty where the kernel does not say, which counts as another boot each time.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID_PATH).map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn fact(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<Vec<u8>>, StateError> {
    Ok(table.get(name)?.map(|value| value.value().to_vec()))
}

fn required(get: HostTable<'_>, name: &'static str) -> Result<Vec<u8>, StateError> {
    get(name)?.ok_or_else(|| StateError::Corrupt {
        table: "host",
        key: format!("{name:?}"),
        what: "the fact is missing".to_owned(),
    })
}

fn number(get: HostTable<'_>, name: &'static str) -> Result<u32, StateError> {
    let bytes = required(get, name)?;
    let mut take = Take::new("host", &name, &bytes)?;
    let value = take.u32()?;
    take.end()?;
    Ok(value)
}

fn random_id() -> Result<String, StateError> {
    let mut bytes = [0; HOST_ID_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(StateError::world("reading random bytes for the host id"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
