//! `hb daemon`: reads, judges, records, packs evidence.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Sender, bounded};
use hb_engine::decision::Status;
use hb_log::cbor;
use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;

use super::evidence::{shelve_pack, trim_packs};
use super::session::Inside;
use super::{Done, Failure, Global, STATE_FILE, open_state, progress, serve, signals, socket, tell};
use crate::case::{Case, packed_name};
use crate::config::{Config, ConfigFile, TransportConfig};
use crate::daemon::reload::Reloader;
use crate::daemon::{self, Built, Generations, Live, watch_files};
use crate::diagnostic::{Diagnostic, Diagnostics, chain, exit, neutralise};
use crate::dispatch::{Dispatcher, Left, Sinks};
use crate::generation::secrets::DigestKey;
use crate::generation::{Generation, Unit};
use crate::keys::Signer;
use crate::pipeline::PipelineError;
use crate::pipeline::feed::FeedLimits;
use crate::pipeline::once;
use crate::pipeline::record::{CommitLimits, LIVE, Outcome, Recorder, text_map};
use crate::pipeline::schedule::ScheduleOptions;
use crate::pipeline::source::Watch;
use crate::state::{Commit, HoldChange, State, StateError};
use crate::systemd::Systemd;
use crate::telemetry::{Phase, Vitals};

/// Orders that wait for the loop of the daemon: each asker has one, and askers are few.
const QUEUE_ORDERS: usize = 16;

/// Time between two counts of what waits for sinks: metrics are looked at a few times a minute.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Longest wait at the end of a run over old files until the sinks have taken what they will; the rest stays in the
/// outbox for the next run.
const DRAIN_ONCE: Duration = Duration::from_secs(30);

/// Longest wait for the sinks when the daemon is asked to stop, well below the patience of whoever asked.
const DRAIN_STOP: Duration = Duration::from_secs(2);

/// Arguments of `hb daemon`.
#[derive(Args)]
pub(crate) struct DaemonArgs {
    /// Stop when all sources have ended.
    #[arg(long)]
    once: bool,
}

impl DaemonArgs {
    /// Whether it runs until it is told to stop.
    pub(crate) fn goes_on(&self) -> bool {
        !self.once
    }
}

/// Runs the daemon.
pub(crate) fn daemon(global: &Global, args: &DaemonArgs) -> Done {
    let placed = global.placed();
    // What is read again later must be what was read first, wherever whoever asks for it stands.
    let global = if args.once { global } else { &placed };
    let file = global.load()?;
    let generation = Generation::build(&file)?;
    let sinks = Sinks::open(&file)?;
    let ended = if args.once {
        let bar = progress::frames("daemon");
        run_once(&file, &generation, LIVE, sinks, bar)
    } else {
        run(global, Built::new(file, generation, Arc::new(DigestKey::random())), sinks)
    };
    let (summary, mut recorder) = ended?;
    let config = &summary.config;
    let packed = if config.evidence.on_fail { pack_due(recorder.state(), recorder.signer(), config) } else { Ok(()) };
    log_stop(&mut recorder, &summary.why)?;
    global.print(&summary.shown, Shown::text);
    let mut failed = summary.ended.err().map(Failure::from);
    if let Err(failure) = packed {
        collect(&mut failed, &failure, Diagnostic::clone);
    }
    failed.map_or(Ok(exit::OK), Err)
}

/// What a run brought.
pub(crate) struct Summary {
    /// For the face.
    pub(crate) shown: Shown,
    /// Why it ended, in words.
    pub(crate) why: String,
    /// Whether all sources came to their end.
    pub(crate) ended: Result<(), PipelineError>,
    /// The config it ended with.
    config: Config,
}

/// A run in numbers.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Shown {
    pub(crate) lane: String,
    pub(crate) frames: u64,
    pub(crate) samples: u64,
    pub(crate) notable: BTreeMap<String, u64>,
    pub(crate) cases: Vec<String>,
}

impl Shown {
    fn text(&self) -> String {
        let mut text = format!("{}: {} frames, {} samples\n", self.lane, self.frames, self.samples);
        for (status, n) in &self.notable {
            text.push_str(&format!("  {n} x {status}\n"));
        }
        for case in &self.cases {
            text.push_str(&format!("  {case}\n"));
        }
        text
    }
}

