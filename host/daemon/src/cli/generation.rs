//! `hb reload`, `hb generation`: what runs, what ran, and what shall run.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use hb_engine::spec::EngineSpec;
use hb_log::cbor;
use serde::Serialize;

use super::{Done, Failure, Global, existing_state, session};
use crate::clock;
use crate::daemon::reload::{Reloaded, Reloader};
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::generation::history::History;

/// Verbs of `hb generation`.
#[derive(Subcommand)]
pub(crate) enum GenerationVerb {
    /// What became active when, by whom and why, and what was refused; newest last.
    #[command(after_help = "Example: hb generation list --json")]
    List,
    /// The checks, plugins and policies of a generation: of the active one, or of the one whose name begins like this.
    #[command(after_help = "Example: hb generation show 3adff333")]
    Show {
        /// Its name, or the beginning of it.
        name: Option<String>,
    },
    /// Go back to a generation that ran since the daemon started: to the one before, or the one named.
    #[command(after_help = "Example: hb generation rollback --reason 'the new limit is too tight'")]
    Rollback {
        /// Its name, or the beginning of it.
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        #[command(flatten)]
        why: WhyArgs,
    },
}

/// Why something is changed.
#[derive(Args)]
pub(crate) struct WhyArgs {
    /// Why, for the log.
    #[arg(long, value_name = "TEXT", default_value = "asked to by an operator")]
    reason: String,
}

/// Lets the daemon read config, plugins and policies again.
pub(crate) fn reload(global: &Global, why: &WhyArgs) -> Done {
    let (reloader, author) = running(global)?;
    match reloader.reload(&author, &why.reason)? {
        Reloaded::Swapped(done) => global.print(&done, |d| {
            format!("active: {} (was {}), after {} ms\n", d.generation.short(), d.before.short(), d.took_ms)
        }),
        Reloaded::Unchanged(hash) => {
            let shown = serde_json::json!({ "generation": hash, "unchanged": true });
            global.print(&shown, |_| format!("unchanged: {} runs already\n", hash.short()));
        }
    }
    Ok(exit::OK)
}

/// Runs a verb of `hb generation`.
pub(crate) fn run(global: &Global, verb: &GenerationVerb) -> Done {
    match verb {
        GenerationVerb::List => list(global),
        GenerationVerb::Show { name } => show(global, name.as_deref()),
        GenerationVerb::Rollback { to, why } => {
            let (reloader, author) = running(global)?;
            let done = reloader.go_back(to.as_deref(), &author, &why.reason)?;
            global.print(&done, |d| {
                format!(
                    "active: {} (was {}), until the next reload: the files are as they were\n",
                    d.generation.short(),
                    d.before.short()
                )
            });
            Ok(exit::OK)
        }
    }
}

/// The running daemon: this process, when somebody asks it through its socket. Opening the state is what finds it: one
/// that can be opened has no daemon.
fn running(global: &Global) -> Result<(Arc<Reloader>, String), Failure> {
    if let Some((inside, author)) = session::inside() {
        return Ok((inside.reloader, author));
    }
    let no_daemon = |state: &Path| {
        let message = format!("no daemon runs on the state {}", state.display());
        let help = "start it with `hb daemon`: it reads config, plugins and policies when it starts";
        Failure::new(exit::IO, Diagnostic::error(Area::State, message).help(help))
    };
    if let Some(state) = &global.state {
        // A config that is broken now is no reason not to ask the daemon.
        return Err(Failure { locked: Some(state.clone()), ..no_daemon(state) });
    }
    let file = global.load()?;
    existing_state(&file.config)?;
    Err(no_daemon(&file.config.state))
}

#[derive(Serialize)]
struct Line {
    at: String,
    generation: Option<String>,
    author: String,
    reason: String,
    refused: Option<String>,
    active: bool,
    /// Whether a running daemon can go back to it.
    kept: bool,
}

fn list(global: &Global) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let history = History::load(&state.reader()?, file.config.program.as_str())?;
    let newest = history.swaps.iter().rposition(|swap| swap.generation.is_some());
    let kept = session::inside().map(|(inside, _)| inside.reloader.generations().kept()).unwrap_or_default();
    let lines: Vec<Line> = history
        .swaps
        .iter()
        .enumerate()
        .map(|(i, swap)| Line {
            at: clock::rfc3339(swap.time_ns),
            generation: swap.generation.map(|hash| hash.to_string()),
            author: swap.author.clone(),
            reason: swap.reason.clone(),
            refused: swap.refused.clone(),
            active: newest == Some(i),
            kept: kept.iter().any(|built| Some(built.generation.hash) == swap.generation),
        })
        .collect();
    global.print(&lines, |lines| lines.iter().map(text).collect());
    Ok(exit::OK)
}

fn text(line: &Line) -> String {
    let name = line.generation.as_deref().map_or("refused", |name| &name[..12]);
    let mark = if line.active { " (active)" } else { "" };
    let kept = if line.kept { " (kept)" } else { "" };
    let why = line.refused.as_deref().map_or(String::new(), |why| format!(": {}", neutralise(why)));
    format!("{} {name}{mark}{kept} by {}: {}{why}\n", line.at, neutralise(&line.author), neutralise(&line.reason))
}

fn show(global: &Global, name: Option<&str>) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let history = History::load(&reader, file.config.program.as_str())?;
    let mut known = history.swaps.iter().rev().filter_map(|swap| swap.generation);
    let found = known.find(|hash| name.is_none_or(|name| hash.to_string().starts_with(name)));
    let unknown = || {
        let d = Diagnostic::error(Area::Data, format!("no generation is named `{}`", name.unwrap_or_default()));
        Failure::new(exit::DATA, d.help("`hb generation list` shows them"))
    };
    let hash = found.ok_or_else(unknown)?;
    let bytes = reader.blob(&hash)?.ok_or_else(unknown)?;
    let spec: EngineSpec = cbor::decode(&bytes).map_err(|e| Failure::data(e.to_string()))?;
    global.print(&serde_json::json!({ "generation": hash, "spec": spec }), |_| {
        let mut out = format!("generation {hash}\n");
        for check in &spec.checks {
            let baseline = check.baseline.as_deref().unwrap_or("no baseline");
            let (window, every) = (check.window_ns as f64 / 1e9, check.every_ns as f64 / 1e9);
            out.push_str(&format!("check {}: {window} s every {every} s, against {baseline}\n", check.id));
            for rule in &check.rules {
                out.push_str(&format!("  rule {} {} {:?}\n", rule.rule, rule.source.short(), rule.params));
            }
        }
        for (part, hash) in &spec.parts {
            out.push_str(&format!("{part} {}\n", hash.short()));
        }
        out
    });
    Ok(exit::OK)
}
