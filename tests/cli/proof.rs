//! What is left to prove it by: the host's key, the signed log and the packs, as the verbs make and miss them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{failed, instance, judged, to_its_end};

#[test]
fn a_lost_key_is_missed_and_a_new_one_is_told_of() {
    let hb = judged();
    hb.done(&["daemon", "--once"]);
    let key = hb.path("state/keys/host.key");
    let (secret, old) = (fs::read(&key).unwrap(), fs::read_to_string(hb.path("state/keys/host.pub")).unwrap());
    hb.write("elsewhere/old.pub", &old);
    fs::remove_file(&key).unwrap();
    for args in [&["daemon", "--once"][..], &["baseline", "promote", "--version", "1"], &["analyze", "clean"]] {
        let refused = hb.run(args);
        assert_eq!(refused.code, 78, "{args:?}: {refused:#?}");
        let says = |word: &str| refused.stderr.contains(word);
        assert!(says("host.key is missing") && says("restore") && says("hb keys init"), "{args:?}: {}", refused.stderr);
        assert!(!key.exists(), "{args:?} made another key");
    }
    // To verify needs the public half alone, and believes it when it comes from elsewhere.
    assert!(hb.done(&["log", "verify"]).stdout.contains("warning: the key lies beside the log"));
    let verified = hb.done(&["log", "verify", "--key", "elsewhere/old.pub"]).stdout;
    assert!(verified.contains("entries verified") && !verified.contains("warning"), "{verified}");
    fs::remove_file(hb.path("state/keys/host.pub")).unwrap();
    let blind = hb.run(&["log", "verify"]);
    assert!(blind.code == 78 && blind.stderr.contains("--key"), "{blind:#?}");
    assert_eq!(hb.json(&["log", "verify", "--key", "elsewhere/old.pub"])["trusted"], true);

    // A key that comes back is as good as ever.
    hb.write("state/keys/host.pub", &old);
    write_secret(&key, &secret);
    hb.done(&["daemon", "--once"]);
    fs::remove_file(&key).unwrap();

    let made = hb.json(&["keys", "init"]);
    let told = hb.json(&["log", "show", "--kind", "key"]);
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    let old_id = old.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert_eq!((&told[0]["body"]["key"], &told[0]["body"]["before"]), (&made["key_id"], &old_id.into()), "{told}");
    assert_eq!(fs::read_to_string(hb.path(&format!("state/keys/host-{old_id}.pub"))).unwrap(), old);
    hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    assert_eq!(hb.run(&["log", "verify", "--key", "elsewhere/old.pub"]).code, 65, "the old key signs no more");
    hb.done(&["log", "verify", "--key", "elsewhere/old.pub", "--key", "state/keys/host.pub"]);
    hb.done(&["daemon", "--once"]);
    assert_eq!(hb.run(&["keys", "init"]).code, 78, "a key that is there is never replaced");
}

#[test]
fn one_case_that_cannot_be_packed_keeps_no_other_from_it() {
    let hb = failed();
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("on_fail: true", "on_fail: false"));
    hb.done(&["daemon", "--once"]);
    let cases: Vec<String> = hb.json(&["status"])["cases"].as_array().unwrap().iter().rev().map(first_word).collect();
    assert!(cases.len() > 1, "{cases:?}");
    hb.write("hb.yaml", &config);
    let in_the_way = format!("evidence_packs/evidence_{}/mine.txt", cases[0]);
    hb.write(&in_the_way, "not to be lost");

    let once = hb.run(&["daemon", "--once"]);
    assert_eq!(once.code, 65, "{once:#?}");
    assert!(once.stderr.contains("move it away") && once.stderr.contains(&format!("case: {}", cases[0])), "{once:#?}");
    assert!(once.stdout.contains("frames"), "what was done is shown: {once:#?}");
    for case in &cases[1..] {
        assert!(hb.path(&format!("evidence_packs/evidence_{case}/bagit.txt")).is_file(), "{case} is not packed");
    }
    assert_eq!(fs::read_to_string(hb.path(&in_the_way)).unwrap(), "not to be lost");
    fs::remove_dir_all(hb.path(&in_the_way).parent().unwrap()).unwrap();
    let again = hb.done(&["daemon", "--once"]);
    assert_eq!(again.stderr.matches("evidence: ").count(), 1, "only the one that is missing: {again:#?}");
}

#[test]
fn the_log_tells_who_ran_when_and_who_took_evidence_away() {
    let hb = failed();
    hb.done(&["daemon", "--once"]);
    let status = hb.json(&["status"]);
    let of = |kind: &str| hb.json(&["log", "show", "--count", "100000", "--kind", kind]);
    let (starts, stops) = (of("start"), of("stop"));
    assert_eq!((starts.as_array().map(Vec::len), stops.as_array().map(Vec::len)), (Some(1), Some(1)));
    let start = &starts[0]["body"];
    assert_eq!((&start["host_id"], &start["lane"]), (&status["host_id"], &"live".into()));
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start["generation"].as_str(), hb.json(&["check"])["generation"].as_str());
    assert_eq!(stops[0]["body"]["why"], "all sources have ended");
    assert_eq!(stops[0]["seq"].as_u64().map(|seq| seq + 1), status["log_entries"].as_u64(), "nothing comes behind it");

    let case = first_word(&status["cases"][0]);
    for out in ["here/there", "away.zip"] {
        hb.done(&["export", "evidence-pack", "--case", &case, "--out", out]);
    }
    let taken: Vec<Value> = of("custody.exported").as_array().unwrap().iter().map(|e| e["body"].clone()).collect();
    let told = |file: &str| serde_json::json!({ "case": case, "file": file });
    assert_eq!(taken, [told(&format!("evidence_{case}")), told("away.zip")]);
    hb.done(&["log", "verify"]);
}

#[test]
fn a_daemon_that_is_asked_to_stop_says_so_in_the_log() {
    let hb = instance();
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("follow: false", "follow: true"));
    let mut command = hb.command(&["daemon"]);
    let mut commits = 0;
    let code = to_its_end(command.env("RUST_LOG", "hb::pipeline::record=debug"), |line, pid| {
        commits += usize::from(line.contains("committed"));
        // The lane is open and signals are heard before telemetry is committed.
        if commits == 4 {
            commits += 1;
            assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
        }
    });
    assert_eq!(code, Some(0));
    let stops = hb.json(&["log", "show", "--count", "100000", "--kind", "stop"]);
    assert_eq!(stops[0]["body"]["why"], "asked to by SIGTERM", "{stops}");
}

/// The first word of a line in JSON: of a case its id.
fn first_word(line: &Value) -> String {
    line.as_str().unwrap().split(' ').next().unwrap().to_owned()
}

/// Puts a key file back as only its owner may read it.
fn write_secret(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}
