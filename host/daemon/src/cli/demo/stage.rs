//! The stage: a directory with config, policies and state, a broker, and the daemon that runs in it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::manage::publishers;
use super::live::Live;
use super::{END, HOUR_NS, PATIENCE, STEP_NS};
use crate::cli::{Failure, Global};
use crate::config::Surroundings;
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::transport::broker;

/// What `examples/plant` is, for a machine that has only the program.
const CONFIG: &str = include_str!("../../../../../examples/plant/hb.yaml");
const SCHEMA: &str = include_str!("../../../../../examples/plant/telemetry_schema.yaml");

/// The policy whose limits are edited.
const POLICY: &str = "policies/drift/robust_z.luau";

/// Name of the source in the config.
const SOURCE: &str = "machines";

/// Lines shown of one answer.
const SHOWN: usize = 12;

/// What an operator has set for the machine must not change the demo.
const FOREIGN: [&str; 4] = ["HB_CONFIG", "HB_LOG_FORMAT", "HB_GATE_FAIL_EXIT", "RUST_LOG"];

/// How often it is looked whether the daemon is ready, and whether a command has ended.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_AT_COMMAND: Duration = Duration::from_millis(5);

pub(super) struct Stage {
    dir: PathBuf,
    exe: PathBuf,
    broker: SocketAddr,
    daemon: Option<Child>,
    live: Live,
}

impl Stage {
    /// Lays everything out, and starts the broker.
    pub(super) fn build(global: &Global, keep: Option<&Path>) -> Result<Stage, Failure> {
        if global.config.is_some() || global.state.is_some() {
            return Err(Failure::usage(
                "the demo has a config and a state of its own",
                "leave --config and --state out",
            ));
        }
        if Command::new("minisign").arg("-v").output().is_err() {
            let d = Diagnostic::error(Area::Io, "minisign is not installed; the demo verifies evidence with it");
            return Err(Failure::new(exit::IO, d.help("apt install minisign")));
        }
        let exe = std::env::current_exe().map_err(|e| Failure::io("the program itself".as_ref(), &e))?;
        let surroundings = Surroundings::of_process();
        let [publisher, ..] = &publishers(&surroundings)[..] else {
            let message = format!("there is no publisher's key in {}", surroundings.plugins().display());
            let d = Diagnostic::error(Area::Plugin, message);
            return Err(Failure::new(
                exit::CONFIG,
                d.help("install the plugins first: `cargo xtask demo` builds them"),
            ));
        };
        let broker = broker::start("plant/#").map_err(|e| Failure::io("the embedded broker".as_ref(), &e))?;
        let dir = directory(keep)?;
        let set = lay_out(&dir, broker, publisher, &surroundings.policies()).and_then(|()| {
            let global = Global { config: Some(dir.join("hb.yaml")), ..global.clone() };
            Live::start(&global, &dir.join("state"), (END * HOUR_NS / STEP_NS).unsigned_abs())
        });
        match set {
            Ok(live) => Ok(Stage { dir, exe, broker, daemon: None, live }),
            Err(failure) => {
                // Nobody needs a part of it.
                let _ = fs::remove_dir_all(&dir);
                Err(failure)
            }
        }
    }

    /// What whoever watches sees.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    pub(super) fn broker(&self) -> SocketAddr {
        self.broker
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the daemon's lines go.
    pub(super) fn log(&self) -> PathBuf {
        self.path("daemon.log")
    }

