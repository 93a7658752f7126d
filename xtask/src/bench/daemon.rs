//! A running `hb daemon`: its lines, its metrics, its end. It is killed with the case, however that ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::ground::Ground;

/// How long a daemon may take for anything before a case gives up.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

/// Between two looks at it.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Lines that are shown of a daemon that went wrong.
const LAST_LINES: usize = 20;

/// A running daemon.
pub(super) struct Daemon {
    child: Child,
    /// When it was started.
    pub(super) began: Instant,
    dir: PathBuf,
    lines: Receiver<Line>,
    last: Vec<String>,
}

/// A line it said.
pub(super) struct Line {
    /// When it was read.
    pub(super) at: Instant,
    /// Message and fields.
    pub(super) said: Value,
}

impl Line {
    /// A field that is text.
    pub(super) fn text(&self, key: &str) -> &str {
        self.said[key].as_str().unwrap_or_default()
    }

    /// A field that is a number.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.said[key].as_u64()
    }
}

impl Daemon {
    /// Starts one in a directory with an `hb.yaml`. `talk` is what `RUST_LOG` says.
    pub(super) fn start(ground: &Ground, dir: &Path, talk: &str, env: &[(&str, &str)]) -> Result<Daemon> {
        let mut command = ground.hb(dir);
        command.args(["daemon", "--log-format", "json"]).env("RUST_LOG", talk).envs(env.iter().copied());
        let began = Instant::now();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("hb")?;
        let stderr = BufReader::new(child.stderr.take().context("stderr")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let said = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(Line { at: Instant::now(), said }).is_err() {
                    return;
                }
            }
        });
        Ok(Daemon { child, began, dir: dir.to_owned(), lines, last: Vec::new() })
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line for which `found` gives something.
    pub(super) fn wait_for<T>(&mut self, what: &str, mut found: impl FnMut(&Line) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.remember(&line);
                    if let Some(found) = found(&line) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{what} did not come; its last lines:\n{}", self.last.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => bail!("it ended before {what}:\n{}", self.last.join("\n")),
            }
        }
    }

    /// Waits for the next line with this message.
    pub(super) fn wait_for_message(&mut self, message: &str) -> Result<Instant> {
        self.wait_for(message, |line| (line.text("message") == message).then_some(line.at))
    }

    /// What it has said since it was asked last.
    pub(super) fn lines(&mut self) -> Vec<Line> {
        let lines: Vec<Line> = self.lines.try_iter().collect();
        for line in &lines {
            self.remember(line);
        }
        lines
    }

    fn remember(&mut self, line: &Line) {
        self.last.push(line.said.to_string());
        let excess = self.last.len().saturating_sub(LAST_LINES);
        self.last.drain(..excess);
    }

    /// Waits until it can do its work.
    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.get("/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if let Some(status) = self.child.try_wait()? {
                let said: Vec<String> = self.lines.iter().map(|line| line.said.to_string()).collect();
                bail!("the daemon ended with {status}:\n{}", said.join("\n"));
            }
            ensure!(Instant::now() < deadline, "the daemon is not ready: {:?}", self.get("/ready"));
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until its metrics are as they should be; those metrics.
    pub(super) fn wait_until(&self, what: &str, mut is: impl FnMut(&Metrics) -> bool) -> Result<Metrics> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics()?;
            if is(&metrics) {
                return Ok(metrics);
            }
            ensure!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
            std::thread::sleep(POLL);
        }
    }

    /// All its metrics.
    pub(super) fn metrics(&self) -> Result<Metrics> {
        let answer = self.get("/metrics")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let lines = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(Metrics(lines.filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?))).collect()))
    }

    fn get(&self, path: &str) -> Result<String> {
        let address = fs::read_to_string(self.dir.join("state/http.addr"))?;
        let mut stream = TcpStream::connect(address.trim())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks it to end, which must be with success.
    pub(super) fn end(mut self) -> Result<()> {
        let status = Command::new("kill").args(["-s", "TERM", &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill");
        let status = self.child.wait()?;
        let said: Vec<String> = self.lines.iter().map(|line| line.said.to_string()).collect();
        ensure!(status.success(), "the daemon ended with {status}:\n{}", said.join("\n"));
        Ok(())
    }

    /// SIGKILL: nothing more is saved and nobody is told.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.code().is_none(), "it had ended by itself before: {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Metrics by name, labels included.
#[derive(Debug)]
pub(super) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// One of them; 0 when it is not there.
    pub(super) fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// One of a source.
    pub(super) fn of_source(&self, name: &str, source: &str) -> u64 {
        self.of(&format!("{name}{{source=\"{source}\"}}")) as u64
    }

    /// The sum over all labels.
    pub(super) fn sum(&self, name: &str) -> u64 {
        let own = self.0.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        own.map(|(_, n)| *n as u64).sum()
    }
}
