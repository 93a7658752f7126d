//! Carries decisions to sink plugins, after they are durable.
//!
//! A crash between a commit and its delivery can repeat or lose a delivery, never a decision: ids stay the same, so a
//! receiver can tell a repetition. Retries from an outbox that outlives the process are not part of this yet.

mod calls;

use std::time::Duration;

use hb_engine::decision::Decision;
use hb_log::hash::Hash;

use crate::config::{ConfigFile, OutputConfig};
use crate::diagnostic::{Area, Diagnostic, Diagnostics};
use crate::generation::Plugins;
use crate::plugin::{Delivered, Document, Kind, SamplesParam, SinkInstance};

use calls::{Output, SinkCalls, Worlds};

/// Attempts to deliver one batch; a sink that refuses longer is told of in the log and passed over.
const ATTEMPTS: u32 = 3;

/// Longest wait between two attempts, ms, whatever the sink asks for: the pipeline waits with it.
const WAIT_MS_MAX: u32 = 1_000;

/// The sinks of a config.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
    batch: u64,
}

struct Sink {
    name: String,
    instance: SinkInstance,
}

impl Sinks {
    /// Loads and starts the sinks of a config. All mistakes are returned, not the first.
    pub fn open(file: &ConfigFile) -> Result<Sinks, Diagnostics> {
        Sinks::start(file, Output::open)
    }

    /// Like [`Sinks::open`], but leaves nothing behind: files are not made, and nothing is written.
    pub fn check(file: &ConfigFile) -> Result<(), Diagnostics> {
        Sinks::start(file, Output::check).map(drop)
    }

    fn start(file: &ConfigFile, open: impl Fn(&OutputConfig) -> std::io::Result<Output>) -> Result<Sinks, Diagnostics> {
        let mut found = Diagnostics::new();
        let mut sinks = Vec::new();
        if file.config.sinks.is_empty() {
            return Ok(Sinks::default());
        }
        let plugins = Plugins::of(file)?;
        for (i, sink) in file.config.sinks.iter().enumerate() {
            let at = file.place(&format!("sinks[{i}]"));
            let output = match open(&sink.output) {
                Ok(output) => output,
                Err(e) => {
                    let message = format!("the output of sink `{}` cannot be opened: {e}", sink.name);
                    found.push(Diagnostic::error(Area::Config, message).at(at));
                    continue;
                }
            };
            let part = match plugins.load(sink.plugin.as_str(), Kind::Sink, &sink.settings, &calls::grants(sink)) {
                Ok((part, _, _)) => part,
                Err(problems) => {
                    let named = format!("`{}` at {at}", sink.name);
                    problems.iter().for_each(|d| found.push(d.clone().note("sink", &*named)));
                    continue;
                }
            };
            let worlds = match Worlds::open(file, i, &part.loaded) {
                Ok(worlds) => worlds,
                Err(problems) => {
                    found.append(problems);
                    continue;
                }
            };
            let calls = Box::new(SinkCalls { name: sink.name.to_string(), output, worlds });
            match SinkInstance::new(&part.loaded, &part.settings, calls) {
                Ok(instance) => sinks.push(Sink { name: sink.name.to_string(), instance }),
                Err(fault) => {
                    let message = format!("sink `{}` does not start: {fault}", sink.name);
                    found.push(Diagnostic::error(Area::Plugin, message).at(at));
                }
            }
        }
        if found.has_errors() { Err(found) } else { Ok(Sinks { sinks, batch: 0 }) }
    }

    /// Delivers decisions to every sink; the id of a document is the hash of its decision.
    pub fn deliver(&mut self, decisions: &[Decision]) {
        if self.sinks.is_empty() || decisions.is_empty() {
            return;
        }
        self.batch += 1;
        let texts: Vec<(String, Vec<u8>)> = decisions
            .iter()
            .map(|d| (Hash::of(&d.to_bytes()).to_string(), serde_json::to_vec(d).unwrap_or_default()))
            .collect();
        let documents: Vec<Document<'_>> =
            texts.iter().map(|(id, json)| Document { id, kind: "decision", json }).collect();
        for sink in &mut self.sinks {
            sink.deliver(self.batch, &documents);
        }
    }
}

impl Sink {
    /// Offers documents until each is delivered or rejected, a bounded number of times.
    fn deliver(&mut self, batch: u64, documents: &[Document<'_>]) {
        let mut left: Vec<usize> = (0..documents.len()).collect();
        let mut why = String::new();
        for attempt in 1..=ATTEMPTS {
            let offered: Vec<Document<'_>> = left.iter().map(|&i| documents[i].clone()).collect();
            let none = SamplesParam { frame: &[], series: &[], time_ns: &[], value: &[] };
            let mut wait = None;
            match self.instance.deliver(batch, &offered, &[], none) {
                Ok(answer) => {
                    let mut again = Vec::new();
                    for (&i, outcome) in left.iter().zip(&answer.documents) {
                        match outcome {
                            Delivered::Delivered => {}
                            Delivered::Rejected(why) => {
                                tracing::warn!(sink = self.name, id = documents[i].id, why, "sink rejected a document");
                            }
                            Delivered::RetryAfterMs((ms, reason)) => {
                                wait = wait.max(Some(*ms));
                                why.clone_from(reason);
                                again.push(i);
                            }
                        }
                    }
                    left = again;
                }
                Err(fault) => {
                    tracing::warn!(sink = self.name, %fault, "sink plugin failed");
                    wait = Some(WAIT_MS_MAX / 10);
                }
            }
            if left.is_empty() {
                return;
            }
            if let Some(ms) = wait.filter(|_| attempt < ATTEMPTS) {
                std::thread::sleep(Duration::from_millis(ms.min(WAIT_MS_MAX).into()));
            }
        }
        tracing::error!(sink = self.name, documents = left.len(), why, "documents were not delivered");
    }
}
