//! The command line: verbs, flags, exit codes. Data goes to stdout, talk goes to stderr.

mod alert;
mod analyze;
mod baseline;
mod cases;
mod compile;
mod daemon;
mod demo;
mod evidence;
mod explain;
mod generation;
mod ingest;
mod inject;
mod log;
mod manage;
mod pages;
mod policy;
mod progress;
mod report;
mod screen;
mod serve;
mod session;
mod show;
mod signals;
mod simulate;
mod socket;
mod top;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::{PanicHookInfo, UnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use hb_log::sign::PublicKey;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use crate::artifact::ReadError;
use crate::config::{Config, ConfigFile, Name, Surroundings, template};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, Place, chain, exit, neutralise, neutralise_lines};
use crate::keys::{KeyError, Signer};
use crate::pipeline::PipelineError;
use crate::pipeline::record::state_options;
use crate::state::{State, StateError};
use crate::telemetry::log::{self as lines, LogOptions};

use session::Stream;

/// Turns telemetry into decisions it can prove.
#[derive(Parser)]
#[command(
    name = "hb",
    version,
    max_term_width = 110,
    disable_help_subcommand = true,
    // All of it is read at one look: 40 lines of 80 columns.
    help_template = "{about-with-newline}{usage-heading} {usage}\n\n{all-args}{after-help}",
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
    /// Config file, if not hb.yaml.
    #[arg(long, global = true, value_name = "FILE", env = "HB_CONFIG")]
    config: Option<PathBuf>,
    /// State directory; overrides the config's.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    /// Colour: auto (default), always, never; NO_COLOR is obeyed.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        value_parser = ["auto", "always", "never"],
        hide_possible_values = true,
        hide_default_value = true
    )]
    color: String,
    /// Lines on stderr: text or json.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "HB_LOG_FORMAT",
        default_value = "text",
        value_parser = ["text", "json"],
        hide_possible_values = true,
        hide_env_values = true,
        hide = true
    )]
    log_format: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a commented config, a telemetry schema and a host key.
    #[command(after_help = "Example: hb init --dir plant")]
    Init(manage::InitArgs),
    /// Check config, plugins, policies with the daemon's own start code.
    ///
    /// Every mistake is told with its place and the way out, and nothing is started.
    #[command(after_help = "Example: hb check --config hb.yaml")]
    Check,
    /// Read sources, judge, record, pack evidence; until stopped, or once.
    #[command(after_help = "Example: hb daemon --config hb.yaml --once")]
    Daemon(daemon::DaemonArgs),
    /// Let the running daemon read config, plugins and policies again.
    ///
    /// The answer comes when all of it is active. When something is wrong nothing changes, and the answer says what.
    #[command(after_help = "Example: hb reload --reason 'tighter limit for press-4'")]
    Reload(generation::WhyArgs),
    /// Generations: what runs, what ran, and how to go back.
    #[command(subcommand, after_help = "Example: hb generation list")]
    Generation(generation::GenerationVerb),
    /// What the state holds: sources, counts, decisions, cases.
    #[command(after_help = "Example: hb status --json")]
    Status,
    /// Watch the running daemon: sources, lag, windows, findings, alerts.
    #[command(after_help = "Example: hb top
         hb top --once --json")]
    Top(top::TopArgs),
    /// Normalize a file, a broker or a socket into an artifact directory.
    #[command(after_help = "Example: hb ingest telemetry.jsonl --out live
         hb ingest --source mqtt --broker tcp://127.0.0.1:1883 --topic 'plant/#' --for 30s --out live
         hb ingest --source syslog --listen udp://127.0.0.1:5514 --max-frames 1000 --out live")]
    Ingest(Box<ingest::IngestArgs>),
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
    /// Play a plant that falls ill: find it, survive a kill, prove it.
    #[command(after_help = "Example: hb demo --seed 7 --keep demo")]
    Demo(demo::DemoArgs),
    /// Make telemetry of a simulated plant, with faults when asked to.
    #[command(after_help = "Example: hb simulate --for 6h --fault drift:press-03:2h --output plant.jsonl
         hb simulate --broker tcp://127.0.0.1:1883 --speed 60
         hb simulate --syslog udp://127.0.0.1:5514 --machines 3 --step 1s")]
    Simulate(simulate::SimulateArgs),
    /// Alerts and how they are delivered.
    #[command(subcommand, after_help = "Example: hb alert list")]
    Alert(alert::AlertVerb),
    /// Export what was decided.
    #[command(subcommand, after_help = "Example: hb export evidence-pack --case case-1f00ba4 --out packs")]
    Export(evidence::ExportVerb),
    /// Verify an evidence pack; needs no state.
    #[command(after_help = "Example: hb verify evidence_case-1f00ba4.zip --key hb.pub")]
    Verify(evidence::VerifyArgs),
    /// Re-execute a pack's decision, byte for byte; needs no state.
    #[command(after_help = "Example: hb replay evidence_case-1f00ba4")]
    Replay(evidence::ReplayArgs),
    /// Which cases are kept whatever their age.
    #[command(subcommand, after_help = "Example: hb cases pin case-1f00ba4")]
    Cases(cases::CasesVerb),
    /// What was decided, by which rule, from what, and where in the log.
    ///
    /// The series is shown over time where what the decision was made from is still stored.
    #[command(after_help = "Example: hb explain 1f00ba4
         hb explain --pack evidence_case-1f00ba4.zip")]
    Explain(explain::ExplainArgs),
    /// Drift reports: which there are, and where.
    #[command(subcommand, after_help = "Example: hb report open")]
    Report(report::ReportVerb),
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
    /// Print what makes a shell complete verbs and flags.
    #[command(hide = true, after_help = "Example: hb completions bash >~/.local/share/bash-completion/completions/hb")]
    Completions(pages::CompletionsArgs),
    /// Write a man page for each verb.
    #[command(hide = true, after_help = "Example: hb man --out ~/.local/share/man/man1")]
    Man(pages::ManArgs),
    /// Compile a plugin from stdin to stdout: hb starts itself so, and nobody else needs to.
    #[command(hide = true, after_help = "Example: hb compile sink <plugin.wasm >plugin.cwasm")]
    Compile(compile::CompileArgs),
}

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    ExitCode::from(guarded(run))
}

