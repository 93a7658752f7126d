//! A real mosquitto on a free loopback port, with files of its own, that ends with the test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

const MISSING: &str = "these tests need mosquitto: apt-get install mosquitto mosquitto-clients, or cargo xtask test";

/// A broker that lets everybody in and forgets nothing while it runs.
pub(crate) struct Broker {
    _dir: TempDir,
    /// Where it listens.
    pub(crate) port: u16,
    child: Child,
    log: Receiver<String>,
}

impl Broker {
    /// Starts one; `config` is added to its configuration.
    pub(crate) fn start(config: &str) -> Broker {
        // Somebody else may take the port meanwhile.
        let started = (0..10).find_map(|_| Broker::start_on(free_port(), config));
        started.unwrap_or_else(|| panic!("mosquitto does not start"))
    }

    /// Starts one on this port, if nobody has it.
    pub(crate) fn start_on(port: u16, config: &str) -> Option<Broker> {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\nlog_type all\n");
        let file = dir.path().join("mosquitto.conf");
        fs::write(&file, format!("{base}allow_anonymous true\n{config}")).unwrap();
        let mut child = Command::new(program()).arg("-c").arg(file).stderr(Stdio::piped()).spawn().expect(MISSING);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (to_test, log) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(to_test.send(line))));
        let broker = Broker { _dir: dir, port, child, log };
        broker.says("running").then_some(broker)
    }

    /// Waits until it has said this, or has ended.
    pub(crate) fn says(&self, part: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return true,
                Ok(_) => {}
                Err(_) => return false,
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

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program() -> PathBuf {
    let usual = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(PathBuf::from);
    usual.into_iter().find(|p| p.exists()).expect(MISSING)
}
