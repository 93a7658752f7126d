//! The demo as a stranger plays it, and its plant as a tool on a real socket and in a file.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::readme::fits;
use crate::support::broker::free_port;
use crate::support::hb::{Hb, Output, Running, repository};
use crate::support::terminal::Terminal;

/// How long what is sent on this machine may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an act of a demo may take.
const LONG: Duration = Duration::from_mins(5);

#[test]
fn the_demo_finds_six_faults_survives_a_kill_and_proves_it() {
    let said = demo("1");
    let rows: Vec<&str> = said.lines().filter(|l| l.contains("  case-") && l.ends_with("  ok")).collect();
    assert_eq!(rows.len(), 6, "{said}");
    for expected in
        ["samples lost     0  ok", "samples doubled  0  ok", "false alarms     0  ok", "reproduced: decision "]
    {
        assert!(said.contains(expected), "`{expected}` is not in\n{said}");
    }
    assert!(said.contains("error[policy]: Expected 'then'") && said.contains("All is right in"), "{said}");
    // The page that explains the demo shows this very account. At its own speed the tighter limit goes live at the same
    // time of the plant in each demo, and not at full speed, so how late the drift is found is another.
    let page = fs::read_to_string(repository().join("docs/start.md")).unwrap();
    let account = page.split("```text\n").find(|part| part.starts_with("fault ")).unwrap().split("```").next().unwrap();
    assert!(
        fits(&without_lateness(&format!("...\nAccount\n\n{account}...\n")), &without_lateness(&said)),
        "docs/start.md shows\n{account}\nand it is\n{said}"
    );
}

