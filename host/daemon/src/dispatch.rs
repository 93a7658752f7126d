//! Carries documents to sink plugins, after they are durable.
//!
//! ```text
//! commit: decision, alert, outbox --bell--> worker of each sink: outbox -> deliver -> settle in one commit
//! ```
//!
//! A document is queued in the commit of its decision and leaves the outbox when its sink took it, so neither a crash
//! nor a sink that is down loses one. A crash between a delivery and its commit repeats it: ids stay the same, so a
//! receiver can tell. Each sink has a thread: one that is dead or slow delays no other.
//!
//! Modules: [`bell`] wakes the workers, [`worker`] is one sink at work, [`calls`] is what a sink plugin asks of us.

mod bell;
mod calls;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::alert;
use crate::clock;
use crate::config::{ConfigFile, OutputConfig, RetryConfig, SinkConfig};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, chain};
use crate::generation::Plugins;
use crate::keys::Signer;
use crate::pipeline::record::LIVE;
use crate::plugin::{Delivered, Document, Kind, SinkInstance};
use crate::state::{Commit, DeadRow, Settled, Settlement, State, StateError};
use crate::telemetry::Vitals;

pub use bell::Bell;

use calls::{Output, SinkCalls, Worlds};
use worker::{NO_POINTS, Office, Worker};

/// The sinks of a config.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
}

struct Sink {
    name: String,
    instance: SinkInstance,
    retry: RetryConfig,
}

impl Sinks {
    /// Loads and starts the sinks of a config. All mistakes are returned, not the first.
    pub fn open(file: &ConfigFile) -> Result<Sinks, Diagnostics> {
        Sinks::start(file, |_| true, Output::open)
    }

    /// Loads and starts one sink of a config, and no other.
    pub fn open_one(file: &ConfigFile, name: &str) -> Result<Sinks, Diagnostics> {
        Sinks::start(file, |sink| sink.name.as_str() == name, Output::open)
    }

    /// Like [`Sinks::open`], but leaves nothing behind: files are not made, and nothing is written.
    pub fn check(file: &ConfigFile) -> Result<(), Diagnostics> {
        Sinks::start(file, |_| true, Output::check).map(drop)
    }

