//! Alerts from outside: one fault is one alert, it outlives a kill and a sink that is down, and what is given up is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::health;
use crate::sinks::receiver::Http;
use crate::support::hb::{CLEAN_SEC, Dice, Hb, Output, Plant, Running, at, config, repository, telemetry};

/// Simulated seconds: faults begin and end, some more than once.
const SECONDS: u64 = 1_000;

/// Simulated seconds with one fault of each kind.
const SHORT: u64 = 450;

/// Documents that are not delivered after this long never will be.
const PATIENCE: Duration = Duration::from_mins(2);

/// A device that is always full: who writes to it meets a full disk.
const FULL: &str = "/dev/full";

/// A plant that tells two sinks: all of it to one, alerts alone to the other.
fn plant(seconds: u64, out: &str, more: &str) -> Hb {
    let plant = Plant { commit_samples: 500, evidence: true, ..Plant::default() };
    let hb = Hb::plant(plant, &telemetry(3, seconds));
    let sinks = format!(
        "sinks:
  - {{ name: out, plugin: jsonl, output: {{ file: {out} }}{more} }}
  - {{ name: pager, plugin: jsonl, output: {{ file: pager.jsonl }}, deliver: [alerts], settings: {{ format: bare }} }}
"
    );
    hb.write("hb.yaml", &(config(plant) + &sinks));
    hb
}

/// Documents of a kind in a file of envelopes: id and content.
fn documents(path: &Path, kind: &str) -> Vec<(String, Value)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|l| l["kind"] == kind).map(|l| (l["id"].as_str().unwrap().to_owned(), l["document"].clone())).collect()
}

fn text<'v>(event: &'v Value, key: &str) -> &'v str {
    event[key].as_str().unwrap_or_default()
}

/// What is told of each asset and check, in order, as `firing FAIL`.
fn stories(events: &[(String, Value)]) -> BTreeMap<(String, String), Vec<String>> {
    let mut stories: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (_, e) in events {
        let key = (text(e, "asset").to_owned(), text(e, "check").to_owned());
        stories.entry(key).or_default().push(format!("{} {}", text(e, "state"), text(e, "severity")));
    }
    stories
}

#[test]
fn one_fault_is_one_alert_whatever_the_number_of_its_windows() {
    let hb = plant(SECONDS, "out.jsonl", "");
    hb.done(&["daemon", "--once"]);
    let events = documents(&hb.path("out.jsonl"), "alert");
    let ids: BTreeSet<&String> = events.iter().map(|e| &e.0).collect();
    assert_eq!(ids.len(), events.len(), "an event is told once");
    assert!(events.iter().all(|(id, e)| text(e, "id") == id), "the id is the idempotency key");

    // pump-1 drifts further and further: it fires, gets worse, and never ends. pump-2 jumps and comes back.
    let stories = stories(&events);
    let story = |asset: &str| stories.get(&(asset.to_owned(), "quick".to_owned())).map(|s| s.join(", "));
    let drift = story("pump-1").unwrap();
    assert!(drift.starts_with("firing WARN") && drift.ends_with("firing FAIL"), "{drift}");
    let jumps = story("pump-2").unwrap();
    assert!(jumps.starts_with("firing WARN, firing FAIL, resolved FAIL, firing "), "{jumps}");
    assert_eq!(story("pump-4"), None, "nothing is wrong with it");
    for story in stories.values() {
        // What fires is worse than before, or ended meanwhile; what ends had fired.
        let mut before = "";
        for word in story {
            let fine = match (before, word.as_str()) {
                ("" | "resolved WARN" | "resolved FAIL", now) => now.starts_with("firing"),
                ("firing WARN", now) => now != "firing WARN",
                (_, now) => now.starts_with("resolved"),
            };
            assert!(fine, "{story:?}");
            before = word;
        }
    }
    // Windows are many, alerts are few.
    let bad = hb.json(&["status"])["counters"].clone();
    let bad = bad["decisions.drift"].as_u64().unwrap_or(0) + bad["decisions.fail"].as_u64().unwrap_or(0);
    assert!(bad > 4 * events.len() as u64, "{bad} bad windows, {} events", events.len());

    // The other sink asked for alerts alone, and got the very same.
    let pager = fs::read_to_string(hb.path("pager.jsonl")).unwrap();
    let paged = pager.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let paged: BTreeMap<String, Value> = paged.map(|event| (text(&event, "id").to_owned(), event)).collect();
    assert_eq!(paged, events.iter().cloned().collect());
    assert_eq!(pager.lines().count(), events.len());

    // Each event stands in the signed log, and the state knows what fires.
    for (kind, state) in [("alert.firing", "firing"), ("alert.resolved", "resolved")] {
        let told: BTreeSet<String> = events.iter().filter(|e| e.1["state"] == state).map(|e| e.0.clone()).collect();
        assert_eq!(logged(&hb, kind), told, "{kind}");
    }
    hb.done(&["log", "verify"]);
    // A second run has nothing new to say.
    hb.done(&["daemon", "--once"]);
    assert_eq!(documents(&hb.path("out.jsonl"), "alert"), events);
}

