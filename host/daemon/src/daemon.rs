//! The daemon: one loop over what sources bring, what clocks demand, and what people order.
//!
//! Everything that changes what runs comes to the loop as an [`Order`] and happens between two batches. What takes time,
//! like compiling plugins and testing policies, is done before by whoever orders: see [`reload`].

mod outage;
pub mod reload;
mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender};
use hb_log::hash::Hash;
use serde::Serialize;

use crate::config::ConfigFile;
use crate::diagnostic::{Area, Diagnostic, chain};
use crate::dispatch::Sinks;
use crate::generation::secrets::{DigestKey, SecretDigest};
use crate::generation::{Generation, Unit};
use crate::pipeline::PipelineError;
use crate::pipeline::feed::{FeedLimits, Prepared};
use crate::pipeline::record::Recorder;
use crate::pipeline::schedule::ScheduleOptions;
use crate::pipeline::source::{Source, Turn, Watch, report};
use crate::state::StateError;
use crate::telemetry::Phase;

use outage::Outage;
pub use watch::watch_files;

/// Longest wait for a batch before the clocks are looked at, ms: clocks go in steps of a second, and a tenth of it is
/// lateness nobody sees.
const TURN_MS: u64 = 100;

/// How long sources may take to give what they have when the daemon is told to stop, s: supervisors wait 10 s or more.
const DRAIN_SEC: u64 = 5;

/// How long a new generation is watched, s: what it does wrong on every frame shows at once, what it does wrong on
/// some is no reason to take it back.
const PROBATION_SEC: u64 = 30;

/// Frames a new generation fails on before it is taken back, when they are more than half of all.
const PROBATION_FAULTS: u64 = 16;

/// Generations that can be gone back to: each keeps its compiled plugins in memory, some MB.
const KEPT_MAX: usize = 4;

/// What a running daemon is told.
pub enum Order {
    /// Take what has arrived, make it durable, and return; the text says who wanted it.
    Stop(String),
    /// Let a generation take over.
    Swap(Box<Swap>),
    /// Note in the log that a generation was to take over and could not.
    Refused {
        /// Who wanted it.
        author: String,
        /// Why.
        reason: String,
        /// What was wrong with it.
        why: String,
    },
    /// Compare with the baselines that the tags name now; answers when they are active.
    Baselines(Sender<()>),
}

/// A generation that has been checked, and its plugins, ready to take over.
pub struct Swap {
    /// What takes over.
    pub built: Arc<Built>,
    /// The plugins of its units, in their order.
    pub prepared: Vec<Prepared>,
    /// Its sinks.
    pub sinks: Sinks,
    /// Who wants it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Told when it is active everywhere, or why it is not.
    pub reply: Sender<Result<Swapped, Diagnostic>>,
}

/// A generation with the config it was built from.
pub struct Built {
    /// The config.
    pub file: ConfigFile,
    /// The generation.
    pub generation: Generation,
    sink_secrets: SecretDigest,
    key: Arc<DigestKey>,
}

impl Built {
    /// Notes what the secrets and certificates are that the config refers to. Digests under one key can be compared.
    pub fn new(file: ConfigFile, mut generation: Generation, key: Arc<DigestKey>) -> Built {
        for unit in &mut generation.units {
            unit.secrets = key.of_transport(&unit.transport);
        }
        let sink_secrets = key.of_sinks(&file.config.sinks);
        Built { file, generation, sink_secrets, key }
    }

    /// Whether what both refer to is the same.
    fn has_secrets_of(&self, other: &Built) -> bool {
        let of = |built: &Built| built.generation.units.iter().map(|unit| unit.secrets.clone()).collect::<Vec<_>>();
        self.sink_secrets == other.sink_secrets && of(self) == of(other)
    }
}

/// A swap that succeeded.
#[derive(Clone, Debug, Serialize)]
pub struct Swapped {
    /// What is active.
    pub generation: Hash,
    /// What was active before.
    pub before: Hash,
    /// From the order to the last source that obeyed, ms.
    pub took_ms: u64,
    /// For how long no source was served: the loop let the generation judge, recorded it, and handed plugins over, us.
    pub stalled_us: u64,
}

/// The generations of a running daemon, as everybody may see them.
pub struct Generations(Mutex<Lineage>);

struct Lineage {
    active: Arc<Built>,
    /// Newest first.
    kept: VecDeque<Arc<Built>>,
}

impl Generations {
    /// A daemon starts with one.
    pub fn new(active: Arc<Built>) -> Self {
        Generations(Mutex::new(Lineage { active, kept: VecDeque::new() }))
    }

