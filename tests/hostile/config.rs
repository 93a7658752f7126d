//! Bad configs and policies: the place, the reason, the nearest right name; and hb does not start.

use std::fs;

use super::{WIDE, config, copy_folder, line, refused_start};
use crate::support::hb::{Hb, repository};

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_nearest_name() {
    let hb = with_config(&config("in.jsonl", "jsonl", "schema-map", WIDE).replace("require_signed", "require_singed"));
    for verb in [&["check"][..], &["daemon", "--once"], &["status"]] {
        let message = refused_start(&hb, verb);
        assert!(message.contains("unknown key `require_singed`"), "{message}");
        assert!(message.contains("hb.yaml:3:1"), "{message}");
        assert!(message.contains("require_signed"), "{message}");
    }
    assert!(!hb.path("state").exists(), "nothing is made before the config is right");
}

#[test]
fn a_key_that_is_there_twice_is_shown() {
    let hb = with_config(&(config("in.jsonl", "jsonl", "schema-map", WIDE) + "program: other\n"));
    let message = refused_start(&hb, &["check"]);
    assert!(message.contains("`program`") && message.contains("hb.yaml:14:1"), "{message}");
}

#[test]
fn a_secret_in_plain_text_is_refused_and_not_repeated() {
    let text = config("in.jsonl", "jsonl", "schema-map", WIDE)
        .replace("settings: { format: jsonl }", "settings: { format: jsonl, password: hunter2 }");
    let hb = with_config(&text);
    let message = refused_start(&hb, &["check"]);
    assert!(message.contains("password") && message.contains("${file:"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_schema_with_an_unknown_unit_is_refused_before_the_start() {
    let settings =
        "{ version: 1, timestamp: { field: t }, field_mapping: { p: { metric: power, unit: kW, from: furlong } } }";
    let hb = with_config(&config("in.jsonl", "jsonl", "schema-map", settings));
    for verb in [&["check"][..], &["daemon", "--once"], &["ingest", "in.jsonl", "--out", "x"]] {
        let message = refused_start(&hb, verb);
        assert!(
            message.contains("field_mapping.p.from: unknown unit `furlong`; known units of power: W, mW, kW"),
            "{verb:?}: {message}"
        );
    }
}

#[test]
fn a_policy_with_a_syntax_error_is_shown_at_its_line() {
    let hb = with_policy("--!strict\nlocal x = = 1\n");
    for verb in [&["check"][..], &["daemon", "--once"]] {
        let message = refused_start(&hb, verb);
        assert!(message.contains("error[policy]") && message.contains("my/rule.luau:2"), "{message}");
    }
}

#[test]
fn a_policy_that_never_ends_is_found_before_the_start() {
    let shipped = fs::read_to_string(repository().join("policies/drift/missing.luau")).unwrap();
    let (head, state) = ("id = \"drift.missing\"", "local p, state = ctx.params, ctx.state");
    assert!(shipped.contains(head) && shipped.contains(state), "the shipped policy changed: adapt this test");
    let endless = shipped.replace(head, "id = \"my.rule\"").replace(state, &format!("{state}\n\twhile true do end"));
    let hb = with_policy(&endless);
    for verb in [&["check"][..], &["daemon", "--once"]] {
        let message = refused_start(&hb, verb);
        assert!(message.contains("my/rule.luau") && message.contains("a loop does not end"), "{message}");
    }
}

#[test]
fn parameters_that_make_no_sense_keep_it_from_starting() {
    let base = config("in.jsonl", "jsonl", "schema-map", WIDE);
    for (params, message) in [
        ("k: 5, n: 3", "k is 5; a whole number from 1 to n, which is 3, is needed"),
        ("n: 40", "n is 40; a whole number of windows from 1 to 30 is needed"),
        ("warn: -1, fail: -9", "warn is -1; it must be above 0"),
        ("fail: 3", "fail is 3; it must not be below warn, which is 4"),
    ] {
        let rule = format!("    rules:\n      - rule: drift.robust_z\n        params: {{ {params} }}\n");
        let hb = with_config(&format!("{base}checks:\n  - id: c\n    window_sec: 10\n{rule}"));
        for verb in [&["check"][..], &["daemon", "--once"]] {
            let told = refused_start(&hb, verb);
            assert!(told.contains(&format!("`drift.robust_z` refuses its parameters: {message}")), "{verb:?}: {told}");
            assert!(told.contains("hb.yaml:19:17"), "{verb:?}: {told}");
        }
        assert!(!hb.path("state/hb.redb").exists(), "nothing was recorded");
    }
}

#[test]
fn a_severity_policy_that_fails_is_shown_and_the_decision_stands() {
    let shipped = fs::read_to_string(repository().join("policies/alert/severity.luau")).unwrap();
    let head = "local function severity(decision: Decision, ctx: SeverityCtx): Severity?\n";
    assert!(shipped.contains(head), "the shipped policy changed: adapt this test");
    // Good enough for its tests; the first real decision carries an asset's name and breaks it.
    let broken = shipped.replace(head, &format!("{head}\tif decision.asset == \"p\" then\n\t\terror(\"no\")\n\tend\n"));
    let rule = fs::read_to_string(repository().join("policies/drift/missing.luau")).unwrap();
    let hb = with_policy(&rule.replace("id = \"drift.missing\"", "id = \"my.rule\""));
    hb.write("policies/alert/severity.luau", &broken);
    let gap: String = (0..20).chain(60..80).map(|second| line(second, 1)).collect();
    hb.write("in.jsonl", &gap);
    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stderr.contains("the severity policy failed"), "{output:#?}");
    assert!(hb.json(&["status"])["counters"]["decisions.fail"].as_u64() > Some(0), "{output:#?}");
}

fn with_config(text: &str) -> Hb {
    let hb = Hb::new();
    hb.write("hb.yaml", text);
    hb.write("in.jsonl", &line(0, 1));
    hb
}

/// An instance whose policies are the shipped ones and `my.rule`.
fn with_policy(text: &str) -> Hb {
    let checks = "policies_dir: ./policies
checks:
  - id: c
    window_sec: 10
    rules: [{ rule: my.rule }]
severity: { rule: alert.severity }
";
    let hb = with_config(&(config("in.jsonl", "jsonl", "schema-map", WIDE) + checks));
    copy_folder(&repository().join("policies"), &hb.path("policies"));
    hb.write("policies/my/rule.luau", text);
    hb
}
