//! A daemon that changes while it runs: under traffic on three transports, with good changes and broken ones, nothing is
//! lost, nothing is doubled, and each answer is the truth.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hb::pipeline::journal::{self, Row};
use hb::state::{Options, State};
use hb_engine::series::SeriesDef;

use crate::support::broker::Broker;
use crate::support::hb::{Hb, Output, Running, repository};

const PROGRAM: &str = "live";

/// Changes altogether; one in five is broken.
const CHANGES: usize = 50;

/// Messages a second on each transport. The rate that is promised is measured by the benchmark.
const RATE: u64 = 500;

/// Longest line and datagram.
const LINE_BYTES: usize = 4_096;

/// A config that stays good, for verbs: they read one too, and the daemon's may be broken just now.
const ASK: &str = "ask.yaml";

/// What a broker demands, before and after somebody changed it.
const FIRST_PASSWORD: &str = "one-that-is-old";
const SECOND_PASSWORD: &str = "one-that-is-new";

/// How long what was sent may take to be durable.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is read when the messages have been read: a daemon that goes on changing.
pub(crate) struct Live {
    pub(crate) hb: Hb,
    pub(crate) running: Running,
    pub(crate) broker: Broker,
    pub(crate) port: u16,
}

#[test]
fn fifty_changes_under_traffic_lose_nothing_and_double_nothing() {
    let mut live = Live::start();
    let (port, publisher, done) = (live.port, live.broker.publisher("plant/m"), AtomicBool::new(false));
    let sent = std::thread::scope(|threads| {
        let senders = [
            threads.spawn(|| send_tcp(port, "tcp", &done)),
            threads.spawn(|| send_udp(port, &done)),
            threads.spawn(|| send_mqtt(publisher, &done)),
        ];
        for n in 1..=CHANGES {
            live.change(n);
        }
        done.store(true, Ordering::Relaxed);
        senders.map(|sender| sender.join().unwrap())
    });
    let [tcp, udp, mqtt] = sent;
    let lost_by_kernel = udp_drops(live.port);
    println!("sent {sent:?}, {lost_by_kernel} datagrams dropped by the kernel");
    live.wait_for_ends(tcp + mqtt + udp - lost_by_kernel);
    live.running.end();

    let values = values(&live.hb);
    let whole = |n: u64| (0..n).collect::<Vec<u64>>();
    assert_eq!(values["tcp"], whole(tcp), "each line of the stream once, in order");
    assert_eq!(values["mqtt"], whole(mqtt), "each message once, in order");
    let datagrams = &values["udp"];
    let rises = datagrams.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(rises && datagrams.last().is_none_or(|&last| last < udp), "a datagram twice, or one that nobody sent");
    assert!(datagrams.iter().all(|&n| !is_long(n)), "what is too long is no sample");
    let counters: BTreeMap<String, u64> = live.hb.counters(PROGRAM).into_iter().collect();
    let rejects = counters.get("rejects").copied().unwrap_or(0);
    assert!(rejects > 0 && rejects <= (0..udp).filter(|&n| is_long(n)).count() as u64, "{rejects} rejects");
    assert_eq!(udp, datagrams.len() as u64 + rejects + lost_by_kernel, "sent = stored + rejected + dropped");
    live.hb.write("hb.yaml", &config(&live.broker, live.port, &Variant::default()));
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    let entries = live.hb.json(&["log", "show", "--kind", "generation", "--count", "1000"]);
    assert!(entries.as_array().unwrap().len() > CHANGES * 4 / 5, "each swap is in the log");
    let refused = live.hb.json(&["log", "show", "--kind", "generation.refused", "--count", "1000"]);
    assert!(refused.as_array().unwrap().len() >= CHANGES / 5, "each refusal is in the log");
}

