//! How verbs and daemons share one state: the lock, and the socket by which the daemon does what verbs ask.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use hb::state::{Options, State};

use crate::support::hb::{Hb, Plant, Running, SCHEMA, config, repository, telemetry};

/// Simulated seconds: clean, then with a fault that opens a case.
const SECONDS: u64 = 480;

/// Verbs that are tried nowhere near a daemon, and why.
const APART: [(&str, &str); 1] = [("demo", "it plays with a daemon and a state of its own, for a minute")];

/// Connections that fail one after the other while a daemon is looked at.
const FAILURES: usize = 6;

/// A plant whose file is followed: its daemon goes on.
fn following() -> Hb {
    let hb = Hb::new();
    hb.write("telemetry.jsonl", "");
    hb.write("telemetry_schema.yaml", SCHEMA);
    let config = config(Plant::default()).replace("path: telemetry.jsonl }", "path: telemetry.jsonl, follow: true }");
    hb.write("hb.yaml", &config.replace("    baseline: golden\n", ""));
    hb
}

fn run(hb: &Hb) -> Running {
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=debug").env("NO_COLOR", "1"));
    running.wait_for("reading", 1);
    running
}

#[test]
fn a_daemon_that_finds_its_state_held_by_a_verb_is_worth_another_start() {
    let hb = following();
    let held = State::open(&hb.path("state"), Options::default()).unwrap();
    let refused = hb.run(&["daemon"]);
    assert_eq!(refused.code, 74, "systemd starts it again: {refused:#?}");
    let holder = format!("in use by process {}", std::process::id());
    assert!(refused.stderr.contains(&holder), "{refused:#?}");
    drop(held);
    let mut running = run(&hb);
    let second = hb.run(&["daemon"]);
    assert_eq!(second.code, 78, "another daemon goes on, and so would systemd: {second:#?}");
    running.end();
}

#[test]
fn a_daemon_that_can_open_no_more_files_rests_and_then_hears_what_was_asked() {
    let hb = following();
    let mut running = run(&hb);
    let pid = running.pid();
    let limit = |files: &str| {
        let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={files}:")]).status();
        assert!(set.unwrap().success(), "prlimit");
    };
    // Those that are open stay so; below this number none is free.
    limit("3");
    // It waited for the next connection already, with a file for it; but that is the last one.
    let first = hb.run(&["status"]);
    assert!(first.code == 74 && first.stderr.contains("cannot serve the verb now"), "{first:#?}");
    let answer = std::thread::scope(|threads| {
        let asking = threads.spawn(|| hb.run(&["status"]));
        running.wait_for("no verb can be heard", 1);
        let (begin, used) = (Instant::now(), cpu_sec(pid));
        running.wait_for("no verb can be heard", FAILURES);
        let (took, used) = (begin.elapsed().as_secs_f64(), cpu_sec(pid) - used);
        assert!(used < took / 2.0, "{used} s of a core in {took} s");
        limit("1024");
        asking.join().unwrap()
    });
    assert_eq!(answer.code, 0, "{answer:#?}");
    running.end();
}

