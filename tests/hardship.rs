//! A daemon in a hard world: a burst on a slow disk, and a clock that is set while it runs.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::reload::{Live, syslog, values};
use crate::support::hb::{Hb, Output, repository};

/// Lines of the burst on a stream. The million that is promised is the benchmark's.
const LINES: u64 = 100_000;

/// Messages of the burst on a broker.
const MESSAGES: u64 = 10_000;

/// What else stands in a line, so that the burst is larger than all buffers of the kernel.
const PADDING: usize = 250;

/// How long each sync takes more: a worn memory card.
const SYNC_MS: &str = "100";

/// Most memory ever used, kB.
const MEMORY_KB_MAX: u64 = 200_000;

/// How wrong the clock is, one after the other, s: a lost battery, a time server that is wrong, a summer time that is
/// none. It ends a day ahead.
const CLOCKS: [i64; 6] = [0, -3_600, 86_400, -1_000_000, 0, 86_400];

const DAY_NS: i64 = 86_400_000_000_000;

/// Lines with each clock, 2 ms of event time apart.
const LINES_PER_CLOCK: u64 = 5_000;

#[test]
fn a_burst_on_a_slow_disk_is_slowed_down_and_nothing_is_lost() {
    let hb = Hb::new();
    let library = hard_world(&hb);
    let mut live = Live::start_in(hb, &[("LD_PRELOAD", &library), ("HB_TEST_SYNC_MS", SYNC_MS)]);
    let (mut publisher, mut messages) = live.broker.publisher("plant/m");
    let port = live.port;
    let waits = std::thread::scope(|threads| {
        let lines = threads.spawn(move || burst(port));
        for n in 0..MESSAGES {
            writeln!(messages, "{{\"timestamp\":{}.{:03},\"mqtt\":{n}}}", 1_767_225_600 + n / 500, n % 500 * 2)
                .unwrap();
        }
        drop(messages);
        assert!(publisher.wait().unwrap().success(), "the broker did not take all messages");
        lines.join().unwrap()
    });
    assert!(waits > 0, "the sender never had to wait");
    live.wait_for_samples(LINES + MESSAGES);
    let status = std::fs::read_to_string(format!("/proc/{}/status", live.running.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{waits} waits of the sender, {peak_kb} kB at most");
    assert!(peak_kb < MEMORY_KB_MAX, "{peak_kb} kB");
    live.running.end();
    let values = values(&live.hb);
    assert_eq!(values["tcp"], (0..LINES).collect::<Vec<u64>>(), "each line once, in order");
    assert_eq!(values["mqtt"], (0..MESSAGES).collect::<Vec<u64>>(), "each message once, in order");
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
}

/// Sends as fast as lines are taken; returns how often none was.
fn burst(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // A write that would wait says so instead.
    stream.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
    let padding = "x".repeat(PADDING);
    let mut waits = 0;
    for n in 0..LINES {
        let line = format!("{} {padding}\n", syslog("tcp", n));
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => waits += 1,
                Err(e) => panic!("{e}"),
            }
        }
    }
    waits
}

#[test]
fn a_clock_that_is_set_back_and_forth_changes_no_decision() {
    let mut decisions = Vec::new();
    for is_set in [false, true] {
        let hb = Hb::new();
        hb.write("clock", "0");
        let (library, clock) = (hard_world(&hb), hb.path("clock"));
        let env = [("LD_PRELOAD", library.as_str()), ("HB_TEST_CLOCK", clock.to_str().unwrap())];
        let mut live = Live::start_in(hb, &env);
        let mut stream = TcpStream::connect(("127.0.0.1", live.port)).unwrap();
        for (clock, wrong_sec) in (0..).zip(CLOCKS) {
            if is_set {
                // Replaced at once: half a number is another time.
                live.hb.write("clock.new", &wrong_sec.to_string());
                std::fs::rename(live.hb.path("clock.new"), live.hb.path("clock")).unwrap();
            }
            for n in clock * LINES_PER_CLOCK..(clock + 1) * LINES_PER_CLOCK {
                stream.write_all(format!("{}\n", syslog("tcp", n)).as_bytes()).unwrap();
            }
            // They are taken with this clock and not with the next one.
            live.running.wait_for("committed", 1);
        }
        live.wait_for_samples(CLOCKS.len() as u64 * LINES_PER_CLOCK);
        live.running.end();
        live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
        let at = |kind: &str| {
            let entries = live.hb.json(&["log", "show", "--kind", kind]);
            hb::clock::parse(entries[0]["time"].as_str().unwrap()).unwrap()
        };
        assert_eq!((at("stop") - at("start")) / DAY_NS, i64::from(is_set), "days by its own clock");
        decisions.push(live.hb.decisions("live"));
    }
    assert!(decisions[0].len() > 2, "{} decisions", decisions[0].len());
    assert_eq!(decisions[0], decisions[1], "the wall clock changed decisions");
}

/// Compiles the library that makes the world hard; its path.
fn hard_world(hb: &Hb) -> String {
    let source: PathBuf = repository().join("tests/support/hard_world.c");
    let library = hb.path("hard_world.so");
    let built = Output::of(
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source),
    );
    assert_eq!(built.code, 0, "{built:#?}");
    library.to_str().unwrap().to_owned()
}
