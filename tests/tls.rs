//! A daemon and a broker that speak TLS and do not agree: the daemon goes on, and says which of them it is and what to do.

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::broker::{Broker, free_port};
use crate::support::hb::{Hb, Running};

/// Years in which a certificate is good.
const GOOD: Range<i32> = 2020..2120;

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate and its key.
    fn sign(&self, dir: &Path, file: &str, name: &str, years: Range<i32>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn a_certificate_for_another_host_is_told() {
    let told = ["is for another host than `127.0.0.1`: it names broker.example", "connect to one of these"];
    refused("broker.example", GOOD, "", "ca_file: {ca}", &told);
}

#[test]
fn an_expired_certificate_is_told() {
    let told = ["the broker's certificate has expired", "have it renewed, or check the clocks"];
    refused("127.0.0.1", 2020..2021, "", "ca_file: {ca}", &told);
}

#[test]
fn an_unknown_authority_is_told() {
    let told = ["is not signed by a certificate authority that is trusted here", "name its own as ca_file"];
    refused("127.0.0.1", GOOD, "", "ca_file: {other}", &told);
}

#[test]
fn a_missing_client_certificate_is_told() {
    let told = ["the broker asks for a client certificate", "cert_file and key_file"];
    refused("127.0.0.1", GOOD, "require_certificate true", "ca_file: {ca}", &told);
}

#[test]
fn a_client_certificate_of_an_unknown_authority_is_told() {
    let told = ["the broker does not know who signed the client certificate"];
    let stranger = "ca_file: {ca}, cert_file: {stranger}.crt, key_file: {stranger}.key";
    refused("127.0.0.1", GOOD, "require_certificate true", stranger, &told);
}

#[test]
fn a_verb_reads_through_tls_or_says_why_not() {
    let broker = tls_broker("127.0.0.1", GOOD, "require_certificate true");
    let hb = Hb::new();
    hb.write("schema.yaml", "version: 1\ntimestamp: { field: t }\n");
    let file = |name: &str| broker.tls.path(name).display().to_string();
    let url = format!("tls://127.0.0.1:{}", broker.port);
    let what = ["ingest", "--broker", &url, "--topic", "plant/#", "--schema", "schema.yaml"];
    let (ca, other, cert, key) = (file("ca.crt"), file("other.crt"), file("hb.crt"), file("hb.key"));
    let right = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let mut child = hb
        .command(&[&what[..], &right, &["--max-frames", "2", "--out", "right", "--for", "5m"]].concat())
        .spawn()
        .unwrap();
    assert!(broker.tls.says("Sending SUBACK"), "it does not subscribe");
    let (mut publisher, mut stdin) = broker.tls.publisher("plant/a");
    stdin.write_all(b"{\"t\":1767225600,\"n\":1}\n{\"t\":1767225601,\"n\":2}\n").unwrap();
    drop(stdin);
    assert!(publisher.wait().unwrap().success() && child.wait().unwrap().success());
    let metrics = fs::read_to_string(hb.path("right/metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 3, "{metrics}");

    for (wrong, told) in [
        (&["--ca", &other, "--cert", &cert, "--key", &key][..], "is not signed by a certificate authority"),
        (&["--ca", &ca], "the broker asks for a client certificate"),
    ] {
        let mut command = hb.command(&[&what[..], wrong, &["--out", "wrong"]].concat());
        let mut running = Running::start(command.env("RUST_LOG", "hb=info").env("NO_COLOR", "1"));
        running.wait_for_line(|line| line.contains("no connection to the MQTT broker") && line.contains(told));
        running.signal("TERM");
        assert_eq!(running.ended(), Some(74), "{:#?}", running.said());
        let said = running.said().iter().any(|line| line.contains("nothing was read: ") && line.contains(told));
        assert!(said, "{:#?}", running.said());
        assert!(!hb.path("wrong/run_meta.json").exists(), "no artifacts of what was never reached");
    }
}

/// A broker that listens with TLS beside its plain port, and the files in its directory.
struct TlsBroker {
    tls: Broker,
    port: u16,
}

/// Starts one with a certificate for this name and these years. It trusts the authority that signed it, which also
/// signed `hb.crt`; another one signed `stranger.crt`.
fn tls_broker(name: &str, years: Range<i32>, more: &str) -> TlsBroker {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("plant authority"), Authority::new("other authority"));
    fs::write(dir.path().join("ca.crt"), authority.0.pem()).unwrap();
    fs::write(dir.path().join("other.crt"), other.0.pem()).unwrap();
    authority.sign(dir.path(), "server", name, years);
    authority.sign(dir.path(), "hb", "hb", GOOD);
    other.sign(dir.path(), "stranger", "hb", GOOD);
    let port = free_port();
    let files = "cafile DIR/ca.crt\ncertfile DIR/server.crt\nkeyfile DIR/server.key";
    let tls = Broker::start_in(dir, &format!("listener {port} 127.0.0.1\n{files}\n{more}\n"));
    TlsBroker { tls, port }
}

/// Runs a daemon against a broker with such a certificate: it connects only once it is told what is right.
fn refused(name: &str, years: Range<i32>, broker: &str, settings: &str, told: &[&str]) {
    let TlsBroker { tls: broker, port } = tls_broker(name, years, broker);
    let file = |name: &str| broker.path(name).display().to_string();
    let settings = settings
        .replace("{ca}", &file("ca.crt"))
        .replace("{other}", &file("other.crt"))
        .replace("{stranger}", &file("stranger"));
    let hb = Hb::new();
    let config = |transport: &str| {
        format!(
            "program: live
state: ./state
require_signed: false
sources:
  - {{ name: s, plugin: mqtt, transport: {{ mqtt: {{ {transport}, topics: [plant/#] }} }}, normalizer: n }}
normalizers:
  - {{ name: n, plugin: schema-map, settings: {{ version: 1, timestamp: {{ field: t }} }} }}
"
        )
    };
    hb.write("hb.yaml", &config(&format!("broker: \"tls://127.0.0.1:{port}\", {settings}")));
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info").env("NO_COLOR", "1"));
    running.wait_for_line(|line| {
        line.contains("no connection to the MQTT broker") && told.iter().all(|t| line.contains(t))
    });
    // It goes on, and takes what is right as soon as it is told.
    hb.done(&["status"]);
    hb.write("hb.yaml", &config(&format!("broker: \"tcp://127.0.0.1:{}\"", broker.port)));
    hb.done(&["reload"]);
    running.wait_for("connected to the MQTT broker", 1);
    running.end();
}
