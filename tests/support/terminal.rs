//! A terminal that `script` lends to a program, with somebody who reads what stands on it and presses keys.

use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::hb::{Hb, surround};

/// Lines that are remembered, more than anything here writes: nothing scrolls away.
const LINES: u16 = 1_000;

const MISSING: &str = "these tests need script: apt-get install bsdutils";

/// A program on a terminal; it is killed when the test ends, however it ends.
pub(crate) struct Terminal {
    child: Child,
    written: Receiver<Vec<u8>>,
    shown: vt100::Parser,
    /// All that was written, with its escapes.
    raw: String,
}

impl Terminal {
    /// Starts `hb` on a terminal with so many lines and columns.
    pub(crate) fn start(hb: &Hb, args: &[&str], lines: u16, columns: u16) -> Terminal {
        let line = format!("stty rows {lines} cols {columns} && exec {} {}", env!("CARGO_BIN_EXE_hb"), args.join(" "));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(hb.dir()).env("TERM", "xterm").env_remove("NO_COLOR");
        surround(&mut script);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(MISSING);
        let mut stdout = child.stdout.take().unwrap();
        let (sender, written) = channel();
        std::thread::spawn(move || {
            let mut part = [0_u8; 4_096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                // Nobody listens any more when a test has ended.
                let _ = sender.send(part[..length].to_vec());
            }
        });
        let [height, width] = [LINES, columns].map(|n| NonZero::new(n).unwrap());
        Terminal { child, written, shown: vt100::Parser::new(height, width, 0), raw: String::new() }
    }

    /// Waits until these words stand on it.
    pub(crate) fn wait_for(&mut self, words: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.screen().contains(words) {
            match self.written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.take(&part),
                Err(e) => panic!("{e}: `{words}` does not stand on\n{}", self.screen()),
            }
        }
    }

    /// What stands on it.
    pub(crate) fn screen(&self) -> String {
        self.shown.screen().contents()
    }

    /// All that was written, with its escapes.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the program has ended; its exit code.
    pub(crate) fn ended(&mut self, patience: Duration) -> i32 {
        let deadline = Instant::now() + patience;
        while let Ok(part) = self.written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.take(&part);
        }
        assert!(Instant::now() < deadline, "it does not end:\n{}", self.screen());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    fn take(&mut self, part: &[u8]) {
        self.shown.process(part);
        self.raw.push_str(&String::from_utf8_lossy(part));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
