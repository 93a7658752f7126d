//! The signed log inside the store: entries verbatim, tree nodes in tiles, one signed head.
//!
//! A tile row holds up to 32 hashes of one tile level. Level 0 holds leaf hashes; each hash of level n + 1 is the root
//! of a full tile of level n, so only every fifth layer of the tree is stored and the layers between are folded when a
//! proof asks. A full row is 1 KiB, so that three of them share a page of the store; 64 hashes would fill one alone.
//!
//! Where no body is left below a full row the row goes too: its root stands in the row above. So what a pruned log keeps
//! for ever is one hash of 32 bytes for up to 32, 1,024, 32,768 entries and so on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use hb_log::checkpoint::Checkpoint;
use hb_log::entry::Entry;
use hb_log::hash::Hash;
use hb_log::sign::{self, PublicKey};
use hb_log::tree::{self, Frontier, Node, Nodes};
use redb::{ReadableTable, WriteTransaction};

use super::commit::NewEntry;
use super::error::StateError;
use super::host::{self, Identity, LogHead};
use super::reader::Reader;
use super::usage::Tally;
use super::value::{Put, Take};
use super::write::refused;
use super::{prune, tables};
use crate::diagnostic::chain;
use crate::keys::Signer;

/// Layers of the tree that one tile spans.
const TILE_LAYERS: u8 = 5;
/// Hashes in a full tile.
const TILE_HASHES: u64 = 1 << TILE_LAYERS;

/// The log's head as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The very bytes that are signed.
    pub body: String,
    /// The minisign signature over them.
    pub signature: String,
}

/// What a full verification of the log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Entries in the log.
    pub size: u64,
    /// Their root.
    pub root: Hash,
    /// The log's name.
    pub origin: String,
    /// Entries whose bodies were removed; their hashes are in the tree.
    pub pruned: u64,
    /// The entry that records the newest removal: its index, and the index below which bodies may be missing.
    pub prune: Option<(u64, u64)>,
}

/// Why the log does not verify.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogProblem {
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something does not match.
    #[error("the log does not verify at {place}: {what}")]
    Mismatch {
        /// Where: an entry, a tile, or the head.
        place: String,
        /// What is wrong.
        what: String,
    },
}

/// Appends entries, writes their tree nodes and a freshly signed head; returns the first entry's index.
pub(super) fn append(
    txn: &WriteTransaction,
    identity: &Identity,
    entries: Vec<NewEntry>,
    signer: &Signer,
    tally: &Tally,
) -> Result<(u64, Checkpoint, LogHead), StateError> {
    let stored = host::log_head(&txn.open_table(tables::HOST)?)?;
    let (size, edge) = match stored {
        Some(head) if entries.is_empty() => {
            let checkpoint = parse_body(&head.body)?;
            return Ok((head.size, checkpoint, head));
        }
        Some(head) => (head.size, head.frontier),
        None => (0, Vec::new()),
    };
    let mut frontier = Frontier { size, edge };
    if !frontier.is_valid() {
        return Err(corrupt_head("the frontier does not fit the size"));
    }
    let mut tiles = Tiles::load(txn, size)?;
    let mut table = txn.open_table(tables::ENTRIES)?;
    for entry in entries {
        let seq = frontier.size;
        let entry = Entry { seq, time_ns: entry.time_ns, kind: entry.kind, body: entry.body };
        let bytes = entry.try_encode().map_err(|error| refused("log_entries", chain(&error)))?;
        let value = Put::new().rest(&bytes).done();
        table.insert(seq, value.as_slice())?;
        tally.add_log(value.len());
        tiles.put(&frontier.append(tree::leaf_hash(&bytes)));
    }
    tiles.store(txn, tally)?;

    let checkpoint = Checkpoint::of(&identity.origin(), &frontier);
    let body = checkpoint.body();
    let comment = format!("origin={} size={} root={}", checkpoint.origin, checkpoint.size, checkpoint.root);
    let signature = signer.sign(body.as_bytes(), &comment);
    let head = LogHead { size: frontier.size, frontier: frontier.edge, body, signature };
    host::set_log_head(txn, &head)?;
    Ok((size, checkpoint, head))
}

/// The rows at the right edge of the tree while entries are appended.
#[derive(Default)]
struct Tiles {
    /// The open row of each tile level, and its number.
    open: Vec<(u64, Vec<Hash>)>,
    /// Rows that filled up meanwhile.
    full: Vec<((u8, u64), Vec<Hash>)>,
}

