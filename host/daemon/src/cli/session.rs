//! For whom a verb works: the person at this terminal, or somebody who asked the running daemon through its socket.
//!
//! A verb runs on one thread from its beginning to its end, so the session belongs to the thread: what the verb says goes
//! to whoever asked, its paths are theirs, and the state it opens is the daemon's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};

use super::report;
use super::screen::Screen;
use crate::daemon::Order;
use crate::daemon::reload::Reloader;
use crate::keys::Signer;
use crate::state::State;
use crate::telemetry::Vitals;
use crate::telemetry::log::tell;

/// Longest wait for the loop of the daemon to do a small thing, s.
const ANSWER_SEC: u64 = 30;

/// Where something that is said belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Data.
    Out,
    /// Talk.
    Err,
}

/// One line of what the daemon answers: a part of what the verb says, or its exit code, which is the last line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) err: Option<String>,
    /// A file that whoever asked wants to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u8>,
}

/// What a verb may use that runs inside the daemon.
pub(crate) struct Session {
    /// Who asked.
    pub(crate) peer: UnixStream,
    /// Who that is, for the log: `uid 0`.
    pub(crate) author: String,
    /// Their directory.
    pub(crate) cwd: PathBuf,
    /// Their variables that begin with `HB_`.
    pub(crate) env: BTreeMap<String, String>,
    /// Their screen.
    pub(crate) screen: Option<Screen>,
    /// The daemon.
    pub(crate) inside: Inside,
}

/// What the daemon lends to verbs.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) state: State,
    pub(crate) signer: Arc<Signer>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) vitals: Arc<Vitals>,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Does `work` for somebody else.
pub(crate) fn within<T>(session: Session, work: impl FnOnce() -> T) -> T {
    SESSION.with_borrow_mut(|slot| *slot = Some(session));
    let done = work();
    SESSION.with_borrow_mut(|slot| *slot = None);
    done
}

/// Says something to whoever asked. One that does not listen any more is no reason to stop.
pub(crate) fn say(stream: Stream, text: &str) {
    let told = SESSION.with_borrow(|session| {
        let Some(session) = session else { return false };
        let answer = match stream {
            Stream::Out => Answer { out: Some(text.to_owned()), ..Answer::default() },
            Stream::Err => Answer { err: Some(text.to_owned()), ..Answer::default() },
        };
        send(&session.peer, &answer);
        true
    });
    match stream {
        _ if told => {}
        Stream::Out => drop(std::io::stdout().write_all(text.as_bytes())),
        Stream::Err => tell(text),
    }
}

/// Sends one line of an answer.
pub(crate) fn send(mut peer: &UnixStream, answer: &Answer) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = peer.write_all(&line);
}

/// Shows a file to whoever asked: on their display, not on one of the daemon's.
pub(crate) fn open(path: &Path) {
    let told = SESSION.with_borrow(|session| {
        let Some(session) = session else { return false };
        send(&session.peer, &Answer { open: Some(path.to_owned()), ..Answer::default() });
        true
    });
    if !told {
        report::show(path);
    }
}

/// The screen of whoever asked the daemon.
pub(crate) fn screen() -> Option<Screen> {
    SESSION.with_borrow(|session| session.as_ref().and_then(|s| s.screen))
}

/// Whether somebody else asked, so that there is no terminal.
pub(crate) fn is_remote() -> bool {
    SESSION.with_borrow(Option::is_some)
}

/// A path as whoever asked means it.
pub(crate) fn path(path: &Path) -> PathBuf {
    SESSION.with_borrow(|session| match session {
        Some(session) => session.cwd.join(path),
        None => path.to_owned(),
    })
}

/// A variable of whoever asked.
pub(crate) fn var(name: &str) -> Option<String> {
    SESSION.with_borrow(|session| match session {
        Some(session) => session.env.get(name).cloned(),
        None => std::env::var(name).ok(),
    })
}

/// The daemon this thread works in, and who asked it.
pub(crate) fn inside() -> Option<(Inside, String)> {
    SESSION.with_borrow(|session| session.as_ref().map(|s| (s.inside.clone(), s.author.clone())))
}

/// Lets a running daemon compare with what the tags name now, and waits until it does.
pub(crate) fn baselines_changed() {
    let Some((inside, _)) = inside() else { return };
    let (reply, done) = bounded(1);
    if inside.reloader.orders().send(Order::Baselines(reply)).is_ok() {
        // A loop that hangs or ends reads the tags when it starts again.
        let _ = done.recv_timeout(Duration::from_secs(ANSWER_SEC));
    }
}
