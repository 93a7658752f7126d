//! The stage: a directory with config, policies and state, a broker, and the daemon that runs in it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::manage::publishers;
use super::{PATIENCE, say};
use crate::cli::{Failure, Global};
use crate::config::Surroundings;
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::transport::broker;

/// What `examples/plant` is, for a machine that has only the program.
const CONFIG: &str = include_str!("../../../../../examples/plant/hb.yaml");
const SCHEMA: &str = include_str!("../../../../../examples/plant/telemetry_schema.yaml");

/// The policy whose limits are edited, and the edit.
const POLICY: &str = "policies/drift/robust_z.luau";
const LIMIT: (&str, &str) = ("\t\twarn = 4,\n\t\tfail = 8,", "\t\twarn = 3,\n\t\tfail = 4,");

/// Name of the source in the config.
const SOURCE: &str = "machines";

/// Lines shown of one answer.
const SHOWN: usize = 12;

/// What an operator has set for the machine must not change the demo.
const FOREIGN: [&str; 4] = ["HB_CONFIG", "HB_LOG_FORMAT", "HB_GATE_FAIL_EXIT", "RUST_LOG"];

/// How often it is looked whether the daemon is ready.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Stage {
    dir: PathBuf,
    exe: PathBuf,
    broker: SocketAddr,
    daemon: Option<Child>,
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
        let dir = directory(keep)?;
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
        let config = CONFIG
            .replace("tcp://127.0.0.1:1883", &format!("tcp://{broker}"))
            .replace("redelivery: mark", "redelivery: content   # the embedded broker does not mark");
        write(&dir.join("hb.yaml"), config.as_bytes())?;
        write(&dir.join("telemetry_schema.yaml"), SCHEMA.as_bytes())?;
        let copied = dir.join("publisher.pub");
        fs::copy(publisher, &copied).map_err(|e| Failure::io(&copied, &e))?;
        copy_tree(&surroundings.policies(), &dir.join("policies"))?;
        Ok(Stage { dir, exe, broker, daemon: None })
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

    /// Kills the daemon as a power cut would.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|e| Failure::io("the daemon".as_ref(), &e))
    }

    /// Asks the daemon to end and waits until it has.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|e| Failure::io("the daemon".as_ref(), &e.into()))?;
        }
        let status = child.wait().map_err(|e| Failure::io("the daemon".as_ref(), &e))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::data(format!("the daemon ended with {status}; {} says why", self.log().display())))
    }

    /// Types `hb ARGS` and shows it with its answer. The exit code.
    pub(super) fn type_in(&self, args: &[&str]) -> Result<i32, Failure> {
        let typed: Vec<String> = args.iter().map(|a| quoted(a)).collect();
        say(&format!("$ hb {}\n", typed.join(" ")));
        answer(self.command(args), &self.exe)
    }

    /// Types a line of shell and shows it with its answer. The exit code.
    pub(super) fn shell(&self, line: &str) -> Result<i32, Failure> {
        say(&format!("$ {line}\n"));
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(&self.dir);
        answer(shell, "sh".as_ref())
    }

    /// What `hb ARGS --json` says.
    pub(super) fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let output = self.command(args).arg("--json").output().map_err(|e| Failure::io(&self.exe, &e))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        serde_json::from_slice(&output.stdout)
            .map_err(|_| Failure::data(format!("`hb {}` did not answer: {said}", args.join(" "))))
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

    /// Tightens the limits of a policy.
    pub(super) fn edit_limit(&self) -> Result<(), Failure> {
        let path = self.path(POLICY);
        let text = fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
        say(&format!("$ sed -i 's/warn = 4,/warn = 3,/; s/fail = 8,/fail = 4,/' {POLICY}\n"));
        write(&path, text.replace(LIMIT.0, LIMIT.1).as_bytes())
    }

    /// Leaves a word out of a policy.
    pub(super) fn break_policy(&self) -> Result<(), Failure> {
        let path = self.path(POLICY);
        let text = fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
        say(&format!("$ sed -i 's/ then$//' {POLICY}\n"));
        write(&self.path("robust_z.luau.good"), text.as_bytes())?;
        write(&path, text.replace(" then\n", "\n").as_bytes())
    }

    /// Puts it back.
    pub(super) fn mend_policy(&self) -> Result<(), Failure> {
        let (good, path) = (self.path("robust_z.luau.good"), self.path(POLICY));
        fs::rename(&good, &path).map_err(|e| Failure::io(&path, &e))
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

fn answer(mut command: Command, program: &Path) -> Result<i32, Failure> {
    let output = command.output().map_err(|e| Failure::io(program, &e))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut shown: String = lines.iter().take(SHOWN).map(|line| format!("{line}\n")).collect();
    if lines.len() > SHOWN {
        shown.push_str(&format!("... {} more lines\n", lines.len() - SHOWN));
    }
    let code = output.status.code().unwrap_or(-1);
    if code != 0 {
        shown.push_str(&format!("(exit code {code})\n"));
    }
    say(&shown);
    Ok(code)
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| Failure::io(path, &e))
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
