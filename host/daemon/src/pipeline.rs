//! The way of telemetry: from a source's bytes through plugins to the engine, and into the state.
//!
//! ```text
//! feed: transport -> source plugin -> normalizer workers -> in order -> record: engine -> commit
//! ```
//!
//! Modules in reading order: [`source`] is a source at work, [`once`] runs sources that end and [`merge`] is their
//! order, [`feed`] brings normalized batches in frame order, [`record`] decides and commits, `news` is what it tells
//! of that and `alerts` whom, [`recover`] rebuilds an engine from what is stored, [`journal`] and [`frames`] are the
//! stored bytes, [`series`] the table of numbers. [`learn`] makes baselines of what is stored, [`schedule`] says when;
//! [`export`] tells where a lane stands.

mod alerts;
pub mod calls;
mod column;
pub mod export;
pub mod feed;
pub mod frames;
pub mod journal;
pub mod learn;
pub mod merge;
mod news;
pub mod once;
pub mod record;
pub mod recover;
mod retain;
pub mod schedule;
pub mod series;
pub mod source;

use std::sync::Arc;

use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::generation::MissingPolicy;
use crate::plugin::{Event, Frames, PluginFault};
use crate::state::{DeliveryRows, StateError};
use crate::transport::TransportError;

use journal::Columns;
use merge::Place;
use record::Taken;

/// One batch behind the normalizer.
#[derive(Debug)]
pub struct Normalized {
    /// Source.
    pub source: Arc<str>,
    /// SHA-256 of the record of the plugins that made it.
    pub unit: Hash,
    /// Number of the first frame.
    pub first: u64,
    /// The raw frames.
    pub frames: Frames,
    /// Samples; their ordinals are frame numbers.
    pub columns: Columns,
    /// Events, with their frame's place in `frames`.
    pub events: Vec<Event>,
    /// Frames that meant nothing.
    pub ignored: u64,
    /// What was refused by transport or plugins.
    pub refused: Vec<Refused>,
    /// Frames a plugin failed on, in order.
    pub faults: Vec<Faulted>,
    /// Messages of a broker that are in it, or that need no memory any more.
    pub deliveries: DeliveryRows,
    /// Where the source resumes behind this batch.
    pub cursor: Cursor,
}

/// A piece of telemetry that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who refused it: a plugin, or `transport`.
    pub plugin: String,
    /// Why.
    pub reason: String,
    /// Number of the frame, or of the line when it never became a frame.
    pub ordinal: u64,
    /// Its bytes, or the beginning of them.
    pub frame: Vec<u8>,
}

/// A frame a plugin failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulted {
    /// The plugin.
    pub plugin: String,
    /// Where it stands in the pipeline.
    pub stage: Stage,
    /// Number of the frame; of the next one, when a source failed before there was a frame.
    pub ordinal: u64,
    /// What happened.
    pub cause: String,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// Where a plugin stands in the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It cuts frames.
    Source,
    /// It gives frames their meaning.
    Normalizer,
}

impl Stage {
    /// Its name in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Source => "source",
            Stage::Normalizer => "normalizer",
        }
    }
}

/// Where a source resumes; committed together with what came before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Schema version of this structure.
    pub v: u8,
    /// Number of the next frame of the transport's position.
    pub ordinal: u64,
    /// Number of the next frame to take: beyond `ordinal` when a batch was taken in part.
    pub taken: u64,
    /// Place in the order of sources that are merged.
    pub place: Place,
    /// Number of the next line or message of the transport.
    pub line: u64,
    /// The transport's own position.
    pub transport: Vec<u8>,
    /// The source plugin's own position.
    pub plugin: Option<Vec<u8>>,
    /// Whether the source had ended here.
    pub ended: bool,
    /// Number of the newest message before it, to be acknowledged once it is durable; of no use to another process.
    #[serde(skip)]
    pub message: Option<u64>,
}

/// What stops a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store failed, and the end came before it worked again.
    #[error(
        "{why} while the state store failed: {} frames with {} samples were taken and are not stored, nor what waits \
         in queues behind them; brokers and files give them again, sockets do not", .taken.frames, .taken.samples
    )]
    NotStored {
        /// Why it ended.
        why: String,
        /// What was taken.
        taken: Taken,
        /// How the store failed last.
        #[source]
        source: StateError,
    },
    /// A transport.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] MissingPolicy),
    /// What is asked for was removed, because it was old.
    #[error("{0} was removed to keep within limits.max_state_mb")]
    Gone(String),
    /// A plugin that fails on every call, so that nothing can pass it.
    #[error("plugin `{plugin}` of source `{source_name}` gave up: {fault}")]
    Plugin {
        /// Source.
        source_name: String,
        /// Plugin.
        plugin: String,
        /// The last fault.
        fault: PluginFault,
    },
    /// Stored content that is missing or unreadable.
    #[error("{what} is missing or unreadable: {why}")]
    Corrupt {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

impl PipelineError {
    /// Who failed, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            PipelineError::State(_) | PipelineError::NotStored { .. } => "state",
            PipelineError::Transport(_) => "transport",
            PipelineError::Policy(_) => "policy",
            PipelineError::Plugin { .. } => "plugin",
            PipelineError::Gone(_) | PipelineError::Corrupt { .. } => "stored_data",
        }
    }

    /// Stored content that is missing or unreadable.
    pub fn corrupt(what: &str, why: impl ToString) -> Self {
        PipelineError::Corrupt { what: what.to_owned(), why: why.to_string() }
    }
}