impl Tiles {
    fn load(txn: &WriteTransaction, size: u64) -> Result<Self, StateError> {
        let table = txn.open_table(tables::TILES)?;
        let mut open = Vec::new();
        let mut hashes = size;
        while hashes > 0 {
            let key = (open.len() as u8, hashes / TILE_HASHES);
            let in_row = (hashes % TILE_HASHES) as usize;
            let row = if in_row == 0 { Vec::new() } else { read_tile(&table, key)?.unwrap_or_default() };
            if row.len() != in_row {
                return Err(corrupt_tile(key, "the row has another length than the log's size says"));
            }
            open.push((key.1, row));
            hashes /= TILE_HASHES;
        }
        Ok(Self { open, full: Vec::new() })
    }

    /// Takes the nodes that one leaf completed and keeps those on a tile's lowest layer.
    fn put(&mut self, nodes: &[Node]) {
        for node in nodes.iter().filter(|node| node.level % TILE_LAYERS == 0) {
            let level = node.level / TILE_LAYERS;
            while self.open.len() <= usize::from(level) {
                self.open.push((0, Vec::new()));
            }
            let (number, row) = &mut self.open[usize::from(level)];
            if row.is_empty() {
                // Rows that were folded are left out.
                *number = node.index / TILE_HASHES;
            }
            assert_eq!(node.index, *number * TILE_HASHES + row.len() as u64, "nodes arrive in order");
            row.push(node.hash);
            if row.len() as u64 == TILE_HASHES {
                self.full.push(((level, *number), std::mem::take(row)));
                *number += 1;
            }
        }
    }

    fn store(self, txn: &WriteTransaction, tally: &Tally) -> Result<(), StateError> {
        let mut table = txn.open_table(tables::TILES)?;
        let open = self.open.into_iter().enumerate().map(|(level, (number, row))| ((level as u8, number), row));
        for (key, row) in self.full.into_iter().chain(open) {
            if !row.is_empty() {
                let value = row.iter().fold(Put::new(), |put, hash| put.rest(hash.as_bytes())).done();
                let before = table.insert(key, value.as_slice())?.map(|v| v.value().len());
                tally.add_log(value.len());
                if let Some(len) = before {
                    tally.remove_log(len);
                }
            }
        }
        Ok(())
    }
}

impl Reader {
    /// How many entries the log has.
    pub fn entry_count(&self) -> Result<u64, StateError> {
        Ok(self.log_head()?.map_or(0, |head| head.size))
    }

    /// The signed head; none before the first commit.
    pub fn checkpoint(&self) -> Result<Option<SignedHead>, StateError> {
        let Some(head) = self.log_head()? else { return Ok(None) };
        Ok(Some(SignedHead { checkpoint: parse_body(&head.body)?, body: head.body, signature: head.signature }))
    }

