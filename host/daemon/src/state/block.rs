//! A block is a long value cut into fragments that each fill one page of the store.
//!
//! The store gives a value larger than a page a run of pages rounded up to a power of two (a 140 KB value takes
//! 256 KB); fragments just under a page avoid that. The writer compresses a block once, with zstd level 1, and keeps
//! it raw where that does not help.
//!
//! Each fragment carries the first eight bytes of a SHA-256 over its key and content. The store does not verify its
//! own page checksums after a crash with quick repair, so a torn or misplaced page must be found here. Eight bytes
//! find every accident (one miss in 2^64); against an adversary stands the signed log, not this sum.

use redb::{Key, Range, Table};
use sha2::{Digest, Sha256};

use super::error::StateError;
use super::usage::Tally;
use super::value::VALUE_VERSION;

/// Largest fragment value in bytes, so that it fits a 4,096-byte page with its key.
const FRAGMENT_BYTES: usize = 4_000;
/// Bytes of a page that key and value of one fragment may take together: 4,096 less the leaf's own bookkeeping.
const PAGE_ROOM_BYTES: usize = 4_064;
/// Smallest useful fragment in bytes; reached only by absurdly long keys, which then pay with a second page.
const FRAGMENT_MIN_BYTES: usize = 2_048;
/// Version byte, codec byte and checksum before a fragment's content.
const FRAGMENT_HEAD_BYTES: usize = 2 + CHECK_BYTES;
/// Bytes of the SHA-256 that are kept per fragment.
const CHECK_BYTES: usize = 8;
/// Item count (u32), raw length (u32) and number of fragments (u16) at the start of the first fragment.
const BLOCK_HEAD_BYTES: usize = 10;
/// Largest raw block in bytes; fragments are numbered by u16, and no batch or snapshot comes near this.
pub(super) const BLOCK_MAX_BYTES: usize = 64 << 20;
/// The fastest level: at the rates of a commit the disk is the limit, not the ratio.
const ZSTD_LEVEL: i32 = 1;

const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// A block read back: what it starts at, how many items it holds, its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) at: u64,
    pub(super) count: u32,
    pub(super) bytes: Vec<u8>,
}

/// Writes blocks; keeps the compressor's memory between commits.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> Result<Self, StateError> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(StateError::world("preparing compression"))?;
        Ok(Self { zstd, packed: Vec::new() })
    }

    /// Writes `raw` under `key(0)`, `key(1)`, ... and returns the bytes stored.
    pub(super) fn write<'k, K: Key + 'static>(
        &mut self,
        tally: &Tally,
        name: &'static str,
        table: &mut Table<'_, K, &'static [u8]>,
        key: impl Fn(u16) -> K::SelfType<'k>,
        count: u32,
        raw: &[u8],
    ) -> Result<u64, StateError> {
        if raw.len() > BLOCK_MAX_BYTES {
            return Err(StateError::Refused {
                table: name,
                what: format!("a block of {} bytes is over the limit of {BLOCK_MAX_BYTES}", raw.len()),
            });
        }
        let codec = self.compress(raw)?;
        let body: &[u8] = if codec == CODEC_ZSTD { &self.packed } else { raw };

        let key_bytes = K::as_bytes(&key(0)).as_ref().len();
        let value_bytes = PAGE_ROOM_BYTES.saturating_sub(key_bytes).clamp(FRAGMENT_MIN_BYTES, FRAGMENT_BYTES);
        let content_bytes = value_bytes - FRAGMENT_HEAD_BYTES;
        let fragments = (BLOCK_HEAD_BYTES + body.len()).div_ceil(content_bytes);
        let fragments = u16::try_from(fragments).expect("the largest block has fewer than 65,536 fragments");

        let mut value = Vec::with_capacity(value_bytes);
        let mut left = body;
        let mut stored = 0;
        for fragment in 0..fragments {
            let key = key(fragment);
            value.clear();
            value.extend_from_slice(&[VALUE_VERSION, codec]);
            value.extend_from_slice(&[0; CHECK_BYTES]);
            if fragment == 0 {
                value.extend_from_slice(&count.to_le_bytes());
                value.extend_from_slice(&(raw.len() as u32).to_le_bytes());
                value.extend_from_slice(&fragments.to_le_bytes());
            }
            let (head, tail) = left.split_at(left.len().min(value_bytes - value.len()));
            value.extend_from_slice(head);
            left = tail;
            let check = check_sum(K::as_bytes(&key).as_ref(), codec, &value[FRAGMENT_HEAD_BYTES..]);
            value[2..FRAGMENT_HEAD_BYTES].copy_from_slice(&check);
            table.insert(&key, value.as_slice())?;
            tally.add_fragment(K::as_bytes(&key).as_ref(), value.len());
            stored += value.len() as u64;
        }
        debug_assert!(left.is_empty(), "every byte has its fragment");
        Ok(stored)
    }

    /// Compresses into `self.packed`; says which of the two is shorter.
    fn compress(&mut self, raw: &[u8]) -> Result<u8, StateError> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let packed =
            self.zstd.compress_to_buffer(raw, &mut self.packed).map_err(StateError::world("compressing a block"))?;
        Ok(if packed < raw.len() { CODEC_ZSTD } else { CODEC_RAW })
    }
}

