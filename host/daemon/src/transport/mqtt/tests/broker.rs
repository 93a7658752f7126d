//! A real mosquitto on a free loopback port, with files of its own, that ends with the test.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const MISSING: &str = "these tests need mosquitto: apt-get install mosquitto mosquitto-clients";

pub(super) struct Broker {
    dir: TempDir,
    /// Of the plain listener.
    pub(super) port: u16,
    config: String,
    child: Child,
    log: Receiver<String>,
}

impl Broker {
    /// Starts one that lets everybody in, or as `config` says; `DIR` in it is a directory of its own.
    pub(super) fn start(config: &str) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        Broker::start_in(dir, config)
    }

    /// The same in a directory that holds files already.
    pub(super) fn start_in(dir: TempDir, config: &str) -> Broker {
        for _ in 0..10 {
            let port = free_port();
            if let Some((child, log)) = launch(&dir, port, config) {
                return Broker { dir, port, config: config.to_owned(), child, log };
            }
        }
        panic!("mosquitto does not start");
    }

    /// One on a port that was free a moment ago.
    pub(super) fn start_on(port: u16) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        let (child, log) = launch(&dir, port, "").expect("mosquitto does not start");
        Broker { dir, port, config: String::new(), child, log }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL: nothing is saved and nobody is told.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again after a kill, on the same port and with the same files.
    pub(super) fn restart(&mut self) {
        let launched = launch(&self.dir, self.port, &self.config);
        (self.child, self.log) = launched.expect("mosquitto does not start again");
    }

    /// Has the sessions written to disk.
    pub(super) fn save(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
        self.wait_log("Saving in-memory database");
        // It is one thread: when it has taken this, the file is written.
        self.publish("saved", 1, ["x"]);
    }

    /// Publishes one message a line, and returns when the broker has them.
    pub(super) fn publish<S: AsRef<str>>(&self, topic: &str, qos: u8, lines: impl IntoIterator<Item = S>) {
        let (port, qos) = (self.port.to_string(), qos.to_string());
        let mut command = client("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", &qos, "-t", topic, "-i", "publisher", "-l"]);
        let mut publisher = command.stdin(Stdio::piped()).spawn().expect(MISSING);
        let mut stdin = publisher.stdin.take().unwrap();
        let mut text = String::new();
        for line in lines {
            text.push_str(line.as_ref());
            text.push('\n');
        }
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(publisher.wait().unwrap().success());
        self.wait_log("Client publisher disconnected");
    }

    /// Runs another client to its end.
    pub(super) fn run(&self, program: &str, args: &[&str]) {
        let port = self.port.to_string();
        let status = client(program).args(["-h", "127.0.0.1", "-p", &port]).args(args).status().expect(MISSING);
        assert!(status.success(), "{program} {args:?}: {status}");
    }

    /// Waits for a line of the broker's log.
    pub(super) fn wait_log(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(e) => panic!("the broker did not say `{part}` but ({e}):\n{}", seen.join("\n")),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `None` when somebody else took the port.
fn launch(dir: &TempDir, port: u16, config: &str) -> Option<(Child, Receiver<String>)> {
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];
    let program = program.map(PathBuf::from).into_iter().find(|p| p.exists());
    let program = program.expect(MISSING);
    let talk = if config.contains("log_type") { "" } else { "log_type all\n" };
    let base = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\n{talk}");
    let anonymous = if config.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
    let config = config.replace("DIR", dir.path().to_str().unwrap());
    let file = dir.path().join("mosquitto.conf");
    fs::write(&file, format!("{base}{anonymous}{config}")).unwrap();
    let mut child = Command::new(program).arg("-c").arg(file).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (to_test, log) = channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(to_test.send(line))));
    let deadline = Instant::now() + PATIENCE;
    loop {
        match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("running") => return Some((child, log)),
            Ok(line) if line.contains("Address already in use") => {
                child.wait().unwrap();
                return None;
            }
            Ok(line) if line.contains("Error") => panic!("{line}"),
            Ok(_) => {}
            Err(e) => panic!("mosquitto does not start: {e}"),
        }
    }
}

fn client(program: &str) -> Command {
    let mut command = Command::new(program);
    // The clients read options of the user who runs them.
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("HOME", "/nonexistent");
    command
}