/// Does the work and gives its exit code. A panic is a bug of ours: it is told in words, and has a code of its own.
fn guarded(work: impl FnOnce() -> u8 + UnwindSafe) -> u8 {
    set_hook(Box::new(|info| tell(&bug_report(info))));
    catch_unwind(work).unwrap_or(exit::BUG)
}

/// What a panic of any thread says: that it is a bug, what and where, and what to do with it.
fn bug_report(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("a panic without words").replace('\n', "; ");
    let what = neutralise(&what);
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "error[bug]: this is a bug in hb: {what}\n  --> {place} (thread {thread})\n   help: report these lines \
         together with `hb {version}` and what was asked of it; what was committed before is safe\n"
    );
    // Only with RUST_BACKTRACE=1: to the operator it says nothing.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("{trace}\n"));
    }
    text
}

fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let usage = e.use_stderr();
            // Help and version are data.
            let _ = e.print();
            return if usage { exit::USAGE } else { exit::OK };
        }
    };
    let colour = cli.global.coloured();
    start_talking(&cli);
    let is_ours = matches!(&cli.verb, Verb::Daemon(_) | Verb::Keys(_));
    let deadline = Instant::now() + Duration::from_secs(LOCK_SEC);
    loop {
        let failure = match perform(&cli) {
            Ok(code) => return code,
            Err(failure) => failure,
        };
        let Some(state) = failure.locked.as_deref() else { return fail(&failure, colour) };
        loop {
            let answer = if is_ours {
                // Another daemon holds it, and goes on: starting again would change nothing.
                socket::is_served(state).then(|| told(&failure, exit::CONFIG, colour))
            } else {
                // The daemon that holds the state can do it.
                let opens = matches!(&cli.verb, Verb::Report(report::ReportVerb::Open(_)));
                socket::ask(state, &cli.global, opens)
            };
            match answer {
                Some(code) => return code,
                None if Instant::now() >= deadline => return fail(&failure, colour),
                // Another verb holds it, and will be done soon; or a daemon that has just begun.
                None => std::thread::sleep(Duration::from_millis(LOCK_STEP_MS)),
            }
            if State::is_free(state) {
                break;
            }
        }
    }
}

/// Does what somebody asked this daemon for.
fn obey(args: &[String], config: Option<PathBuf>, state: Option<PathBuf>, colour: bool) -> u8 {
    let words = std::iter::once("hb").chain(args.iter().map(String::as_str));
    let mut cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(e) => {
            tell(&e.to_string());
            return exit::USAGE;
        }
    };
    (cli.global.config, cli.global.state) = (config, state);
    perform(&cli).unwrap_or_else(|failure| fail(&failure, colour))
}

fn fail(failure: &Failure, colour: bool) -> u8 {
    told(failure, failure.code, colour)
}

fn told(failure: &Failure, code: u8, colour: bool) -> u8 {
    tell(&failure.found.render(colour));
    code
}

