//! `hb daemon`: reads, judges, records, packs evidence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use hb_engine::decision::Status;
use serde::Serialize;

use super::evidence::write_pack;
use super::{Done, Failure, Global, feed_limits, open_state};
use crate::case::Case;
use crate::clock;
use crate::config::{Config, ConfigFile};
use crate::diagnostic::{exit, neutralise};
use crate::generation::Generation;
use crate::pipeline::PipelineError;
use crate::pipeline::drive::{self, Watch};
use crate::pipeline::record::{CommitLimits, Outcome, Recorder};

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
    let (summary, mut recorder) = run(&file, &generation, LIVE, args.once)?;
    if file.config.evidence.on_fail {
        pack_cases(&mut recorder, &file.config, &summary.cases)?;
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
) -> Result<(Summary, Recorder), Failure> {
    let config = &file.config;
    let (state, signer) = open_state(config)?;
    let limits = CommitLimits {
        samples: config.limits.commit_samples as usize,
        age: Duration::from_millis(config.limits.commit_ms.into()),
        eager: !once,
    };
    let mut recorder = Recorder::open(state, signer, generation, lane, limits)?;
    let mut talk = Talk { shown: Shown { lane: lane.to_owned(), ..Shown::default() }, cases: Vec::new(), quiet: once };
    // Nothing sets it yet: a signal ends the process, and the next start goes on from the last commit.
    let stop = Arc::new(AtomicBool::new(false));
    let drive = if once { drive::run_once } else { drive::run_forever };
    drive(&mut recorder, &generation.program, lane, &generation.units, feed_limits(config), &stop, &mut talk)?;
    Ok((Summary { shown: talk.shown, cases: talk.cases }, recorder))
}

/// Writes the packs of cases.
pub(crate) fn pack_cases(recorder: &mut Recorder, config: &Config, cases: &[Case]) -> Result<(), Failure> {
    for case in cases {
        let path = recorder.with_state(|state, signer| write_pack(state, signer, case, &config.evidence.dir))?;
        eprintln!("evidence: {}", path.display());
    }
    Ok(())
}

/// Tells the operator what happened.
struct Talk {
    shown: Shown,
    cases: Vec<Case>,
    quiet: bool,
}

impl Watch for Talk {
    fn committed(&mut self, _: &mut Recorder, outcome: Outcome) -> Result<(), PipelineError> {
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
        self.shown.cases.extend(outcome.cases.iter().map(|c| c.id.clone()));
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
