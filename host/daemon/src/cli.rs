//! The command line: verbs, flags, exit codes. Data goes to stdout, talk goes to stderr.

mod analyze;
mod baseline;
mod daemon;
mod evidence;
mod ingest;
mod inject;
mod log;
mod manage;
mod policy;
mod progress;
mod show;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::{Config, ConfigFile, Surroundings};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, exit};
use crate::keys::{KeyError, Signer};
use crate::pipeline::PipelineError;
use crate::pipeline::feed::FeedLimits;
use crate::state::{Options, State, StateError};

/// Turns telemetry into decisions it can prove.
#[derive(Parser)]
#[command(
    name = "hb",
    version,
    max_term_width = 110,
    after_help = "Start here:  hb init && hb check && hb daemon --once"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags every verb understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Config file.
    #[arg(long, global = true, value_name = "FILE", default_value = "hb.yaml", env = "HB_CONFIG")]
    config: PathBuf,
    /// State directory; overrides the config's.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    /// When to colour: auto, always, never. NO_COLOR is obeyed.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    color: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a commented config, a telemetry schema and a host key.
    #[command(after_help = "Example: hb init --dir plant")]
    Init(manage::InitArgs),
    /// Check config, plugins and policies with the daemon's own start code, without starting.
    #[command(after_help = "Example: hb check --config hb.yaml")]
    Check,
    /// Read the sources, judge, record, pack evidence; until stopped, or once.
    #[command(after_help = "Example: hb daemon --config hb.yaml --once")]
    Daemon(daemon::DaemonArgs),
    /// What the state holds: sources, counts, decisions, cases.
    #[command(after_help = "Example: hb status --json")]
    Status,
    /// Run telemetry through source and normalizer into an artifact directory.
    #[command(after_help = "Example: hb ingest --source file-replay telemetry.jsonl --out live")]
    Ingest(ingest::IngestArgs),
    /// Normalize a file of raw records into metrics.csv.
    #[command(
        after_help = "Example: hb normalize --schema telemetry_schema.yaml --input raw.jsonl --output metrics.csv"
    )]
    Normalize(ingest::NormalizeArgs),
    /// Make, list, show and promote baselines.
    #[command(
        subcommand,
        after_help = "Example: hb baseline create --from clean && hb baseline promote --version 1 --tag golden"
    )]
    Baseline(baseline::BaselineVerb),
    /// Compare an artifact directory with a baseline and write a report.
    #[command(after_help = "Example: HB_GATE_FAIL_EXIT=1 hb analyze live --baseline golden")]
    Analyze(analyze::AnalyzeArgs),
    /// Damage a metrics.csv on purpose.
    #[command(
        after_help = "Example: hb inject --fault latency_spike --input metrics.csv --output bad.csv --param delay_ms=500"
    )]
    Inject(inject::InjectArgs),
    /// Export what was decided.
    #[command(subcommand, after_help = "Example: hb export evidence-pack --case case-1f00ba4 --out packs")]
    Export(evidence::ExportVerb),
    /// Verify an evidence pack; needs no state.
    #[command(after_help = "Example: hb verify evidence_case-1f00ba4.zip --key hb.pub")]
    Verify(evidence::VerifyArgs),
    /// Re-execute the decision of an evidence pack and compare it byte for byte; needs no state.
    #[command(after_help = "Example: hb replay evidence_case-1f00ba4")]
    Replay(evidence::ReplayArgs),
    /// Stored runs.
    #[command(subcommand, after_help = "Example: hb runs list")]
    Runs(show::RunsVerb),
    /// The signed log.
    #[command(subcommand, after_help = "Example: hb log verify")]
    Log(log::LogVerb),
    /// The host's signing key.
    #[command(subcommand, after_help = "Example: hb keys init")]
    Keys(manage::KeysVerb),
    /// Telemetry that was refused, and frames plugins failed on.
    #[command(subcommand, after_help = "Example: hb quarantine list")]
    Quarantine(show::QuarantineVerb),
    /// Check and test policies.
    #[command(subcommand, after_help = "Example: hb policy test policies")]
    Policy(policy::PolicyVerb),
}

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let usage = e.use_stderr();
            // Help and version are data.
            let _ = e.print();
            return ExitCode::from(if usage { exit::USAGE } else { exit::OK });
        }
    };
    let colour = cli.global.coloured();
    start_talking(colour);
    let done = match cli.verb {
        Verb::Init(a) => manage::init(&cli.global, &a),
        Verb::Check => manage::check(&cli.global),
        Verb::Daemon(a) => daemon::daemon(&cli.global, &a),
        Verb::Status => show::status(&cli.global),
        Verb::Ingest(a) => ingest::ingest(&cli.global, &a),
        Verb::Normalize(a) => ingest::normalize(&cli.global, &a),
        Verb::Baseline(v) => baseline::run(&cli.global, &v),
        Verb::Analyze(a) => analyze::analyze(&cli.global, &a),
        Verb::Inject(a) => inject::inject(&a),
        Verb::Export(evidence::ExportVerb::EvidencePack(a)) => evidence::export(&cli.global, &a),
        Verb::Verify(a) => evidence::verify(&cli.global, &a),
        Verb::Replay(a) => evidence::replay(&cli.global, &a),
        Verb::Runs(show::RunsVerb::List) => show::runs(&cli.global),
        Verb::Log(v) => log::run(&cli.global, &v),
        Verb::Keys(manage::KeysVerb::Init) => manage::keys_init(&cli.global),
        Verb::Quarantine(show::QuarantineVerb::List) => show::quarantine(&cli.global),
        Verb::Policy(v) => policy::run(&cli.global, &v),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprint!("{}", failure.found.render(colour));
            ExitCode::from(failure.code)
        }
    }
}