/// Reads the blocks of a key range in order; every checksum is verified.
pub(super) struct Blocks<K: Key + 'static> {
    table: &'static str,
    rows: Range<'static, K, &'static [u8]>,
    place: fn(K::SelfType<'_>) -> (u64, u16),
    done: bool,
}

impl<K: Key + 'static> Blocks<K> {
    /// `place` says at which number a key's block starts and which fragment the key names.
    pub(super) fn new(
        table: &'static str,
        rows: Range<'static, K, &'static [u8]>,
        place: fn(K::SelfType<'_>) -> (u64, u16),
    ) -> Self {
        Self { table, rows, place, done: false }
    }

    fn read(&mut self) -> Result<Option<Block>, StateError> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        let (key, value) = row?;
        let (at, fragment) = (self.place)(key.value());
        let name = || format!("{:?}", key.value());
        if fragment != 0 {
            return Err(self.corrupt(name(), "the first fragment of the block is missing"));
        }
        let (codec, content) = self.fragment(&key.value(), value.value())?;
        let Some((head, body)) = content.split_first_chunk::<BLOCK_HEAD_BYTES>() else {
            return Err(self.corrupt(name(), "the block's head is cut short"));
        };
        let count = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let raw_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let fragments = u16::from_le_bytes([head[8], head[9]]);

        let mut packed = body.to_vec();
        for expected in 1..fragments {
            let Some(row) = self.rows.next() else {
                return Err(self.corrupt(name(), "the block's last fragments are missing"));
            };
            let (key, value) = row?;
            if (self.place)(key.value()) != (at, expected) {
                return Err(self.corrupt(name(), &format!("fragment {expected} of {fragments} is missing")));
            }
            let (this, content) = self.fragment(&key.value(), value.value())?;
            if this != codec {
                return Err(self.corrupt(name(), "the fragments name different codecs"));
            }
            packed.extend_from_slice(content);
        }
        let bytes = match codec {
            CODEC_RAW => packed,
            CODEC_ZSTD if raw_len <= BLOCK_MAX_BYTES => zstd::bulk::decompress(&packed, raw_len)
                .map_err(|error| self.corrupt(name(), &format!("the block does not decompress: {error}")))?,
            _ => return Err(self.corrupt(name(), "the codec or length of the block is unknown")),
        };
        if bytes.len() != raw_len {
            return Err(self.corrupt(name(), "the block has another length than it says"));
        }
        Ok(Some(Block { at, count, bytes }))
    }

    /// Verifies one fragment and returns its codec and content.
    fn fragment<'v>(&self, key: &K::SelfType<'_>, value: &'v [u8]) -> Result<(u8, &'v [u8]), StateError> {
        if value.first().is_some_and(|version| *version != VALUE_VERSION) {
            return Err(StateError::Version { found: u32::from(value[0]), supported: u32::from(VALUE_VERSION) });
        }
        let Some((head, content)) = value.split_first_chunk::<FRAGMENT_HEAD_BYTES>() else {
            return Err(self.corrupt(format!("{key:?}"), "the fragment is cut short"));
        };
        if check_sum(K::as_bytes(key).as_ref(), head[1], content) != head[2..] {
            return Err(self.corrupt(format!("{key:?}"), "the fragment's checksum does not match"));
        }
        Ok((head[1], content))
    }

    fn corrupt(&self, key: String, what: &str) -> StateError {
        StateError::Corrupt { table: self.table, key, what: what.to_owned() }
    }
}

impl<K: Key + 'static> Iterator for Blocks<K> {
    type Item = Result<Block, StateError>;

    /// Ends after the first error: what follows a damaged block cannot be placed.
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

fn check_sum(key: &[u8], codec: u8, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update([codec]);
    hasher.update(content);
    let full = hasher.finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&full[..CHECK_BYTES]);
    check
}

/// The item count in a block's first fragment, without verifying it.
pub(super) fn head_count(first_fragment: &[u8]) -> u32 {
    match first_fragment.get(FRAGMENT_HEAD_BYTES..).and_then(<[u8]>::first_chunk::<4>) {
        Some(count) => u32::from_le_bytes(*count),
        None => 0,
    }
}