fn perform(cli: &Cli) -> Done {
    let global = &cli.global;
    match &cli.verb {
        Verb::Init(a) => manage::init(global, a),
        Verb::Check => manage::check(global),
        Verb::Daemon(a) => daemon::daemon(global, a),
        Verb::Reload(a) => generation::reload(global, a),
        Verb::Generation(v) => generation::run(global, v),
        Verb::Status => show::status(global),
        Verb::Top(a) => top::top(global, a),
        Verb::Ingest(a) => ingest::ingest(global, a),
        Verb::Normalize(a) => ingest::normalize(global, a),
        Verb::Baseline(v) => baseline::run(global, v),
        Verb::Analyze(a) => analyze::analyze(global, a),
        Verb::Inject(a) => inject::inject(global, a),
        Verb::Demo(a) => demo::demo(global, a),
        Verb::Simulate(a) => simulate::simulate(global, a),
        Verb::Alert(v) => alert::run(global, v),
        Verb::Export(evidence::ExportVerb::EvidencePack(a)) => evidence::export(global, a),
        Verb::Verify(a) => evidence::verify(global, a),
        Verb::Replay(a) => evidence::replay(global, a),
        Verb::Cases(v) => cases::run(global, v),
        Verb::Explain(a) => explain::explain(global, a),
        Verb::Report(v) => report::run(global, v),
        Verb::Runs(show::RunsVerb::List) => show::runs(global),
        Verb::Log(v) => log::run(global, v),
        Verb::Keys(manage::KeysVerb::Init) => manage::keys_init(global),
        Verb::Quarantine(show::QuarantineVerb::List) => show::quarantine(global),
        Verb::Policy(v) => policy::run(global, v),
        Verb::Completions(a) => pages::completions(a),
        Verb::Man(a) => pages::man(a),
        Verb::Compile(a) => compile::compile(a),
    }
}

/// Talk for a person. A stderr that is closed or full is no reason to stop, or to end in another way.
fn tell(text: &str) {
    session::say(Stream::Err, text);
}

/// Why a verb did not do what was asked, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    found: Diagnostics,
    /// The state that another process holds.
    locked: Option<PathBuf>,
}

/// What a verb ends with: an exit code, or what was wrong.
pub(crate) type Done = Result<u8, Failure>;

impl Failure {
    fn new(code: u8, diagnostic: Diagnostic) -> Self {
        Failure { code, found: diagnostic.into(), locked: None }
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

    /// An artifact that cannot be read: where it stands, and the way out.
    fn artifact(error: &ReadError) -> Self {
        let d = match error {
            ReadError::Line { path, line, what } => {
                let place = Place::line(path, u32::try_from(*line).unwrap_or(0));
                Diagnostic::error(Area::Data, what).at(place)
            }
            ReadError::Io { path, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                return Failure::io(path, source);
            }
            ReadError::Io { .. } => Diagnostic::error(Area::Data, chain(error)),
        };
        Failure::new(exit::DATA, d.help("name a directory that `hb ingest` wrote, or write it again"))
    }
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Self {
        Failure { code: exit::CONFIG, found, locked: None }
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
            StateError::Version { .. } => exit::CONFIG,
            StateError::Corrupt { .. } | StateError::Refused { .. } => exit::BUG,
            StateError::Forgotten { .. } => exit::DATA,
            _ => exit::IO,
        };
        let locked = if let StateError::Locked { dir, .. } = &e { Some(dir.clone()) } else { None };
        Failure { locked, ..Failure::new(code, Diagnostic::error(Area::State, chain(&e))) }
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
            PipelineError::NotStored { .. } => Failure::new(exit::IO, Diagnostic::error(Area::State, chain(&e))),
            PipelineError::Transport(e) => {
                let help = e.help();
                Failure::new(exit::IO, Diagnostic::error(Area::Transport, chain(&e)).help(help))
            }
            PipelineError::Plugin { .. } => Failure::new(exit::CONFIG, Diagnostic::error(Area::Plugin, chain(&e))),
            PipelineError::Gone(_) => {
                let d = Diagnostic::error(Area::State, e.to_string());
                Failure::new(exit::DATA, d.help("only cases keep what they were made from; `hb cases list` shows them"))
            }
            PipelineError::Policy(_) | PipelineError::Corrupt { .. } => {
                Failure::new(exit::BUG, Diagnostic::error(Area::State, chain(&e)))
            }
        }
    }
}

impl Global {
    /// The config, with its warnings shown.
    fn load(&self) -> Result<ConfigFile, Failure> {
        let file = self.read_config()?;
        if session::is_remote() {
            // Whoever asked has read them already.
            return Ok(file);
        }
        tell(&file.warnings.render(self.coloured()));
        Ok(file)
    }

    /// The same with absolute paths.
    fn placed(&self) -> Global {
        let place = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let config = place(self.config.as_deref().unwrap_or(Path::new(template::CONFIG_NAME)));
        Global { config: Some(config), state: self.state.as_deref().map(place), ..self.clone() }
    }