    /// The entries `from..to`, verbatim, with their index.
    pub fn entries(
        &self,
        from: u64,
        to: u64,
    ) -> Result<impl Iterator<Item = Result<(u64, Vec<u8>), StateError>> + use<>, StateError> {
        let rows = self.txn.open_table(tables::ENTRIES)?.range(from..to.max(from))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let index = key.value();
            Ok((index, Take::new("log_entries", &index, value.value())?.rest().to_vec()))
        }))
    }

    /// One entry, verbatim.
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.entries(index, index.saturating_add(1))?.next().transpose().map(|found| found.map(|(_, bytes)| bytes))
    }

    /// The hashes that show that entry `index` is in the log as it is now, or as it was at `size`.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, StateError> {
        let count = self.entry_count()?;
        if index >= size || size > count {
            return Err(refused("log_tiles", format!("no proof of entry {index} at size {size} of {count}")));
        }
        self.with_nodes(|nodes| tree::inclusion_proof(index, size, nodes))
    }

    /// The root of the log as it was at `size`.
    pub fn root_at(&self, size: u64) -> Result<Hash, StateError> {
        let count = self.entry_count()?;
        if size > count {
            return Err(refused("log_tiles", format!("no root at size {size} of {count}")));
        }
        self.with_nodes(|nodes| tree::root_at(size, nodes))
    }

    /// Recomputes the whole log from its entries: every leaf, every tile, the root, the head and its signature.
    pub fn verify_log(&self, key: &PublicKey) -> Result<LogSummary, LogProblem> {
        let head = self.log_head()?.ok_or_else(|| mismatch("the head", "the state has no log yet"))?;
        let checkpoint = parse_body(&head.body)?;
        sign::verify(key, head.body.as_bytes(), &head.signature)
            .map_err(|error| mismatch("the head", &chain(&error)))?;
        if checkpoint.origin != self.identity.origin() {
            return Err(mismatch("the head", "it names another log"));
        }
        if checkpoint.size != head.size {
            return Err(mismatch("the head", "the signed size is not the stored size"));
        }

        let table = self.txn.open_table(tables::TILES).map_err(StateError::from)?;
        let mut frontier = Frontier::new();
        let mut tiles = Tiles::default();
        let mut rows = 0_u64;
        let (mut next, mut pruned, mut missing, mut prune) = (0, 0, None, None);
        let mut stored = self.entries(0, u64::MAX)?.peekable();
        let mut row = ((0, u64::MAX), Vec::new());
        while next < head.size || stored.peek().is_some() {
            let here = stored.next_if(|item| item.as_ref().map_or(true, |(index, _)| *index <= next)).transpose()?;
            let (level, hash) = if let Some((index, bytes)) = here {
                let place = || format!("entry {next}");
                if index != next {
                    return Err(mismatch(&place(), "it is there twice, or where hashes of many were folded into one"));
                }
                let entry = Entry::decode(&bytes).map_err(|error| mismatch(&place(), &chain(&error)))?;
                if entry.seq != index {
                    return Err(mismatch(&place(), "it names another index"));
                }
                prune = prune::said(&entry).map(|(to, total)| (index, to, total)).or(prune);
                (0, tree::leaf_hash(&bytes))
            } else {
                // Whether it may be missing is said by an entry behind it.
                let found = missing_node(&table, &mut row, next, head.size)?;
                let (level, hash) = found.ok_or_else(|| mismatch(&format!("entry {next}"), "it is missing"))?;
                let last = next + (1 << level) - 1;
                pruned += 1 << level;
                missing = Some((missing.map_or(next, |(first, _)| first), last));
                (level, hash)
            };
            tiles.put(&frontier.append_node(level, hash));
            for (key, row) in tiles.full.drain(..) {
                same_tile(&table, key, &row)?;
                rows += 1;
            }
            next += 1 << level;
        }
        if let Some((first, last)) = missing
            && prune.is_none_or(|(_, to, _)| last >= to)
        {
            let place = if prune.is_none() { first } else { last };
            return Err(mismatch(&format!("entry {place}"), "it is missing"));
        }
        if let Some((index, _, total)) = prune
            && total != pruned
        {
            let what = format!("it says that {total} entries were removed, {pruned} are missing");
            return Err(mismatch(&format!("entry {index}"), &what));
        }
        for (level, (number, row)) in tiles.open.iter().enumerate() {
            if !row.is_empty() {
                same_tile(&table, (level as u8, *number), row)?;
                rows += 1;
            }
        }
        if next != head.size {
            return Err(mismatch("the head", &format!("it counts {} entries, {next} are stored", head.size)));
        }
        if rows != redb::ReadableTableMetadata::len(&table).map_err(StateError::from)? {
            return Err(mismatch("the tiles", "rows are stored that no entry explains"));
        }
        if frontier.root() != checkpoint.root || frontier.edge != head.frontier {
            return Err(mismatch("the head", "the root does not follow from the entries"));
        }
        Ok(LogSummary {
            size: next,
            root: checkpoint.root,
            origin: checkpoint.origin,
            pruned,
            prune: prune.map(|(index, to, _)| (index, to)),
        })
    }

    fn log_head(&self) -> Result<Option<LogHead>, StateError> {
        host::log_head(&self.txn.open_table(tables::HOST)?)
    }

    /// Lets the tree functions look nodes up; rows are read once, and a damaged one is what comes out.
    pub fn with_nodes<T, E: std::fmt::Display>(
        &self,
        work: impl FnOnce(&Nodes) -> Result<T, E>,
    ) -> Result<T, StateError> {
        let table = self.txn.open_table(tables::TILES)?;
        let rows = RefCell::new(BTreeMap::new());
        let failure = RefCell::new(None);
        let result = work(&|layer, index| match node(&table, &mut rows.borrow_mut(), layer, index) {
            Ok(hash) => Some(hash),
            Err(error) => {
                failure.borrow_mut().get_or_insert(error);
                None
            }
        });
        match failure.into_inner() {
            Some(error) => Err(error),
            None => result.map_err(|error| refused("log_tiles", error.to_string())),
        }
    }
}

/// The root of the full subtree number `index` of `2^layer` leaves.
fn node(
    table: &impl ReadableTable<(u8, u64), &'static [u8]>,
    rows: &mut BTreeMap<(u8, u64), Vec<Hash>>,
    layer: u8,
    index: u64,
) -> Result<Hash, StateError> {
    let inner = layer % TILE_LAYERS;
    let first = index << inner;
    let key = (layer / TILE_LAYERS, first / TILE_HASHES);
    let row = match rows.entry(key) {
        std::collections::btree_map::Entry::Occupied(row) => row.into_mut(),
        std::collections::btree_map::Entry::Vacant(slot) => slot.insert(read_tile(table, key)?.unwrap_or_default()),
    };
    let start = (first % TILE_HASHES) as usize;
    let hashes = row.get(start..start + (1 << inner)).ok_or_else(|| corrupt_tile(key, "hashes are missing"))?;
    Ok(fold(hashes))
}

