//! Documents on their way out: real receivers hear what was decided, and nobody hears what was not granted.

pub(crate) mod receiver;

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use hb::plugin::{Frames, SourceInstance};
use hb_log::hash::Hash;
use serde_json::Value;

use crate::hostile::copy_folder;
use crate::support::guests::{FakeHost, guest, plugin};
use crate::support::hb::{Hb, PROGRAM, Plant, config, repository, telemetry};
use receiver::{Heard, Http, PATIENCE, octet_counted};

/// Simulated seconds: the first faults are there.
const SECONDS: u64 = 360;

/// The secret of all receivers.
const SECRET: &str = "correct horse battery staple";

/// An instance whose decisions go to these sinks.
fn plant(sinks: &str) -> Hb {
    let hb = Hb::plant(Plant::default(), &telemetry(1, SECONDS));
    hb.write("secret", &format!("{SECRET}\n"));
    hb.write("hb.yaml", &(config(Plant::default()) + "sinks:\n" + &sinks.replace("DIR", hb.dir().to_str().unwrap())));
    hb
}

/// A webhook that may send to a port.
fn webhook(port: u16, grants: &str) -> String {
    format!(
        "  - name: hooks
    plugin: webhook
    grants:
      http: [{{ url: \"http://127.0.0.1:{port}/hb\", methods: [POST] }}]
{grants}    settings: {{ url: \"http://127.0.0.1:{port}/hb/decisions?site=1\" }}
"
    )
}

/// What `hb check` says of a config that must not start.
fn refused(sinks: &str) -> String {
    let hb = Hb::new();
    hb.write(
        "hb.yaml",
        &format!("require_signed: false\nsinks:\n{}", sinks.replace("DIR", hb.dir().to_str().unwrap())),
    );
    hb.write("secret", SECRET);
    let output = hb.run(&["check"]);
    assert_eq!(output.code, 78, "{output:#?}");
    output.stderr
}

#[test]
fn decisions_arrive_signed_with_ids_of_their_own() {
    let http = Http::start([]);
    let hb = plant(&webhook(http.port, "      secrets: { signing: \"${file:DIR/secret}\" }\n"));
    let output = hb.done(&["daemon", "--once"]);
    let heard = http.heard();
    assert!(!heard.is_empty(), "{output:#?}");
    let decided: BTreeSet<String> = hb.decisions(PROGRAM).iter().map(|d| Hash::of(d).to_string()).collect();
    let (mut ids, mut decisions) = (BTreeSet::new(), 0);
    for request in &heard {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hb/decisions?site=1"));
        assert_eq!(request.header("content-type"), "application/json");
        let id = request.header("idempotency-key");
        assert!(ids.insert(id.to_owned()), "{id} twice");
        let document: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(document["program"], PROGRAM);
        // What has findings is a decision, and its id the decision's hash.
        decisions += usize::from(document.get("findings").is_some() && decided.contains(id));
    }
    assert!(decisions > 0, "{heard:#?}");
    // The receiver's recipe, on the first and the last of them.
    for request in [&heard[0], &heard[heard.len() - 1]] {
        assert_eq!(request.header("x-hb-signature"), format!("sha256={}", signature(request)));
        let age = hb::clock::now_ns() / 1_000_000_000 - request.header("x-hb-timestamp").parse::<i64>().unwrap();
        assert!((0..300).contains(&age), "{age} s");
    }
    assert!(!output.stderr.contains(SECRET));
}

/// What the command of the manual says of a request.
fn signature(request: &Heard) -> String {
    let manual = std::fs::read_to_string(repository().join("docs/reference/sinks.md")).unwrap();
    let recipe = manual.lines().find(|line| line.contains("openssl dgst")).expect("a recipe");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("body.json"), &request.body).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", recipe]).current_dir(dir.path()).stderr(Stdio::inherit());
    let done = shell.env("timestamp", request.header("x-hb-timestamp")).env("secret", SECRET).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().next_back().unwrap_or_else(|| panic!("{recipe} says nothing")).to_owned()
}

#[test]
fn a_busy_receiver_is_offered_the_same_again() {
    let busy = (503, vec![("retry-after", "0".to_owned())], "busy");
    let http = Http::start([busy.clone(), busy]);
    let hb = plant(&webhook(http.port, ""));
    let ids = |heard: &[Heard]| heard.iter().map(|h| h.header("idempotency-key").to_owned()).collect::<BTreeSet<_>>();
    let (deadline, mut heard) = (Instant::now() + PATIENCE, Vec::new());
    // What still waits for its time when hb ends is offered by the next run.
    while heard.len() < 3 || heard.len() < ids(&heard).len() + 2 {
        assert!(Instant::now() < deadline, "two that were not taken do not come again: {heard:#?}");
        hb.done(&["daemon", "--once"]);
        heard.extend(http.heard());
    }
    assert_eq!(heard.len(), ids(&heard).len() + 2, "nothing else comes twice: {heard:#?}");
    for again in &heard[2..] {
        let first = heard.iter().find(|h| h.header("idempotency-key") == again.header("idempotency-key")).unwrap();
        assert_eq!(again.body, first.body);
    }
    assert!(heard.iter().all(|h| !h.headers.contains_key("x-hb-signature")), "nothing to sign with");
}

#[test]
fn what_a_receiver_never_takes_is_told_and_passed_over() {
    let http = Http::start([
        (422, vec![], "this is \u{1b}[31modd"),
        (302, vec![("location", "http://127.0.0.1:1/".to_owned())], ""),
    ]);
    let hb = plant(&webhook(http.port, ""));
    let output = hb.done(&["daemon", "--once"]);
    let heard = http.heard();
    let ids: BTreeSet<&str> = heard.iter().map(|h| h.header("idempotency-key")).collect();
    assert!(ids.len() > 2 && ids.len() == heard.len(), "each once: {heard:?}");
    assert!(output.stderr.contains("HTTP 422: this is ") && !output.stderr.contains('\u{1b}'), "{output:#?}");
    assert!(output.stderr.contains("HTTP 302: redirects to http://127.0.0.1:1/ are not followed"), "{output:#?}");
}

#[test]
fn a_receiver_with_an_unknown_authority_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (port, heard) = receiver::behind_tls(dir.path());
    let sink = |ca: &str| {
        format!(
            "  - name: hooks
    plugin: webhook
    grants: {{ http: [{{ url: \"https://127.0.0.1:{port}/\", methods: [POST]{ca} }}] }}
    settings: {{ url: \"https://127.0.0.1:{port}/hb\" }}
"
        )
    };
    let hb = plant(&sink(""));
    let output = hb.run(&["daemon", "--once"]);
    let what = "certificate is not signed by a certificate authority that is trusted here";
    assert!(output.stderr.contains(what), "{output:#?}");
    assert!(heard.try_recv().is_err(), "nothing is sent to a stranger");
    let hb = plant(&sink(&format!(", ca_file: \"{}\"", dir.path().join("ca.pem").display())));
    hb.done(&["daemon", "--once"]);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "POST /hb HTTP/1.1");
}

#[test]
fn what_is_not_granted_is_found_before_the_start() {
    let granted = "are POST http://127.0.0.1:8080/hb";
    for (url, what) in [
        ("http://127.0.0.1:8080/hbx", "POST http://127.0.0.1:8080/hbx is not granted"),
        ("http://127.0.0.1:8081/hb", "POST http://127.0.0.1:8081/hb is not granted"),
        ("https://127.0.0.1:8080/hb", "POST https://127.0.0.1:8080/hb is not granted"),
        ("http://evil:8080/hb", "POST http://evil:8080/hb is not granted"),
    ] {
        let message = refused(&webhook(8080, "").replace("http://127.0.0.1:8080/hb/decisions?site=1", url));
        assert!(message.contains(what) && message.contains(granted), "{message}");
        assert!(message.contains("hb.yaml:6:7") && message.contains("url: "), "{message}");
    }
    let message = refused(&webhook(8080, "").replace("[POST]", "[GET, PUT]"));
    assert!(message.contains("is not granted") && message.contains("are GET/PUT http://"), "{message}");
    let message = refused(&webhook(8080, "").replace("/hb/decisions", "/hb/../admin"));
    assert!(message.contains("`.` and `..` are no segments of a path"), "{message}");
    let message = refused(&webhook(8080, "").replace("settings: {", "settings: { sign_with: other,"));
    assert!(message.contains("the secret `other` is not granted"), "{message}");
    let syslog = "  - { name: s, plugin: syslog-sink, grants: { socket: [\"udp://127.0.0.1:514\"] }, settings: { address: \"udp://127.0.0.1:515\" } }\n";
    let message = refused(syslog);
    assert!(message.contains("udp://127.0.0.1:515 is not granted; the grants at"), "{message}");
    assert!(message.contains("are udp://127.0.0.1:514"), "{message}");
}

#[test]
fn a_component_without_its_grant_does_not_load() {
    for (name, settings) in [("webhook", "url: \"http://h/\""), ("syslog-sink", "address: \"udp://127.0.0.1:514\"")] {
        let message = refused(&format!("  - name: s\n    plugin: {name}\n    settings: {{ {settings} }}\n"));
        let interface = if name == "webhook" { "http" } else { "socket" };
        let import = format!("plugin `{name}` imports `hb:plugin/{interface}@0.1.0`, which is not granted");
        assert!(message.contains(&import), "{message}");
        assert!(message.contains("its manifest asks for it (plugin.yaml:"), "{message}");
        assert!(
            message.contains("hb.yaml:3:5") && message.contains(&format!("grants: {{ {interface}: [")),
            "{message}"
        );
    }
}

#[test]
fn mistakes_in_grants_are_shown_where_they_stand() {
    let with = |grants: &str| {
        format!("  - name: s\n    plugin: webhook\n    grants: {grants}\n    settings: {{ url: \"http://h/\" }}\n")
    };
    for (grants, what) in [
        ("{ htp: [] }", "unknown key `htp`"),
        ("{ http: [{ url: \"http://h/\" }] }", "needs the key `methods`"),
        ("{ http: [{ url: \"http://h/\", method: [POST], methods: [POST] }] }", "unknown key `method`"),
        ("{ http: [\"http://h/\"] }", "expected an http grant"),
        ("{ http: [{ url: \"h/hb\", methods: [POST] }] }", "`h/hb` cannot be granted"),
        ("{ http: [{ url: \"http://u:p@h/\", methods: [POST] }] }", "a URL holds no user name"),
        ("{ http: [{ url: \"http://h/\", methods: [BREW] }] }", "`BREW` is no method"),
        ("{ http: [{ url: \"http://h/\", methods: [] }] }", "no method is granted"),
        ("{ http: [{ url: \"https://h/\", methods: [POST], ca_file: no.pem }] }", "cannot read"),
        ("{ http: [{ url: \"http://h/\", methods: [POST] }], secrets: { signing: hunter2 } }", "secret in plain text"),
        ("{ htp: [], secrets: { signing: hunter2 } }", "unknown key `htp`"),
        ("{ secrets: { \"two words\": hunter2 } }", "`two words` cannot be a name"),
        (
            "{ http: [{ url: \"http://h/\", methods: [POST] }], secrets: { signing: \"${file:/nowhere/at/all}\" } }",
            "cannot read the secret from /nowhere/at/all",
        ),
        (
            "{ http: [{ url: \"http://h/\", methods: [POST] }], socket: [\"udp://127.0.0.1:514\"] }",
            "does not ask for the capability `socket`",
        ),
    ] {
        let message = refused(&with(grants));
        assert!(message.contains(what) && message.contains("hb.yaml:5:"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let socket = |address: &str| {
        format!(
            "  - name: s\n    plugin: syslog-sink\n    grants: {{ socket: [\"{address}\"] }}\n    settings: {{ address: \"{address}\" }}\n"
        )
    };
    for (address, what) in [
        ("udp://loghost:514", "a name is not looked up"),
        ("udp://127.0.0.1:0", "on which nobody listens"),
        ("loghost:514", "does not begin with udp://"),
    ] {
        let message = refused(&socket(address));
        assert!(message.contains(what) && message.contains("hb.yaml:5:"), "{message}");
    }
}

#[test]
fn syslog_is_heard_over_udp_tcp_and_unix() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unix = UnixDatagram::bind(dir.path().join("log")).unwrap();
    let addresses = [
        format!("udp://{}", udp.local_addr().unwrap()),
        format!("tcp://{}", tcp.local_addr().unwrap()),
        format!("unix://{}", dir.path().join("log").display()),
    ];
    let sinks = addresses.iter().enumerate().map(|(i, address)| {
        format!(
            "  - name: s{i}
    plugin: syslog-sink
    grants: {{ socket: [\"{address}\"] }}
    settings: {{ address: \"{address}\", facility: local3, hostname: plant-1 }}
"
        )
    });
    let hb = plant(&sinks.collect::<String>());
    // Read while hb runs: the kernel's queues are short.
    let (to_test, from_tcp) = channel();
    let streams = std::thread::spawn(move || to_test.send(octet_counted(tcp.accept().unwrap().0)).unwrap());
    let from_udp = datagrams(move |room| udp.recv(room));
    let from_unix = datagrams(move |room| unix.recv(room));
    hb.done(&["daemon", "--once"]);
    let from_tcp = from_tcp.recv_timeout(PATIENCE).unwrap();
    streams.join().unwrap();
    assert!(!from_tcp.is_empty());
    for lines in [from_udp, from_unix] {
        let heard: BTreeSet<String> = from_tcp.iter().map(|_| lines.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(heard, from_tcp.iter().cloned().collect(), "all three say the same");
    }
    let decided: BTreeSet<String> = hb.decisions(PROGRAM).iter().map(|d| Hash::of(d).to_string()).collect();
    let messages = parsed(&from_tcp);
    assert_eq!(messages.len(), from_tcp.len());
    assert!(messages.iter().any(|m| m["fields"]["hb@32473.kind"] == "decision"), "{messages:#?}");
    for message in &messages {
        assert_eq!((&message["host"], &message["program"]), (&"plant-1".into(), &"hb".into()), "{message}");
        assert_eq!(message["facility"], "local3", "{message}");
        let fields = &message["fields"];
        assert!(fields["hb@32473.asset"].as_str().unwrap().starts_with("pump-"), "{message}");
        if fields["hb@32473.kind"] != "decision" {
            continue;
        }
        assert!(decided.contains(fields["hb@32473.id"].as_str().unwrap()), "{message}");
        let words = format!("quick of {} is ", fields["hb@32473.asset"].as_str().unwrap());
        assert!(message["msg"].as_str().unwrap().starts_with(&words), "{message}");
    }
    assert!(messages.iter().any(|m| m["severity"] == "err" || m["severity"] == "crit"), "{messages:#?}");
}

/// The texts of datagrams, as they come.
fn datagrams(receive: impl Fn(&mut [u8]) -> std::io::Result<usize> + Send + 'static) -> Receiver<String> {
    let (sender, texts) = channel();
    std::thread::spawn(move || {
        let mut room = vec![0; 65_536];
        while let Ok(n) = receive(&mut room) {
            if sender.send(String::from_utf8(room[..n].to_vec()).unwrap()).is_err() {
                return;
            }
        }
    });
    texts
}

/// Messages as our own source understands them, which holds them to the letter of RFC 5424.
fn parsed(lines: &[String]) -> Vec<Value> {
    let loaded = plugin("syslog").load();
    let mut source = SourceInstance::new(&loaded, r#"{"format":"rfc5424"}"#, FakeHost::default().calls()).unwrap();
    source.open(None).unwrap();
    let mut inbox = Frames::new();
    for line in lines {
        inbox.push(line.as_bytes(), 0, "test").unwrap();
    }
    let polled = source.poll(&inbox, 65_536, 1 << 30).unwrap();
    assert!(polled.rejects.is_empty() && polled.faults.is_empty(), "{:?} {:?}", polled.rejects, polled.faults);
    polled.frames.iter().map(|frame| serde_json::from_slice(frame.bytes).unwrap()).collect()
}

#[test]
fn a_hostile_sink_reaches_nothing_that_was_not_granted() {
    let (good, evil) = (Http::start([]), Http::start([]));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let port = stranger.local_addr().unwrap().port();
    // Takes connections and never answers: the host ends the wait before the plugin's deadline does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (good_url, evil_url) = (format!("http://127.0.0.1:{}", good.port), format!("http://127.0.0.1:{}", evil.port));
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    let sinks = format!(
        "  - name: evil
    plugin: hostile-sink
    grants:
      http: [{{ url: \"{good_url}/hb/\", methods: [POST] }}, {{ url: \"{silent_url}\", methods: [POST] }}]
      socket: [\"udp://127.0.0.1:9\"]
      secrets: {{ signing: \"${{file:DIR/secret}}\" }}
    settings:
      early: true
      urls: [\"{good_url}/hb/../x\", \"{good_url}/hbx\", \"{good_url}@127.0.0.1:{}/\", \"{evil_url}/hb/\", \"{good_url}/hb/granted\", \"{silent_url}\"]
      addresses: [\"udp://127.0.0.1:{port}\", \"tcp://127.0.0.1:{port}\"]
",
        evil.port
    );
    let hb = plant(&sinks);
    for name in ["file-replay", "schema-map"] {
        copy_folder(&plugin(name).folder, &hb.path("plugins").join(name));
    }
    copy_folder(&guest("hostile-sink").folder, &hb.path("plugins/hostile-sink"));
    let text = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &(text + "plugins_dir: ./plugins\n"));
    let output = hb.done(&["daemon", "--once"]);
    let said = &output.stderr;
    assert!(evil.heard().is_empty(), "{output:#?}");
    assert!(stranger.recv(&mut [0; 8]).is_err(), "{output:#?}");
    let heard = good.heard();
    assert!(!heard.is_empty() && heard.iter().all(|h| h.path == "/hb/granted"), "{heard:?}");
    assert!(heard.iter().all(|h| h.body != b"early"), "{heard:?}");
    for refusal in [
        "refused: nothing is sent during `configure`".to_owned(),
        format!("refused: POST {evil_url}/hb/ is not granted; the grants at "),
        format!("refused: POST {good_url}/hbx is not granted"),
        "refused: the URL `".to_owned(),
        format!("refused: udp://127.0.0.1:{port} is not granted; the grants at "),
        "hb.yaml:".to_owned(),
        "no answer within".to_owned(),
    ] {
        assert!(said.contains(&refusal), "{refusal}: {said}");
    }
    assert!(!said.contains("did not answer within") && !said.contains(SECRET), "{said}");
}
