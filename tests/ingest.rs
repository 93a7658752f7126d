//! `hb ingest` from a broker and from sockets: the same artifacts as from a file, and an end when it is told.

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Child, Command};

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::hb::{Hb, Running};

/// The schema of [`lines`].
const SCHEMA: &str = "version: 1\ntimestamp: { field: t }\nlabels: { asset: { field: a } }\nlayout: wide\n";

/// The schema of syslog: each message an event, and a reading where there is one.
const SYSLOG: &str = "version: 1
timestamp: { field: timestamp, missing: received }
unmapped: ignore
events: { kind: syslog.message, body: msg, attributes: [program] }
sources: { syslog: { patterns: [{ match: 'temp=(?<temp>[0-9.]+)', field: msg }] } }
field_mapping: { temp: { metric: temperature, unit: degC } }
";

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"t\":{},\"a\":\"m{}\",\"n\":{n}}}\n", 1_767_225_600 + n, n % 7)).collect()
}

#[test]
fn a_broker_gives_the_artifacts_of_a_file() {
    let broker = Broker::start("");
    let hb = Hb::new();
    hb.write("schema.yaml", SCHEMA);
    let url = format!("tcp://127.0.0.1:{}", broker.port);
    let what = ["--source", "mqtt", "--broker", &url, "--topic", "plant/a", "--topic", "plant/b/+", "--qos", "1"];
    let how = ["--schema", "schema.yaml", "--max-frames", "100", "--out", "live", "--for", "5m"];
    let mut child = hb.command(&[&["ingest"][..], &what, &how].concat()).spawn().unwrap();
    assert!(broker.says("Sending SUBACK"), "it does not subscribe");
    publish(&broker, "plant/a", &lines(0..60));
    publish(&broker, "plant/c", &lines(900..910));
    publish(&broker, "plant/b/x", &lines(60..120));
    assert!(child.wait().unwrap().success());
    hb.write("all.jsonl", &lines(0..100));
    hb.done(&["ingest", "all.jsonl", "--schema", "schema.yaml", "--out", "file"]);
    let metrics = |dir: &str| std::fs::read_to_string(hb.path(dir).join("metrics.csv")).unwrap();
    assert_eq!(metrics("live"), metrics("file"));
    let (live, file) = (meta(&hb, "live"), meta(&hb, "file"));
    assert_eq!((&live["counts"], &live["run_id"]), (&file["counts"], &file["run_id"]));
    assert_eq!(live["source"], format!("mqtt {url} plant/a plant/b/+"));
}

#[test]
fn a_message_is_acknowledged_when_it_is_on_disk() {
    let broker = Broker::start("");
    let hb = Hb::new();
    hb.write("schema.yaml", SCHEMA);
    let url = format!("tcp://127.0.0.1:{}", broker.port);
    let ingest = |more: &[&str]| {
        let what = ["ingest", "--broker", &url, "--topic", "plant/#", "--client-id", "kept", "--schema", "schema.yaml"];
        hb.command(&[&what[..], more].concat())
    };
    let mut first = Running::start(&mut ingest(&["--out", "first"]));
    assert!(broker.says("Sending SUBACK to kept"), "it does not subscribe");
    publish(&broker, "plant/a", &lines(0..30));
    for acknowledged in 1..=30 {
        assert!(broker.says("Received PUBACK from kept"), "only {acknowledged} are acknowledged");
        let part = std::fs::read_to_string(hb.path("first/.metrics.csv.part")).unwrap();
        assert!(part.lines().count() > acknowledged, "{acknowledged} are acknowledged: {part}");
    }
    first.end();
    assert_eq!(meta(&hb, "first")["counts"]["samples"], 30);
    // What comes while nobody is there waits in the session, and what was acknowledged does not come again.
    publish(&broker, "plant/a", &lines(30..35));
    assert!(ingest(&["--out", "second", "--max-frames", "5"]).status().unwrap().success());
    hb.write("rest.jsonl", &lines(30..35));
    hb.done(&["ingest", "rest.jsonl", "--schema", "schema.yaml", "--out", "rest"]);
    assert_eq!(meta(&hb, "second")["run_id"], meta(&hb, "rest")["run_id"]);
}