#[test]
fn events_are_as_their_schema_says_and_point_to_what_is_there() {
    let hb = plant(SECONDS, "out.jsonl", "");
    hb.done(&["daemon", "--once"]);
    hb.done(&["alert", "test", "--sink", "out"]);
    let schema = fs::read_to_string(repository().join("docs/reference/alert_event.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let events = documents(&hb.path("out.jsonl"), "alert");
    let decisions: BTreeMap<String, Value> = documents(&hb.path("out.jsonl"), "decision").into_iter().collect();
    let (mut reports, mut tests) = (0, 0);
    for (_, event) in &events {
        let wrong: Vec<String> = schema.iter_errors(event).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:#?} in {event:#}");
        if event["test"] == true {
            tests += 1;
            continue;
        }
        let decision = &decisions[text(event, "decision")];
        assert_eq!((&decision["status"], &decision["asset"]), (&event["status"], &event["asset"]));
        let findings = decision["findings"].as_array().unwrap().len();
        assert_eq!(event["drift_metrics"].as_array().unwrap().len(), findings);
        let fires = event["state"] == "firing";
        assert_eq!((event["ends_at"].is_null(), event["primary_issue"].is_string()), (fires, true), "{event:#}");
        if let Some(path) = event["report_path"].as_str() {
            reports += 1;
            assert!(path.contains(text(event, "case")), "{path}");
            assert!(hb.path(path).is_file(), "{path} is not there");
        }
    }
    assert_eq!(tests, 1);
    assert!(reports > 1 && events.len() > 4, "{reports} reports in {} events", events.len());
    let mut strange = events[0].1.clone();
    strange["sevrity"] = "FAIL".into();
    assert!(!schema.is_valid(&strange), "the schema takes anything");
}

#[test]
fn an_alert_outlives_a_kill_and_a_sink_that_is_down_and_comes_once() {
    let hb = plant(SECONDS, "out.jsonl", "");
    // Nothing can be written where the sink writes to.
    std::os::unix::fs::symlink(FULL, hb.path("out.jsonl")).unwrap();
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("path: telemetry.jsonl }", "path: telemetry.jsonl, follow: true }"));
    let mut running = run(&hb);
    // One dead sink delays no other.
    let (mut refused, mut paged) = (false, false);
    running.wait_for_line(|line| {
        refused |= line.contains("the sink takes nothing");
        paged |= line.contains("delivered") && line.contains("pager");
        refused && paged
    });
    running.kill();
    let listed = hb.json(&["alert", "list", "--all"]);
    let waiting = listed.as_array().unwrap().iter().filter(|a| a["delivery"]["out"] == "waiting").count();
    assert!(waiting > 0, "{listed:#}");

    fs::remove_file(hb.path("out.jsonl")).unwrap();
    let mut running = run(&hb);
    wait_until_all_is_told(&hb);
    running.end();
    let events = documents(&hb.path("out.jsonl"), "alert");
    let ids: BTreeSet<String> = events.iter().map(|e| e.0.clone()).collect();
    assert_eq!(ids.len(), events.len(), "an event came twice");
    let told: BTreeSet<String> = &logged(&hb, "alert.firing") | &logged(&hb, "alert.resolved");
    assert!(ids == told && !ids.is_empty(), "{} events of {}", ids.len(), told.len());
    // The end of a fault never comes before its beginning.
    for story in stories(&events).values() {
        assert!(story[0].starts_with("firing"), "{story:?}");
    }
    let listed = hb.json(&["alert", "list", "--all"]);
    let ways: Vec<&Value> = listed.as_array().unwrap().iter().map(|a| &a["delivery"]).collect();
    let delivered = serde_json::json!({ "out": "delivered", "pager": "delivered" });
    assert!(ways.iter().all(|way| **way == delivered), "{listed:#}");
}

fn run(hb: &Hb) -> Running {
    Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb::dispatch=debug").env("NO_COLOR", "1"))
}

/// Kills of a daemon whose sink is well.
const KILLS: u64 = 20;

/// Simulated seconds from one kill to the next: one fault begins in each or ends.
const BETWEEN_SEC: u64 = 120;

/// Commits before a kill at most: fewer than it takes to record what is new.
const COMMITS: u64 = 10;

#[test]
fn twenty_kills_lose_no_alert_and_repeat_none_under_another_name() {
    let http = Http::start([]);
    let whole = telemetry(3, CLEAN_SEC + (KILLS + 1) * BETWEEN_SEC);
    let before =
        |second: u64| &whole[..whole.find(&at(second)).map_or(whole.len(), |i| whole[..i].rfind('{').unwrap())];
    let plant = Plant { batch_frames: 16, commit_samples: 20, ..Plant::default() };
    let hb = Hb::plant(plant, before(CLEAN_SEC));
    let port = http.port;
    let sinks = format!(
        "sinks:
  - name: out
    plugin: webhook
    deliver: [alerts]
    grants: {{ http: [{{ url: \"http://127.0.0.1:{port}/\", methods: [POST] }}] }}
    settings: {{ url: \"http://127.0.0.1:{port}/\" }}
"
    );
    hb.write("hb.yaml", &(followed(&config(plant)) + &sinks));
    let (mut dice, mut heard) = (Dice(41), Vec::new());
    for kill in 1..=KILLS {
        hb.write("telemetry.jsonl", before(CLEAN_SEC + kill * BETWEEN_SEC));
        let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb::pipeline::record=debug"));
        if kill % 2 == 0 {
            // As a delivery is under way, or not recorded yet.
            heard.push(http.next());
        } else {
            running.wait_for("committed", 1 + dice.below(COMMITS) as usize);
        }
        running.kill();
    }
    hb.write("telemetry.jsonl", &whole);
    let mut running = run(&hb);
    wait_until_all_is_told(&hb);
    running.end();
    heard.extend(http.heard());

    let told = &logged(&hb, "alert.firing") | &logged(&hb, "alert.resolved");
    let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for request in &heard {
        let event = serde_json::from_slice(&request.body).unwrap();
        events.entry(request.header("idempotency-key").to_owned()).or_default().push(event);
    }
    println!("{} alerts, {} deliveries, {KILLS} kills", told.len(), heard.len());
    assert_eq!(events.keys().cloned().collect::<BTreeSet<_>>(), told, "each that was decided came, and no other");
    assert!(told.len() > KILLS as usize, "{} alerts prove little", told.len());
    for (id, again) in &events {
        assert!(again.iter().all(|event| text(event, "id") == id && event == &again[0]), "{again:#?}");
    }
}

#[test]
fn an_alert_whose_check_is_removed_is_resolved_for_good() {
    let hb = plant(SECONDS, "out.jsonl", "");
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let config = followed(&config) + "http: { listen: \"127.0.0.1:0\" }\n";
    hb.write("hb.yaml", &config);
    let start = || Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info").env("NO_COLOR", "1"));
    let mut running = start();
    let address = health::address(&hb, &mut running);
    wait_until_all_is_told(&hb);
    // What is silent by now goes on being judged.
    let before = until_metric_fits(&hb, &address);
    assert!(before.len() > 1, "{before:#?}");
    hb.write("hb.yaml", &config.replace("id: quick", "id: other"));
    hb.done(&["reload"]);
    running.kill();

    let listed = hb.json(&["alert", "list", "--all"]);
    let now = |old: &Value| listed.as_array().unwrap().iter().find(|a| a["fingerprint"] == old["fingerprint"]).unwrap();
    for old in &before {
        let new = now(old);
        assert_eq!((&new["state"], &new["reason"]), (&"resolved".into(), &"check removed".into()), "{new:#}");
        assert!(new["ends_at"].is_string() && text(new, "ends_at") >= text(new, "starts_at"), "{new:#}");
    }
    let entries = hb.json(&["log", "show", "--kind", "alert.resolved", "--count", "100000"]);
    let why = entries.as_array().unwrap().iter().filter(|e| e["body"]["why"] == "check removed").count();
    assert!(why >= before.len(), "{entries:#}");

    let mut running = start();
    let address = health::address(&hb, &mut running);
    wait_until_all_is_told(&hb);
    let firing = until_metric_fits(&hb, &address);
    assert!(firing.iter().all(|alert| alert["check"] == "other"), "{firing:#?}");
    running.end();
    let events = documents(&hb.path("out.jsonl"), "alert");
    let schema = fs::read_to_string(repository().join("docs/reference/alert_event.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    for old in &before {
        let (_, last) = events.iter().rev().find(|(_, e)| e["fingerprint"] == old["fingerprint"]).unwrap();
        assert_eq!((&last["state"], &last["reason"]), (&"resolved".into(), &"check removed".into()), "{last:#}");
        assert!(schema.is_valid(last), "{last:#}");
    }
    hb.done(&["log", "verify"]);
}

/// A config whose file is followed, and committed soon.
fn followed(config: &str) -> String {
    let config = config.replace("path: telemetry.jsonl }", "path: telemetry.jsonl, follow: true }");
    config.replace("commit_ms: 60000", "commit_ms: 100")
}

/// The alerts that fire, once the metric says that they are so many.
fn until_metric_fits(hb: &Hb, address: &str) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = hb.json(&["alert", "list"]);
        let firing: Vec<Value> =
            listed.as_array().unwrap().iter().filter(|a| a["state"] == "firing").cloned().collect();
        let shown = health::value(&health::scrape(address), "hb_alerts_firing");
        if shown == firing.len() as f64 {
            return firing;
        }
        assert!(Instant::now() < deadline, "{shown} are shown of {firing:#?}");
    }
}

/// Waits until the daemon has read all telemetry and nothing waits for a sink any more.
fn wait_until_all_is_told(hb: &Hb) {
    let lines = fs::read_to_string(hb.path("telemetry.jsonl")).unwrap().lines().count() as u64;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read = hb.json(&["status"])["sources"]["plant"]["lines"].as_u64().unwrap_or(0);
        let listed = hb.json(&["alert", "list", "--all"]);
        let waits = listed.as_array().unwrap().iter().any(|a| a["delivery"]["out"] != "delivered");
        if read >= lines && !waits {
            return;
        }
        assert!(Instant::now() < deadline, "{read} of {lines} lines after {PATIENCE:?}: {listed:#}");
    }
}

/// The events that the log names.
fn logged(hb: &Hb, kind: &str) -> BTreeSet<String> {
    let entries = hb.json(&["log", "show", "--kind", kind, "--count", "100000"]);
    entries.as_array().unwrap().iter().map(|e| text(&e["body"], "event").to_owned()).collect()
}

/// Runs to the end again and again, until nothing waits for a sink.
fn run_until_nothing_waits(hb: &Hb) -> Output {
    let begin = Instant::now();
    loop {
        let output = hb.done(&["daemon", "--once"]);
        if !output.stderr.contains("documents wait for sink") {
            return output;
        }
        assert!(begin.elapsed() < PATIENCE, "{output:#?}");
    }
}

#[test]
fn what_no_sink_takes_in_time_is_a_dead_letter_and_counted() {
    let hb = plant(SHORT, FULL, ", deliver: [alerts], retry: { max_attempts: 1 }");
    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stderr.contains("a document is given up"), "{output:#?}");
    run_until_nothing_waits(&hb);
    let letters = hb.json(&["quarantine", "list"])["dead_letters"].clone();
    let letters = letters.as_array().unwrap().clone();
    let told = logged(&hb, "alert.firing").len() + logged(&hb, "alert.resolved").len();
    assert!(letters.len() == told && told > 3, "{} letters of {told} events", letters.len());
    assert!(letters.iter().all(|l| l["plugin"] == "out" && text(l, "cause").contains("not taken in 1 attempts")));
    assert_eq!(hb.json(&["status"])["counters"]["documents.dead"], letters.len());
    let listed = hb.json(&["alert", "list"]);
    let dead = serde_json::json!({ "out": "dead", "pager": "delivered" });
    assert!(listed.as_array().unwrap().iter().all(|a| a["delivery"] == dead), "{listed:#}");
    // Given up is given up.
    hb.done(&["daemon", "--once"]);
    assert_eq!(hb.json(&["quarantine", "list"])["dead_letters"].as_array().unwrap().len(), letters.len());
}

#[test]
fn the_metrics_tell_what_was_delivered_and_what_was_given_up() {
    let hb = plant(SHORT, FULL, ", deliver: [alerts], retry: { max_attempts: 1 }");
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &(followed(&config) + "http: { listen: \"127.0.0.1:0\" }\n"));
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info").env("NO_COLOR", "1"));
    let address = health::address(&hb, &mut running);
    let lines = fs::read_to_string(hb.path("telemetry.jsonl")).unwrap().lines().count() as u64;
    let deadline = Instant::now() + PATIENCE;
    let (told, scraped) = loop {
        let read = hb.json(&["status"])["sources"]["plant"]["lines"].as_u64().unwrap_or(0);
        let told = logged(&hb, "alert.firing").len() + logged(&hb, "alert.resolved").len();
        let scraped = health::scrape(&address);
        let is_over = ["dead", "delivered"].map(|outcome| {
            let sink = if outcome == "dead" { "out" } else { "pager" };
            documents_total(&scraped, sink, outcome) == told as f64
        });
        if read >= lines && is_over == [true, true] {
            break (told, scraped);
        }
        assert!(Instant::now() < deadline, "{read} of {lines} lines, {told} events: {scraped:#?}");
    };
    assert!(told > 3, "{told} events");
    for (sink, outcome) in [("out", "delivered"), ("out", "dropped"), ("pager", "dead"), ("pager", "dropped")] {
        assert_eq!(documents_total(&scraped, sink, outcome), 0.0, "{sink} {outcome}");
    }
    running.end();
}

fn documents_total(scraped: &BTreeMap<String, f64>, sink: &str, outcome: &str) -> f64 {
    health::value(scraped, &format!("hb_documents_total{{sink=\"{sink}\",outcome=\"{outcome}\"}}"))
}

#[test]
fn a_sink_that_is_down_keeps_no_run_from_its_end() {
    let hb = plant(SHORT, FULL, "");
    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stderr.contains("documents wait for sink out"), "{output:#?}");
    assert!(output.stderr.contains("No space left"), "the reason is told: {output:#?}");
    // The sink is gone from the config: what waits for it waits on, and that is told.
    let text = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &text.replace("name: out,", "name: other,").replace(FULL, "other.jsonl"));
    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stderr.contains("a sink that the config does not name"), "{output:#?}");
    assert_eq!(fs::read_to_string(hb.path("other.jsonl")).unwrap(), "", "a new sink is told what is new");
    hb.write("hb.yaml", &text.replace(FULL, "out.jsonl"));
    run_until_nothing_waits(&hb);
    let paged = fs::read_to_string(hb.path("pager.jsonl")).unwrap().lines().count();
    assert_eq!(documents(&hb.path("out.jsonl"), "alert").len(), paged);
}

#[test]
fn alerts_are_listed_the_firing_ones_first_and_sinks_can_be_tried() {
    let hb = plant(SECONDS, "out.jsonl", "");
    assert_eq!(hb.run(&["alert", "list"]).code, 0);
    hb.done(&["daemon", "--once"]);
    let listed = hb.json(&["alert", "list"]);
    let listed = listed.as_array().unwrap();
    let states: Vec<&str> = listed.iter().map(|a| text(a, "state")).collect();
    assert!(states.is_sorted() && states[0] == "firing", "{states:?}");
    let drifting = listed.iter().find(|a| a["asset"] == "pump-1").unwrap();
    assert_eq!((&drifting["severity"], &drifting["primary_issue"]), (&"FAIL".into(), &"temperature".into()));
    assert!(drifting["age_sec"].as_u64() > Some(0) && drifting["case"].is_string(), "{drifting:#}");
    let said = hb.done(&["alert", "list"]).stdout;
    assert!(said.contains("firing   FAIL     pump-1 quick since 2026-01-01T"), "{said}");
    assert!(said.contains("out delivered, pager delivered"), "{said}");

    let before = fs::read_to_string(hb.path("pager.jsonl")).unwrap().lines().count();
    let sent = hb.json(&["alert", "test", "--sink", "pager"]);
    let pager = fs::read_to_string(hb.path("pager.jsonl")).unwrap();
    let last: Value = serde_json::from_str(pager.lines().last().unwrap()).unwrap();
    assert_eq!((&last["id"], &last["test"], pager.lines().count()), (&sent["id"], &true.into(), before + 1));
    assert_eq!(hb.json(&["alert", "list"]).as_array().unwrap().len(), listed.len(), "a test is no alert");

    let unknown = hb.run(&["alert", "test", "--sink", "pagr"]);
    assert!(unknown.code == 64 && unknown.stderr.contains("did you mean `pager`?"), "{unknown:#?}");
    let text = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &text.replace("file: pager.jsonl", &format!("file: {FULL}")));
    let full = hb.run(&["alert", "test", "--sink", "pager"]);
    assert!(full.code == 74 && full.stderr.contains("No space left"), "{full:#?}");
    hb.done(&["alert", "test", "--sink", "out"]);
}