#[test]
fn a_rollback_goes_back_until_the_next_reload() {
    let live = Live::start();
    let first = live.active();
    live.hb.write("hb.yaml", &config(&live.broker, live.port, &Variant { warn: 9, ..Variant::default() }));
    live.hb.done(&["reload", "--reason", "a wider limit"]);
    let second = live.active();
    assert_ne!(first, second);

    let back = live.hb.done(&["generation", "rollback", "--reason", "too wide"]);
    assert!(back.stdout.contains("until the next reload"), "{back:#?}");
    assert_eq!(live.active(), first);
    live.hb.done(&["generation", "rollback", "--to", &second[..8]]);
    assert_eq!(live.active(), second);
    let unknown = live.hb.run(&["generation", "rollback", "--to", "ffffffffffff"]);
    assert_eq!(unknown.code, 78, "{unknown:#?}");
    assert!(unknown.stderr.contains("hb generation list"), "{unknown:#?}");

    let list = live.hb.json(&["generation", "list"]);
    let reasons: Vec<&str> = list.as_array().unwrap().iter().map(|l| l["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"too wide"), "{list}");
    assert!(list.as_array().unwrap().last().unwrap()["active"].as_bool().unwrap(), "{list}");
    assert!(list.as_array().unwrap().iter().all(|l| !l["author"].as_str().unwrap().is_empty()), "{list}");
}

#[test]
fn a_file_that_is_saved_goes_live_by_itself_and_so_does_a_signal() {
    let mut live = Live::start();
    let first = live.active();
    // As editors do: beside it, then over it.
    live.hb.write("hb.yaml.tmp", &config(&live.broker, live.port, &Variant { warn: 9, ..Variant::default() }));
    std::fs::rename(live.hb.path("hb.yaml.tmp"), live.hb.path("hb.yaml")).unwrap();
    live.running.wait_for("Swapped", 1);
    let second = live.active();
    assert_ne!(first, second);

    let rule = live.hb.path("policies/drift/robust_z.luau");
    let text = std::fs::read_to_string(&rule).unwrap();
    std::fs::write(&rule, format!("{text}local\n")).unwrap();
    live.running.wait_for("robust_z.luau:", 1);
    assert_eq!(live.active(), second, "a broken policy changes nothing");
    std::fs::write(&rule, format!("{text}-- Looked at again.\n")).unwrap();
    live.running.wait_for("Swapped", 1);
    let third = live.active();
    assert_ne!(second, third);

    live.running.signal("HUP");
    live.running.wait_for("SIGHUP", 1);
    assert_eq!(live.active(), third);
    live.running.end();
}

#[test]
fn a_generation_whose_plugin_fails_on_everything_is_taken_back() {
    let mut live = Live::start();
    let first = live.active();
    let text = config(&live.broker, live.port, &Variant::default());
    let (at, end) = (text.find("plugin: schema-map").unwrap(), text.find("checks:").unwrap());
    let hostile = "plugin: hostile\n    settings: { mode: trap_on_bad }\n";
    let bad = format!("{}{hostile}{}", &text[..at], &text[end..]);
    let folder = crate::support::guests::guest("hostile").folder;
    crate::hostile::copy_folder(&folder, &live.hb.path("plugins/hostile"));
    live.hb.write("hb.yaml", &bad);
    let done = live.hb.run(&["reload"]);
    assert_eq!(done.code, 0, "its settings are good: {done:#?}");
    let (port, sent) = (live.port, AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| send_tcp(port, "bad", &sent));
        let deadline = Instant::now() + PATIENCE;
        while live.active() != first {
            assert!(Instant::now() < deadline, "the failing generation stays");
        }
        sent.store(true, Ordering::Relaxed);
    });
    let list = live.hb.json(&["generation", "list"]).to_string();
    assert!(list.contains("taken back: its plugins failed on"), "{list}");
    // What failed is nothing to go back to.
    let rollback = live.hb.run(&["generation", "rollback", "--config", ASK]);
    assert!(rollback.code != 0 && rollback.stderr.contains("there is no generation to go back to"), "{rollback:#?}");
    assert_eq!(live.active(), first);
    live.running.end();
}

#[test]
fn what_cannot_change_at_run_time_is_refused_with_its_place() {
    let live = Live::start();
    let text = config(&live.broker, live.port, &Variant::default());
    for (line, key, from, to) in [
        (1, "program", "program: live", "program: other"),
        (2, "state", "state: ./state", "state: ./elsewhere"),
        (3, "http", "require_signed: false", "http: { listen: \"127.0.0.1:0\" } # and\nrequire_signed: false"),
    ] {
        live.hb.write("hb.yaml", &text.replace(from, to));
        // The verb finds the daemon by the state that it runs on.
        let refused = live.hb.run(&["reload", "--state", "state"]);
        assert_eq!(refused.code, 78, "{refused:#?}");
        assert!(refused.stderr.contains(&format!("hb.yaml:{line}")), "{refused:#?}");
        let told = format!("`{key}` cannot change while the daemon runs");
        assert!(refused.stderr.contains(&told) && refused.stderr.contains("restart the daemon"), "{refused:#?}");
    }
}