/// What stands for entry `index`, of which there is no body: its own hash, or that of the largest subtree from it on whose
/// rows were folded, with its layer.
fn missing_node(
    table: &impl ReadableTable<(u8, u64), &'static [u8]>,
    cached: &mut ((u8, u64), Vec<Hash>),
    index: u64,
    size: u64,
) -> Result<Option<(u8, Hash)>, StateError> {
    let (mut layer, mut at) = (0, index);
    while (at + 1) << layer <= size {
        let key = (layer / TILE_LAYERS, at / TILE_HASHES);
        if cached.0 != key {
            *cached = (key, read_tile(table, key)?.unwrap_or_default());
        }
        if !cached.1.is_empty() {
            return Ok(cached.1.get((at % TILE_HASHES) as usize).map(|hash| (layer, *hash)));
        }
        if !at.is_multiple_of(TILE_HASHES) {
            break;
        }
        (layer, at) = (layer + TILE_LAYERS, at / TILE_HASHES);
    }
    Ok(None)
}

/// Removes the full rows below which no entry of `gone` left a body; the root of each stands in the row above.
pub(super) fn fold_tiles(
    txn: &WriteTransaction,
    gone: impl Iterator<Item = u64>,
    size: u64,
    tally: &Tally,
) -> Result<(), StateError> {
    let entries = txn.open_table(tables::ENTRIES)?;
    let mut tiles = txn.open_table(tables::TILES)?;
    let mut numbers: BTreeSet<u64> = gone.map(|index| index / TILE_HASHES).collect();
    let (mut level, mut full) = (0, size / TILE_HASHES);
    while full > 0 && !numbers.is_empty() {
        let mut above = BTreeSet::new();
        for number in numbers.into_iter().filter(|number| *number < full) {
            let below = number * TILE_HASHES..(number + 1) * TILE_HASHES;
            let is_needed = match level {
                0 => entries.range(below)?.next().is_some(),
                _ => tiles.range((level - 1, below.start)..(level - 1, below.end))?.next().is_some(),
            };
            if !is_needed && let Some(row) = tiles.remove((level, number))? {
                tally.remove_log(row.value().len());
                above.insert(number / TILE_HASHES);
            }
        }
        (numbers, level, full) = (above, level + 1, full / TILE_HASHES);
    }
    Ok(())
}

/// The root over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two());
    let mut layer = hashes.to_vec();
    while layer.len() > 1 {
        layer = layer.chunks_exact(2).map(|pair| tree::node_hash(&pair[0], &pair[1])).collect();
    }
    layer[0]
}

fn read_tile(
    table: &impl ReadableTable<(u8, u64), &'static [u8]>,
    key: (u8, u64),
) -> Result<Option<Vec<Hash>>, StateError> {
    let Some(value) = table.get(key)? else { return Ok(None) };
    let bytes = Take::new("log_tiles", &key, value.value())?.rest();
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() as u64 > TILE_HASHES {
        return Err(corrupt_tile(key, "the row is no list of at most 32 hashes"));
    }
    Ok(Some(hashes.iter().map(|hash| Hash::from_bytes(*hash)).collect()))
}

fn same_tile(
    table: &impl ReadableTable<(u8, u64), &'static [u8]>,
    key: (u8, u64),
    expected: &[Hash],
) -> Result<(), LogProblem> {
    match read_tile(table, key)? {
        Some(row) if row == expected => Ok(()),
        _ => Err(mismatch(&format!("tile {key:?}"), "it does not follow from the entries")),
    }
}

fn parse_body(body: &str) -> Result<Checkpoint, StateError> {
    Checkpoint::parse(body).map_err(|error| corrupt_head(&error.to_string()))
}

fn mismatch(place: &str, what: &str) -> LogProblem {
    LogProblem::Mismatch { place: place.to_owned(), what: what.to_owned() }
}

fn corrupt_head(what: &str) -> StateError {
    StateError::Corrupt { table: "host", key: "\"log_head\"".to_owned(), what: what.to_owned() }
}

fn corrupt_tile(key: (u8, u64), what: &str) -> StateError {
    StateError::Corrupt { table: "log_tiles", key: format!("{key:?}"), what: what.to_owned() }
}