/// Opens a lane and runs the generation's units in it until their sources have ended. An interrupted run has no report;
/// the same one again goes on where it was.
pub(crate) fn run_once(
    file: &ConfigFile,
    generation: &Generation,
    lane: &str,
    sinks: Sinks,
    bar: ProgressBar,
) -> Result<(Summary, Recorder), Failure> {
    let units = generation.units.iter().cloned().map(end_at_the_end).collect::<Result<Vec<_>, _>>()?;
    let (state, signer) = open_state(&file.config)?;
    let mut recorder = Recorder::open(state, signer, generation, lane, CommitLimits::of(&file.config, false))?;
    let is_asked = if lane == LIVE {
        recorder.attend(ScheduleOptions::of(&file.config, true))?;
        log_start(&mut recorder, generation)?;
        signals::flag().map_err(|e| Failure::io("signal handling".as_ref(), &e))?
    } else {
        signals::Flag::default()
    };
    let shown = Shown { lane: lane.to_owned(), ..Shown::default() };
    let dispatcher = (lane == LIVE).then(|| dispatch(&mut recorder, sinks)).transpose()?;
    // A run that ends by itself is nobody's service.
    let systemd = Systemd::default();
    let mut talk = Talk { shown, dispatcher, packer: None, bar, systemd, counted: None };
    let ended =
        once::run(&mut recorder, &units, FeedLimits::of(&file.config), &|| is_asked.name().is_some(), &mut talk);
    let why = is_asked.name().map_or_else(|| "all sources have ended".to_owned(), |name| format!("asked to by {name}"));
    talk.end(ended.map(|()| why), file.config.clone()).map(|summary| (summary, recorder))
}

/// Runs the daemon proper: until it is told to stop, or until all sources have ended.
fn run(global: &Global, built: Built, sinks: Sinks) -> Result<(Summary, Recorder), Failure> {
    let built = Arc::new(built);
    let (file, generation) = (&built.file, &built.generation);
    let systemd = Systemd::of_process();
    systemd.recovering(std::fs::metadata(file.config.state.join(STATE_FILE)).map_or(0, |m| m.len()));
    let (state, signer) = open_state(&file.config)?;
    let vitals = Arc::new(Vitals::new());
    let served = serve::serve(file, &vitals)?;
    vitals.enter(Phase::Recovering);
    let limits = CommitLimits::of(&file.config, true);
    let mut recorder = Recorder::open(state.clone(), Arc::clone(&signer), generation, LIVE, limits)?;
    recorder.watched_by(Arc::clone(&vitals));
    recorder.attend(ScheduleOptions::of(&file.config, false))?;
    log_start(&mut recorder, generation)?;

    let generations = Arc::new(Generations::new(Arc::clone(&built)));
    let (orders, ordered) = bounded(QUEUE_ORDERS);
    let again = global.clone();
    let load = move || again.read_config();
    let reloader = Arc::new(Reloader::new(load, recorder.book(), orders, Arc::clone(&generations)));
    let unable = |what: &'static str| move |e: std::io::Error| Failure::io(what.as_ref(), &e);
    signals::listen(Arc::clone(&reloader)).map_err(unable("signal handling"))?;
    let inside = Inside { state: state.clone(), signer: Arc::clone(&signer), reloader: Arc::clone(&reloader), vitals };
    let _served =
        socket::serve(&file.config.state, inside).map_err(unable("the socket ctl.sock in the state directory"))?;
    let (until, stopped) = bounded::<()>(0);
    let watcher = std::thread::Builder::new().name("hb-watch".into());
    watcher.spawn(move || watch_files(&reloader, &stopped)).map_err(unable("a thread"))?;

    let packer = Packer::start(state, signer, Arc::clone(&generations)).map_err(unable("a thread"))?;
    // Those that a killed run left behind.
    packer.wake();
    let shown = Shown { lane: LIVE.to_owned(), ..Shown::default() };
    let dispatcher = Some(dispatch(&mut recorder, sinks)?);
    systemd.status(&format!("reading {} sources", generation.units.len()));
    let (packer, bar) = (Some(packer), ProgressBar::hidden());
    let mut talk = Talk { shown, dispatcher, packer, bar, systemd, counted: None };
    let ended = daemon::run(&mut recorder, &generations, &ordered, &mut talk);
    drop((until, served));
    let config = generations.active().file.config.clone();
    talk.end(ended, config).map(|summary| (summary, recorder))
}

