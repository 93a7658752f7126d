//! `STATE/ctl.sock`: while the daemon runs, it is the daemon that does what other verbs are asked to.
//!
//! A request is one line of JSON, the answer several, see [`Request`] and [`Answer`]. Only the user of the daemon and
//! root are served: the socket has mode 0600 and the kernel says who is at the other end.

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::screen::Screen;
use super::session::{self, Answer, Inside, Session, Stream};
use super::{Global, guarded, obey, report};
use crate::diagnostic::exit;

/// Version of requests and answers.
const VERSION: u32 = 1;

/// Name of the socket in the directory of the state.
const NAME: &str = "ctl.sock";

/// Longest request, bytes: arguments of a command line.
const REQUEST_BYTES: u64 = 256 << 10;

/// Longest wait for a request that was begun, or for a client to take an answer, s.
const PATIENCE_SEC: u64 = 10;

/// Wait after a connection that could not be accepted: with no file left the next one fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Verbs at work at the same time: each has a thread, and the pipeline comes first.
const CLIENTS_MAX: usize = 8;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    v: u32,
    /// The command line behind `hb`.
    args: Vec<String>,
    cwd: PathBuf,
    env: std::collections::BTreeMap<String, String>,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    colour: bool,
    #[serde(default)]
    screen: Option<Screen>,
}

/// Whether a daemon serves verbs on the state.
pub(super) fn is_served(state: &Path) -> bool {
    connect(state).is_ok()
}

/// Lets the daemon that holds the state do what this process was asked to; its exit code, or nothing when it cannot be
/// reached. Only a verb that `opens` files lets the daemon name one.
pub(super) fn ask(state: &Path, global: &Global, opens: bool) -> Option<u8> {
    let stream = connect(state).ok()?;
    let told = request(stream, global, std::env::args().skip(1).collect(), |answer| {
        answer.out.iter().for_each(|text| session::say(Stream::Out, text));
        answer.err.iter().for_each(|text| session::say(Stream::Err, text));
        answer.open.iter().filter(|_| opens).for_each(|path| report::show(path));
    })?;
    Some(match told {
        Told::All(code) => code,
        Told::Part => {
            session::say(Stream::Err, "error[io]: the daemon ended before it had answered\n");
            exit::IO
        }
    })
}

/// Why there is no answer to what this process asks on its own.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody listens: there is no daemon.
    Gone,
    /// There is one, and this is why it does not answer.
    Silent(String),
}

/// What the daemon answers to a verb that this process asks on its own, within a time.
pub(super) fn fetch(state: &Path, global: &Global, args: &[&str], patience: Duration) -> Result<String, Unanswered> {
    let silent = |e: std::io::Error| Unanswered::Silent(e.to_string());
    let stream = connect(state).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unanswered::Gone,
        _ => silent(e),
    })?;
    let limited = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience)));
    limited.map_err(silent)?;
    let (mut said, mut why) = (String::new(), String::new());
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let told = request(stream, global, args, |answer| {
        said.extend(answer.out.as_deref());
        why.extend(answer.err.as_deref());
    });
    match told {
        Some(Told::All(exit::OK)) => Ok(said),
        Some(Told::All(_)) => Err(Unanswered::Silent(why.lines().next().unwrap_or_default().to_owned())),
        Some(Told::Part) | None => Err(Unanswered::Silent("it takes long or has ended".to_owned())),
    }
}

/// How an answer ended.
enum Told {
    /// With the verb's exit code.
    All(u8),
    /// The daemon ended before.
    Part,
}

fn connect(state: &Path) -> std::io::Result<UnixStream> {
    UnixStream::connect(place(&File::open(state)?))
}

/// Sends a command line and hands on what comes back; nothing when the daemon does not take it.
fn request(stream: UnixStream, global: &Global, args: Vec<String>, mut take: impl FnMut(&Answer)) -> Option<Told> {
    let request = Request {
        v: VERSION,
        args,
        cwd: std::env::current_dir().ok()?,
        env: std::env::vars().filter(|(name, _)| name.starts_with("HB_")).collect(),
        config: global.config.clone(),
        state: global.state.clone(),
        colour: global.coloured(),
        screen: Some(global.screen()),
    };
    let mut line = serde_json::to_vec(&request).ok()?;
    line.push(b'\n');
    (&stream).write_all(&line).ok()?;
    for line in BufReader::new(stream).lines() {
        let Ok(answer) = line.map_err(drop).and_then(|line| serde_json::from_str::<Answer>(&line).map_err(drop)) else {
            break;
        };
        take(&answer);
        if let Some(code) = answer.code {
            return Some(Told::All(code));
        }
    }
    Some(Told::Part)
}

