//! What a running daemon says of itself: whether it lives and is ready, its numbers, its lines.

mod exposition;
mod full_log;
pub(crate) mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::broker::{Broker, free_port};
use crate::support::hb::{Hb, PROGRAM, Plant, Running, at, config, telemetry};
use http::{Answer, get, get_as};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Simulated seconds: clean, then with faults that open cases.
const SECONDS: u64 = 480;

#[test]
fn health_follows_the_sources_and_metrics_equal_what_was_fed() {
    let (broker_port, udp_port) = (free_port(), free_udp_port());
    let fed = telemetry(7, SECONDS);
    let hb = live_plant(&fed, broker_port, udp_port);
    let mut running = Running::start(hb.command(&["daemon", "--log-format", "json"]).env("RUST_LOG", "hb=info"));
    let address = address(&hb, &mut running);

    assert_eq!(get(&address, "/live").status, 200);
    let waiting = until(&address, "/ready", |a| reasons(a).iter().all(|(what, _)| what == "source m"));
    assert_eq!(waiting.status, 503, "{waiting:?}");
    let (what, why) = reasons(&waiting)[0].clone();
    assert_eq!(what, "source m");
    assert!(why.contains("no connection to the MQTT broker"), "{why}");
    let text = get_as(&address, "/readyz", "text/plain");
    assert!(text.status == 503 && text.body.starts_with("not ready\nsource m: no connection"), "{text:?}");
    // What waits for a broker is alive: no restart brings the broker back.
    assert!(["/live", "/livez", "/healthz"].iter().all(|path| get(&address, path).status == 200));
    assert_eq!(value(&scrape(&address), "hb_source_up{source=\"m\"}"), 0.0);

    let broker = Broker::start_on(broker_port, "").expect("the port was taken meanwhile");
    let ready = until(&address, "/ready", |a| a.status == 200);
    assert_eq!(ready.json()["reasons"], Value::Array(Vec::new()));

    let published = publish(&broker);
    let sent = send(udp_port);
    let lines = fed.lines().filter(|line| !line.is_empty()).count() as u64;
    let last = until_scraped(&address, |m| {
        let durable = |source: &str| value(m, &format!("hb_queue_depth{{source=\"{source}\"}}")) == 0.0;
        value(m, "hb_samples_total{source=\"m\"}") >= published.frames as f64
            && value(m, "hb_samples_total{source=\"u\"}") >= sent.frames as f64
            && value(m, "hb_frames_total{source=\"plant\"}") + value(m, "hb_rejects_total{source=\"plant\"}")
                >= lines as f64
            && ["plant", "m", "u"].into_iter().all(durable)
    });
    for (source, fed) in [("m", published), ("u", sent)] {
        let is = |name: &str, n: u64| {
            assert_eq!(value(&last, &format!("{name}{{source=\"{source}\"}}")), n as f64, "{name} of {source}");
        };
        is("hb_frames_total", fed.frames);
        is("hb_samples_total", fed.frames);
        is("hb_rejects_total", 0);
        is("hb_source_up", 1);
        is("hb_source_restarts_total", 0);
    }
    assert_eq!(value(&last, "hb_frame_bytes_total{source=\"m\"}"), published.bytes as f64);
    assert_eq!(value(&last, "hb_transport_frames_total{source=\"u\"}"), sent.frames as f64);
    assert_eq!(value(&last, "hb_transport_bytes_total{source=\"u\"}"), sent.bytes as f64);
    assert_eq!(value(&last, "hb_transport_kernel_drops_total{source=\"u\"}"), 0.0);
    assert_eq!(value(&last, "hb_transport_messages_total{source=\"m\"}"), published.frames as f64);
    assert_eq!(value(&last, "hb_transport_connected{source=\"m\"}"), 1.0);
    assert!(value(&last, "hb_decisions_total{status=\"FAIL\"}") > 0.0 && value(&last, "hb_cases_total") > 0.0);
    assert!(value(&last, "hb_lag_seconds{source=\"plant\"}") > 0.0);
    assert!(value(&last, "hb_state_bytes") > 0.0 && value(&last, "process_resident_memory_bytes") > 0.0);
    let decided: f64 = last.iter().filter(|(name, _)| name.starts_with("hb_decisions_total{")).map(|(_, n)| n).sum();
    assert_eq!(value(&last, "hb_decision_latency_seconds_count"), decided);
    assert!(value(&last, "hb_decision_latency_quantile_seconds{quantile=\"0.99\"}") > 0.0);
    let detail = get(&address, "/health/detailed").json();
    assert_eq!(detail["sources"]["m"]["taken"]["frames"], published.frames);
    assert_eq!((&detail["phase"], &detail["ready"]), (&"running".into(), &true.into()));

    running.end();
    assert!(!hb.path("state/http.addr").exists(), "nobody listens there any more");
    let stored: BTreeMap<String, u64> = hb.counters(PROGRAM).into_iter().collect();
    let sum = |name: &str| {
        ["plant", "m", "u"].map(|s| value(&last, &format!("{name}{{source=\"{s}\"}}"))).iter().sum::<f64>() as u64
    };
    for name in ["frames", "samples", "rejects", "ignored"] {
        assert_eq!(sum(&format!("hb_{name}_total")), stored.get(name).copied().unwrap_or(0), "{name}");
    }
    assert!(hb.decisions(PROGRAM).len() as f64 >= decided);
    lines_tell_of_decisions(running.said());
}