/// The account without how late the drift was found.
fn without_lateness(text: &str) -> String {
    let line = |line: &str| match line.find(" h ").filter(|_| line.starts_with("drift ")) {
        Some(at) => format!("{}? h ??{}\n", &line[..at - 1], &line[at + 5..]),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn a_demo_without_faults_finds_none_and_shows_the_daemon_on_a_terminal() {
    let hb = Hb::new();
    let args = ["demo", "--seed", "4", "--speed", "0", "--expect-quiet", "--keep", "demo"];
    let mut terminal = Terminal::start(&hb, &args, 50, 120);
    // What `hb top` shows stays below the lines of the play.
    terminal.wait_for("$ hb daemon 2>>daemon.log &", LONG);
    for expected in [" steps, ", "program plant, generation ", "sources: 1", "machines ", "Ctrl-C ends the demo"] {
        terminal.wait_for(expected, LONG);
    }
    terminal.wait_for("Act 2. Watch", LONG);
    let shown = terminal.screen();
    for stays in [" steps, ", "firing alerts: "] {
        assert!(shown.matches(stays).count() <= 1, "`{stays}` stands there more than once in\n{shown}");
    }
    terminal.wait_for("All is right in", LONG);
    assert_eq!(terminal.ended(PATIENCE), 0, "{}", terminal.screen());
    let left = terminal.screen();
    for expected in ["decisions FAIL   0  ok", "false alarms     0  ok", "samples lost     0  ok", "$ kill -9 "] {
        assert!(left.contains(expected), "`{expected}` is not in\n{left}");
    }
    for gone in [" steps, ", "firing alerts: ", "Ctrl-C ends"] {
        assert!(!left.contains(gone), "`{gone}` stays behind in\n{left}");
    }
}

/// Plays a demo as fast as it goes; what it said when it ended with 0.
fn demo(seed: &str) -> String {
    let hb = Hb::new();
    let dir = hb.path("demo");
    let output = hb.run(&["demo", "--seed", seed, "--speed", "0", "--keep", dir.to_str().unwrap()]);
    let log = fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(20).collect();
    assert_eq!(output.code, 0, "{}\n{}\nthe daemon said last:\n{}", output.stdout, output.stderr, last.join("\n"));
    assert!(!output.stdout.contains('\u{1b}'), "escapes, and no terminal");
    let alerts = fs::read_to_string(dir.join("alerts.jsonl")).unwrap();
    assert!(alerts.contains("/evidence_packs/") && !alerts.contains("/./"), "{alerts}");
    output.stdout
}

#[test]
fn a_demo_says_what_it_needs() {
    let hb = Hb::new();
    hb.write("there/already.txt", "something");
    let full = hb.run(&["demo", "--keep", "there"]);
    assert_eq!(full.code, 64, "{}", full.stderr);
    assert!(full.stderr.contains("there is not empty"), "{}", full.stderr);
    for speed in ["-1", "1e-18", "1e10", "NaN"] {
        let slow = hb.run(&["demo", "--speed", speed]);
        assert!(slow.code == 64 && slow.stderr.contains("is no speed: 0 is as fast as it goes"), "{slow:#?}");
    }
    let temporary = hb.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut bare = hb.command(&["demo"]);
    let nothing = Output::of(bare.env("HB_PLUGINS_DIR", hb.path("none")).env("TMPDIR", &temporary));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "a demo that does not begin leaves something behind");
    assert_eq!(nothing.code, 78, "{}", nothing.stderr);
    assert!(
        nothing.stderr.contains("no publisher's key") && nothing.stderr.contains("cargo xtask demo"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn a_file_is_the_same_each_time_and_a_reader_may_stop_early() {
    let hb = Hb::new();
    let simulate = |name: &str, seed: &str| {
        hb.done(&["simulate", "--seed", seed, "--machines", "3", "--for", "10m", "--output", name]);
        fs::read_to_string(hb.path(name)).unwrap()
    };
    // Whoever ends between two steps has seen each that began before.
    let part = hb.json(&["simulate", "--for", "90s", "--step", "60s", "--machines", "1", "--output", "part.jsonl"]);
    assert_eq!(part["reports"], 2, "{part}");
    let (one, again, other) = (simulate("a.jsonl", "1"), simulate("b.jsonl", "1"), simulate("c.jsonl", "2"));
    assert_eq!((one.lines().count(), &one), (30, &again));
    assert_ne!(one, other);
    assert!(one.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{one}");
    let piped = format!("{} simulate --for 24h | head -n 2", Path::new(env!("CARGO_BIN_EXE_hb")).display());
    let output = Output::of(std::process::Command::new("bash").args(["-o", "pipefail", "-c", &piped]));
    assert_eq!((output.code, output.stdout.lines().count()), (0, 2), "{}", output.stderr);
}

#[test]
fn a_syslog_receiver_gets_a_message_of_each_machine() {
    let hb = Hb::new();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&hb, &format!("udp://{}", receiver.local_addr().unwrap()), 1);
    let mut buffer = [0_u8; 1_024];
    let mut message = || {
        let length = receiver.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let messages = [message(), message(), message()];
    assert!(messages[0].starts_with("<134>1 2026-03-02T00:00:00Z press-01 acme - - - {\"ts\":"), "{messages:?}");
    assert!(messages[2].contains(" mill-03 corvus - - - ts=2026-03-02T00:00:00Z seq=0 MOT_T="), "{messages:?}");
}

#[test]
fn the_plant_reaches_the_syslog_source_over_every_kind_of_stream() {
    const MINUTES: u64 = 50;
    let hb = Hb::new();
    let tcp = format!("tcp://127.0.0.1:{}", free_port());
    let (datagrams, stream) = (hb.path("datagrams.sock"), hb.path("stream.sock"));
    let urls = [tcp, format!("unix://{}", datagrams.display()), format!("unix-stream://{}", stream.display())];
    let source = |url: &String| {
        let name = url.split(':').next().unwrap();
        let settings = "settings: { format: rfc5424, fields: kv }, normalizer: mills";
        format!(
            "  - {{ name: {name}, plugin: syslog, transport: {{ socket: {{ listen: \"{url}\" }} }}, {settings} }}\n"
        )
    };
    let sources: String = urls.iter().map(source).collect();
    hb.write("schema.yaml", MILLS);
    hb.write(
        "hb.yaml",
        &format!(
            "state: state\nrequire_signed: false\nasset_label: machine\nsources:\n{sources}\
             normalizers: [{{ name: mills, plugin: schema-map, schema: schema.yaml }}]\n"
        ),
    );
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info"));
    wait_until(&hb, |now| {
        let sources = now["daemon"]["sources"].as_object().map(|s| s.values().filter(|s| s["state"] == "up").count());
        sources == Some(urls.len())
    });
    for url in &urls {
        assert_eq!(send(&hb, url, MINUTES)["reports"], 3 * MINUTES, "{url}");
    }
    // The mill writes pairs, which are fields: its number and its six readings.
    wait_until(&hb, |now| {
        let counts = |key: &str| -> Vec<u64> {
            let sources = now["daemon"]["sources"].as_object().into_iter().flat_map(|sources| sources.values());
            sources.map(|source| source["taken"][key].as_u64().unwrap_or_default()).collect()
        };
        counts("frames") == [3 * MINUTES; 3] && counts("samples") == [7 * MINUTES; 3]
    });
    running.end();
}

/// What the fields of a mill mean behind syslog.
const MILLS: &str = "version: 1
timestamp: { field: timestamp }
labels: { machine: { field: host } }
field_mapping:
  fields.seq: { metric: sequence, kind: counter }
  fields.MOT_T: { metric: motor_temperature, unit: degC }
  fields.BRG_T: { metric: bearing_temperature, unit: degC }
  fields.VIB_MM_S: { metric: vibration, unit: mm/s }
  fields.RPM: { metric: speed, unit: 1/min }
  fields.PWR_HP: { metric: power, unit: kW, from: hp }
  fields.LAT_US: { metric: response_time, unit: s, from: us }
unmapped: ignore
unmapped_text: ignore
";

/// Sends so many minutes of three machines to a syslog receiver.
fn send(hb: &Hb, url: &str, minutes: u64) -> Value {
    let span = format!("{minutes}m");
    let plant = ["--machines", "3", "--for", &span, "--speed", "0", "--start", "2026-03-02"];
    hb.json(&[&["simulate", "--syslog", url][..], &plant].concat())
}

/// Waits until something holds for what `hb top` says.
fn wait_until(hb: &Hb, holds: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = hb.run(&["top", "--once", "--json"]);
        if holds(&serde_json::from_str(&output.stdout).unwrap_or_default()) {
            return;
        }
        assert!(Instant::now() < deadline, "{output:#?}");
    }
}

#[test]
fn a_wrong_word_is_answered_with_the_right_one() {
    let hb = Hb::new();
    let wrong = |args: &[&str]| {
        let output = hb.run(&[&["simulate"][..], args].concat());
        (output.code, output.stderr)
    };
    for (args, code, words) in [
        (&["--fault", "rust:press-01:1h"][..], 64, "there are drift, spike, stuck"),
        (&["--fault", "drift:press-77:1h"], 64, "there is no machine `press-77`; there are press-01"),
        (&["--fault", "drift:press-01"], 64, "KIND:MACHINE:FROM"),
        (&["--step", "soon"], 64, "`soon` is no span"),
        (&["--speed", "-1"], 64, "is no speed"),
        (&["--speed", "1e-18", "--output", "x.jsonl"], 64, "is no speed: 0 is as fast as it goes, others are 0.001"),
        (&["--machines", "100"], 64, "1 to 99 machines"),
        (&["--syslog", "ftp://x"], 64, "udp://"),
        (&["--broker", "tcp://127.0.0.1:1"], 74, "no connection to 127.0.0.1:1"),
        (&["--output", "/nowhere/x.jsonl"], 74, "/nowhere/x.jsonl"),
    ] {
        let (got, said) = wrong(args);
        assert!(got == code && said.contains(words), "{args:?}: {got} {said}");
    }
}