#[test]
fn every_verb_works_while_the_daemon_runs() {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(7, SECONDS));
    let text = config(Plant { evidence: true, ..Plant::default() });
    let text = text.replace("path: telemetry.jsonl }", "path: telemetry.jsonl, follow: true }");
    let text = text.replace("commit_ms: 60000", "commit_ms: 100");
    hb.write("hb.yaml", &format!("{text}sinks: [{{ name: out, plugin: jsonl, output: {{ file: out.jsonl }} }}]\n"));
    let mut running = run(&hb);
    running.wait_for("evidence: ", 1);
    let case = hb.json(&["cases", "list"])[0]["case"].as_str().unwrap().to_owned();
    let pack = format!("packs/evidence_{case}");
    let decision = hb.json(&["log", "show", "--kind", "decision", "--count", "1"]);
    let decision = decision[0]["body"]["decision"].as_str().unwrap().to_owned();
    let generation = hb.json(&["generation", "list"])[0]["generation"].as_str().unwrap().to_owned();
    let policies = repository().join("policies");
    let (policies, rule) = (policies.to_str().unwrap(), policies.join("drift/robust_z.luau"));

    // In an order in which one has what it needs of those before.
    let rows: &[(&str, &[&str], i32)] = &[
        ("init", &["--dir", "other"], 0),
        ("check", &[], 0),
        ("daemon", &[], 78),
        ("reload", &[], 0),
        ("generation list", &[], 0),
        ("generation show", &[&generation], 0),
        // There is none before the first.
        ("generation rollback", &[], 78),
        ("status", &[], 0),
        ("top", &["--once"], 0),
        ("simulate", &["--for", "10s", "--output", "plant.jsonl"], 0),
        ("ingest", &["telemetry.jsonl", "--out", "again"], 0),
        (
            "normalize",
            &["--schema", "telemetry_schema.yaml", "--input", "telemetry.jsonl", "--output", "metrics.csv"],
            0,
        ),
        ("inject", &["--fault", "packet_loss", "--input", "metrics.csv", "--output", "bad.csv"], 0),
        ("baseline create", &["--from", "again"], 0),
        ("baseline list", &[], 0),
        ("baseline show", &["--version", "2"], 0),
        ("baseline promote", &["--version", "2", "--tag", "later"], 0),
        ("analyze", &["again", "--baseline", "golden"], 0),
        ("runs list", &[], 0),
        ("report list", &[], 0),
        ("report open", &["--print"], 0),
        ("alert list", &[], 0),
        ("alert test", &["--sink", "out"], 0),
        ("cases list", &[], 0),
        ("cases pin", &[&case], 0),
        ("cases unpin", &[&case], 0),
        ("explain", &[&decision], 0),
        ("export evidence-pack", &["--case", &case, "--out", "packs"], 0),
        ("verify", &[&pack, "--key", "state/keys/host.pub"], 0),
        ("replay", &[&pack], 0),
        ("log show", &[], 0),
        ("log verify", &["--key", "state/keys/host.pub"], 0),
        // The key is there.
        ("keys init", &[], 78),
        ("quarantine list", &[], 0),
        ("policy check", &[rule.to_str().unwrap()], 0),
        ("policy test", &[policies], 0),
        ("completions", &["bash"], 0),
        ("man", &["--markdown"], 0),
    ];
    for (verb, args, code) in rows {
        let words: Vec<&str> = verb.split(' ').chain(args.iter().copied()).collect();
        let output = hb.run(&words);
        assert_eq!(output.code, *code, "hb {}: {output:#?}", words.join(" "));
    }
    running.end();

    let tried: BTreeSet<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    let apart = APART.iter().map(|verb| verb.0.to_owned());
    assert_eq!(tried.into_iter().chain(apart).collect::<BTreeSet<_>>(), verbs(&hb), "each verb has its row");
}

/// Every verb, as the reference shows them; those that only hold others are none.
fn verbs(hb: &Hb) -> BTreeSet<String> {
    let page = hb.done(&["man", "--markdown"]).stdout;
    let heads = page.lines().filter_map(|line| line.strip_prefix("### hb "));
    let heads: Vec<&str> = heads.filter(|verb| *verb != "compile").collect();
    let holds_others = |verb: &str| heads.iter().any(|other| other.starts_with(&format!("{verb} ")));
    heads.iter().filter(|verb| !holds_others(verb)).map(|verb| (*verb).to_owned()).collect()
}

/// What a process has used of the processors.
fn cpu_sec(pid: u32) -> f64 {
    /// Unit of the kernel's account, everywhere.
    const TICKS_PER_SEC: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time are the 14th and 15th field, and two stand before the bracket.
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_PER_SEC
}