/// Why a verb did not do what was asked, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    found: Diagnostics,
}

/// What a verb ends with: an exit code, or what was wrong.
pub(crate) type Done = Result<u8, Failure>;

impl Failure {
    fn new(code: u8, diagnostic: Diagnostic) -> Self {
        Failure { code, found: diagnostic.into() }
    }

    /// Input data that cannot be used.
    fn data(message: impl Into<String>) -> Self {
        Failure::new(exit::DATA, Diagnostic::error(Area::Data, message))
    }

    /// Arguments that do not fit.
    fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Failure::new(exit::USAGE, Diagnostic::error(Area::Usage, message).help(help))
    }

    /// A file that cannot be read or written.
    fn io(path: &Path, error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied { exit::NOPERM } else { exit::IO };
        Failure::new(code, Diagnostic::error(Area::Io, format!("{}: {error}", path.display())))
    }
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Self {
        Failure { code: exit::CONFIG, found }
    }
}

impl From<Diagnostic> for Failure {
    fn from(d: Diagnostic) -> Self {
        Failure::new(exit::CONFIG, d)
    }
}

impl From<StateError> for Failure {
    fn from(e: StateError) -> Self {
        let code = match &e {
            StateError::Locked { .. } | StateError::Version { .. } => exit::CONFIG,
            StateError::Corrupt { .. } | StateError::Refused { .. } => exit::BUG,
            _ => exit::IO,
        };
        Failure::new(code, Diagnostic::error(Area::State, chain(&e)))
    }
}

impl From<KeyError> for Failure {
    fn from(e: KeyError) -> Self {
        let code = match &e {
            KeyError::Exposed { .. } => exit::NOPERM,
            KeyError::World { .. } => exit::IO,
            _ => exit::CONFIG,
        };
        Failure::new(code, Diagnostic::error(Area::State, chain(&e)))
    }
}

impl From<PipelineError> for Failure {
    fn from(e: PipelineError) -> Self {
        match e {
            PipelineError::State(e) => e.into(),
            PipelineError::Transport(e) => {
                let help = e.help();
                Failure::new(exit::IO, Diagnostic::error(Area::Transport, chain(&e)).help(help))
            }
            PipelineError::Plugin { .. } => Failure::new(exit::CONFIG, Diagnostic::error(Area::Plugin, chain(&e))),
            PipelineError::Policy(_) | PipelineError::Corrupt { .. } => {
                Failure::new(exit::BUG, Diagnostic::error(Area::State, chain(&e)))
            }
        }
    }
}

impl Global {
    /// The config, with its warnings shown.
    fn load(&self) -> Result<ConfigFile, Failure> {
        let mut file = ConfigFile::load(&self.config, &Surroundings::of_process())?;
        eprint!("{}", file.warnings.render(self.coloured()));
        if let Some(state) = &self.state {
            file.config.state.clone_from(state);
        }
        Ok(file)
    }

    fn coloured(&self) -> bool {
        match self.color.as_str() {
            "always" => true,
            "never" => false,
            _ => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }

    /// Prints a verb's data: JSON when asked for, else text.
    fn print<T: Serialize>(&self, data: &T, text: impl FnOnce(&T) -> String) {
        let shown = if self.json {
            serde_json::to_string_pretty(data).unwrap_or_default() + "\n"
        } else {
            crate::diagnostic::neutralise_lines(&text(data))
        };
        // A closed pipe (`| head`) is not an error of ours.
        let _ = std::io::stdout().write_all(shown.as_bytes());
    }
}

/// The state and its key, for a verb that writes; the key is made when there is none.
fn open_state(config: &Config) -> Result<(State, Signer), Failure> {
    let state = State::open(&config.state, Options::default())?;
    let signer = match Signer::load(&config.state) {
        Err(KeyError::Missing(_)) => Signer::init(&config.state)?,
        other => other?,
    };
    Ok((state, signer))
}

/// The state for a verb that only reads: it must exist.
fn existing_state(config: &Config) -> Result<State, Failure> {
    if !config.state.join("hb.redb").exists() {
        let message = format!("there is no state in {}", config.state.display());
        let help = "run `hb daemon` or `hb baseline create` first, or name another with --state";
        return Err(Failure::new(exit::CONFIG, Diagnostic::error(Area::State, message).help(help)));
    }
    Ok(State::open(&config.state, Options::default())?)
}

/// How a feed is cut, from the config.
fn feed_limits(config: &Config) -> FeedLimits {
    FeedLimits {
        batch_frames: config.limits.batch_frames,
        batch_bytes: config.limits.batch_bytes,
        max_line_bytes: config.limits.max_line_bytes,
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

/// Structured lines on stderr; RUST_LOG chooses, warnings by default.
fn start_talking(colour: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}