/// The socket; it goes when this is dropped.
pub(super) struct Served(PathBuf);

impl Drop for Served {
    fn drop(&mut self) {
        // One that stays is replaced at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Serves verbs until the process ends.
pub(super) fn serve(state: &Path, inside: Inside) -> std::io::Result<Served> {
    let dir = File::open(state)?;
    // The lock of the state is ours: whatever lies there is left over.
    let _ = fs::remove_file(state.join(NAME));
    let listener = UnixListener::bind(place(&dir))?;
    fs::set_permissions(state.join(NAME), Permissions::from_mode(0o600))?;
    let clients = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new().name("hb-ctl".into()).spawn(move || {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                // Whoever asks waits until there is a file to hear it by.
                Err(error) => {
                    tracing::warn!(%error, "no verb can be heard");
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            let (inside, seat) = (inside.clone(), Seat::take(&clients));
            let work = move || {
                // All of it: it is given back when this is over, or never begins.
                let seat = seat;
                answer(stream, inside, seat.is_over);
            };
            // Without a thread the client sees its connection closed.
            if let Err(error) = std::thread::Builder::new().name("hb-verb".into()).spawn(work) {
                tracing::warn!(%error, "a verb cannot be served");
            }
        }
    })?;
    Ok(Served(state.join(NAME)))
}

/// One of those whose verb is at work. It is given back when this is dropped, wherever that happens.
struct Seat {
    taken: Arc<AtomicUsize>,
    /// Whether there were too many already.
    is_over: bool,
}

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Seat {
        let is_over = taken.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX;
        Seat { taken: Arc::clone(taken), is_over }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The socket by way of its directory: a path of its own may be longer than the 107 bytes a socket's name can have.
fn place(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

fn answer(stream: UnixStream, inside: Inside, is_full: bool) {
    let code = match refusal(&stream, is_full) {
        Some(why) => {
            session::send(&stream, &Answer { err: Some(format!("error[state]: {why}\n")), ..Answer::default() });
            exit::NOPERM
        }
        None => match read(&stream) {
            Ok(request) => work(&stream, request, inside),
            Err(why) => {
                let err = format!("error[usage]: the daemon does not understand the request: {why}\n");
                session::send(&stream, &Answer { err: Some(err), ..Answer::default() });
                exit::USAGE
            }
        },
    };
    session::send(&stream, &Answer { code: Some(code), ..Answer::default() });
}

fn refusal(stream: &UnixStream, is_full: bool) -> Option<String> {
    let patience = Some(Duration::from_secs(PATIENCE_SEC));
    let set = stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience));
    let peer = set.and_then(|()| Ok(rustix::net::sockopt::socket_peercred(stream)?));
    match peer {
        Err(e) => Some(e.to_string()),
        Ok(peer) if !peer.uid.is_root() && peer.uid != geteuid() => {
            Some(format!("the daemon serves its own user and root, not uid {}", peer.uid.as_raw()))
        }
        Ok(_) if is_full => Some(format!("the daemon serves {CLIENTS_MAX} verbs already; try again")),
        Ok(_) => None,
    }
}

fn read(stream: &UnixStream) -> Result<Request, String> {
    let mut line = Vec::new();
    BufReader::new(stream.take(REQUEST_BYTES)).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
    let request: Request = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
    if request.v != VERSION {
        return Err(format!("it has version {}, this daemon reads {VERSION}; use the hb of the daemon", request.v));
    }
    Ok(request)
}

fn work(stream: &UnixStream, request: Request, inside: Inside) -> u8 {
    let peer = match stream.try_clone() {
        Ok(peer) => peer,
        Err(e) => {
            let err = format!("error[io]: the daemon cannot serve the verb now: {e}\n");
            session::send(stream, &Answer { err: Some(err), ..Answer::default() });
            return exit::IO;
        }
    };
    let who = rustix::net::sockopt::socket_peercred(stream).map_or(0, |peer| peer.uid.as_raw());
    let Request { args, cwd, env, config, state, colour, screen, .. } = request;
    let session = Session { peer, author: format!("uid {who}"), cwd, env, screen, inside };
    session::within(session, || guarded(|| obey(&args, config, state, colour)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_that_gets_no_thread_gives_its_seat_back() {
        let taken = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 * CLIENTS_MAX {
            let seat = Seat::take(&taken);
            assert!(!seat.is_over);
            // As the work of a thread that does not come to be.
            drop(move || drop(seat));
        }
        let seats: Vec<Seat> = (0..=CLIENTS_MAX).map(|_| Seat::take(&taken)).collect();
        assert_eq!(seats.iter().position(|seat| seat.is_over), Some(CLIENTS_MAX));
        drop(seats);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
