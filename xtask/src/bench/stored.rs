//! What a state holds of numbered telemetry.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::ground::Ground;
use super::row::Row;

/// The numbers of one series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    /// How many.
    pub(super) values: u64,
    /// How many different ones.
    pub(super) distinct: u64,
    /// The highest.
    max: u64,
}

impl Stored {
    /// Reads those of a state that no daemon holds, by metric.
    pub(super) fn read(ground: &Ground, dir: &Path) -> Result<BTreeMap<String, Stored>> {
        let text = ground.example(&["stored"], dir)?;
        let all: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        let number = |of: &Value, key: &str| of[key].as_u64().context("a count");
        let each = all.into_iter().map(|(metric, of)| {
            let (values, distinct) = (number(&of, "values")?, number(&of, "distinct")?);
            Ok((metric, Stored { values, distinct, max: number(&of, "max")? }))
        });
        each.collect()
    }

    /// Whether the numbers from 0 on are there, each once: `sent` of them on `name`.
    pub(super) fn rows(self, name: &str, sent: u64) -> [Row; 2] {
        // A number that was never sent stands for none that was.
        let foreign = (self.max + 1).saturating_sub(sent).min(self.distinct);
        [
            Row::exactly(&format!("lost on {name}"), sent.saturating_sub(self.distinct - foreign), 0),
            Row::exactly(&format!("doubled on {name}"), self.values - self.distinct, 0),
        ]
    }
}