    /// Starts the daemon and waits until it says that it can work.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let log = self.log();
        self.live.say("$ hb daemon 2>>daemon.log &\n");
        let lines = File::options().create(true).append(true).open(&log).map_err(|e| Failure::io(&log, &e))?;
        let mut command = self.command(&["daemon"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(lines);
        // That of a daemon that was killed says where nobody listens.
        let _ = fs::remove_file(self.path("state/http.addr"));
        self.daemon = Some(command.spawn().map_err(|e| Failure::io(&self.exe, &e))?);
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            let ended = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                let why = ended.map_or_else(|| "it is not ready".to_owned(), |status| format!("it ended: {status}"));
                return Err(Failure::data(format!("the daemon does not run: {why}; {} says more", log.display())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Kills the daemon as a power cut would. The exit code of the command that does it.
    pub(super) fn kill(&mut self) -> Result<i32, Failure> {
        let Some(mut child) = self.daemon.take() else { return Ok(0) };
        let code = self.shell(&format!("kill -9 {}", child.id()))?;
        self.ended(&mut child).map(|_| code)
    }

    /// Asks the daemon to end and waits until it has.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|e| Failure::io("the daemon".as_ref(), &e.into()))?;
        }
        let status = self.ended(&mut child)?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::data(format!("the daemon ended with {status}; {} says why", self.log().display())))
    }

    /// How the daemon ended.
    fn ended(&self, child: &mut Child) -> Result<ExitStatus, Failure> {
        ended(child, &format!("the daemon, of which {} tells,", self.log().display()), PATIENCE)
    }

    /// Types `hb ARGS` and shows it with its answer. The exit code.
    pub(super) fn type_in(&self, args: &[&str]) -> Result<i32, Failure> {
        let typed: Vec<String> = args.iter().map(|a| quoted(a)).collect();
        let line = format!("hb {}", typed.join(" "));
        self.answer(self.command(args), &line)
    }

    /// Types a line of shell and shows it with its answer. The exit code.
    pub(super) fn shell(&self, line: &str) -> Result<i32, Failure> {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(&self.dir).stdin(Stdio::null());
        self.answer(shell, line)
    }

    /// What `hb ARGS --json` says.
    pub(super) fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let mut command = self.command(args);
        command.arg("--json");
        let what = format!("hb {}", args.join(" "));
        let Finished { out, err, .. } = finished(command, &what, PATIENCE)?;
        serde_json::from_str(&out).map_err(|_| Failure::data(format!("`{what}` did not answer: {}", err.trim())))
    }

    /// Reports that are stored.
    pub(super) fn stored(&self) -> Result<u64, Failure> {
        Ok(self.json(&["status"])?["sources"][SOURCE]["frames"].as_u64().unwrap_or_default())
    }

    /// The generation that runs.
    pub(super) fn generation(&self) -> Result<String, Failure> {
        let list = self.json(&["generation", "list"])?;
        let active = list.as_array().into_iter().flatten().find(|line| line["active"] == true);
        Ok(active.and_then(|line| line["generation"].as_str()).unwrap_or_default().to_owned())
    }

    /// Alerts that came to the sink.
    pub(super) fn alerts(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("alerts.jsonl")).unwrap_or_default();
        // A line without an end is being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let document = |line| Some(serde_json::from_str::<Value>(line).ok()?.get_mut("document")?.take());
        whole.lines().filter_map(document).collect()
    }

    /// Tightens the limits of a policy. It appears whole under its name, as editors write it: the daemon watches.
    pub(super) fn edit_limit(&self) -> Result<i32, Failure> {
        self.shell(&format!(
            "sed 's/warn = 4,/warn = 3,/; s/fail = 8,/fail = 4,/' {POLICY} >edited && mv edited {POLICY}"
        ))
    }

    /// Leaves a word out of a policy.
    pub(super) fn break_policy(&self) -> Result<i32, Failure> {
        self.shell(&format!("cp {POLICY} good && sed 's/ then$//' good >edited && mv edited {POLICY}"))
    }

    /// Puts it back.
    pub(super) fn mend_policy(&self) -> Result<i32, Failure> {
        self.shell(&format!("mv good {POLICY}"))
    }

    /// Commands for whoever wants to see more.
    pub(super) fn look_further(&self, case: Option<&str>) -> String {
        let (dir, hb) = (self.dir.display(), self.exe.display());
        let mut text = format!("\nLook further:\n\n  cd {dir}\n");
        if let Some(case) = case {
            text.push_str(&format!("  {hb} explain {case}\n  {hb} report open {case}\n"));
        }
        text.push_str(&format!("  {hb} status\n  {hb} alert list --all\n  {hb} log show | less\n"));
        text
    }

    /// Shows a command and its answer.
    fn answer(&self, command: Command, line: &str) -> Result<i32, Failure> {
        self.live.say(&format!("$ {line}\n"));
        let Finished { status, out, err } = finished(command, line, PATIENCE)?;
        let lines: Vec<&str> = out.lines().chain(err.lines()).collect();
        let mut shown: String = lines.iter().take(SHOWN).map(|line| format!("{line}\n")).collect();
        if lines.len() > SHOWN {
            shown.push_str(&format!("... {} more lines\n", lines.len() - SHOWN));
        }
        let code = status.code().unwrap_or(-1);
        if code != 0 {
            shown.push_str(&format!("(exit code {code})\n"));
        }
        self.live.say(&shown);
        Ok(code)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args).current_dir(&self.dir).env("NO_COLOR", "1").stdin(Stdio::null());
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
    }

    fn is_ready(&self) -> bool {
        let Ok(address) = fs::read_to_string(self.path("state/http.addr")) else { return false };
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(address.trim())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
            let mut head = [0_u8; 12];
            stream.read_exact(&mut head)?;
            Ok(head.ends_with(b" 200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After a mistake; otherwise it has been stopped.
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command has left.
#[derive(Debug)]
struct Finished {
    status: ExitStatus,
    out: String,
    err: String,
}

/// Runs a command to its end, which must come in time.
fn finished(mut command: Command, what: &str, patience: Duration) -> Result<Finished, Failure> {
    let broken = |e: std::io::Error| Failure::io(what.as_ref(), &e);
    // Files, which never fill up as a pipe does that nobody reads meanwhile.
    let (mut out, mut err) = (tempfile::tempfile().map_err(broken)?, tempfile::tempfile().map_err(broken)?);
    command.stdout(out.try_clone().map_err(broken)?).stderr(err.try_clone().map_err(broken)?);
    let mut child = command.spawn().map_err(broken)?;
    let status = ended(&mut child, what, patience)?;
    let read = |file: &mut File| -> std::io::Result<String> {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Finished { status, out: read(&mut out).map_err(broken)?, err: read(&mut err).map_err(broken)? })
}

/// Waits until a child has ended. One that does not in time is killed.
fn ended(child: &mut Child, what: &str, patience: Duration) -> Result<ExitStatus, Failure> {
    let broken = |e: std::io::Error| Failure::io(what.as_ref(), &e);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(broken)? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill().and_then(|()| child.wait()).map_err(broken)?;
            let message = format!("{what} did not end within {} s and was killed", patience.as_secs());
            return Err(Failure::new(exit::IO, Diagnostic::error(Area::Io, message)));
        }
        std::thread::sleep(LOOK_AT_COMMAND);
    }
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| Failure::io(path, &e))
}