#[test]
fn a_reload_takes_a_secret_that_was_changed() {
    let (hb, dir) = (Hb::new(), tempfile::tempdir().unwrap());
    let users = dir.path().join("users");
    let set = |password: &str| {
        let made = Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&users).args(["hb", password]).output();
        assert!(made.unwrap().status.success(), "mosquitto_passwd");
    };
    set(FIRST_PASSWORD);
    let mut broker = Broker::start_in(dir, "allow_anonymous false\npassword_file DIR/users\n");
    let port = broker.port;
    hb.write("password", FIRST_PASSWORD);
    let secret = hb.path("password");
    hb.write(
        "hb.yaml",
        &format!(
            "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - name: m
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{port}
        topics: [plant/#]
        client_id: rotating
        user: hb
        password: ${{file:{}}}
    normalizer: n
normalizers:
  - {{ name: n, plugin: schema-map, settings: {{ version: 1, timestamp: {{ field: t }}, layout: wide }} }}
",
            secret.display()
        ),
    );
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=debug"));
    running.wait_for("connected to the MQTT broker", 1);
    let reload = || hb.done(&["reload"]).stdout;
    assert!(reload().starts_with("unchanged: "));

    // First the broker's, then ours, as anybody would.
    broker.kill();
    set(SECOND_PASSWORD);
    broker.restart();
    running.wait_for("not authori", 1);
    hb.write("password", SECOND_PASSWORD);
    let changed = reload();
    assert!(changed.starts_with("active: "), "{changed}");
    running.wait_for("connected to the MQTT broker", 1);
    assert!(reload().starts_with("unchanged: "), "it is changed once");
    running.end();

    // Neither the secrets nor plain digests of them are kept.
    let kept = std::fs::read(hb.path("state/hb.redb")).unwrap();
    let said = running.said().join("\n");
    for secret in [FIRST_PASSWORD, SECOND_PASSWORD] {
        let digest = hb_log::hash::Hash::of(secret.as_bytes());
        for trace in [secret.as_bytes(), digest.as_bytes(), digest.to_string().as_bytes()] {
            assert!(!kept.windows(trace.len()).any(|bytes| bytes == trace), "{secret} can be told from the state");
        }
        assert!(!said.contains(secret) && !said.contains(&digest.short()), "{secret} is in the log");
    }
}

#[test]
fn caps_hold_as_soon_as_they_are_reloaded() {
    let live = Live::start();
    let text = config(&live.broker, live.port, &Variant::default());
    let caps = || {
        let usage = live.hb.json(&["status", "--config", ASK])["usage"].clone();
        ["state_cap_bytes", "log_cap_bytes"]
            .map(|name| usage[name].as_u64().unwrap_or_else(|| panic!("{usage:#}")) >> 20)
    };
    for (state_mb, log_mb) in [(64, 4), (256, 128)] {
        let limits = format!("limits: {{ max_state_mb: {state_mb}, max_audit_log_mb: {log_mb}, ");
        live.hb.write("hb.yaml", &text.replace("limits: { ", &limits));
        live.hb.done(&["reload"]);
        assert_eq!(caps(), [state_mb, log_mb]);
    }
}

#[test]
fn an_end_does_not_wait_for_a_reload() {
    let mut live = Live::start();
    // A config that is read until somebody has written it whole.
    std::fs::remove_file(live.hb.path("hb.yaml")).unwrap();
    assert!(Command::new("mkfifo").arg(live.hb.path("hb.yaml")).status().unwrap().success());
    live.running.signal("HUP");
    live.running.wait_for("asked to reload", 1);
    // Opened when somebody reads it.
    let unfinished = File::options().write(true).open(live.hb.path("hb.yaml")).unwrap();
    live.running.end();
    drop(unfinished);
}

#[test]
fn a_baseline_that_is_promoted_is_compared_with_at_once() {
    let live = Live::start();
    let (port, done) = (live.port, AtomicBool::new(false));
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| send_tcp(port, "tcp", &done));
        live.wait_for_samples(100);
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap();
    });
    let made = live.hb.json(&["baseline", "create", "--window", "24h"]);
    assert_eq!(made["version"], 1, "{made}");
    live.hb.done(&["baseline", "promote", "--version", "1", "--tag", "golden"]);
    let active = live.hb.json(&["log", "show", "--kind", "baseline.active", "--count", "10"]);
    assert_eq!(active[0]["body"]["tag"], "golden", "the daemon compares with it at once: {active}");
}

/// What a config says that changes.
#[derive(Default)]
struct Variant {
    warn: u32,
    spare: u32,
    commit_ms: u32,
}

impl Live {
    fn start() -> Live {
        Live::start_in(Hb::new(), &[])
    }