fn text<'v>(line: &'v Value, key: &str) -> &'v str {
    line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}"))
}

/// All lines are JSON, a case is found from its decision, and refused telemetry is summed up.
fn lines_tell_of_decisions(said: &[String]) {
    let lines: Vec<Value> =
        said.iter().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    let of = |message: &str| lines.iter().filter(|l| l["message"] == message).collect::<Vec<_>>();
    for line in &lines {
        let is_text = |key: &str| line[key].is_string();
        assert!(["timestamp", "level", "target", "message"].into_iter().all(is_text), "{line}");
    }
    let (decided, cases) = (of("decided"), of("case opened"));
    assert!(!cases.is_empty(), "{said:#?}");
    // From a decision to its alert, and on to the sink that has it.
    let (alerts, delivered) = ([of("alert fires"), of("alert is resolved")].concat(), of("alert delivered"));
    assert!(!delivered.is_empty(), "{said:#?}");
    for alert in &alerts {
        assert!(text(alert, "decision").starts_with(text(alert, "correlation_id")), "{alert}");
        if alert["message"] == "alert fires" {
            let of_it = decided.iter().filter(|d| d["correlation_id"] == alert["correlation_id"]);
            assert_eq!(of_it.map(|d| &d["decision"]).collect::<Vec<_>>(), [&alert["decision"]]);
        }
    }
    for line in delivered {
        let of_it = alerts.iter().filter(|alert| alert["alert"] == line["id"]);
        let ids: Vec<&Value> = of_it.map(|alert| &alert["correlation_id"]).collect();
        assert_eq!((ids, &line["sink"]), (vec![&line["correlation_id"]], &"out".into()), "{line}");
    }
    for case in cases {
        let path: Vec<&&Value> = decided.iter().filter(|d| d["correlation_id"] == case["correlation_id"]).collect();
        let [decision] = path[..] else { panic!("{case}: {path:?}") };
        assert_eq!((&decision["status"], &decision["txn"]), (&Value::from("FAIL"), &case["txn"]));
        assert_eq!(decision["decision"], case["decision"]);
        assert!(decision["decision"].as_str().unwrap().starts_with(case["correlation_id"].as_str().unwrap()));
    }
    assert!(lines.iter().any(|l| l["message"].as_str().unwrap().starts_with("evidence: ")), "{said:#?}");
    let refused = lines.iter().filter(|l| l["message"].as_str().unwrap().starts_with("telemetry was refused")).count();
    assert!((1..=2).contains(&refused), "{refused} lines: {said:#?}");
}

#[test]
fn a_client_that_does_nothing_or_too_much_holds_up_nobody() {
    let (_hb, mut running, address) = small();
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nx-slow: ").unwrap();
        idle.push(client);
    }
    assert_eq!(get(&address, "/live").status, 200);
    // The first of them has given way.
    idle[0].set_read_timeout(Some(PATIENCE)).unwrap();
    let left = idle[0].read(&mut [0; 1]);
    assert!(left.as_ref().map_or_else(|e| e.kind() != std::io::ErrorKind::WouldBlock, |&n| n == 0), "{left:?}");

    let mut loud = TcpStream::connect(&address).unwrap();
    loud.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = loud.write_all(format!("GET /live HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes());
    let mut said = Vec::new();
    let ended = loud.read_to_end(&mut said);
    assert!(ended.is_err() || said.starts_with(b"HTTP/1.1 431 "), "{ended:?} {:?}", String::from_utf8_lossy(&said));

    assert_eq!(get(&address, "/live").status, 200);
    let unknown = get(&address, "/");
    assert!(unknown.status == 404 && unknown.body.contains("/metrics"), "{unknown:?}");
    assert_eq!(http::ask(&address, "POST", "/live", "*/*").status, 405);
    running.end();
}

#[test]
fn metrics_are_written_as_whoever_asks_can_read_them() {
    let (_hb, mut running, address) = small();
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let open = get_as(&address, "/metrics", prometheus);
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = exposition::open_metrics(&open.body);
    let plain = get(&address, "/metrics");
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let plain = exposition::prometheus(&plain.body);
    let names = |all: &BTreeMap<String, f64>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&open), names(&plain));
    running.end();
}

