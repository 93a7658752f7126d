//! The exec transport runs one command and hands out the lines it writes, such as those of `journalctl -f -o json`.
//!
//! The command is a list of arguments, never a line for a shell, and gets nothing of hb's environment. When it ends it is
//! started again, later each time, for as long as hb runs. Where its lines carry a cursor, the next start is told the
//! cursor of the last line that was handed out, so that nothing is missed or doubled; without one, what it wrote while
//! nobody read is lost.
//!
//! It leads a process group of its own, which ends with the transport. When hb is killed the command ends at its next
//! line, which finds no reader: the kernel's signal for a dead parent cannot be set without unsafe code, and it would
//! also come when only the thread ends that started the command, as it does when a reload changes readers.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::socket::framing::{Deframer, Framing, Step};
use super::socket::{BatchLimits, wait_ready};
use super::{Progress, RawFrames};

mod run;

use run::{Came, Name, Run};

/// Bytes read at once: as much as a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks read in one call: together 64 MiB, so that a caller can stop while a long line is passed over.
const MAX_READS: usize = 1_024;

/// What is read of the standard error in one call; the rest waits, as does a command that writes more than that.
const MAX_ERROR_READS: usize = 16;

/// What is kept of the last line of the standard error: enough for one message.
const MAX_ERROR_BYTES: usize = 512;

/// Longest cursor: those of journald have about 150 bytes, and it becomes an argument.
const MAX_CURSOR_BYTES: usize = 4_096;

/// Lines of a batch that are searched for a cursor, from the last. An older cursor doubles lines but loses none.
const MAX_CURSOR_LINES: usize = 64;

/// How long a command may go on after it was asked to end, before it is killed.
const END_GRACE: Duration = Duration::from_millis(500);

/// How long a command may go on after it closed its output, before it is killed.
const SILENT_GRACE: Duration = Duration::from_secs(1);

/// The first pause before a command is started again.
pub const DEFAULT_RESTART_MIN: Duration = Duration::from_secs(1);

/// Starting a program costs milliseconds, so no option may ask for less.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: what was repaired goes on within a minute. A command that ran this long has proved itself, and the
/// next pause is the first again.
pub const DEFAULT_RESTART_MAX: Duration = Duration::from_mins(1);

/// The whole environment of a command: hb's own may hold secrets, and the same command should do the same everywhere.
const ENVIRONMENT: [(&str, &str); 2] =
    [("LC_ALL", "C.UTF-8"), ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];

/// What the transport is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOptions {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// Longest line in bytes.
    pub max_line_bytes: usize,
    /// The field of each line, a JSON object, that says where to go on: `__CURSOR` for journald.
    pub cursor_field: Option<String>,
    /// The argument that makes the command go on behind a cursor, such as `--after-cursor={}`. It is added at the end
    /// when there is a cursor.
    pub cursor_argument: Option<String>,
    /// The first pause before it is started again; each further one is twice as long.
    pub restart_min: Duration,
    /// The longest pause.
    pub restart_max: Duration,
}

impl ExecOptions {
    /// A command without cursor.
    pub fn new(argv: Vec<String>, max_line_bytes: usize) -> Self {
        ExecOptions {
            argv,
            max_line_bytes,
            cursor_field: None,
            cursor_argument: None,
            restart_min: DEFAULT_RESTART_MIN,
            restart_max: DEFAULT_RESTART_MAX,
        }
    }

