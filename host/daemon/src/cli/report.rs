//! `hb report`: the drift reports of this instance, and one of them before somebody's eyes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand};
use hb_log::cbor;
use hb_log::pack::{names, root_name};
use serde::Serialize;

use super::analyze::Run;
use super::session::{self, Stream};
use super::{Done, Failure, Global, existing_state};
use crate::case::Case;
use crate::clock;
use crate::config::ConfigFile;
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::state::Reader;

/// Shows a file to whoever sits before the display.
const OPENER: &str = "xdg-open";

/// Variables that name a display.
const DISPLAYS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];

/// How long the opener is watched, ms: one that cannot says so at once, one that can may stay as long as its browser.
const OPEN_MS: u64 = 3_000;

/// How often is looked whether it has ended, ms.
const OPEN_STEP_MS: u64 = 20;

/// Verbs of `hb report`.
#[derive(Subcommand)]
pub(crate) enum ReportVerb {
    /// List the reports that are there, the newest first.
    #[command(after_help = "Example: hb report list --json")]
    List,
    /// Print where a report lies, and open it where there is a display.
    #[command(after_help = "Example: hb report open case-1f00ba4")]
    Open(OpenArgs),
}

/// Arguments of `hb report open`.
#[derive(Args)]
pub(crate) struct OpenArgs {
    /// Run or case; the beginning is enough when it is unique. Otherwise the newest report.
    id: Option<String>,
    /// Print the path and open nothing.
    #[arg(long)]
    print: bool,
}

/// A report that is there.
#[derive(Serialize)]
struct Line {
    /// Run or case.
    id: String,
    /// `run` or `case`.
    kind: &'static str,
    written_at: String,
    status: String,
    sentence: String,
    path: PathBuf,
    #[serde(skip)]
    written: SystemTime,
}

/// Runs a verb of reports.
pub(crate) fn run(global: &Global, verb: &ReportVerb) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let lines = lines(&reader, &file)?;
    match verb {
        ReportVerb::List => {
            global.print(&lines, |lines| if lines.is_empty() { "no reports\n".into() } else { text(lines) });
            Ok(exit::OK)
        }
        ReportVerb::Open(args) => {
            let line = find(&lines, args.id.as_deref(), &reader, file.config.program.as_str())?;
            global.print(line, |line| format!("{}\n", line.path.display()));
            if !args.print && !global.json {
                session::open(&line.path);
            }
            Ok(exit::OK)
        }
    }
}

/// Opens a file where there is a display. One that does not open is told; its path was printed.
pub(crate) fn show(path: &Path) {
    if !DISPLAYS.iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty())) {
        return;
    }
    let opener =
        Command::new(OPENER).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let why = match opener.and_then(ended) {
        Ok(None) => return,
        Ok(Some(why)) => why,
        Err(e) => e.to_string(),
    };
    session::say(
        Stream::Err,
        &format!("warning: {OPENER} did not open it ({}): open the file above\n", neutralise(&why)),
    );
}

/// Why an opener failed; nothing when it did its work, or goes on with it.
fn ended(mut opener: Child) -> std::io::Result<Option<String>> {
    let deadline = Instant::now() + Duration::from_millis(OPEN_MS);
    while Instant::now() < deadline {
        if let Some(status) = opener.try_wait()? {
            return Ok((!status.success()).then(|| status.to_string()));
        }
        std::thread::sleep(Duration::from_millis(OPEN_STEP_MS));
    }
    Ok(None)
}

/// All reports whose file is there, the newest first.
fn lines(reader: &Reader, file: &ConfigFile) -> Result<Vec<Line>, Failure> {
    let program = file.config.program.as_str();
    let mut lines = Vec::new();
    for (_, bytes) in reader.runs(program)? {
        let run: Run = serde_json::from_slice(&bytes).map_err(|e| Failure::data(e.to_string()))?;
        lines.extend(there(PathBuf::from(run.report)).map(|(path, written)| Line {
            id: run.run_id,
            kind: "run",
            written_at: when(written),
            status: run.status.to_string(),
            sentence: run.sentence,
            path,
            written,
        }));
    }
    for (_, bytes) in reader.cases(program)? {
        let case: Case = cbor::decode(&bytes).map_err(|e| Failure::data(e.to_string()))?;
        let path = file.config.evidence.dir.join(root_name(&case.id)).join(names::REPORT_HTML);
        lines.extend(there(path).map(|(path, written)| Line {
            kind: "case",
            written_at: when(written),
            status: case.status.to_string(),
            sentence: format!(
                "{}: check {} on {}, window until {}",
                case.status,
                case.check,
                case.asset,
                clock::rfc3339(case.end_ns)
            ),
            id: case.id,
            path,
            written,
        }));
    }
    lines.sort_by(|a, b| b.written.cmp(&a.written).then(a.id.cmp(&b.id)));
    Ok(lines)
}

/// A file that is there, by its absolute path, and when it was written.
fn there(path: PathBuf) -> Option<(PathBuf, SystemTime)> {
    let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    Some((std::path::absolute(&path).unwrap_or(path), meta.modified().ok()?))
}

fn when(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Whole seconds: nobody asks for more of a file.
    clock::rfc3339(i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_mul(hb_engine::NS_PER_SEC))
}

/// The one report that an id, or the beginning of one, stands for; without an id the newest.
fn find<'l>(lines: &'l [Line], id: Option<&str>, reader: &Reader, program: &str) -> Result<&'l Line, Failure> {
    let missing =
        |message: String, help: &str| Failure::new(exit::DATA, Diagnostic::error(Area::Data, message).help(help));
    let Some(id) = id else {
        let help = "`hb analyze DIR` writes one, and so does the daemon with the evidence of a FAIL";
        return lines.first().ok_or_else(|| missing("there is no report yet".into(), help));
    };
    let wanted = |name: &str| {
        let bare = name.trim_start_matches("case-").trim_start_matches("run-");
        name.starts_with(id) || bare.starts_with(id)
    };
    let found: Vec<&Line> = lines.iter().filter(|l| wanted(&l.id)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let cases = reader.cases(program)?;
            let unpacked = cases.iter().find(|(name, _)| wanted(name));
            Err(match unpacked {
                Some((case, _)) => missing(
                    format!("{case} has no pack here, and so no report"),
                    &format!("`hb export evidence-pack --case {case} --out DIR` writes both"),
                ),
                None => missing(format!("there is no report `{}`", neutralise(id)), "`hb report list` shows them"),
            })
        }
        many => {
            let names: Vec<&str> = many.iter().map(|l| l.id.as_str()).collect();
            Err(Failure::usage(format!("`{}` may be {}", neutralise(id), names.join(", ")), "write more of it"))
        }
    }
}

fn text(lines: &[Line]) -> String {
    let line = |l: &Line| {
        let (sentence, path) = (neutralise(&l.sentence), l.path.display());
        // The sentence begins with the status.
        format!("{} {} {sentence}\n    {path}\n", l.written_at, l.id)
    };
    lines.iter().map(line).collect()
}
