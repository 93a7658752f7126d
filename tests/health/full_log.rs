//! A log that has reached its cap and of which nothing may go: the daemon says so, and goes on once it may grow.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{reasons, scrape, until, until_scraped, value};
use crate::reload::{Live, send_mqtt, send_tcp, values};
use crate::support::hb::Hb;

/// Bytes of a reason: what makes a generation active is never removed from the log, its reason with it.
const REASON: usize = 100_000;

/// Reloads that fill a log of a MiB, though the file watch, which gives no such reason, may be quicker.
const RELOADS: usize = 100;

#[test]
fn a_full_log_is_named_and_ends_when_it_may_grow() {
    let limited = |text: &str, log_mb: u32| {
        text.replace("limits: { ", &format!("limits: {{ max_state_mb: 64, max_audit_log_mb: {log_mb}, "))
    };
    let usual = |text: &str| limited(text, 1) + "http: { listen: \"127.0.0.1:0\" }\n";
    let mut live = Live::start_as(Hb::new(), &[], &usual);
    let address = std::fs::read_to_string(live.hb.path("state/http.addr")).unwrap().trim().to_owned();
    until(&address, "/ready", |answer| answer.status == 200);
    assert_eq!(value(&scrape(&address), "hb_log_full"), 0.0);
    let text = std::fs::read_to_string(live.hb.path("hb.yaml")).unwrap();

    let (port, publisher, done) = (live.port, live.broker.publisher("plant/m"), AtomicBool::new(false));
    let (tcp, mqtt) = std::thread::scope(|threads| {
        let tcp = threads.spawn(|| send_tcp(port, "tcp", &done));
        let mqtt = threads.spawn(|| send_mqtt(publisher, &done));
        let reason = "x".repeat(REASON);
        let changed = |n: usize| text.replace("warn: 6", &format!("warn: {}", 7 + n));
        let refused = (0..RELOADS).find_map(|n| {
            live.hb.write("hb.yaml", &changed(n));
            let answer = live.hb.run(&["reload", "--reason", &reason]);
            (answer.code != 0).then_some(answer)
        });
        let refused = refused.expect("the log does not fill");
        assert!(refused.stderr.contains("raise limits.max_audit_log_mb"), "{refused:#?}");
        live.running.wait_for("the audit log is full", 1);

        let waiting = until(&address, "/ready", |answer| answer.status == 503);
        let (what, why) = reasons(&waiting)[0].clone();
        assert_eq!(what, "audit log", "{waiting:?}");
        assert!(why.contains("raise limits.max_audit_log_mb"), "{why}");
        let full = until_scraped(&address, |m| value(m, "hb_log_full") == 1.0);
        assert!(value(&full, "hb_log_bytes") > value(&full, "hb_log_cap_bytes"), "{full:?}");
        assert_eq!((value(&full, "hb_ready"), value(&full, "hb_log_cap_bytes")), (0.0, f64::from(1 << 20)));

        live.hb.write("hb.yaml", &limited(&text.replace("max_state_mb: 64, max_audit_log_mb: 1, ", ""), 16));
        live.hb.done(&["reload", "--reason", "a larger log"]);
        until(&address, "/ready", |answer| answer.status == 200);
        let room = scrape(&address);
        assert_eq!((value(&room, "hb_log_full"), value(&room, "hb_log_cap_bytes")), (0.0, f64::from(16 << 20)));
        live.running.wait_for("committed", 3);
        done.store(true, Ordering::Relaxed);
        (tcp.join().unwrap(), mqtt.join().unwrap())
    });
    live.wait_for_samples(tcp + mqtt);
    live.running.end();
    let values = values(&live.hb);
    let whole = |n: u64| (0..n).collect::<Vec<u64>>();
    assert_eq!(values["mqtt"], whole(mqtt), "each message once, in order");
    assert_eq!(values["tcp"], whole(tcp), "each line of the stream once, in order");
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
}
