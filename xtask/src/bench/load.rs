//! Numbered telemetry at a steady rate, or as fast as it goes.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::broker::Publisher;

/// Between two looks at the clock; what is due is sent at once.
const TICK: Duration = Duration::from_millis(2);

/// 2026-01-01T00:00:00Z, where numbered telemetry begins.
pub(super) const BEGIN_SEC: u64 = 1_767_225_600;

/// Numbered lines, `rate` of them in each second of event time.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    /// Name of the number.
    pub(super) field: &'static str,
    /// Lines a second.
    pub(super) rate: u64,
    /// What else stands in a line, bytes.
    pub(super) padding: usize,
}

impl Lines {
    /// The `n`th as syslog.
    pub(super) fn syslog(&self, n: u64) -> String {
        let Lines { field, padding, .. } = *self;
        let (second, ms) = self.at(n);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let day = 1 + hour / 24;
        let hour = hour % 24;
        format!(
            "<13>1 2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z host app - - - {field}={n}{:padding$}",
            ""
        )
    }

    /// The `n`th as JSON.
    pub(super) fn json(&self, n: u64) -> String {
        let (second, ms) = self.at(n);
        format!("{{\"timestamp\":{}.{ms:03},\"{}\":{n}}}", BEGIN_SEC + second, self.field)
    }

    fn at(&self, n: u64) -> (u64, u64) {
        (n / self.rate, n % self.rate * 1_000 / self.rate)
    }

    /// Sends to a stream of syslog at the rate, until it is enough; the number sent.
    pub(super) fn to_tcp(self, port: u16, enough: &AtomicBool) -> Result<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        paced(self.rate, enough, |due| {
            let text: String = due.map(|n| self.syslog(n) + "\n").collect();
            stream.write_all(text.as_bytes()).context("tcp")
        })
    }

    /// Sends datagrams of syslog at the rate, until it is enough; the number sent.
    pub(super) fn to_udp(self, port: u16, enough: &AtomicBool) -> Result<u64> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        paced(self.rate, enough, |mut due| {
            due.try_for_each(|n| socket.send(self.syslog(n).as_bytes()).map(drop).context("udp"))
        })
    }

    /// Publishes at the rate, until it is enough; the number that the broker has acknowledged.
    pub(super) fn to_broker(self, publisher: Publisher, enough: &AtomicBool) -> Result<u64> {
        publish(publisher, self.rate, enough, |n| self.json(n))
    }
}

/// Publishes `line` of each number at a rate, until it is enough; the number that the broker has acknowledged.
pub(super) fn publish(
    mut publisher: Publisher,
    rate: u64,
    enough: &AtomicBool,
    line: impl Fn(u64) -> String,
) -> Result<u64> {
    let stdin = publisher.lines()?;
    let sent = paced(rate, enough, |due| {
        let text: String = due.map(|n| line(n) + "\n").collect();
        stdin.write_all(text.as_bytes()).context("mosquitto_pub")
    })?;
    publisher.end()?;
    Ok(sent)
}

/// Hands out the numbers that are due at a rate, again and again, until it is enough; their number.
pub(super) fn paced(rate: u64, enough: &AtomicBool, mut send: impl FnMut(Range<u64>) -> Result<()>) -> Result<u64> {
    let (begin, mut sent) = (Instant::now(), 0_u64);
    while !enough.load(Ordering::Relaxed) {
        let due = begin.elapsed().as_millis() as u64 * rate / 1_000;
        send(sent..due)?;
        sent = due;
        std::thread::sleep(TICK);
    }
    Ok(sent)
}

/// Noise between 0 and 1, the same for the same number: its quality does not matter, that it repeats does.
pub(super) fn noise(n: u64) -> f64 {
    let mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_their_time_goes_on() {
        let lines = Lines { field: "tcp", rate: 500, padding: 0 };
        assert_eq!(lines.syslog(1), "<13>1 2026-01-01T00:00:00.002Z host app - - - tcp=1");
        assert_eq!(
            lines.syslog(500 * 90_061),
            format!("<13>1 2026-01-02T01:01:01.000Z host app - - - tcp={}", 500 * 90_061)
        );
        assert_eq!(lines.json(501), "{\"timestamp\":1767225601.002,\"tcp\":501}");
        assert_eq!(Lines { padding: 3, ..lines }.syslog(1).len(), lines.syslog(1).len() + 3);
    }
}
