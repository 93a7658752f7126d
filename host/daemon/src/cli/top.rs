//! `hb top`: what the running daemon does, once a second, until `q`.
//!
//! The daemon answers one question, `hb top --once --json`; the screen asks it again and again through the socket and
//! shows what has changed.

pub(super) mod screen;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Receiver, bounded};
use hb_engine::decision::{Decision, Status};
use hb_log::cbor;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use serde_json::{Value, json};

use super::socket::Unanswered;
use super::{Done, Failure, Global, alert, existing_state, session, socket};
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::generation::history::History;
use crate::pipeline::record::LIVE;
use crate::state::{DecisionFilter, Reader};

use screen::{Screen, View};

/// Windows shown: the newest of them, more than a screen has lines.
const WINDOWS: usize = 100;

/// Decisions looked at for them: passes are counted, not shown one by one.
const LOOKED_AT: usize = 2_000;

/// Time between two looks, and the shortest that is allowed: each look reads the state.
const EVERY_MS: u64 = 1_000;
const EVERY_MS_MIN: u64 = 200;

/// Longest wait for one answer: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// With an answer so much later than it is due the screen says so.
const SILENCE: Duration = Duration::from_secs(3);

/// Longest wait for a key until the screen is drawn again.
const TURN: Duration = Duration::from_millis(100);

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
    let every = Duration::from_millis(args.every_ms);
    let looks = looks(&state, global, every)?;
    let first = looks.recv().unwrap_or(Err(Unanswered::Gone)).map_err(|why| match why {
        Unanswered::Gone => no_daemon(&state),
        Unanswered::Silent(why) => no_answer(&state, &why),
    })?;
    let terminal = ratatui::try_init().map_err(|e| Failure::io("the terminal".as_ref(), &e))?;
    let ended = watch(terminal, first, &looks, every + SILENCE, global.screen().colour);
    ratatui::restore();
    if ended? { Ok(exit::OK) } else { Err(no_daemon(&state)) }
}

/// Draws until somebody presses `q`, or, which is false, the daemon is gone.
fn watch(
    mut terminal: DefaultTerminal,
    first: Value,
    looks: &Receiver<Look>,
    patience: Duration,
    colour: bool,
) -> Result<bool, Failure> {
    let broken = |e: std::io::Error| Failure::io("the terminal".as_ref(), &e);
    let mut screen = Screen::of(None, first, Duration::ZERO);
    let mut view = View::new(colour, "q ends   Tab and arrows move through what has no room");
    let (mut answered, mut trouble) = (Instant::now(), String::new());
    loop {
        let silent = answered.elapsed();
        view.silence = (silent >= patience).then(|| format!("no answer for {} s{trouble}", silent.as_secs()));
        terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut(), &mut view)).map_err(broken)?;
        if poll(TURN).map_err(broken)?
            && let Event::Key(key) = read().map_err(broken)?
            && key.kind == KeyEventKind::Press
        {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
            view.press(key.code);
        }
        for look in looks.try_iter() {
            match look {
                Ok(now) => {
                    screen = Screen::of(Some(screen), now, answered.elapsed());
                    (answered, trouble) = (Instant::now(), String::new());
                }
                Err(Unanswered::Silent(why)) => trouble = format!(": {why}"),
                Err(Unanswered::Gone) => return Ok(false),
            }
        }
    }
}

/// What the daemon says of itself, or why it does not.
pub(super) type Look = Result<Value, Unanswered>;

/// Looks again and again, on a thread that ends with the receiver: a daemon that hangs must not hold who asks.
pub(super) fn looks(state: &Path, global: &Global, every: Duration) -> Result<Receiver<Look>, Failure> {
    let (state, global) = (state.to_owned(), global.clone());
    let (to, looks) = bounded(1);
    let look = move || {
        let said = socket::fetch(&state, &global, &["top", "--once", "--json"], PATIENCE)?;
        serde_json::from_str(&said).map_err(|e| Unanswered::Silent(e.to_string()))
    };
    let again = move || {
        while to.send(look()).is_ok() {
            std::thread::park_timeout(every);
        }
    };
    let started = std::thread::Builder::new().name("hb-look".into()).spawn(again);
    started.map(|_| looks).map_err(|e| Failure::io("a thread".as_ref(), &e))
}

fn no_answer(state: &Path, why: &str) -> Failure {
    let message = format!("the daemon on the state {} does not answer: {}", state.display(), neutralise(why));
    Failure::new(exit::IO, Diagnostic::error(Area::State, message).help("try again; its log may say more"))
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
        let since_ns = swap.time_ns - swap.time_ns.rem_euclid(hb_engine::NS_PER_SEC);
        Some(json!({ "name": name, "since": clock::rfc3339(since_ns), "by": swap.author, "reason": swap.reason }))
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
