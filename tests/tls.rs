//! A daemon and a broker that speak TLS and do not agree: the daemon goes on, and says which of them it is and what to do.

use std::fs;
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

/// Runs a daemon against a broker with such a certificate: it connects only once it is told what is right.
fn refused(name: &str, years: Range<i32>, broker: &str, settings: &str, told: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("plant authority"), Authority::new("other authority"));
    fs::write(dir.path().join("ca.crt"), authority.0.pem()).unwrap();
    fs::write(dir.path().join("other.crt"), other.0.pem()).unwrap();
    authority.sign(dir.path(), "server", name, years);
    other.sign(dir.path(), "stranger", "hb", GOOD);
    let port = free_port();
    let files = "cafile DIR/ca.crt\ncertfile DIR/server.crt\nkeyfile DIR/server.key";
    let broker = Broker::start_in(dir, &format!("listener {port} 127.0.0.1\n{files}\n{broker}\n"));
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