    /// Starts a daemon in a directory that may hold its `state` already, with further variables.
    pub(crate) fn start_in(hb: Hb, env: &[(&str, &str)]) -> Live {
        Live::start_as(hb, env, &str::to_owned)
    }

    /// The same, with a config that `change` makes of the usual one.
    pub(crate) fn start_as(hb: Hb, env: &[(&str, &str)], change: &dyn Fn(&str) -> String) -> Live {
        let broker = Broker::start("max_queued_messages 0\nmax_inflight_messages 1000\n");
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        crate::hostile::copy_folder(&repository().join("policies/drift"), &hb.path("policies/drift"));
        for name in ["mqtt", "syslog", "schema-map"] {
            let folder = crate::support::guests::plugin(name).folder;
            crate::hostile::copy_folder(&folder, &hb.path("plugins").join(name));
        }
        for name in ["hb.yaml", ASK] {
            hb.write(name, &change(&config(&broker, port, &Variant::default())));
        }
        let mut running = Running::start(
            hb.command(&["daemon"]).env("RUST_LOG", "hb=info,hb::pipeline=debug").envs(env.iter().copied()),
        );
        running.wait_for("reading", 3);
        assert!(broker.says("Sending SUBACK"), "the daemon does not subscribe");
        Live { hb, running, broker, port }
    }

    /// Makes the `n`th change and looks whether the answer is the truth.
    fn change(&self, n: usize) {
        let before = self.active();
        let good = |variant: &Variant| config(&self.broker, self.port, variant);
        let n32 = n as u32;
        match n % 5 {
            0 => {
                let broken = match n / 5 % 5 {
                    0 => "program: [".to_owned(),
                    1 => good(&Variant::default()).replace("plugin: schema-map", "plugin: no-such"),
                    2 => good(&Variant::default()).replace("warn:", "wran:"),
                    3 => good(&Variant::default()).replace("unmapped: ignore", "unmapped: what"),
                    _ => good(&Variant::default()).replace("window_sec: 10", "window_sec: -1"),
                };
                self.hb.write("hb.yaml", &broken);
                let answer = self.hb.run(&["reload", "--state", "state"]);
                assert_eq!(answer.code, 78, "change {n} is broken: {answer:#?}");
                assert!(answer.stderr.contains("--> "), "change {n} has a place: {answer:#?}");
                assert_eq!(self.active_of(&["--state", "state"]), before, "change {n} is broken and changes nothing");
            }
            1 => self.reload(n, &before, &good(&Variant { warn: n32, ..Variant::default() })),
            2 => self.reload(n, &before, &good(&Variant { spare: n32, ..Variant::default() })),
            3 => {
                let rule = self.hb.path("policies/drift/robust_z.luau");
                let text = std::fs::read_to_string(&rule).unwrap();
                std::fs::write(&rule, format!("{text}-- Change {n}.\n")).unwrap();
                self.reload(n, &before, &good(&Variant::default()));
            }
            _ => self.reload(n, &before, &good(&Variant { commit_ms: n32, warn: n32, spare: n32 })),
        }
    }

    fn reload(&self, n: usize, before: &str, text: &str) {
        self.hb.write("hb.yaml", text);
        let answer: Output = self.hb.done(&["reload", "--reason", &format!("change {n}")]);
        // The file watch may have been quicker.
        assert!(answer.stdout.starts_with("active: ") || answer.stdout.starts_with("unchanged: "), "{answer:#?}");
        assert_ne!(self.active(), before, "change {n} is active: {answer:#?}");
    }

    fn active(&self) -> String {
        self.active_of(&[])
    }

    /// The name of what runs, as the daemon says it.
    fn active_of(&self, more: &[&str]) -> String {
        let args = [&["generation", "list", "--config", ASK], more].concat();
        let list = self.hb.json(&args);
        let active = list.as_array().unwrap().iter().find(|line| line["active"] == true).unwrap();
        active["generation"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_for_samples(&self, n: u64) {
        self.wait_for(n, &["samples"]);
    }

    /// Waits until so many frames have become samples, or were refused.
    fn wait_for_ends(&self, n: u64) {
        self.wait_for(n, &["samples", "rejects"]);
    }

    fn wait_for(&self, n: u64, counters: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.hb.json(&["status", "--config", ASK]);
            let ends: u64 = counters.iter().map(|name| status["counters"][name].as_u64().unwrap_or(0)).sum();
            if ends >= n {
                return;
            }
            assert!(Instant::now() < deadline, "{ends} of {n} {counters:?} after {PATIENCE:?}: {status:#}");
        }
    }
}

pub(crate) fn send_tcp(port: u16, field: &str, done: &AtomicBool) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    paced(done, |n| stream.write_all(format!("{}\n", syslog(field, n)).as_bytes()).unwrap())
}