#[test]
fn a_taken_port_is_told_with_its_place_and_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let hb = Hb::new();
    hb.write("hb.yaml", &small_config(&address.to_string()));
    let output = hb.run(&["daemon"]);
    assert_eq!(output.code, 74, "{output:#?}");
    for part in [address.to_string().as_str(), "hb.yaml:", "help: another program has the port", "ss -ltnp"] {
        assert!(output.stderr.contains(part), "{part}: {output:#?}");
    }
}

/// A plant whose file is followed, with a broker and a syslog socket beside it.
fn live_plant(fed: &str, broker_port: u16, udp_port: u16) -> Hb {
    let plant = Plant { evidence: true, ..Plant::default() };
    let hb = Hb::plant(plant, fed);
    let sources = format!(
        "sources:
  - {{ name: m, plugin: mqtt, transport: {{ mqtt: {{ broker: \"tcp://127.0.0.1:{broker_port}\", topics: [plant/#], client_id: hb }} }}, normalizer: plant }}
  - {{ name: u, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{udp_port}\" }} }}, normalizer: lines }}
"
    );
    let lines = "normalizers:
  - name: lines
    plugin: schema-map
    settings:
      version: 1
      unmapped: ignore
      sources: { syslog: { patterns: [{ match: 'temp=(?<temp>[0-9.]+)', field: msg }] } }
      field_mapping: { temp: { metric: temperature, unit: degC } }
";
    let text = config(plant)
        .replace("path: telemetry.jsonl", "path: telemetry.jsonl, follow: true")
        .replace("commit_ms: 60000", "commit_ms: 100")
        .replace("sources:\n", &sources)
        .replace("normalizers:\n", lines);
    let sinks = "sinks: [{ name: out, plugin: jsonl, output: { file: out.jsonl } }]";
    hb.write("hb.yaml", &format!("{text}{sinks}\nhttp: {{ listen: \"127.0.0.1:0\" }}\n"));
    hb
}

/// A daemon with nothing to do, and where it answers.
fn small() -> (Hb, Running, String) {
    let hb = Hb::new();
    hb.write("hb.yaml", &small_config("127.0.0.1:0"));
    let mut running = Running::start(&mut hb.command(&["daemon"]));
    let address = address(&hb, &mut running);
    until(&address, "/ready", |a| a.status == 200);
    (hb, running, address)
}

fn small_config(listen: &str) -> String {
    let udp = free_udp_port();
    format!(
        "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - {{ name: s, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{udp}\" }} }}, normalizer: n }}
normalizers:
  - {{ name: n, plugin: schema-map, settings: {{ version: 1 }} }}
http: {{ listen: \"{listen}\" }}
"
    )
}

/// What was fed to a source.
#[derive(Clone, Copy)]
struct Fed {
    frames: u64,
    bytes: u64,
}

fn publish(broker: &Broker) -> Fed {
    let (mut child, mut stdin) = broker.publisher("plant/m");
    let mut fed = Fed { frames: 0, bytes: 0 };
    for second in 0..5 {
        let line = format!("{{\"timestamp\":\"{}\",\"asset\":\"m-1\",\"temp_f\":{}.5}}", at(second), 140 + second);
        writeln!(stdin, "{line}").unwrap();
        fed = Fed { frames: fed.frames + 1, bytes: fed.bytes + line.len() as u64 };
    }
    drop(stdin);
    assert!(child.wait().unwrap().success(), "the broker did not take all messages");
    fed
}

fn send(port: u16) -> Fed {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut fed = Fed { frames: 0, bytes: 0 };
    for second in 0..3 {
        let line = format!("<13>1 {} host pump - - - temp=2{second}.5 all is well", at(second));
        socket.send_to(line.as_bytes(), ("127.0.0.1", port)).unwrap();
        fed = Fed { frames: fed.frames + 1, bytes: fed.bytes + line.len() as u64 };
    }
    fed
}

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where a daemon listens: its log says when, its state where.
pub(crate) fn address(hb: &Hb, running: &mut Running) -> String {
    running.wait_for("serving health and metrics", 1);
    std::fs::read_to_string(hb.path("state/http.addr")).unwrap().trim().to_owned()
}

/// Asks until the answer is as it should be.
pub(crate) fn until(address: &str, path: &str, done: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(address, path);
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        // The server tells nobody of a change; this only spares the machine.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn until_scraped(address: &str, done: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
    let answer = until(address, "/metrics", |answer| done(&exposition::prometheus(&answer.body)));
    exposition::prometheus(&answer.body)
}

pub(crate) fn scrape(address: &str) -> BTreeMap<String, f64> {
    exposition::prometheus(&get(address, "/metrics").body)
}

/// A value; one that is not shown is less than all others.
pub(crate) fn value(metrics: &BTreeMap<String, f64>, name: &str) -> f64 {
    metrics.get(name).copied().unwrap_or(f64::NEG_INFINITY)
}

pub(crate) fn reasons(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = answer.json()["reasons"].as_array().unwrap().clone();
    reasons.iter().map(|reason| (text(&reason["what"]), text(&reason["why"]))).collect()
}