/// Fills the directory with what the daemon reads.
fn lay_out(dir: &Path, broker: SocketAddr, publisher: &Path, policies: &Path) -> Result<(), Failure> {
    let config = CONFIG
        .replace("tcp://127.0.0.1:1883", &format!("tcp://{broker}"))
        .replace("redelivery: mark", "redelivery: content   # the embedded broker does not mark");
    write(&dir.join("hb.yaml"), config.as_bytes())?;
    write(&dir.join("telemetry_schema.yaml"), SCHEMA.as_bytes())?;
    let copied = dir.join("publisher.pub");
    fs::copy(publisher, &copied).map_err(|e| Failure::io(&copied, &e))?;
    copy_tree(policies, &dir.join("policies"))
}

/// The directory to play in, for this user alone.
fn directory(keep: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(dir) = keep else {
        let made = tempfile::Builder::new().prefix("hb-demo-").tempdir();
        return made.map(tempfile::TempDir::keep).map_err(|e| Failure::io(&std::env::temp_dir(), &e));
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let place = made.and_then(|()| dir.canonicalize()).map_err(|e| Failure::io(dir, &e))?;
    if fs::read_dir(&place).map_err(|e| Failure::io(dir, &e))?.next().is_some() {
        return Err(Failure::usage(
            format!("{} is not empty", dir.display()),
            "name a directory that is not there yet",
        ));
    }
    Ok(place)
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(|e| Failure::io(to, &e))?;
    for entry in fs::read_dir(from).map_err(|e| Failure::io(from, &e))? {
        let entry = entry.map_err(|e| Failure::io(from, &e))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|e| Failure::io(&path, &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_killed_and_told() {
        let shell = |line: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", line]);
            shell
        };
        let failure = finished(shell("exec sleep 600"), "a command", Duration::ZERO).unwrap_err();
        let told = failure.found.render(false);
        assert!(told.contains("a command did not end within 0 s and was killed"), "{told}");
        let done = finished(shell("echo one; echo two >&2; exit 3"), "a command", PATIENCE).unwrap();
        assert_eq!((done.out.as_str(), done.err.as_str(), done.status.code()), ("one\n", "two\n", Some(3)));
    }
}