    fn start(
        file: &ConfigFile,
        wanted: impl Fn(&SinkConfig) -> bool,
        open: impl Fn(&OutputConfig) -> std::io::Result<Output>,
    ) -> Result<Sinks, Diagnostics> {
        let mut found = Diagnostics::new();
        let mut sinks = Vec::new();
        if file.config.sinks.is_empty() {
            return Ok(Sinks::default());
        }
        let plugins = Plugins::of(file)?;
        for (i, sink) in file.config.sinks.iter().enumerate().filter(|(_, sink)| wanted(sink)) {
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
                Ok(instance) => {
                    sinks.push(Sink { name: sink.name.to_string(), instance, retry: sink.retry.clone() });
                }
                Err(fault) => {
                    let message = format!("sink `{}` does not start: {fault}", sink.name);
                    found.push(Diagnostic::error(Area::Plugin, message).at(at));
                }
            }
        }
        if found.has_errors() { Err(found) } else { Ok(Sinks { sinks }) }
    }

    /// Offers a document to every sink, once and now; the error says in words why one did not take it.
    pub fn offer(&mut self, document: &alert::Document) -> Result<(), String> {
        let offered = [Document { id: &document.id, kind: document.kind.name(), json: &document.json }];
        for sink in &mut self.sinks {
            let delivery = sink.instance.deliver(0, &offered, &[], NO_POINTS).map_err(|fault| fault.to_string())?;
            match delivery.documents.into_iter().next() {
                Some(Delivered::Delivered) | None => {}
                Some(Delivered::Rejected(why)) => return Err(format!("it rejects the document: {why}")),
                Some(Delivered::RetryAfterMs((_, why))) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Documents that wait for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The sink.
    pub sink: String,
    /// How many.
    pub documents: u64,
    /// Why it took nothing, the last time it did not.
    pub trouble: Option<String>,
}

/// The sinks at work, each on a thread of its own. Dropping it lets calls that have begun come to their end.
pub struct Dispatcher {
    office: Office,
    workers: BTreeMap<String, JoinHandle<()>>,
    /// Those whose sink is gone and whose last call is not over.
    leaving: Vec<JoinHandle<()>>,
}

impl Dispatcher {
    /// Puts sinks to work; what is in the outbox from before is delivered first.
    pub fn start(
        state: State,
        signer: Arc<Signer>,
        program: &str,
        sinks: Sinks,
        vitals: Arc<Vitals>,
    ) -> std::io::Result<Dispatcher> {
        let office = Office { state, signer, program: program.to_owned(), bell: Bell::default(), vitals };
        let mut dispatcher = Dispatcher { office, workers: BTreeMap::new(), leaving: Vec::new() };
        dispatcher.replace(sinks)?;
        Ok(dispatcher)
    }

    /// What rings when documents are durable.
    pub fn bell(&self) -> Bell {
        self.office.bell.clone()
    }

    /// Puts other sinks to work from the next document on; nobody waits for a call that has begun, but a sink of the
    /// same name begins behind it.
    pub fn replace(&mut self, sinks: Sinks) -> std::io::Result<()> {
        if let Err(error) = self.look_for_orphans(&sinks) {
            tracing::error!(error = chain(&error), "the outbox cannot be looked through for sinks that are gone");
        }
        self.office.bell.clear(&|name| sinks.sinks.iter().any(|sink| sink.name == name));
        let mut before = std::mem::take(&mut self.workers);
        for Sink { name, instance, retry } in sinks.sinks {
            // A sink that has taken nothing is shown too.
            self.office.vitals.settled(&name, 0, 0);
            let worker = Worker::new(self.office.clone(), name.clone(), instance, retry);
            let before = before.remove(&name);
            let thread = Builder::new().name(format!("hb-sink-{name}")).spawn(move || worker.run(before))?;
            self.workers.insert(name, thread);
        }
        self.leaving.retain(|thread| !thread.is_finished());
        self.leaving.extend(before.into_values());
        Ok(())
    }

    /// Waits until the outbox is empty or everything in it waits for its time, but not longer than `longest`; says
    /// what is left.
    pub fn drain(&self, longest: Duration) -> Result<Vec<Left>, StateError> {
        self.office.bell.wait_until_quiet(Instant::now() + longest);
        let sums = self.office.state.reader()?.outbox_sums(&self.office.program)?;
        let left = sums.into_iter().filter(|(sink, sum)| sum.rows > 0 && self.workers.contains_key(sink));
        Ok(left
            .map(|(sink, sum)| Left { documents: sum.rows, trouble: self.office.bell.trouble(&sink), sink })
            .collect())
    }

    /// Documents of sinks that the config does not name any more: they wait for it to come back as long as for any
    /// sink, then they are dead letters.
    fn look_for_orphans(&self, sinks: &Sinks) -> Result<(), StateError> {
        let Office { state, signer, program, vitals, .. } = &self.office;
        let reader = state.reader()?;
        let (max_age_ns, now_ns) = (RetryConfig::default().max_age_ns, clock::now_ns());
        let mut commit = Commit { program: program.clone(), lane: LIVE.to_owned(), ..Commit::default() };
        for (sink, sum) in reader.outbox_sums(program)? {
            if sum.rows == 0 || sinks.sinks.iter().any(|s| s.name == sink) {
                continue;
            }
            tracing::warn!(sink, documents = sum.rows, "documents wait for a sink that the config does not name");
            for row in reader.outbox(program, &sink)? {
                let row = row?;
                if now_ns.saturating_sub(row.queued_ns) < max_age_ns {
                    break;
                }
                let frame = reader.outbox_document(program, &sink, row.seq)?.unwrap_or_default();
                let cause = "no sink of this name is configured any more".to_owned();
                commit.dead.push(DeadRow { plugin: sink.clone(), ordinal: row.seq, cause, frame });
                commit.settled.push(Settled { sink: sink.clone(), seq: row.seq, what: Settlement::Dead });
            }
        }
        drop(reader);
        if !commit.settled.is_empty() {
            commit.counters.push(("documents.dead".to_owned(), commit.dead.len() as u64));
            let given_up: Vec<String> = commit.dead.iter().map(|letter| letter.plugin.clone()).collect();
            state.commit(commit, signer)?;
            for sink in &given_up {
                vitals.settled(sink, 0, 1);
            }
        }
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.office.bell.clear(&|_| false);
        for thread in std::mem::take(&mut self.workers).into_values().chain(self.leaving.drain(..)) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