/// Puts the sinks to work behind each commit.
fn dispatch(recorder: &mut Recorder, sinks: Sinks) -> Result<Dispatcher, Failure> {
    let (state, signer) = (recorder.state().clone(), Arc::clone(recorder.signer()));
    let dispatcher = Dispatcher::start(state, signer, recorder.program(), sinks, Arc::clone(recorder.vitals()));
    let dispatcher = dispatcher.map_err(|e| Failure::io("a thread for a sink".as_ref(), &e))?;
    let bell = dispatcher.bell();
    recorder.ring(move || bell.ring());
    Ok(dispatcher)
}

/// What is said of documents that are left at the end.
fn waiting(left: &Left) -> String {
    let why = left.trouble.as_ref().map_or(String::new(), |why| format!(": {}", neutralise(why)));
    format!("{} documents wait for sink {}, the next run delivers them{why}\n", left.documents, left.sink)
}

/// Lets a unit end where its file ends now, even one that would wait for more.
fn end_at_the_end(mut unit: Unit) -> Result<Unit, Failure> {
    match &mut unit.transport {
        TransportConfig::File(file) => file.follow = false,
        TransportConfig::Socket(_) | TransportConfig::Exec(_) | TransportConfig::Mqtt(_) => {
            let message = format!("source `{}` never ends: --once is for files", unit.name);
            return Err(Failure::usage(message, "run `hb daemon` without --once, and stop it by SIGTERM"));
        }
    }
    Ok(unit)
}

/// Records that this release works on the lane from now on.
fn log_start(recorder: &mut Recorder, generation: &Generation) -> Result<(), PipelineError> {
    let (lane, generation) = (recorder.lane().to_owned(), generation.hash.to_string());
    let host_id = recorder.state().host_id().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let fields = [("version", version), ("lane", &lane), ("host_id", &host_id), ("generation", &generation)];
    recorder.log("start", text_map(&fields));
    recorder.commit()
}

/// Records that nobody works on the lane any more, and why.
fn log_stop(recorder: &mut Recorder, why: &str) -> Result<(), PipelineError> {
    let lane = recorder.lane().to_owned();
    recorder.log("stop", text_map(&[("lane", &lane), ("why", why)]));
    recorder.commit()
}

/// Packs the cases that are not packed yet: those of this run, and those a killed one left behind. One that cannot be
/// packed keeps no other from it; what was wrong with each comes at the end.
pub(crate) fn pack_due(state: &State, signer: &Signer, config: &Config) -> Result<(), Failure> {
    let program = config.program.as_str();
    let reader = state.reader()?;
    let (mut due, mut failed) = (Vec::new(), None);
    for (id, bytes) in reader.cases(program)? {
        if reader.meta(program, &packed_name(&id))?.is_some() {
            continue;
        }
        match cbor::decode::<Case>(&bytes) {
            Ok(case) => due.push(case),
            Err(e) => collect(&mut failed, &PipelineError::corrupt("case", e).into(), |d| of_case(d, &id)),
        }
    }
    drop(reader);
    due.sort_by_key(|case| case.entry);
    for case in &due {
        match pack_one(state, signer, case, config) {
            Ok(path) => tell(&format!("evidence: {}\n", path.display())),
            Err(failure) => collect(&mut failed, &failure, |d| of_case(d, &case.id)),
        }
    }
    trim_packs(state, signer, config, 0)?;
    failed.map_or(Ok(()), Err)
}

/// Packs one case and notes it.
fn pack_one(state: &State, signer: &Signer, case: &Case, config: &Config) -> Result<PathBuf, Failure> {
    let path = shelve_pack(state, signer, case, config)?;
    // Noted only now: killed in between, the next start makes the same pack again and finds it there.
    let meta = vec![(packed_name(&case.id), vec![PACKED_V])];
    let hold_changes = vec![HoldChange { case: case.id.clone(), unpacked: Some(false), ..HoldChange::default() }];
    state.commit(Commit { program: case.program.clone(), meta, hold_changes, ..Commit::default() }, signer)?;
    Ok(path)
}

/// Adds what was wrong to what was wrong before; the exit code stays that of the first.
fn collect(failed: &mut Option<Failure>, more: &Failure, told: impl Fn(&Diagnostic) -> Diagnostic) {
    let all = failed.get_or_insert_with(|| Failure { code: more.code, ..Diagnostics::new().into() });
    more.found.iter().for_each(|d| all.found.push(told(d)));
}

fn of_case(d: &Diagnostic, case: &str) -> Diagnostic {
    d.clone().note("case", case)
}

/// Version of the note that a case was packed.
const PACKED_V: u8 = 1;