/// A rule that fails where a pump is hot.
const BRITTLE: &str = "--!strict
local function judge(w: Window, _b: Baseline?, _ctx: Ctx): Verdict?
	if w.metric == \"temperature\" and w.mean > 70 then
		error(\"brittle\")
	end
	return nil
end

return {
	id = \"test.brittle\",
	version = \"1.0.0\",
	kind = \"rule\",
	about = \"Breaks on hot pumps.\",
	applies_to = { \"*\" },
	judge = judge,
}
";

#[test]
fn a_rule_that_breaks_is_an_alert_too() {
    let hb = plant(SECONDS, "out.jsonl", "");
    super::hostile::copy_folder(&repository().join("policies"), &hb.path("policies"));
    hb.write("policies/test/brittle.luau", BRITTLE);
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let rules = config.split("    rules:\n").nth(1).unwrap().split("severity:").next().unwrap();
    let config = config.replace(rules, "      - rule: test.brittle\n");
    hb.write("hb.yaml", &format!("policies_dir: policies\n{config}"));
    hb.done(&["daemon", "--once"]);
    let events = documents(&hb.path("out.jsonl"), "alert");
    let stories = stories(&events);
    assert_eq!(stories.values().collect::<Vec<_>>(), [&["firing WARN"]], "{stories:?}");
    let (_, event) = &events[0];
    assert_eq!((&event["status"], &event["asset"]), (&"ERROR".into(), &"pump-1".into()));
    assert!(text(event, "reason").contains("brittle"), "{event:#}");
}