    /// Whether the command could be started with them.
    pub fn check(&self) -> Result<(), ExecError> {
        let program = self.argv.first().filter(|program| !program.is_empty()).ok_or(ExecError::NoCommand)?;
        if program.contains('/') && !program.starts_with('/') {
            return Err(ExecError::Relative(program.clone()));
        }
        if self.cursor_field.is_some() != self.cursor_argument.is_some() {
            return Err(ExecError::CursorHalf);
        }
        match &self.cursor_argument {
            // At the beginning a cursor could pass for any option.
            Some(argument) if argument.starts_with("{}") || argument.matches("{}").count() != 1 => {
                Err(ExecError::CursorArgument(argument.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// How far a command has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPosition {
    /// The cursor of the last line that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// How often the command began anew without a cursor.
    pub epoch: u64,
}

/// Something that happened between two lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// A line was longer than the limit and was passed over.
    Oversize {
        /// Where it begins in what the command wrote since the transport was opened.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The command ended, or could not be started.
    Ended {
        /// How, such as `exit status: 1`.
        reason: String,
        /// The last line it wrote to its standard error.
        last_error: String,
        /// When it is started again.
        restart_in: Duration,
    },
}

/// Why a command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is none.
    #[error("there is no command")]
    NoCommand,
    /// Its path depends on a directory.
    #[error("the command `{0}` is a relative path")]
    Relative(String),
    /// One of two options is missing.
    #[error("a cursor needs both its field and its argument")]
    CursorHalf,
    /// There is no place for the cursor.
    #[error("the argument `{0}` has no single place for the cursor behind its name")]
    CursorArgument(String),
    /// There is no such program.
    #[error("the command `{0}` was not found")]
    NotFound(String),
    /// The user hb runs as may not run it.
    #[error("no permission to run `{0}`")]
    Denied(String),
    /// Anything else.
    #[error("cannot run `{program}`")]
    Io {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
}

impl ExecError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            ExecError::NoCommand => "write the command as a list: [journalctl, -f, -o, json]",
            ExecError::Relative(_) => "write the whole path, or the name alone for a program of the system",
            ExecError::CursorHalf => "journald has the field __CURSOR and the argument --after-cursor={}",
            ExecError::CursorArgument(_) => "write {} once, where the cursor belongs: --after-cursor={}",
            ExecError::NotFound(_) => {
                "install it or write its whole path; only the directories of the system are searched"
            }
            ExecError::Denied(_) => "let the user hb runs as execute it",
            ExecError::Io { .. } => "check how many files and processes hb may have (`ulimit -nu`)",
        }
    }

    fn new(program: &str, source: io::Error) -> Self {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ExecError::NotFound(program),
            io::ErrorKind::PermissionDenied => ExecError::Denied(program),
            _ => ExecError::Io { program, source },
        }
    }
}

/// The counters of one command, to be read from any thread.
#[derive(Debug, Default)]
pub struct ExecCounters {
    frames: AtomicU64,
    bytes: AtomicU64,
    oversize: AtomicU64,
    torn: AtomicU64,
    restarts: AtomicU64,
    is_running: AtomicBool,
    last_error: Mutex<String>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecStatus {
    /// Lines handed out.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines longer than the limit.
    pub oversize: u64,
    /// Last lines without line feed that were passed over, since a start from the cursor brings them whole.
    pub torn: u64,
    /// How often the command was started again, or was tried to be.
    pub restarts: u64,
    /// Whether it runs.
    pub is_running: bool,
    /// The last line of its standard error, from whichever run.
    pub last_error: String,
}

impl ExecCounters {
    /// All of them now.
    pub fn status(&self) -> ExecStatus {
        ExecStatus {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            oversize: self.oversize.load(Relaxed),
            torn: self.torn.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            is_running: self.is_running.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A command that is being read.
#[derive(Debug)]
pub struct ExecTransport {
    options: ExecOptions,
    origin: Arc<str>,
    position: ExecPosition,
    run: Option<Run>,
    /// The run has ended; what is left of its output is handed out first.
    is_over: bool,
    /// When it is started again, and the pause after the next end.
    start_at: Instant,
    pause: Duration,
    deframer: Deframer,
    /// `chunk[start..end]` is read and not handed out.
    chunk: Vec<u8>,
    start: usize,
    end: usize,
    /// To be told before anything else is handed out.
    pending: Option<ExecEvent>,
    counters: Arc<ExecCounters>,
}

impl ExecTransport {
    /// Starts a command, behind the cursor of a position when it has one.
    pub fn open(options: ExecOptions, resume: Option<&ExecPosition>) -> Result<Self, ExecError> {
        options.check()?;
        let mut position = resume.cloned().unwrap_or_default();
        if options.cursor_field.is_none() {
            position.cursor = None;
        }
        if resume.is_some() && position.cursor.is_none() {
            position.epoch += 1;
        }
        let run = Run::start(&options, position.cursor.as_deref());
        let run = run.map_err(|e| ExecError::new(&options.argv[0], e))?;
        let counters = Arc::new(ExecCounters { is_running: true.into(), ..ExecCounters::default() });
        Ok(ExecTransport {
            origin: options.argv[0].as_str().into(),
            position,
            run: Some(run),
            is_over: false,
            start_at: Instant::now(),
            pause: options.restart_min.max(LEAST_PAUSE),
            deframer: Deframer::new(Framing::Newline, options.max_line_bytes),
            chunk: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            pending: None,
            counters,
            options,
        })
    }

    /// Replaces the content of `out` with the next lines, without line feed and carriage return: at most `max_frames`,
    /// and at most `max_bytes` unless a single line has more. It never waits.
    pub fn read(&mut self, max_frames: usize, max_bytes: usize, out: &mut RawFrames) -> Result<Progress, ExecError> {
        out.clear();
        let progress = match self.fill(BatchLimits::new(max_frames, max_bytes), out) {
            // What came is handed out first; an error that lasts comes again.
            Err(_) if !out.is_empty() => Progress::Frames,
            other => other.map_err(|e| ExecError::new(&self.origin, e))?,
        };
        if let Some(field) = &self.options.cursor_field {
            let mut last_lines = (0..out.len()).rev().take(MAX_CURSOR_LINES);
            let cursor = last_lines.find_map(|i| cursor_of(out.get(i)?, field));
            self.position.cursor = cursor.or_else(|| self.position.cursor.take());
        }
        self.counters.frames.fetch_add(out.len() as u64, Relaxed);
        self.counters.bytes.fetch_add(out.data.len() as u64, Relaxed);
        Ok(progress)
    }

    /// Waits until there may be something to read; false when the deadline came first.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, ExecError> {
        // A turn ends with something to read, or with an error line, and the deadline ends them all.
        loop {
            if self.pending.is_some() || self.start < self.end || self.is_over {
                return Ok(true);
            }
            let wake_at = self.run.as_ref().map_or(Some(self.start_at), |run| run.kill_at);
            let until = wake_at.map_or(deadline, |at| at.min(deadline));
            let (names, files): (Vec<_>, Vec<_>) = self.run.iter().flat_map(Run::files).unzip();
            let ready = wait_ready(files.into_iter(), until).map_err(|e| ExecError::new(&self.origin, e))?;
            if ready.is_empty() {
                return Ok(until < deadline);
            }
            if ready.iter().any(|&i| names[i] != Name::Errors) {
                return Ok(true);
            }
            self.read_errors();
        }
    }

    /// The position behind everything that has been handed out.
    pub fn position(&self) -> ExecPosition {
        self.position.clone()
    }

    /// What it counts, to be read from any thread.
    pub fn counters(&self) -> Arc<ExecCounters> {
        Arc::clone(&self.counters)
    }

    fn fill(&mut self, limits: BatchLimits, out: &mut RawFrames) -> io::Result<Progress> {
        self.read_errors();
        for _ in 0..MAX_READS {
            if self.pending.is_none() && !self.cut(limits, out) {
                return Ok(Progress::Frames);
            }
            if self.pending.is_some() {
                let told = if out.is_empty() { self.pending.take() } else { None };
                return Ok(told.map_or(Progress::Frames, |event| Progress::Event(event.into())));
            }
            let came = match &mut self.run {
                None if Instant::now() < self.start_at => Came::Nothing,
                None => {
                    self.start_again();
                    continue;
                }
                Some(run) => run.read(&mut self.chunk)?,
            };
            match came {
                Came::Bytes(got) => (self.start, self.end) = (0, got),
                Came::End => self.is_over = true,
                Came::Nothing => return Ok(if out.is_empty() { Progress::Idle } else { Progress::Frames }),
            }
        }
        Ok(if out.is_empty() { Progress::Skipping } else { Progress::Frames })
    }

    /// Hands out the lines of the chunk, and behind the last chunk of a run the rest. False when the batch is full
    /// before.
    fn cut(&mut self, limits: BatchLimits, out: &mut RawFrames) -> bool {
        let mut input = &self.chunk[self.start..self.end];
        let (origin, field, torn) = (&self.origin, &self.options.cursor_field, &self.counters.torn);
        let step = loop {
            let Some(room) = limits.room(out) else { break Step::Full };
            let step = match self.deframer.next(&mut input, room, &mut |offset, line| out.push(origin, offset, line)) {
                Step::More if self.is_over => self.deframer.finish(room, &mut |offset, rest| match field {
                    Some(field) if cursor_of(rest, field).is_none() => _ = torn.fetch_add(1, Relaxed),
                    _ => out.push(origin, offset, rest),
                }),
                step => step,
            };
            if step != Step::Frame {
                break step;
            }
        };
        self.start = self.end - input.len();
        match step {
            Step::Frame | Step::Full => return false,
            Step::Oversize { offset, bytes } => {
                self.pending = Some(ExecEvent::Oversize { offset, bytes });
                self.counters.oversize.fetch_add(1, Relaxed);
            }
            Step::More if self.is_over => self.end_run(),
            Step::More => {}
            // Lines cannot break the framing.
            Step::Bad(_) => self.start = self.end,
        }
        true
    }

    fn read_errors(&mut self) {
        let Some(run) = &mut self.run else { return };
        if run.read_errors() {
            *self.counters.last_error.lock().unwrap_or_else(PoisonError::into_inner) = run.last_error.text();
        }
    }

    fn end_run(&mut self) {
        self.read_errors();
        self.is_over = false;
        let Some(mut run) = self.run.take() else { return };
        if run.started.elapsed() >= self.options.restart_max {
            self.pause = self.options.restart_min.max(LEAST_PAUSE);
        }
        let reason = run.end().map_or_else(|| "it cannot be killed".to_owned(), |status| status.to_string());
        self.start_later(reason, run.last_error.text());
    }

    fn start_again(&mut self) {
        self.counters.restarts.fetch_add(1, Relaxed);
        if self.position.cursor.is_none() {
            self.position.epoch += 1;
        }
        match Run::start(&self.options, self.position.cursor.as_deref()) {
            Ok(run) => {
                self.run = Some(run);
                self.counters.is_running.store(true, Relaxed);
            }
            Err(e) => self.start_later(ExecError::new(&self.origin, e).to_string(), String::new()),
        }
    }

    fn start_later(&mut self, reason: String, last_error: String) {
        let restart_in = self.pause;
        self.counters.is_running.store(false, Relaxed);
        self.start_at = Instant::now() + restart_in;
        self.pause = restart_in.saturating_mul(2).min(self.options.restart_max);
        self.pending = Some(ExecEvent::Ended { reason, last_error, restart_in });
    }
}

/// The cursor a line carries, if it is one that can be an argument.
fn cursor_of(line: &[u8], field: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_slice(line).ok()?;
    let cursor = match object.get(field)? {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let fits = !cursor.is_empty() && cursor.len() <= MAX_CURSOR_BYTES && !cursor.contains(char::is_control);
    fits.then_some(cursor)
}

#[cfg(test)]
mod tests;
