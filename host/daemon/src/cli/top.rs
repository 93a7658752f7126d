//! `hb top`: what the running daemon does, once a second, until `q`.
//!
//! The daemon answers one question, `hb top --once --json`; the screen asks it again and again through the socket and
//! shows what has changed.

mod screen;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use hb_engine::decision::{Decision, Status};
use hb_log::cbor;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use serde_json::{Value, json};

use super::{Done, Failure, Global, alert, existing_state, session, socket};
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::generation::history::History;
use crate::pipeline::record::LIVE;
use crate::state::{DecisionFilter, Reader};

use screen::Screen;

/// Windows shown: the newest of them, more than a screen has lines.
const WINDOWS: usize = 100;

/// Decisions looked at for them: passes are counted, not shown one by one.
const LOOKED_AT: usize = 2_000;

/// Time between two looks, and the shortest that is allowed: each look reads the state.
const EVERY_MS: u64 = 1_000;
const EVERY_MS_MIN: u64 = 200;

/// Arguments of `hb top`.
#[derive(Args)]
pub(crate) struct TopArgs {
    /// Print what is now and end, as when the output is no terminal.
    #[arg(long)]
    once: bool,
    /// Milliseconds between two looks, at least 200.
    #[arg(long, value_name = "MS", default_value_t = EVERY_MS, value_parser = clap::value_parser!(u64).range(EVERY_MS_MIN..))]
    every_ms: u64,
}

/// Shows the running daemon.
pub(crate) fn top(global: &Global, args: &TopArgs) -> Done {
    if let Some((inside, _)) = session::inside() {
        let file = global.load()?;
        let program = file.config.program.as_str();
        let now = now(&inside.state.reader()?, program, &inside.vitals.detail())?;
        global.print(&now, |now| Screen::of(None, now.clone(), Duration::ZERO).text());
        return Ok(exit::OK);
    }
    let state = match &global.state {
        Some(state) => state.clone(),
        None => global.load()?.config.state,
    };
    if args.once || global.json || !std::io::stdout().is_terminal() {
        // Opening the state finds the daemon, which then answers.
        let failure = no_daemon(&state);
        if global.state.is_none() {
            existing_state(&global.load()?.config)?;
        }
        return Err(Failure { locked: socket::is_served(&state).then_some(state), ..failure });
    }
    let first = look(&state, global).ok_or_else(|| no_daemon(&state))?;
    let terminal = ratatui::try_init().map_err(|e| Failure::io("the terminal".as_ref(), &e))?;
    let ended = watch(terminal, &state, global, first, Duration::from_millis(args.every_ms));
    ratatui::restore();
    ended
}

/// Draws until somebody presses `q`, or the daemon is gone.
fn watch(mut terminal: DefaultTerminal, state: &Path, global: &Global, first: Value, every: Duration) -> Done {
    let broken = |e: std::io::Error| Failure::io("the terminal".as_ref(), &e);
    let mut screen = Screen::of(None, first, Duration::ZERO);
    let mut looked = Instant::now();
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(broken)?;
        let left = every.saturating_sub(looked.elapsed());
        if poll(left).map_err(broken)? {
            if let Event::Key(key) = read().map_err(broken)?
                && key.kind == KeyEventKind::Press
            {
                let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(exit::OK);
                }
            }
            continue;
        }
        let now = look(state, global).ok_or_else(|| no_daemon(state))?;
        screen = Screen::of(Some(screen), now, looked.elapsed());
        looked = Instant::now();
    }
}

/// What the daemon says of itself.
fn look(state: &Path, global: &Global) -> Option<Value> {
    serde_json::from_str(&socket::fetch(state, global, &["top", "--once", "--json"])?).ok()
}

fn no_daemon(state: &Path) -> Failure {
    let message = format!("no daemon runs on the state {}", state.display());
    let d = Diagnostic::error(Area::State, message);
    Failure::new(exit::IO, d.help("start it with `hb daemon`; `hb status` shows what the state holds without it"))
}

/// All that the screen shows.
fn now(reader: &Reader, program: &str, vitals: &Value) -> Result<Value, Failure> {
    let history = History::load(reader, program)?;
    let active = history.swaps.iter().rev().find(|swap| swap.generation.is_some());
    let generation = active.and_then(|swap| {
        let name = swap.generation?.short();
        Some(json!({ "name": name, "since": clock::rfc3339(swap.time_ns), "by": swap.author, "reason": swap.reason }))
    });
    Ok(json!({
        "program": program,
        "at": clock::rfc3339(clock::now_ns()),
        "generation": generation,
        "daemon": vitals,
        "windows": windows(reader, program)?,
        "alerts": alert::firing(reader, program)?,
    }))
}

/// The newest windows that are not a plain PASS, newest first.
fn windows(reader: &Reader, program: &str) -> Result<Vec<Value>, Failure> {
    let filter = DecisionFilter { newest_first: true, ..DecisionFilter::default() };
    let mut windows = Vec::new();
    for row in reader.decisions(program, LIVE, filter)?.take(LOOKED_AT) {
        let row = row?;
        if row.status == Status::Pass as u8 {
            continue;
        }
        let d: Decision = cbor::decode(&row.bytes).map_err(|e| Failure::data(e.to_string()))?;
        let finding = d.findings.first();
        windows.push(json!({
            "end": clock::rfc3339(d.end_ns),
            "status": d.status.as_str(),
            "check": d.check,
            "asset": d.asset,
            "decision": row.id.short(),
            "findings": d.findings.len(),
            "metric": finding.map(|f| f.series.metric.clone()),
            "reason": finding.map(|f| f.reason.clone()),
        }));
        if windows.len() == WINDOWS {
            break;
        }
    }
    Ok(windows)
}