/// Packs cases on a thread of its own: a pack takes longer than the pipeline may stand still. A full disk for packs
/// stops no judging: they are tried again with the next case or start.
struct Packer {
    wake: Sender<()>,
    thread: JoinHandle<()>,
}

impl Packer {
    fn start(state: State, signer: Arc<Signer>, generations: Arc<Generations>) -> std::io::Result<Packer> {
        // One that waits already stands for all cases.
        let (wake, woken) = bounded(1);
        let work = move || {
            for () in woken {
                let active = generations.active();
                if active.file.config.evidence.on_fail
                    && let Err(failure) = pack_due(&state, &signer, &active.file.config)
                {
                    tell(&failure.found.render(false));
                }
            }
        };
        let thread = std::thread::Builder::new().name("hb-pack".into()).spawn(work)?;
        Ok(Packer { wake, thread })
    }

    fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// Waits for the packs that were begun.
    fn end(self) {
        drop(self.wake);
        // A panic has said so on stderr.
        let _ = self.thread.join();
    }
}

/// Tells the operator what happened.
struct Talk {
    shown: Shown,
    /// Of the live lane alone.
    dispatcher: Option<Dispatcher>,
    /// Where cases are packed at once: a run over old files packs at its end.
    packer: Option<Packer>,
    bar: ProgressBar,
    systemd: Systemd,
    /// When the documents that wait for sinks were counted last.
    counted: Option<Instant>,
}

impl Talk {
    fn end(self, ended: Result<String, PipelineError>, config: Config) -> Result<Summary, Failure> {
        self.systemd.stopping();
        self.bar.finish_and_clear();
        let is_once = self.packer.is_none();
        if let Some(packer) = self.packer {
            packer.end();
        }
        let (why, ended) = match ended {
            Ok(why) => (why, Ok(())),
            // Nothing more can be recorded, nor packed.
            Err(e @ (PipelineError::State(_) | PipelineError::NotStored { .. })) => return Err(e.into()),
            Err(e) => (chain(&e), Err(e)),
        };
        if let Some(dispatcher) = self.dispatcher {
            let left = dispatcher.drain(if is_once { DRAIN_ONCE } else { DRAIN_STOP })?;
            for left in &left {
                tell(&waiting(left));
            }
        }
        Ok(Summary { shown: self.shown, why, ended, config })
    }
}

impl Live for Talk {
    fn changed(&mut self, built: &Arc<Built>, sinks: Sinks) {
        if let Some(Err(error)) = self.dispatcher.as_mut().map(|dispatcher| dispatcher.replace(sinks)) {
            tracing::error!(%error, "a sink has no thread; its documents wait for the next start");
        }
        self.systemd.status(&format!("reading {} sources", built.generation.units.len()));
    }

    fn stalled(&mut self, by: Option<&StateError>) {
        match by {
            Some(e) => self.systemd.status(&format!("waiting: {}", chain(e))),
            None => self.systemd.status("reading again"),
        }
    }
}

impl Watch for Talk {
    fn committed(&mut self, _: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError> {
        for d in &outcome.notable {
            *self.shown.notable.entry(d.status.to_string()).or_default() += 1;
        }
        self.shown.cases.extend(outcome.cases.iter().map(|c| c.id.clone()));
        if let Some(packer) = self.packer.as_ref().filter(|_| !outcome.cases.is_empty()) {
            packer.wake();
        }
        Ok(())
    }

    fn progress(&mut self, _: &str, frames: u64, samples: u64) {
        self.shown.frames += frames;
        self.shown.samples += samples;
        if !self.bar.is_hidden() {
            self.bar.inc(frames);
            self.bar.set_message(format!(", {} samples", HumanCount(self.shown.samples)));
        }
    }

    fn turn(&mut self, recorder: &Recorder) {
        let now = Instant::now();
        self.systemd.turn(now);
        if self.counted.is_none_or(|at| now.saturating_duration_since(at) >= COUNT_EVERY) {
            self.counted = Some(now);
            // A store that cannot be read says so elsewhere.
            let sums = recorder.state().reader().and_then(|reader| reader.outbox_sums(recorder.program()));
            for (sink, sum) in sums.unwrap_or_default() {
                recorder.vitals().outbox(&sink, sum.rows, sum.dropped);
            }
        }
    }
}

/// Worst first, for lists.
pub(crate) const STATUSES: [Status; 5] = [Status::Fail, Status::Error, Status::Drift, Status::NoData, Status::Pass];
