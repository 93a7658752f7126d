//! A ring keeps the newest items of one plugin under a cap of bytes and number; what falls out is counted.

use redb::{ReadableTable, Table};

use super::block::Packer;
use super::error::StateError;
use super::usage::Tally;
use super::value::{Put, Take};

pub(super) type RingKey = (&'static str, &'static str, u64, u16);
pub(super) type HeadKey = (&'static str, &'static str, &'static str);

/// What a ring may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingCap {
    pub(super) bytes: u64,
    pub(super) items: u64,
}

/// Where a ring begins and ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RingHead {
    /// Number of the oldest item kept.
    pub(super) first: u64,
    /// Number the next item gets.
    pub(super) next: u64,
    /// Bytes stored.
    pub(super) bytes: u64,
    /// Items that fell out so far.
    pub(super) dropped: u64,
}

impl RingHead {
    pub(super) fn decode(key: &dyn std::fmt::Debug, value: &[u8]) -> Result<Self, StateError> {
        let mut take = Take::new("rings", key, value)?;
        let head = Self { first: take.u64()?, next: take.u64()?, bytes: take.u64()?, dropped: take.u64()? };
        take.end()?;
        Ok(head)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Put::new().u64(self.first).u64(self.next).u64(self.bytes).u64(self.dropped).done()
    }
}

/// One plugin's ring inside an open transaction.
pub(super) struct Ring<'r, 't> {
    name: &'static str,
    heads: &'r mut Table<'t, HeadKey, &'static [u8]>,
    items: &'r mut Table<'t, RingKey, &'static [u8]>,
    program: &'r str,
    plugin: &'r str,
    cap: RingCap,
    head: RingHead,
}

impl<'r, 't> Ring<'r, 't> {
    pub(super) fn open(
        name: &'static str,
        heads: &'r mut Table<'t, HeadKey, &'static [u8]>,
        items: &'r mut Table<'t, RingKey, &'static [u8]>,
        program: &'r str,
        plugin: &'r str,
        cap: RingCap,
    ) -> Result<Self, StateError> {
        let key = (program, name, plugin);
        let head = match heads.get(key)? {
            Some(value) => RingHead::decode(&key, value.value())?,
            None => RingHead::default(),
        };
        Ok(Self { name, heads, items, program, plugin, cap, head })
    }

    /// Adds one item and drops the oldest ones over the cap; an item over the cap by itself is dropped at once.
    pub(super) fn push(mut self, packer: &mut Packer, tally: &Tally, item: &[u8]) -> Result<(), StateError> {
        let (program, plugin, number) = (self.program, self.plugin, self.head.next);
        self.head.next += 1;
        self.head.bytes +=
            packer.write(tally, self.name, self.items, |fragment| (program, plugin, number, fragment), 1, item)?;
        while self.head.bytes > self.cap.bytes || self.head.next - self.head.first > self.cap.items {
            self.drop_oldest(tally)?;
        }
        self.heads.insert((self.program, self.name, self.plugin), self.head.encode().as_slice())?;
        Ok(())
    }

    fn drop_oldest(&mut self, tally: &Tally) -> Result<(), StateError> {
        let (program, plugin, number) = (self.program, self.plugin, self.head.first);
        let mut freed = 0;
        let fragments = (program, plugin, number, 0)..=(program, plugin, number, u16::MAX);
        self.items.retain_in(fragments, |key, value| {
            tally.remove_fragment::<RingKey>(&key, value);
            freed += value.len() as u64;
            false
        })?;
        if freed == 0 || freed > self.head.bytes {
            let what = "the item's size differs from the ring's count".to_owned();
            return Err(StateError::Corrupt {
                table: self.name,
                key: format!("{:?}", (program, plugin, number)),
                what,
            });
        }
        self.head.bytes -= freed;
        self.head.first += 1;
        self.head.dropped += 1;
        Ok(())
    }
}