#[test]
fn real_syslog_clients_fill_artifacts() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hb = Hb::new();
    hb.write("schema.yaml", SYSLOG);
    let (port, socket) = (port.to_string(), hb.path("log.sock"));
    let server = ["--server", "127.0.0.1", "--port", &port];
    for (name, listen, to) in [
        ("udp", format!("udp://127.0.0.1:{port}"), [&server[..], &["--udp"]].concat()),
        ("tcp", format!("tcp://127.0.0.1:{port}"), [&server[..], &["--tcp", "--octet-count"]].concat()),
        ("unix", format!("unix://{}", socket.display()), vec!["--socket", socket.to_str().unwrap()]),
    ] {
        let what = ["ingest", "--source", "syslog", "--listen", &listen, "--schema", "schema.yaml"];
        let mut command = hb.command(&[&what[..], &["--out", name, "--max-frames", "2"]].concat());
        let mut running = Running::start(&mut command);
        running.wait_for("reading from", 1);
        for text in ["temp=21.5 all is well", "nothing to read"] {
            let mut logger = Command::new("logger");
            assert!(logger.args(&to).args(["--tag", "pump", text]).status().unwrap().success(), "logger {to:?}");
        }
        running.wait();
        let counts = &meta(&hb, name)["counts"];
        assert_eq!((&counts["frames"], &counts["samples"], &counts["events"]), (&2.into(), &1.into(), &2.into()));
        let events = std::fs::read_to_string(hb.path(name).join("events.jsonl")).unwrap();
        let bodies: Vec<Value> = events.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(bodies[0]["body"], "temp=21.5 all is well", "{events}");
        assert_eq!(bodies[1]["attributes"]["program"], "pump", "{events}");
        assert!(
            std::fs::read_to_string(hb.path(name).join("metrics.csv")).unwrap().contains(",temperature,21.5,degC,")
        );
    }
}

#[test]
fn time_and_signals_end_a_run_that_brings_nothing() {
    let hb = Hb::new();
    hb.write("schema.yaml", SYSLOG);
    let socket = format!("unix://{}", hb.path("log.sock").display());
    let what = ["ingest", "--listen", &socket, "--schema", "schema.yaml", "--out"];
    hb.done(&[&what[..], &["timed", "--for", "1s"]].concat());
    for (signal, dir) in [("TERM", "ended"), ("INT", "interrupted")] {
        let mut running = Running::start(&mut hb.command(&[&what[..], &[dir]].concat()));
        running.wait_for("reading from", 1);
        running.signal(signal);
        running.wait();
        assert!(hb.path(dir).join("run_meta.json").exists() && hb.path(dir).join("metrics.csv").exists());
    }
    assert!(hb.path("timed").join("run_meta.json").exists());
}

#[test]
fn what_does_not_belong_together_is_told() {
    let hb = Hb::new();
    hb.write("schema.yaml", SCHEMA);
    let broker = ["--broker", "tcp://127.0.0.1:1"];
    let topic = [&broker[..], &["--topic", "a"]].concat();
    let listen = ["--listen", "udp://127.0.0.1:0"];
    for (args, told) in [
        (vec![], "`file-replay` is to read: PATH is missing"),
        (vec!["--source", "mqtt"], "`mqtt` is to read: --broker is missing"),
        (vec!["--source", "syslog"], "`syslog` is to read: --listen is missing"),
        (broker.to_vec(), "--broker without --topic"),
        (vec!["x.jsonl", "--topic", "a"], "`--topic` belongs to --broker"),
        ([&listen[..], &["--qos", "1"]].concat(), "`--qos` belongs to --broker"),
        ([&listen[..], &["--password-file", "p"]].concat(), "`--password-file` belongs to --broker"),
        ([&topic[..], &["--framing", "newline"]].concat(), "`--framing` belongs to --listen"),
        ([&topic[..], &listen[..]].concat(), "three places to read from"),
        ([&topic[..], &["--source", "syslog"]].concat(), "source `syslog` reads from --listen, not from --broker"),
        ([&listen[..], &["--source", "mqtt"]].concat(), "source `mqtt` reads from --broker, not from --listen"),
        ([&listen[..], &["--rate", "5"]].concat(), "`--rate` belongs to files"),
        ([&topic[..], &["--protocol", "3.1.1"]].concat(), "would leave a session at the broker"),
        ([&topic[..], &["--password-file", "none"]].concat(), "cannot read the secret"),
        ([&topic[..], &["--for", "soon"]].concat(), "`soon` is no span"),
        (vec!["--broker", "broker:1883", "--topic", "a"], "is no broker"),
        ([&broker[..], &["--topic", "a/#/b"]].concat(), "`a/#/b` is no topic filter"),
        (vec!["--listen", "127.0.0.1"], "127.0.0.1"),
    ] {
        let all = [&["ingest", "--out", "out", "--schema", "schema.yaml"][..], &args].concat();
        let output = hb.run(&all);
        assert_eq!(output.code, 64, "{args:?}: {output:#?}");
        assert!(output.stderr.contains(told) && output.stderr.contains("help: "), "{args:?}: {output:#?}");
        assert!(!hb.path("out").exists(), "{args:?} wrote something");
    }
}

fn publish(broker: &Broker, topic: &str, text: &str) {
    let (mut publisher, mut stdin): (Child, _) = broker.publisher(topic);
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(publisher.wait().unwrap().success(), "the broker did not take all messages");
}

fn meta(hb: &Hb, dir: &str) -> Value {
    serde_json::from_slice(&std::fs::read(hb.path(dir).join("run_meta.json")).unwrap()).unwrap()
}