    /// What runs.
    pub fn active(&self) -> Arc<Built> {
        Arc::clone(&self.lock().active)
    }

    /// What ran before and can run again, newest first.
    pub fn kept(&self) -> Vec<Arc<Built>> {
        self.lock().kept.iter().cloned().collect()
    }

    fn install(&self, built: Arc<Built>) {
        let mut lineage = self.lock();
        let before = std::mem::replace(&mut lineage.active, built);
        let hash = lineage.active.generation.hash;
        lineage.kept.retain(|b| b.generation.hash != hash && b.generation.hash != before.generation.hash);
        if before.generation.hash != hash {
            lineage.kept.push_front(before);
        }
        lineage.kept.truncate(KEPT_MAX);
    }

    /// A generation that was taken back is nothing to go back to.
    fn forget(&self, hash: Hash) {
        self.lock().kept.retain(|built| built.generation.hash != hash);
    }

    fn lock(&self) -> MutexGuard<'_, Lineage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is told what happened in a daemon.
pub trait Live: Watch {
    /// Another generation runs; nothing is to go to the old sinks any more.
    fn changed(&mut self, built: &Arc<Built>, sinks: Sinks);

    /// The store has begun to fail, so that nothing is read or decided; or it works again.
    fn stalled(&mut self, _by: Option<&StateError>) {}
}

/// Runs the active generation's sources until told to stop, or until all of them have ended; says why it returned.
pub fn run(
    recorder: &mut Recorder,
    generations: &Generations,
    orders: &Receiver<Order>,
    live: &mut dyn Live,
) -> Result<String, PipelineError> {
    let active = generations.active();
    let limits = FeedLimits::of(&active.file.config);
    let sources = active.generation.units.iter().map(|unit| Source::new(unit.clone(), limits)).collect();
    active.generation.units.iter().for_each(|unit| recorder.vitals().source_known(&unit.name));
    recorder.vitals().enter(Phase::Running);
    let mut daemon = Daemon {
        recorder,
        sources,
        generations,
        live,
        change: None,
        probation: None,
        stop: None,
        outage: None,
        put_off: None,
    };
    loop {
        match daemon.round(orders) {
            Ok(Some(why)) => return Ok(why),
            Ok(None) => {}
            // Whatever was begun when the store failed: what is stored, and what was taken since, is what counts.
            Err(PipelineError::State(e)) if e.is_outage() => daemon.outlast(e, orders)?,
            Err(e) => return Err(e),
        }
    }
}

struct Daemon<'d> {
    recorder: &'d mut Recorder,
    sources: Vec<Source>,
    generations: &'d Generations,
    live: &'d mut dyn Live,
    /// A generation that has taken over, while some source has not got there yet.
    change: Option<Change>,
    /// A generation that took over a short while ago.
    probation: Option<Probation>,
    /// Why it ends, and the latest time of that.
    stop: Option<(String, Instant)>,
    /// How the store failed last.
    outage: Option<Outage>,
    /// A change to be obeyed once sources were served again; no other order is looked at before.
    put_off: Option<Box<Swap>>,
}

struct Change {
    began: Instant,
    stalled: Duration,
    before: Hash,
    reply: Option<Sender<Result<Swapped, Diagnostic>>>,
}

struct Probation {
    until: Instant,
    frames: u64,
    faults: u64,
    back_to: Arc<Built>,
}

enum Ready {
    Order,
    Source(usize),
    Time,
}

