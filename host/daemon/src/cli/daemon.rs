//! `hb daemon`: reads, judges, records, packs evidence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, bounded, never};
use hb_engine::decision::Status;
use hb_log::cbor;
use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::evidence::write_pack;
use super::{Done, Failure, Global, feed_limits, open_state, progress, tell};
use crate::case::Case;
use crate::clock;
use crate::config::{Config, ConfigFile, TransportConfig};
use crate::diagnostic::{Diagnostic, Diagnostics, chain, exit, neutralise};
use crate::dispatch::Sinks;
use crate::generation::{Generation, Unit};
use crate::keys::Signer;
use crate::pipeline::PipelineError;
use crate::pipeline::drive::{self, Control, Watch};
use crate::pipeline::record::{CommitLimits, Outcome, Recorder, text_map};
use crate::state::{Commit, State};

/// The lane of the daemon.
pub(crate) const LIVE: &str = "live";

/// Arguments of `hb daemon`.
#[derive(Args)]
pub(crate) struct DaemonArgs {
    /// Stop when all sources have ended.
    #[arg(long)]
    once: bool,
}

/// Runs the daemon.
pub(crate) fn daemon(global: &Global, args: &DaemonArgs) -> Done {
    let file = global.load()?;
    let generation = Generation::build(&file)?;
    let sinks = Sinks::open(&file)?;
    let bar = if args.once { progress::frames("daemon") } else { ProgressBar::hidden() };
    let (summary, mut recorder) = run(&file, &generation, LIVE, args.once, sinks, bar)?;
    let packed = if file.config.evidence.on_fail { pack_due(&mut recorder, &file.config) } else { Ok(()) };
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

/// Opens a lane and runs the generation's units in it.
pub(crate) fn run(
    file: &ConfigFile,
    generation: &Generation,
    lane: &str,
    once: bool,
    sinks: Sinks,
    bar: ProgressBar,
) -> Result<(Summary, Recorder), Failure> {
    let config = &file.config;
    let units = generation.units.iter().cloned();
    let units = units.map(|unit| if once { end_at_the_end(unit) } else { Ok(unit) }).collect::<Result<Vec<_>, _>>()?;
    let (state, signer) = open_state(config)?;
    let limits = CommitLimits {
        samples: config.limits.commit_samples as usize,
        age: Duration::from_millis(config.limits.commit_ms.into()),
        eager: !once,
    };
    let mut recorder = Recorder::open(state, signer, generation, lane, limits)?;
    if lane == LIVE {
        log_start(&mut recorder, generation)?;
    }
    // A run over old files packs at its end; one that has no end packs at once.
    let packs = (lane == LIVE && !once && config.evidence.on_fail).then_some(config);
    let shown = Shown { lane: lane.to_owned(), ..Shown::default() };
    let mut talk = Talk { shown, quiet: once, sinks, packs, bar };
    talk.pack(&mut recorder);
    // An offline run that is interrupted has no report; the same one again goes on where it was.
    let asked = if lane == LIVE { Asked::listen() } else { Ok(Asked::never()) };
    let asked = asked.map_err(|e| Failure::io("signal handling".as_ref(), &e))?;
    let drive = if once { drive::run_once } else { drive::run_forever };
    let ended = drive(&mut recorder, &units, feed_limits(config), &asked.control, &mut talk);
    talk.bar.finish_and_clear();
    let (why, ended) = match ended {
        Ok(()) => (asked.why().to_owned(), Ok(())),
        // Nothing more can be recorded, nor packed.
        Err(PipelineError::State(e)) => return Err(e.into()),
        Err(e) => (chain(&e), Err(e)),
    };
    Ok((Summary { shown: talk.shown, why, ended }, recorder))
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

/// What SIGTERM and SIGINT ask for: the pipeline makes durable what it took, and ends. A second one ends the process.
struct Asked {
    control: Receiver<Control>,
    /// The signal that came; 0 when none did.
    signal: Arc<AtomicI32>,
}

impl Asked {
    fn listen() -> std::io::Result<Asked> {
        let (sender, control) = bounded(1);
        let signal = Arc::new(AtomicI32::new(0));
        let came = Arc::clone(&signal);
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        std::thread::Builder::new().name("hb-signals".into()).spawn(move || {
            for (nth, signal) in signals.forever().enumerate() {
                if nth > 0 {
                    // Whoever asks twice does not want to wait; the next start goes on from the last commit.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                came.store(signal, Ordering::Relaxed);
                // A pipeline that has ended already needs no order.
                let _ = sender.try_send(Control::Stop);
            }
        })?;
        Ok(Asked { control, signal })
    }

    fn never() -> Asked {
        Asked { control: never(), signal: Arc::default() }
    }

    /// Why a run that went well has ended.
    fn why(&self) -> &'static str {
        match self.signal.load(Ordering::Relaxed) {
            SIGTERM => "asked to by SIGTERM",
            SIGINT => "asked to by SIGINT",
            _ => "all sources have ended",
        }
    }
}

/// Packs the cases that are not packed yet: those of this run, and those a killed one left behind. One that cannot be
/// packed keeps no other from it; what was wrong with each comes at the end.
pub(crate) fn pack_due(recorder: &mut Recorder, config: &Config) -> Result<(), Failure> {
    let program = config.program.as_str();
    let reader = recorder.state().reader()?;
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
        match pack_one(recorder.state(), recorder.signer(), case, &config.evidence.dir) {
            Ok(path) => tell(&format!("evidence: {}\n", path.display())),
            Err(failure) => collect(&mut failed, &failure, |d| of_case(d, &case.id)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Packs one case and notes it.
fn pack_one(state: &State, signer: &Signer, case: &Case, dir: &Path) -> Result<PathBuf, Failure> {
    let path = write_pack(state, signer, case, dir)?;
    // Noted only now: killed in between, the next start makes the same pack again and finds it there.
    let meta = vec![(packed_name(&case.id), vec![PACKED_V])];
    state.commit(Commit { program: case.program.clone(), meta, ..Commit::default() }, signer)?;
    Ok(path)
}

/// Adds what was wrong to what was wrong before; the exit code stays that of the first.
fn collect(failed: &mut Option<Failure>, more: &Failure, told: impl Fn(&Diagnostic) -> Diagnostic) {
    let all = failed.get_or_insert_with(|| Failure { code: more.code, found: Diagnostics::new() });
    more.found.iter().for_each(|d| all.found.push(told(d)));
}

fn of_case(d: &Diagnostic, case: &str) -> Diagnostic {
    d.clone().note("case", case)
}

/// Version of the note that a case was packed.
const PACKED_V: u8 = 1;

fn packed_name(case: &str) -> String {
    format!("packed/{case}")
}

/// Tells the operator what happened.
struct Talk<'c> {
    shown: Shown,
    quiet: bool,
    sinks: Sinks,
    /// The config, when cases are packed at once.
    packs: Option<&'c Config>,
    bar: ProgressBar,
}

impl Talk<'_> {
    /// Packs what is due. A full disk for packs stops no judging: they are tried again with the next case or start.
    fn pack(&self, recorder: &mut Recorder) {
        if let Some(config) = self.packs
            && let Err(failure) = pack_due(recorder, config)
        {
            tell(&failure.found.render(false));
        }
    }
}

impl Watch for Talk<'_> {
    fn committed(&mut self, recorder: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError> {
        for d in &outcome.notable {
            *self.shown.notable.entry(d.status.to_string()).or_default() += 1;
            if !self.quiet && d.status != d.previous {
                let reason = d.findings.first().map_or("", |f| f.reason.as_str());
                let (end, asset) = (clock::rfc3339(d.end_ns), neutralise(&d.asset));
                tell(&format!("{end} {} {asset} {}: {}\n", d.status, d.check, neutralise(reason)));
            }
        }
        self.sinks.deliver(&outcome.notable);
        self.shown.cases.extend(outcome.cases.iter().map(|c| c.id.clone()));
        if !outcome.cases.is_empty() {
            self.pack(recorder);
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
}

/// Worst first, for lists.
pub(crate) const STATUSES: [Status; 5] = [Status::Fail, Status::Error, Status::Drift, Status::NoData, Status::Pass];
