//! What the numbers in a range of a partition's inputs stand for.

use hb_log::cbor::{self, CborError};
use hb_log::hash::Hash;

use super::{Partition, PartitionInput, RestoreError, World};
use crate::series::SeriesDef;

/// What the numbers in inputs stand for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Sources, in order of their numbers.
    pub sources: Vec<String>,
    /// Series, in order of their numbers.
    pub series: Vec<SeriesDef>,
}

impl Names {
    /// Those of a partition.
    pub fn of(partition: &Partition) -> Self {
        Names { sources: partition.source_names(), series: partition.series.iter().map(|s| s.def.clone()).collect() }
    }

    /// Those of the inputs behind a snapshot. Not only an input that says so gives a series its number: a generation or
    /// a baseline does that too, for series that it expects.
    ///
    /// # Errors
    /// When the snapshot is unreadable or `world` lacks content it refers to.
    pub fn of_range(snapshot: &[u8], inputs: &[PartitionInput], world: &World) -> Result<Self, RestoreError> {
        let mut partition = Partition::restore(snapshot, world)?;
        for input in inputs {
            if !matches!(input, PartitionInput::Sample(_)) {
                partition.learn(input.clone(), world);
            }
        }
        Ok(Names::of(&partition))
    }

    /// The baselines that a snapshot and the inputs behind it name: what a [`World`] for them has to hold.
    ///
    /// # Errors
    /// When the bytes are no snapshot.
    pub fn baselines(snapshot: &[u8], inputs: &[PartitionInput]) -> Result<Vec<Hash>, CborError> {
        let before: Partition = cbor::decode(snapshot)?;
        let later = inputs.iter().filter_map(|input| match input {
            PartitionInput::Baseline(_, Some(named)) => Some(named.hash),
            _ => None,
        });
        Ok(before.baselines.into_values().map(|b| b.hash).chain(later).collect())
    }
}
