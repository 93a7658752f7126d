//! One run of the command: its process group, its two outputs and its end.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::super::socket::wait_ready;
use super::{END_GRACE, ENVIRONMENT, ExecOptions, MAX_ERROR_BYTES, MAX_ERROR_READS, SILENT_GRACE};

/// One run of the command.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) child: Child,
    /// The child leads a process group that has its number.
    pub(super) group: Pid,
    /// Ready when the child has ended.
    pub(super) exit: OwnedFd,
    pub(super) output: Option<OwnedFd>,
    pub(super) errors: Option<OwnedFd>,
    pub(super) last_error: LastLine,
    pub(super) started: Instant,
    pub(super) has_ended: bool,
    pub(super) is_reaped: bool,
    /// When it is killed because it goes on without an output.
    pub(super) kill_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Output,
    Errors,
    Exit,
}

pub(super) enum Came {
    Bytes(usize),
    Nothing,
    End,
}

impl Run {
    pub(super) fn start(options: &ExecOptions, cursor: Option<&str>) -> io::Result<Run> {
        let mut command = Command::new(&options.argv[0]);
        command.args(&options.argv[1..]).env_clear().envs(ENVIRONMENT).current_dir("/").process_group(0);
        if let (Some(argument), Some(cursor)) = (&options.cursor_argument, cursor) {
            command.arg(argument.replace("{}", cursor));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let prepare = |child: &mut Child| -> io::Result<_> {
            let exit = pidfd_open(group, PidfdFlags::empty())?;
            let output = child.stdout.take().map(OwnedFd::from);
            let errors = child.stderr.take().map(OwnedFd::from);
            for file in output.iter().chain(&errors) {
                rustix::io::ioctl_fionbio(file, true)?;
            }
            Ok((exit, output, errors))
        };
        match prepare(&mut child) {
            Ok((exit, output, errors)) => Ok(Run {
                child,
                group,
                exit,
                output,
                errors,
                last_error: LastLine::default(),
                started: Instant::now(),
                has_ended: false,
                is_reaped: false,
                kill_at: None,
            }),
            Err(e) => {
                _ = kill_process_group(group, Signal::KILL);
                _ = child.wait();
                Err(e)
            }
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (Name, BorrowedFd<'_>)> {
        let output = self.output.iter().map(|file| (Name::Output, file.as_fd()));
        let errors = self.errors.iter().map(|file| (Name::Errors, file.as_fd()));
        output.chain(errors).chain([(Name::Exit, self.exit.as_fd())])
    }

    /// Reads a chunk. The end comes when the child has ended and everything it wrote before is read; what others of its
    /// group would write later is not waited for.
    pub(super) fn read(&mut self, chunk: &mut [u8]) -> io::Result<Came> {
        // Each turn reads, returns, closes the output or notes the end.
        loop {
            if let Some(output) = &self.output {
                match rustix::io::read(output, &mut *chunk) {
                    Ok(0) => {
                        self.output = None;
                        self.kill_at = Some(Instant::now() + SILENT_GRACE);
                    }
                    Ok(got) => return Ok(Came::Bytes(got)),
                    Err(Errno::INTR) => continue,
                    Err(Errno::WOULDBLOCK) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            if self.has_ended {
                return Ok(Came::End);
            }
            self.has_ended = self.ends_before(Instant::now());
            if !self.has_ended {
                if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                    self.kill_at = None;
                    _ = kill_process_group(self.group, Signal::KILL);
                }
                return Ok(Came::Nothing);
            }
        }
    }

    /// Reads what is on the standard error. True when its last line is another.
    pub(super) fn read_errors(&mut self) -> bool {
        let mut has_changed = false;
        let mut piece = [0; 4096];
        for _ in 0..MAX_ERROR_READS {
            let Some(errors) = &self.errors else { break };
            match rustix::io::read(errors, &mut piece[..]) {
                Ok(got) if got > 0 => {
                    self.last_error.add(&piece[..got]);
                    has_changed = true;
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => break,
                Ok(_) | Err(_) => self.errors = None,
            }
        }
        has_changed
    }

    /// Ends the whole group and takes the child's status. It asks first, and waits no longer than twice the grace.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        if self.is_reaped {
            return None;
        }
        if !self.has_ended {
            _ = kill_process_group(self.group, Signal::TERM);
            self.ends_before(Instant::now() + END_GRACE);
        }
        // The number is not given to another process before the child is reaped.
        _ = kill_process_group(self.group, Signal::KILL);
        self.ends_before(Instant::now() + END_GRACE);
        let status = self.child.try_wait().ok().flatten();
        self.is_reaped = status.is_some();
        status
    }

    pub(super) fn ends_before(&self, deadline: Instant) -> bool {
        wait_ready([self.exit.as_fd()].into_iter(), deadline).is_ok_and(|ready| !ready.is_empty())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last line of a stream, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct LastLine {
    pub(super) line: Vec<u8>,
    /// The line has ended: what comes next begins another.
    pub(super) is_complete: bool,
}

impl LastLine {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = piece.trim_ascii_end();
            // A blank line says nothing.
            if self.is_complete && !text.is_empty() {
                self.line.clear();
                self.is_complete = false;
            }
            let room = MAX_ERROR_BYTES - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.is_complete |= piece.ends_with(b"\n") && !self.line.is_empty();
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }
}
