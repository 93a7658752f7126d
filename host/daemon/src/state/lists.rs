//! The small tables, read whole or by name: refused and dead frames, content, baselines, runs, cases, counters.

use hb_log::hash::Hash;
use redb::TableDefinition;

use super::block::Blocks;
use super::commit::{BaselineRow, DeadRow};
use super::error::StateError;
use super::reader::{Reader, corrupt, only};
use super::ring::RingHead;
use super::tables;
use super::value::Take;

/// How often a source's telemetry was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineCount {
    /// The source.
    pub source: String,
    /// The plugin that refused it last.
    pub plugin: String,
    /// Why.
    pub reason: String,
    /// How many frames or samples.
    pub count: u64,
}

/// One refused frame, kept as a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineSample {
    /// The source.
    pub source: String,
    /// The plugin.
    pub plugin: String,
    /// Why.
    pub reason: String,
    /// The frame's ordinal.
    pub ordinal: u64,
    /// The frame.
    pub frame: Vec<u8>,
}

/// How one plugin's dead letters stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadCount {
    /// The plugin.
    pub plugin: String,
    /// Letters kept.
    pub kept: u64,
    /// Letters dropped over the cap.
    pub dropped: u64,
    /// Bytes kept.
    pub bytes: u64,
}

type NamedTable = TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;

impl Reader {
    /// How much telemetry of a program was refused, by source and reason.
    pub fn quarantine(&self, program: &str) -> Result<Vec<QuarantineCount>, StateError> {
        let table = self.txn.open_table(tables::QUARANTINE)?;
        let mut counts = Vec::new();
        for row in table.range((program, "", "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if key.0 != program {
                break;
            }
            let mut take = Take::new("quarantine", &key, value.value())?;
            let (count, plugin) = (take.u64()?, take.text()?);
            take.end()?;
            counts.push(QuarantineCount { source: key.1.to_owned(), plugin, reason: key.2.to_owned(), count });
        }
        Ok(counts)
    }

    /// The refused frames kept as samples of one plugin, oldest first.
    pub fn quarantine_samples(&self, program: &str, plugin: &str) -> Result<Vec<QuarantineSample>, StateError> {
        let table = self.txn.open_table(tables::SAMPLES)?;
        let rows = table.range((program, plugin, 0, 0)..=(program, plugin, u64::MAX, u16::MAX))?;
        Blocks::new("quarantine_samples", rows, |key| (key.2, key.3))
            .map(|block| {
                let block = block?;
                let mut take = Take::new("quarantine_samples", &block.at, &block.bytes)?;
                Ok(QuarantineSample {
                    plugin: plugin.to_owned(),
                    ordinal: take.u64()?,
                    source: take.text()?,
                    reason: take.text()?,
                    frame: take.rest().to_vec(),
                })
            })
            .collect()
    }

    /// How the dead letters of each plugin of a program stand.
    pub fn dead_counts(&self, program: &str) -> Result<Vec<DeadCount>, StateError> {
        let table = self.txn.open_table(tables::RINGS)?;
        let mut counts = Vec::new();
        for row in table.range((program, "dead_letters", "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if (key.0, key.1) != (program, "dead_letters") {
                break;
            }
            let head = RingHead::decode(&key, value.value())?;
            counts.push(DeadCount {
                plugin: key.2.to_owned(),
                kept: head.next - head.first,
                dropped: head.dropped,
                bytes: head.bytes,
            });
        }
        Ok(counts)
    }

    /// The dead letters kept of one plugin, oldest first.
    pub fn dead(&self, program: &str, plugin: &str) -> Result<Vec<DeadRow>, StateError> {
        let table = self.txn.open_table(tables::DEAD)?;
        let rows = table.range((program, plugin, 0, 0)..=(program, plugin, u64::MAX, u16::MAX))?;
        Blocks::new("dead_letters", rows, |key| (key.2, key.3))
            .map(|block| {
                let block = block?;
                let mut take = Take::new("dead_letters", &block.at, &block.bytes)?;
                Ok(DeadRow {
                    plugin: plugin.to_owned(),
                    ordinal: take.u64()?,
                    cause: take.text()?,
                    frame: take.rest().to_vec(),
                })
            })
            .collect()
    }