impl Daemon<'_> {
    /// A turn, and what follows from it; says why it ended when it has.
    fn round(&mut self, orders: &Receiver<Order>) -> Result<Option<String>, PipelineError> {
        self.turn(orders)?;
        let all_ended = self.sources.iter().all(Source::has_ended);
        let is_over = self.stop.as_ref().is_some_and(|stop| all_ended || stop.1 <= Instant::now());
        if !is_over && (!all_ended || self.change.is_some()) {
            return Ok(None);
        }
        if !all_ended {
            tracing::warn!("a source did not finish within {DRAIN_SEC} s; it goes on from its last commit");
        }
        self.end()?;
        Ok(Some(self.stop.take().map_or_else(|| "all sources have ended".into(), |stop| stop.0)))
    }

    fn turn(&mut self, orders: &Receiver<Order>) -> Result<(), PipelineError> {
        if self.recorder.state().is_poisoned() {
            // Somebody else's commit failed: without telemetry nobody would notice, and alerts would wait for ever.
            return Err(StateError::Poisoned.into());
        }
        let is_put_off = self.put_off.is_some();
        for at in 0..self.sources.len() {
            let turn = self.sources[at].start_when_due(self.recorder)?;
            self.look_at(turn)?;
        }
        match self.wait(orders) {
            Ready::Order => {
                if let Ok(order) = orders.try_recv() {
                    self.obey(order)?;
                }
            }
            Ready::Source(at) => {
                let turn = self.sources[at].turn(self.recorder, self.live)?;
                self.look_at(turn)?;
            }
            Ready::Time => {}
        }
        if is_put_off && let Some(swap) = self.put_off.take() {
            self.swap(*swap)?;
        }
        for source in &mut self.sources {
            source.tick(self.recorder);
        }
        if self.sources.iter().any(Source::wants_commit) {
            self.recorder.commit_pending()?;
        }
        self.recorder.commit_when_due()?;
        for source in &mut self.sources {
            source.tell(self.recorder);
        }
        report(self.recorder, self.live)?;
        self.settle();
        self.recorder.vitals().turn();
        self.live.turn(self.recorder);
        Ok(())
    }

    /// Waits for whatever comes first; while a change is put off it only looks at the sources.
    fn wait(&self, orders: &Receiver<Order>) -> Ready {
        let mut deadline = Instant::now();
        let mut select = Select::new();
        let mut places = Vec::with_capacity(self.sources.len() + 1);
        if self.put_off.is_none() {
            deadline += Duration::from_millis(TURN_MS);
            select.recv(orders);
            places.push(None);
        }
        deadline = self.recorder.due().map_or(deadline, |due| due.min(deadline));
        for (at, source) in self.sources.iter().enumerate() {
            if source.select(&mut select) {
                places.push(Some(at));
            }
        }
        match select.ready_deadline(deadline) {
            Ok(ready) => places[ready].map_or(Ready::Order, Ready::Source),
            Err(_) => Ready::Time,
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), PipelineError> {
        match order {
            Order::Stop(why) => self.stop(why),
            Order::Swap(swap) => {
                // What was taken is committed apart, and sources are served in between: then little is left to commit
                // with the change, and they stand still for less.
                self.put_off = Some(swap);
                self.recorder.commit_pending()?;
            }
            Order::Refused { author, reason, why } => {
                self.recorder.vitals().reloaded("refused");
                self.recorder.refuse(&author, &reason, &why);
                self.recorder.commit()?;
            }
            Order::Baselines(reply) => {
                self.recorder.refresh_baselines()?;
                self.recorder.commit()?;
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    fn stop(&mut self, why: String) {
        self.sources.iter_mut().for_each(Source::leave);
        self.recorder.vitals().enter(Phase::Stopping);
        self.stop = Some((why, Instant::now() + Duration::from_secs(DRAIN_SEC)));
    }

    fn swap(&mut self, swap: Swap) -> Result<(), PipelineError> {
        let Swap { built, prepared, sinks, author, reason, reply } = swap;
        let refused = |what: &str| Err(Diagnostic::error(Area::Config, what));
        if self.stop.is_some() {
            let _ = reply.send(refused("the daemon is about to stop"));
            return Ok(());
        }
        let (back_to, began) = (self.generations.active(), Instant::now());
        let before = back_to.generation.hash;
        match self.install(built, prepared, Some(sinks), &author, &reason) {
            Ok(()) => {}
            Err(PipelineError::State(e)) => {
                let _ = reply.send(refused(&format!("it could not be recorded: {}", chain(&e))));
                return Err(e.into());
            }
            Err(e) => {
                let why = chain(&e);
                self.recorder.keep_within(&back_to.file.config);
                self.recorder.vitals().reloaded("refused");
                self.recorder.refuse(&author, &reason, &why);
                self.recorder.commit()?;
                let _ = reply.send(refused(&why));
                return Ok(());
            }
        }
        let stalled = began.elapsed();
        self.recorder.vitals().swapped(stalled);
        self.change = Some(Change { began, stalled, before, reply: Some(reply) });
        let until = began + Duration::from_secs(PROBATION_SEC);
        self.probation = Some(Probation { until, frames: 0, faults: 0, back_to });
        Ok(())
    }

    /// Lets a generation judge from here on, and its units read.
    fn install(
        &mut self,
        built: Arc<Built>,
        prepared: Vec<Prepared>,
        sinks: Option<Sinks>,
        author: &str,
        reason: &str,
    ) -> Result<(), PipelineError> {
        self.recorder.turn_to(&built.generation, author, reason)?;
        self.recorder.refresh_baselines()?;
        self.recorder.commit()?;
        self.recorder.keep_within(&built.file.config);
        if self.generations.active().file.config.schedule != built.file.config.schedule {
            self.recorder.attend(ScheduleOptions::of(&built.file.config, false))?;
        }
        self.generations.install(Arc::clone(&built));
        if let Some(sinks) = sinks {
            self.live.changed(&built, sinks);
        }
        let limits = FeedLimits::of(&built.file.config);
        let is_unit = |name: &str| built.generation.units.iter().any(|unit| unit.name == name);
        self.sources.iter_mut().filter(|s| !is_unit(s.name())).for_each(Source::leave);
        for (unit, prepared) in built.generation.units.iter().zip(prepared) {
            self.recorder.vitals().source_known(&unit.name);
            match self.sources.iter_mut().find(|s| s.name() == unit.name) {
                Some(source) => source.become_unit(unit.clone(), prepared, limits),
                None => self.sources.push(Source::new(unit.clone(), limits)),
            }
        }
        Ok(())
    }

    /// Tells whoever waits that the change is complete, when it is.
    fn settle(&mut self) {
        let active = self.generations.active();
        let is_unit = |source: &Source| active.generation.units.iter().any(|unit| unit.name == source.name());
        let vitals = self.recorder.vitals();
        self.sources.retain(|source| {
            let stays = !source.has_ended() || is_unit(source) || self.stop.is_some();
            if !stays {
                vitals.source_gone(source.name());
            }
            stays
        });
        if self.sources.iter().any(Source::is_changing) {
            return;
        }
        if let Some(Change { began, stalled, before, reply: Some(reply) }) = self.change.take() {
            let (took_ms, generation) = (began.elapsed().as_millis() as u64, active.generation.hash);
            let stalled_us = stalled.as_micros() as u64;
            vitals.reloaded("active");
            tracing::info!(generation = %generation, took_ms, stalled_us, "generation is active");
            let _ = reply.send(Ok(Swapped { generation, before, took_ms, stalled_us }));
        }
        self.probation.take_if(|probation| probation.until <= Instant::now());
    }

    /// A generation that cannot start its sources, or fails on what they bring, is taken back.
    fn look_at(&mut self, turn: Turn) -> Result<(), PipelineError> {
        let Some(probation) = &mut self.probation else { return Ok(()) };
        probation.frames += turn.frames;
        probation.faults += turn.faults;
        let fails = probation.faults >= PROBATION_FAULTS && 2 * probation.faults > probation.frames;
        let why = match turn.failed {
            Some(e) if turn.is_suspect && (self.change.is_some() || matches!(e, PipelineError::Plugin { .. })) => {
                chain(&e)
            }
            _ if fails => format!("its plugins failed on {} of {} frames", probation.faults, probation.frames),
            _ => return Ok(()),
        };
        self.take_back(&why)
    }

    fn take_back(&mut self, why: &str) -> Result<(), PipelineError> {
        let Some(probation) = self.probation.take() else { return Ok(()) };
        let back_to = Arc::clone(&probation.back_to);
        let failed = self.generations.active().generation.hash;
        tracing::error!(generation = %failed, why, "the new generation is taken back");
        self.recorder.vitals().reloaded("rolled_back");
        let book = self.recorder.book();
        let prepared: Result<Vec<Prepared>, PipelineError> =
            back_to.generation.units.iter().map(|unit: &Unit| Prepared::new(unit, &book)).collect();
        // They are the sinks of before; where they do not open any more the new ones stay.
        let sinks = Sinks::open(&back_to.file).ok();
        let reason = format!("taken back: {why}");
        let change = self.change.take();
        match prepared.and_then(|prepared| self.install(Arc::clone(&back_to), prepared, sinks, "hb", &reason)) {
            Err(PipelineError::State(e)) => {
                // It is taken back when that can be recorded.
                (self.probation, self.change) = (Some(probation), change);
                return Err(e.into());
            }
            Err(e) => tracing::error!(why = chain(&e), "the generation before does not start either"),
            Ok(()) => {
                self.generations.forget(failed);
                self.recorder.commit()?;
            }
        }
        if let Some(Change { reply: Some(reply), .. }) = change {
            let d = Diagnostic::error(Area::Config, format!("the generation was active and is taken back: {why}"));
            let _ = reply.send(Err(d.help("the generation before runs again; nothing was lost")));
        }
        Ok(())
    }

    /// Makes durable what was taken.
    fn end(&mut self) -> Result<(), PipelineError> {
        self.recorder.checkpoint()?;
        for source in &mut self.sources {
            source.tell(self.recorder);
        }
        report(self.recorder, self.live)
    }
}
