//! Messages that others have made: the outside test cases, and what logger(1) of this machine sends.

#[path = "../../../../tests/support/corpora.rs"]
mod corpora;

use super::{one, poll};
use corpora::corpus;
use hb_sdk::testkit::TestFrame;
use serde_json::Value;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_seeds_of_rsyslog_are_read() {
    let Some(folder) = corpus("syslog") else { return };
    let seeds = files(&folder);
    assert!(seeds.len() >= 7, "only {} seeds", seeds.len());
    for path in seeds {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let object: Value = serde_json::from_str(&one("{}", std::fs::read(&path).unwrap())).unwrap();
        assert!(object["msg"].is_string(), "{name}: {object}");
        // The name of a seed says what is in it.
        if !name.ends_with("-no-pri") {
            assert!(object["facility"].is_string() && object["severity"].is_string(), "{name}: {object}");
        }
        if !name.ends_with("-nil") && !name.ends_with("-short") {
            assert!(object["host"].is_string() && object["program"].is_string(), "{name}: {object}");
        }
        if name.ends_with("-escaped-sd") {
            let fields = object["fields"].as_object().unwrap();
            assert!(fields.values().any(|v| v == "escaped]bracket") && fields.values().any(|v| v == "\""), "{object}");
        }
    }
}

#[test]
fn naughty_strings_arrive_as_they_are() {
    let Some(path) = corpus("strings/blns.json") else { return };
    let strings: Vec<String> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(strings.len() > 500);
    for text in strings {
        let text = text.trim_end_matches(['\n', '\r', '\0']);
        for head in ["<13>1 - h a - - - ", "<13>Jan  1 00:00:00 h a: "] {
            let object: Value = serde_json::from_str(&one(r#"{"fields":"kv"}"#, format!("{head}{text}"))).unwrap();
            let text = text.strip_prefix('\u{feff}').filter(|_| head.contains("- -")).unwrap_or(text);
            assert_eq!(object["msg"].as_str().unwrap_or_default(), text, "{head}");
        }
    }
}

/// How long logger may take; it takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn logger_is_understood() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let send = |arguments: &[&str]| {
        let mut command = Command::new("logger");
        command.args(["--server", "127.0.0.1", "--udp", "--port", &port]).args(arguments);
        match command.status() {
            Err(e) => {
                println!("skipped: logger(1) cannot be started: {e}");
                None
            }
            Ok(status) => {
                assert!(status.success(), "{arguments:?}");
                let mut message = vec![0; 65_536];
                let len = socket.recv(&mut message).unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let frame = TestFrame {
                    received_ns: now.as_nanos() as i64,
                    ..TestFrame::from_origin(&message[..len], "logger")
                };
                let report = poll("{}", std::slice::from_ref(&frame));
                assert_eq!(report.rejects, []);
                let object: Value = serde_json::from_str(report.texts()[0]).unwrap();
                let time = hb_sdk::time::parse_rfc3339(object["timestamp"].as_str().unwrap().as_bytes()).unwrap();
                // A day, because RFC 3164 has local times and the machine may be anywhere.
                assert!(time.abs_diff(frame.received_ns) < 86_400_000_000_000, "{object}");
                Some(object)
            }
        }
    };
    let common = ["--tag", "plantd", "--id=412", "--priority", "daemon.warning"];
    let new = ["--rfc5424", "--msgid", "M1", "--sd-id", "zoo@123", "--sd-param", r#"tiger="hun\"gry\]""#, "hé \"x\""];
    let Some(object) = send(&[&common[..], &new].concat()) else { return };
    assert_eq!((&object["program"], &object["pid"], &object["msgid"]), (&"plantd".into(), &"412".into(), &"M1".into()));
    assert_eq!((&object["facility"], &object["severity"]), (&"daemon".into(), &"warning".into()));
    assert_eq!((&object["fields"]["zoo@123.tiger"], &object["msg"]), (&"hun\"gry]".into(), &"hé \"x\"".into()));
    let Some(object) = send(&[&common[..], &["--rfc3164", "pressure: 5.1 bar"]].concat()) else { return };
    assert_eq!((&object["program"], &object["pid"]), (&"plantd".into(), &"412".into()));
    assert_eq!((&object["severity"], &object["msg"]), (&"warning".into(), &"pressure: 5.1 bar".into()));
    assert!(object["host"].is_string());
}