    /// Content by its hash, which is verified.
    pub fn blob(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StateError> {
        let table = self.txn.open_table(tables::BLOBS)?;
        let rows = table.range((hash.as_bytes(), 0)..=(hash.as_bytes(), u16::MAX))?;
        let Some(block) = only(Blocks::new("blobs", rows, |key| (0, key.1)))? else { return Ok(None) };
        if Hash::of(&block.bytes) != *hash {
            return Err(corrupt("blobs", hash, "the content has another hash"));
        }
        Ok(Some(block.bytes))
    }

    /// Every baseline version of a program.
    pub fn baselines(&self, program: &str) -> Result<Vec<BaselineRow>, StateError> {
        let table = self.txn.open_table(tables::BASELINES)?;
        let mut rows = Vec::new();
        for row in table.range((program, 0)..=(program, u32::MAX))? {
            let (key, value) = row?;
            rows.push(decode_baseline(key.value(), value.value())?);
        }
        Ok(rows)
    }

    /// One baseline version.
    pub fn baseline(&self, program: &str, version: u32) -> Result<Option<BaselineRow>, StateError> {
        let table = self.txn.open_table(tables::BASELINES)?;
        let Some(value) = table.get((program, version))? else { return Ok(None) };
        decode_baseline((program, version), value.value()).map(Some)
    }

    /// Every baseline tag and the version it names.
    pub fn tags(&self, program: &str) -> Result<Vec<(String, u32)>, StateError> {
        let mut tags = Vec::new();
        for (tag, value) in self.named("tags", tables::TAGS, program)? {
            let version = value.try_into().map_err(|_| corrupt("tags", &tag, "the version is not a u32"))?;
            tags.push((tag, u32::from_le_bytes(version)));
        }
        Ok(tags)
    }

    /// Every run summary, by id.
    pub fn runs(&self, program: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.named("runs", tables::RUNS, program)
    }

    /// One run summary.
    pub fn run(&self, program: &str, id: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.one("runs", tables::RUNS, program, id)
    }

    /// Every case, by id.
    pub fn cases(&self, program: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.named("cases", tables::CASES, program)
    }

    /// One case.
    pub fn case(&self, program: &str, id: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.one("cases", tables::CASES, program, id)
    }

    /// Every counter of a lane, by name.
    pub fn counters(&self, program: &str, lane: &str) -> Result<Vec<(String, u64)>, StateError> {
        let table = self.txn.open_table(tables::COUNTERS)?;
        let mut counters = Vec::new();
        for row in table.range((program, lane, "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if (key.0, key.1) != (program, lane) {
                break;
            }
            let mut take = Take::new("counters", &key, value.value())?;
            counters.push((key.2.to_owned(), take.u64()?));
            take.end()?;
        }
        Ok(counters)
    }

    /// A small value by name.
    pub fn meta(&self, program: &str, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.one("meta", tables::META, program, name)
    }

    pub(super) fn named(
        &self,
        name: &'static str,
        table: NamedTable,
        program: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let table = self.txn.open_table(table)?;
        let mut rows = Vec::new();
        for row in table.range((program, "")..)? {
            let (key, value) = row?;
            let key = key.value();
            if key.0 != program {
                break;
            }
            rows.push((key.1.to_owned(), Take::new(name, &key, value.value())?.rest().to_vec()));
        }
        Ok(rows)
    }

    fn one(
        &self,
        name: &'static str,
        table: NamedTable,
        program: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let table = self.txn.open_table(table)?;
        let key = (program, id);
        let Some(value) = table.get(key)? else { return Ok(None) };
        Ok(Some(Take::new(name, &key, value.value())?.rest().to_vec()))
    }
}

fn decode_baseline(key: (&str, u32), value: &[u8]) -> Result<BaselineRow, StateError> {
    let mut take = Take::new("baselines", &key, value)?;
    Ok(BaselineRow { version: key.1, hash: take.hash()?, meta: take.rest().to_vec() })
}