fn send_udp(port: u16, done: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    paced(done, |n| {
        let mut datagram = syslog("udp", n).into_bytes();
        if is_long(n) {
            datagram.resize(LINE_BYTES + 1, b' ');
        }
        assert!(socket.send_to(&datagram, ("127.0.0.1", port)).unwrap() > 0);
    })
}

/// Datagrams that are longer than allowed.
fn is_long(n: u64) -> bool {
    n % 100 == 17
}

pub(crate) fn send_mqtt((mut child, mut stdin): (Child, ChildStdin), done: &AtomicBool) -> u64 {
    let sent = paced(done, |n| {
        writeln!(stdin, "{{\"timestamp\":{}.{:03},\"mqtt\":{n}}}", 1_767_225_600 + n / 500, n % 500 * 2).unwrap();
    });
    drop(stdin);
    assert!(child.wait().unwrap().success(), "the broker did not take all messages");
    sent
}

pub(crate) fn syslog(field: &str, n: u64) -> String {
    let (second, ms) = (n / 500, n % 500 * 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("<13>1 2026-01-01T{hour:02}:{minute:02}:{second:02}.{ms:03}Z host app - - - {field}={n}")
}

/// Sends numbered messages at [`RATE`] until told to stop; returns their number.
fn paced(done: &AtomicBool, mut send: impl FnMut(u64)) -> u64 {
    let (begin, mut n) = (Instant::now(), 0_u64);
    while !done.load(Ordering::Relaxed) {
        let due = begin.elapsed().as_millis() as u64 * RATE / 1_000;
        while n < due {
            send(n);
            n += 1;
        }
        // Paced by the wall clock; the rate is the test's subject, not a wait for something.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    n
}

/// Datagrams the kernel dropped at a port, as it tells everybody.
fn udp_drops(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local = format!(":{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let drops = lines.filter(|c| c.get(1).is_some_and(|address| address.ends_with(&local)));
    drops.filter_map(|c| c.last()?.parse::<u64>().ok()).sum()
}

/// The values of all stored samples by metric, in order.
pub(crate) fn values(hb: &Hb) -> BTreeMap<String, Vec<u64>> {
    let reader = State::open(&hb.path("state"), Options::default()).unwrap().reader().unwrap();
    let defs = reader.series(PROGRAM).unwrap();
    let defs: BTreeMap<u32, SeriesDef> =
        defs.into_iter().map(|(id, bytes)| (id, hb_log::cbor::decode(&bytes).unwrap())).collect();
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in reader.journal(PROGRAM, "live", 0).unwrap() {
        if let Some(Row::Samples(columns)) = journal::decode(&row.unwrap().bytes) {
            for (series, value) in columns.series.iter().zip(&columns.value) {
                all.entry(defs[series].metric.clone()).or_default().push(*value as u64);
            }
        }
    }
    all
}

fn config(broker: &Broker, port: u16, variant: &Variant) -> String {
    let Variant { warn, spare, commit_ms } = variant;
    let (warn, commit_ms) = (6 + warn, 100 + commit_ms);
    format!(
        "program: {PROGRAM}
state: ./state
require_signed: false
plugins_dir: ./plugins
policies_dir: ./policies
sources:
  - {{ name: u, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - {{ name: t, plugin: syslog, transport: {{ socket: {{ listen: \"tcp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - name: m
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{}
        topics: [plant/#]
        client_id: changing
        in_flight_window: 1000
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings:
      version: 1
      unmapped: ignore
      sources:
        syslog:
          patterns:
            - {{ match: 'tcp=(?<tcp>[0-9]+)', field: msg }}
            - {{ match: 'udp=(?<udp>[0-9]+)', field: msg }}
      field_mapping:
        tcp: {{ metric: tcp }}
        udp: {{ metric: udp }}
        mqtt: {{ metric: mqtt }}
        spare{spare}: {{ metric: spare }}
checks:
  - {{ id: c, window_sec: 10, baseline: golden, rules: [{{ rule: drift.robust_z, params: {{ warn: {warn}, fail: 1000 }} }}] }}
limits: {{ commit_ms: {commit_ms}, max_line_bytes: {LINE_BYTES} }}
evidence: {{ on_fail: false }}
",
        broker.port
    )
}
