//! `hb analyze` as a gate of CI: it lets nothing pass that failed, and nothing that was not judged.

use std::fs;

use serde_json::Value;

use crate::support::hb::{Hb, Output, Plant, telemetry};

/// Simulated seconds: something drifts, jumps and falls silent.
const SECONDS: u64 = 600;

/// Simulated seconds of a run that is larger than the smallest state.
const LONG_SEC: u64 = 12_000;

/// A rule that breaks where a pump is too fast.
const BROKEN: &str = "--!strict
return {
	id = \"mine.broken\",
	version = \"1.0.0\",
	kind = \"rule\",
	about = \"Breaks where something is fast.\",
	applies_to = { \"speed\" },
	params = {},
	state = {},
	judge = function(w: Window, b: Baseline?, ctx: Ctx): Verdict?
		if w.count > 0 and w.mean > 3500 and w.mean < 4500 then
			error(\"too fast\")
		end
		return { status = \"PASS\", value = 0, limit = 1 }
	end,
}
";

#[test]
fn a_run_that_the_state_forgot_in_part_does_not_pass() {
    let hb = Hb::plant(Plant { commit_samples: 500, batch_frames: 200, ..Plant::default() }, &telemetry(4, LONG_SEC));
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    // A cap that the run exceeds many times: its older half is gone before its report is made.
    hb.write("hb.yaml", &config.replace("limits: { ", "limits: { max_state_mb: 4, max_audit_log_mb: 1, "));
    for word in ["1", ""] {
        let refused = gate(&hb, "artifacts", word);
        assert_eq!((refused.code, refused.stdout.as_str()), (65, ""), "{refused:#?}");
        for words in ["decisions of this run", "limits.max_state_mb"] {
            assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
        }
    }
    assert_eq!(hb.json(&["runs", "list"]), Value::Array(vec![]), "a report of a part is no report");
}

#[test]
fn a_broken_rule_does_not_pass() {
    let hb = Hb::plant(Plant::default(), &telemetry(3, SECONDS));
    hb.write("policies/mine/broken.luau", BROKEN);
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let (before, behind) = config.split_once("    rules:\n").unwrap();
    let behind = behind.split_once("severity:").unwrap().1.replace("alert.severity", "mine.severity");
    hb.write("policies/mine/severity.luau", &severity());
    hb.write(
        "hb.yaml",
        &format!("policies_dir: policies\n{before}    rules:\n      - rule: mine.broken\nseverity:{behind}"),
    );
    let run = gate(&hb, "artifacts", "1");
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &told["status"]), (1, &"ERROR".into()), "{run:#?}");
    assert_eq!(gate(&hb, "artifacts", "0").code, 0);
}

#[test]
fn a_run_of_which_nothing_could_be_judged_does_not_pass() {
    let hb = Hb::plant(Plant::default(), &telemetry(3, SECONDS));
    fs::create_dir(hb.path("short")).unwrap();
    fs::copy(hb.path("artifacts/run_meta.json"), hb.path("short/run_meta.json")).unwrap();
    let rows = fs::read_to_string(hb.path("artifacts/metrics.csv")).unwrap();
    let first: Vec<&str> = rows.lines().take(2).collect();
    hb.write("short/metrics.csv", &format!("{}\n", first.join("\n")));
    let run = gate(&hb, "short", "1");
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &told["status"]), (1, &"NO_DATA".into()), "{run:#?}");
    assert_eq!(gate(&hb, "short", "").code, 0);
}

#[test]
fn a_gate_of_another_word_is_a_mistake() {
    let hb = Hb::plant(Plant::default(), &telemetry(3, SECONDS));
    for word in ["true", "yes", "2"] {
        let refused = gate(&hb, "artifacts", word);
        assert!(refused.code == 64 && refused.stderr.contains("HB_GATE_FAIL_EXIT"), "{word}: {refused:#?}");
    }
    assert_eq!(gate(&hb, "artifacts", "1").code, 1);
}

/// The shipped policy of severities under another name.
fn severity() -> String {
    let shipped = crate::support::hb::repository().join("policies/alert/severity.luau");
    fs::read_to_string(shipped).unwrap().replace("alert.severity", "mine.severity")
}

fn gate(hb: &Hb, dir: &str, word: &str) -> Output {
    Output::of(hb.command(&["analyze", dir, "--json"]).env("HB_GATE_FAIL_EXIT", word))
}
