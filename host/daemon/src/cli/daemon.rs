//! `hb daemon`: reads, judges, records, packs evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, bounded, never};
use hb_engine::decision::Status;
use hb_log::cbor;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::evidence::write_pack;
use super::{Done, Failure, Global, feed_limits, open_state};
use crate::case::Case;
use crate::clock;
use crate::config::{Config, ConfigFile};
use crate::diagnostic::{exit, neutralise};
use crate::dispatch::Sinks;
use crate::generation::Generation;
use crate::pipeline::PipelineError;
use crate::pipeline::drive::{self, Control, Watch};
use crate::pipeline::record::{CommitLimits, Outcome, Recorder};
use crate::state::Commit;

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
    let (summary, mut recorder) = run(&file, &generation, LIVE, args.once, sinks)?;
    if file.config.evidence.on_fail {
        pack_due(&mut recorder, &file.config)?;
    }
    global.print(&summary.shown, Shown::text);
    Ok(exit::OK)
}

/// What a run brought.
pub(crate) struct Summary {
    /// For the face.
    pub(crate) shown: Shown,
    /// Cases opened.
    pub(crate) cases: Vec<Case>,
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
) -> Result<(Summary, Recorder), Failure> {
    let config = &file.config;
    let (state, signer) = open_state(config)?;
    let limits = CommitLimits {
        samples: config.limits.commit_samples as usize,
        age: Duration::from_millis(config.limits.commit_ms.into()),
        eager: !once,
    };
    let mut recorder = Recorder::open(state, signer, generation, lane, limits)?;
    // A run over old files packs at its end; one that has no end packs at once.
    let packs = (lane == LIVE && !once && config.evidence.on_fail).then_some(config);
    let shown = Shown { lane: lane.to_owned(), ..Shown::default() };
    let mut talk = Talk { shown, cases: Vec::new(), quiet: once, sinks, packs };
    talk.pack(&mut recorder);
    // An offline run that is interrupted has no report; the same one again goes on where it was.
    let control = if lane == LIVE { signals() } else { Ok(never()) };
    let control = control.map_err(|e| Failure::io("signal handling".as_ref(), &e))?;
    let drive = if once { drive::run_once } else { drive::run_forever };
    drive(&mut recorder, &generation.units, feed_limits(config), &control, &mut talk)?;
    Ok((Summary { shown: talk.shown, cases: talk.cases }, recorder))
}

/// What SIGTERM and SIGINT ask for: the pipeline makes durable what it took, and ends. A second one ends the process.
fn signals() -> std::io::Result<Receiver<Control>> {
    let (sender, control) = bounded(1);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("hb-signals".into()).spawn(move || {
        for (nth, signal) in signals.forever().enumerate() {
            if nth > 0 {
                // Whoever asks twice does not want to wait; the next start goes on from the last commit.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            // A pipeline that has ended already needs no order.
            let _ = sender.try_send(Control::Stop);
        }
    })?;
    Ok(control)
}

/// Packs the cases that are not packed yet: those of this run, and those a killed one left behind.
pub(crate) fn pack_due(recorder: &mut Recorder, config: &Config) -> Result<(), Failure> {
    let program = config.program.as_str();
    let reader = recorder.state().reader()?;
    let mut due = Vec::new();
    for (id, bytes) in reader.cases(program)? {
        if reader.meta(program, &packed_name(&id))?.is_none() {
            due.push(cbor::decode::<Case>(&bytes).map_err(|e| PipelineError::corrupt("case", e))?);
        }
    }
    drop(reader);
    due.sort_by_key(|case| case.entry);
    for case in &due {
        let path = recorder.with_state(|state, signer| write_pack(state, signer, case, &config.evidence.dir))?;
        eprintln!("evidence: {}", path.display());
        // Noted only now: killed in between, the next start makes the same pack again and finds it there.
        let meta = vec![(packed_name(&case.id), vec![PACKED_V])];
        let noted = Commit { program: program.to_owned(), meta, ..Commit::default() };
        recorder.with_state(|state, signer| state.commit(noted, signer))?;
    }
    Ok(())
}

/// Version of the note that a case was packed.
const PACKED_V: u8 = 1;

fn packed_name(case: &str) -> String {
    format!("packed/{case}")
}

/// Tells the operator what happened.
struct Talk<'c> {
    shown: Shown,
    cases: Vec<Case>,
    quiet: bool,
    sinks: Sinks,
    /// The config, when cases are packed at once.
    packs: Option<&'c Config>,
}

impl Talk<'_> {
    /// Packs what is due. A full disk for packs stops no judging: they are tried again with the next case or start.
    fn pack(&self, recorder: &mut Recorder) {
        if let Some(config) = self.packs
            && let Err(failure) = pack_due(recorder, config)
        {
            eprint!("{}", failure.found.render(false));
        }
    }
}

impl Watch for Talk<'_> {
    fn committed(&mut self, recorder: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError> {
        for d in &outcome.notable {
            *self.shown.notable.entry(d.status.to_string()).or_default() += 1;
            if !self.quiet && d.status != d.previous {
                let reason = d.findings.first().map_or("", |f| f.reason.as_str());
                eprintln!(
                    "{} {} {} {}: {}",
                    clock::rfc3339(d.end_ns),
                    d.status,
                    neutralise(&d.asset),
                    d.check,
                    neutralise(reason)
                );
            }
        }
        self.sinks.deliver(&outcome.notable);
        self.shown.cases.extend(outcome.cases.iter().map(|c| c.id.clone()));
        if !outcome.cases.is_empty() {
            self.pack(recorder);
        }
        self.cases.extend(outcome.cases);
        Ok(())
    }

    fn progress(&mut self, _: &str, frames: u64, samples: u64) {
        self.shown.frames += frames;
        self.shown.samples += samples;
    }
}

/// Worst first, for lists.
pub(crate) const STATUSES: [Status; 5] = [Status::Fail, Status::Error, Status::Drift, Status::NoData, Status::Pass];