    /// The config as it is on disk now.
    fn read_config(&self) -> Result<ConfigFile, Diagnostics> {
        let path = session::path(self.config.as_deref().unwrap_or(Path::new(template::CONFIG_NAME)));
        let mut file = ConfigFile::load(&path, &Surroundings::of_process())?;
        if let Some(state) = &self.state {
            file.config.state = session::path(state);
        }
        Ok(file)
    }

    /// The config for a verb that needs no instance. Where none is named and none lies here it is the defaults, which
    /// trust the keys beside the installed plugins; the directory is then the place of compiled plugins, and goes
    /// with its handle.
    fn load_or_defaults(&self) -> Result<(ConfigFile, Option<TempDir>), Failure> {
        let path = Path::new(template::CONFIG_NAME);
        if self.config.is_some() || path.exists() {
            return Ok((self.load()?, None));
        }
        let scratch = tempfile::tempdir().map_err(|e| Failure::io(&std::env::temp_dir(), &e))?;
        let surroundings = Surroundings::of_process();
        let state = self.state.as_deref().unwrap_or(scratch.path());
        let keys: Vec<_> = manage::publishers(&surroundings).iter().map(|k| k.to_string_lossy().into_owned()).collect();
        // JSON is YAML, whatever the paths hold.
        let text = json!({ "state": state.to_string_lossy(), "trusted_publishers": keys }).to_string();
        Ok((ConfigFile::from_bytes(path, text.into_bytes(), &surroundings)?, Some(scratch)))
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
            neutralise_lines(&text(data))
        };
        // A closed pipe (`| head`) is not an error of ours.
        session::say(Stream::Out, &shown);
    }
}

/// The state and its key, for a verb that writes. A key is made for a log that nobody signed yet and no other: one that
/// is gone was lost or taken, and to go on under another is the operator's decision.
fn open_state(config: &Config) -> Result<(State, Arc<Signer>), Failure> {
    if let Some((inside, _)) = session::inside() {
        return Ok((inside.state, inside.signer));
    }
    let state = State::open(&config.state, state_options(config))?;
    let signer = match Signer::load(&config.state) {
        Err(KeyError::Missing(_)) if state.reader()?.checkpoint()?.is_none() => Signer::init(&config.state)?,
        Err(KeyError::Missing(path)) => {
            let message = format!("{} is missing, and the log beside it is signed with it", path.display());
            let help = "restore the file from its backup; or `hb keys init` to go on under a new key, which the log \
                        then tells";
            return Err(Failure::new(exit::CONFIG, Diagnostic::error(Area::State, message).help(help)));
        }
        other => other?,
    };
    Ok((state, Arc::new(signer)))
}

/// Longest wait for a state that another process holds, s: verbs hold one for a moment, and a service that is started
/// meanwhile must not be refused.
const LOCK_SEC: u64 = 5;

/// How often is looked whether it is free, ms.
const LOCK_STEP_MS: u64 = 50;

/// The file of a state: where it is, there is a state.
const STATE_FILE: &str = "hb.redb";

/// The state for a verb that only reads: it must exist.
fn existing_state(config: &Config) -> Result<State, Failure> {
    if let Some((inside, _)) = session::inside() {
        return Ok(inside.state);
    }
    if !config.state.join(STATE_FILE).exists() {
        let message = format!("there is no state in {}", config.state.display());
        let help = "run `hb daemon` or `hb baseline create` first, or name another with --state";
        return Err(Failure::new(exit::CONFIG, Diagnostic::error(Area::State, message).help(help)));
    }
    Ok(State::open(&config.state, state_options(config))?)
}

/// Public keys from their files.
fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(session::path(path)).map_err(|e| Failure::io(path, &e))?;
        PublicKey::parse(&text).map_err(|e| Failure::data(format!("{}: {e}", path.display())))
    };
    paths.iter().map(read).collect()
}

/// The name of a baseline, as everywhere where one is named.
fn tag_name(text: &str) -> Result<Name, Failure> {
    let help = "a tag is made of letters, digits, `.`, `_` and `-`, a letter or digit first";
    Name::parse(text).ok_or_else(|| Failure::usage(format!("`{}` is no tag", neutralise(text)), help))
}

/// Structured lines on stderr; RUST_LOG chooses which. A daemon says what it does; a verb that ends says it on stdout,
/// and here only what is wrong.
fn start_talking(cli: &Cli) {
    let level = match &cli.verb {
        Verb::Daemon(args) if args.goes_on() => "info",
        // A killed subscriber is news to the embedded broker, and what the demo is about.
        Verb::Demo(_) => "warn,rumqttd=off",
        _ => "warn",
    };
    lines::start(LogOptions { json: cli.global.log_format == "json", colour: cli.global.coloured(), level });
}

#[cfg(test)]
mod tests;
