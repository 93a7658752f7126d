//! A real mosquitto on a free loopback port, with files of its own, that ends with the test.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

const MISSING: &str = "these tests need mosquitto: apt-get install mosquitto mosquitto-clients, or cargo xtask test";

/// A broker that lets everybody in and forgets nothing while it runs.
pub(crate) struct Broker {
    dir: TempDir,
    /// Where it listens.
    pub(crate) port: u16,
    config: String,
    child: Child,
    log: Receiver<String>,
    /// What it has said since it was started.
    said: RefCell<Vec<String>>,
}

impl Broker {
    /// Starts one; `config` is added to its configuration, and `DIR` in it is a directory of the broker's own.
    pub(crate) fn start(config: &str) -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// Starts one on this port, if nobody has it.
    pub(crate) fn start_on(port: u16, config: &str) -> Option<Broker> {
        Broker::launched(tempfile::tempdir().unwrap(), port, config).ok()
    }

    /// The same in a directory that holds files already.
    pub(crate) fn start_in(mut dir: TempDir, config: &str) -> Broker {
        for _ in 0..10 {
            // Somebody else may take the port meanwhile.
            match Broker::launched(dir, free_port(), config) {
                Ok(broker) => return broker,
                Err(again) => dir = again,
            }
        }
        panic!("mosquitto does not start");
    }

    fn launched(dir: TempDir, port: u16, config: &str) -> Result<Broker, TempDir> {
        match launch(dir.path(), port, config) {
            Some((child, log)) => {
                Ok(Broker { dir, port, config: config.to_owned(), child, log, said: RefCell::default() })
            }
            None => Err(dir),
        }
    }

    /// SIGKILL: nothing more is saved and nobody is told. Returns all it said since it was started.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut said = self.said.take();
        said.extend(self.log.iter());
        said
    }

    /// Starts again after a kill, on the same port and with the same files.
    pub(crate) fn restart(&mut self) {
        let launched = launch(self.dir.path(), self.port, &self.config);
        (self.child, self.log) = launched.expect("mosquitto does not start again");
    }

    /// Its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until it has said this, or has ended.
    pub(crate) fn says(&self, part: &str) -> bool {
        self.line(&[part]).is_some()
    }

    /// Waits for the next line with all these parts; none when it has ended.
    pub(crate) fn line(&self, parts: &[&str]) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            self.said.borrow_mut().push(line.clone());
            if parts.iter().all(|part| line.contains(part)) {
                return Some(line);
            }
        }
    }

    /// A client that publishes each line it is given at QoS 1, and ends with success when the broker has all of them.
    pub(crate) fn publisher(&self, topic: &str) -> (Child, ChildStdin) {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-i", "publisher", "-l"]);
        let mut publisher = command.stdin(Stdio::piped()).spawn().expect(MISSING);
        let stdin = publisher.stdin.take().unwrap();
        (publisher, stdin)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `None` when it does not come up.
fn launch(dir: &Path, port: u16, config: &str) -> Option<(Child, Receiver<String>)> {
    let base = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\nlog_type all\n");
    let file = dir.join("mosquitto.conf");
    let config = config.replace("DIR", dir.to_str().unwrap());
    fs::write(&file, format!("{base}allow_anonymous true\n{config}")).unwrap();
    let mut child = Command::new(program()).arg("-c").arg(file).stderr(Stdio::piped()).spawn().expect(MISSING);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (to_test, log) = channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(to_test.send(line))));
    let deadline = Instant::now() + PATIENCE;
    loop {
        match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("running") => return Some((child, log)),
            Ok(_) => {}
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

fn program() -> PathBuf {
    let usual = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(PathBuf::from);
    usual.into_iter().find(|p| p.exists()).expect(MISSING)
}
