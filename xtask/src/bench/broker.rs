//! A real mosquitto on a free loopback port. It is killed with the case, however that ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Limits of the broker itself are not what is measured: it queues without end, and many are on their way at a time.
const CONFIG: &str = "max_queued_messages 0\nallow_anonymous true\nlog_dest stderr\n";

/// Attempts to find a port that nobody takes meanwhile.
const ATTEMPTS: usize = 10;

/// A broker that lets everybody in and forgets nothing while it runs.
pub(super) struct Broker {
    /// Where it listens.
    pub(super) port: u16,
    child: Child,
}

impl Broker {
    /// Starts one with its config in `dir`; `in_flight` messages are on their way to a subscriber at a time.
    pub(super) fn start(dir: &Path, in_flight: u32) -> Result<Broker> {
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let file = dir.join("mosquitto.conf");
            let config = format!("listener {port} 127.0.0.1\nuser root\n{CONFIG}max_inflight_messages {in_flight}\n");
            fs::write(&file, config)?;
            let mut command = Command::new(program()?);
            let mut child = command.arg("-c").arg(file).stderr(Stdio::piped()).spawn().context("mosquitto")?;
            let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines().map_while(Result::ok);
            if lines.any(|line| line.contains("running")) {
                // What else it says is read, or it would stop when the pipe is full.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Broker { port, child });
            }
            let _ = child.wait();
        }
        anyhow::bail!("mosquitto does not start")
    }

    /// A client that publishes each line it is given at QoS 1.
    pub(super) fn publisher(&self, topic: &str) -> Result<Publisher> {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-i", "publisher", "-l"]);
        let mut child = command.stdin(Stdio::piped()).spawn().context("mosquitto_pub")?;
        let stdin = child.stdin.take().context("stdin")?;
        Ok(Publisher { child, stdin: Some(stdin) })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A publishing client.
pub(super) struct Publisher {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Publisher {
    /// Where lines go in.
    pub(super) fn lines(&mut self) -> Result<&mut ChildStdin> {
        self.stdin.as_mut().context("the publisher was told to end")
    }

    /// Waits until the broker has acknowledged all of it.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the broker did not take all messages");
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free for TCP and UDP a moment ago.
pub(super) fn free_port() -> Result<u16> {
    for _ in 0..ATTEMPTS {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}

fn program() -> Result<PathBuf> {
    let usual = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(PathBuf::from);
    usual.into_iter().find(|path| path.exists()).context("mosquitto is not installed")
}
