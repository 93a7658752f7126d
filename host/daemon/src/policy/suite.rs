//! Runs the tests beside a policy: cases of windows in sequence, with the verdicts they must give, and parameters that
//! the policy must refuse.

use std::collections::BTreeMap;

use hb_engine::decision::{Counts, Decision, Finding, InputsRef, Mode, Severity, Status};
use hb_engine::judge::{
    Ask, BASELINE_FIELDS, BaselineRow, Param, Presence, Row, RuleUse, Verdict, WINDOW_FIELDS, WindowRow,
};
use hb_engine::series::{SeriesDef, SeriesKind};
use hb_log::hash::Hash;
use mlua::{Table, Value};

use super::lex::{Step, Tokens};
use super::schema::{PolicyKind, Reading, entries};
use super::vm::{ParamsCheck, PolicyVm, open};
use super::{PolicyProblem, misfit, refusal};

/// Length of a test's windows, ns; a rule sees it as `ctx.window_sec`.
const WINDOW_NS: i64 = 60 * hb_engine::NS_PER_SEC;

/// Samples of a present window that names no `count`.
const DEFAULT_COUNT: f64 = 60.0;

/// How far an expected value may be off, as a share of it: tests write a few digits.
const VALUE_TOLERANCE: f64 = 1e-3;

const CASE_KEYS: [&str; 6] = ["name", "params", "windows", "decision", "expect", EXPECT_REFUSED];
/// In place of `expect`: a part of the sentence with which the policy must refuse the case's parameters.
const EXPECT_REFUSED: &str = "expect_refused";
const WINDOW_KEYS: [&str; 3] = ["w", "b", "mode"];
const EXPECT_KEYS: [&str; 3] = ["status", "value", "reason"];
const IDENTITY_KEYS: [&str; 4] = ["metric", "unit", "presence", "renamed"];
const DECISION_KEYS: [&str; 6] = ["status", "previous", "check", "asset", "mode", "findings"];
const FINDING_KEYS: [&str; 7] = ["metric", "unit", "rule", "status", "value", "limit", "reason"];

/// What running tests found.
#[derive(Clone, Debug, Default)]
pub struct TestReport {
    /// Cases that were run.
    pub cases: usize,
    /// Cases that ended as expected.
    pub passed: usize,
    /// Cases that did not.
    pub failures: Vec<CaseFailure>,
    /// Files that could not be run.
    pub problems: Vec<PolicyProblem>,
    /// Policies without a test file beside them.
    pub untested: Vec<String>,
}

/// One failed case.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}:{}:{}: `{case}`: {}", problem.file, problem.line, problem.col, problem.message)]
pub struct CaseFailure {
    /// Name of the case.
    pub case: String,
    /// Where and why.
    pub problem: PolicyProblem,
}

/// Runs the cases of `test` (path, source) against `policy` (path, source).
pub(crate) fn run(policy: (&str, &str), test: (&str, &str), report: &mut TestReport) {
    let vm = match PolicyVm::load(policy.0, policy.1) {
        Ok(vm) => vm,
        Err(problems) => return report.problems.extend(problems),
    };
    let (_room, table) = match open(test.0, test.1) {
        Ok(opened) => opened,
        Err(problems) => return report.problems.extend(problems),
    };
    let tokens = Tokens::of(test.1);
    let mut reading = Reading::new(test.0, &tokens);
    let cases = entries(&table);
    if cases.is_empty() {
        reading.wrong(&[], "the file holds no case", Some("return a list of `{ name, windows, expect }`".into()));
        return report.problems.extend(reading.problems);
    }
    for (key, case) in cases {
        let (Value::Integer(index), Value::Table(case)) = (&key, &case) else {
            reading.wrong(&[], "the file returns something other than a list of cases", None);
            continue;
        };
        let place = [Step::Item(*index as usize)];
        let name = reading.text(case, &place, "name").unwrap_or_default();
        report.cases += 1;
        let before = reading.problems.len();
        run_case(&vm, case, &place, &mut reading);
        let found = reading.problems.split_off(before);
        report.passed += usize::from(found.is_empty());
        report.failures.extend(found.into_iter().map(|problem| CaseFailure { case: name.clone(), problem }));
    }
    report.problems.extend(reading.problems);
}

fn run_case(vm: &PolicyVm, case: &Table, place: &[Step<'_>], reading: &mut Reading<'_>) {
    reading.closed(case, place, "a case", &CASE_KEYS);
    let before = reading.problems.len();
    let using = params(vm, case, place, reading);
    if reading.problems.len() > before {
        return;
    }
    if !matches!(case.raw_get(EXPECT_REFUSED), Ok(Value::Nil)) {
        return run_refusal(vm, &using, case, place, reading);
    }
    if let Some((message, help)) = refusal(vm, &using) {
        reading.wrong(&[place, &[Step::Key("params")]].concat(), message, Some(help));
        return;
    }
    match vm.declared.kind {
        PolicyKind::Rule => run_windows(vm, &using, case, place, reading),
        PolicyKind::Severity => run_decision(vm, &using, case, place, reading),
    }
}

fn run_refusal(vm: &PolicyVm, using: &RuleUse, case: &Table, place: &[Step<'_>], reading: &mut Reading<'_>) {
    let Some(wanted) = reading.text(case, place, EXPECT_REFUSED) else { return };
    let at = [place, &[Step::Key(EXPECT_REFUSED)]].concat();
    for key in ["windows", "decision", "expect"] {
        if !matches!(case.raw_get(key), Ok(Value::Nil)) {
            let message = format!("a case with `{EXPECT_REFUSED}` judges nothing; it has no `{key}`");
            reading.wrong(&[place, &[Step::Key(key)]].concat(), message, None);
        }
    }
    match vm.check(using) {
        ParamsCheck::Refused(sentence) if sentence.contains(&wanted) => {}
        ParamsCheck::Refused(sentence) => {
            reading.wrong(&at, format!("expected a refusal with `{wanted}`, got: {sentence}"), None);
        }
        ParamsCheck::Fit => reading.wrong(&at, "the policy takes these parameters", None),
        ParamsCheck::Broken(cause) => reading.wrong(&at, format!("`check` failed: {cause}"), None),
    }
}

fn params(vm: &PolicyVm, case: &Table, place: &[Step<'_>], reading: &mut Reading<'_>) -> RuleUse {
    let mut using = vm.rule_use();
    let Some(table) = reading.table(case, place, "params") else { return using };
    let at = [place, &[Step::Key("params")]].concat();
    let known: Vec<&str> = vm.declared.params.keys().map(String::as_str).collect();
    reading.closed(&table, &at, "params", &known);
    for (name, decl) in &vm.declared.params {
        let value = match table.raw_get::<Value>(name.as_str()).unwrap_or(Value::Nil) {
            Value::Nil => continue,
            Value::Boolean(on) => Param::Bool(on),
            Value::String(text) => Param::Text(text.to_string_lossy()),
            other => Param::Number(number(&other).unwrap_or(f64::NAN)),
        };
        match misfit(decl, &value) {
            Some(help) => {
                let at = [&at[..], &[Step::Key(name)]].concat();
                reading.wrong(&at, format!("parameter `{name}` does not fit"), Some(help));
            }
            None => {
                using.params.insert(name.clone(), value);
            }
        }
    }
    using
}

/// One window of a case.
struct Fixture {
    series: SeriesDef,
    renamed: Option<SeriesDef>,
    presence: Presence,
    window: WindowRow,
    baseline: BaselineRow,
    mode: Mode,
}

fn run_windows(vm: &PolicyVm, using: &RuleUse, case: &Table, place: &[Step<'_>], reading: &mut Reading<'_>) {
    let (windows, expect) = (reading.table(case, place, "windows"), reading.table(case, place, "expect"));
    let (Some(windows), Some(expect)) = (windows, expect) else {
        reading.wrong(place, "a rule's case needs `windows` and `expect`", None);
        return;
    };
    let (given, wanted) = (windows.raw_len(), expect.raw_len());
    if given != wanted || given == 0 {
        let message = format!("the case has {given} windows and {wanted} expectations");
        reading.wrong(&[place, &[Step::Key("expect")]].concat(), message, Some("write one for each window".into()));
        return;
    }
    let mut state: Vec<f64> = using.state.iter().map(|(_, first)| *first).collect();
    for i in 1..=given {
        let at = [place, &[Step::Key("windows"), Step::Item(i)]].concat();
        let Some(fixture) = fixture(&windows, i, &at, reading) else { return };
        let start_ns = i as i64 * WINDOW_NS;
        let row = Row {
            series: &fixture.series,
            presence: fixture.presence,
            renamed: fixture.renamed.as_ref(),
            window: fixture.window,
            baseline: fixture.baseline,
            state: &state,
        };
        let ask = Ask {
            check: "test",
            rule: using,
            asset: "test",
            start_ns,
            end_ns: start_ns + WINDOW_NS,
            now_ns: start_ns + WINDOW_NS,
            mode: fixture.mode,
            rows: vec![row],
        };
        let Some(verdict) = vm.judge(&ask).pop() else { return };
        let at = [place, &[Step::Key("expect"), Step::Item(i)]].concat();
        let before = reading.problems.len();
        compare(&expect, i, &verdict, &at, reading);
        if reading.problems.len() > before {
            return;
        }
        state = verdict.state;
    }
}

fn compare(expect: &Table, i: usize, verdict: &Verdict, at: &[Step<'_>], reading: &mut Reading<'_>) {
    let got = if verdict.reason.is_empty() {
        verdict.status.to_string()
    } else {
        format!("{}: {}", verdict.status, verdict.reason)
    };
    let (status, value, reason) = match expect.raw_get::<Value>(i).unwrap_or(Value::Nil) {
        Value::String(status) => (status.to_string_lossy(), None, None),
        Value::Table(table) => {
            reading.closed(&table, at, "an expectation", &EXPECT_KEYS);
            let status = reading.text(&table, at, "status").unwrap_or_default();
            let value = number(&table.raw_get("value").unwrap_or(Value::Nil));
            (status, value, table.raw_get::<Option<String>>("reason").unwrap_or_default())
        }
        other => {
            reading.wrong(at, format!("an expectation is a {}; expected a status", other.type_name()), None);
            return;
        }
    };
    if !statuses().any(|s| s.as_str() == status) {
        let help = statuses().map(Status::as_str).collect::<Vec<_>>().join(", ");
        reading.wrong(at, format!("`{status}` is no status"), Some(help));
    } else if verdict.status.as_str() != status {
        reading.wrong(at, format!("window {i}: expected {status}, got {got}"), None);
    } else if value.is_some_and(|v| (v - verdict.value).abs() > VALUE_TOLERANCE * v.abs() || verdict.value.is_nan()) {
        let message = format!("window {i}: expected the value {}, got {}", value.unwrap_or(f64::NAN), verdict.value);
        reading.wrong(at, message, None);
    } else if let Some(reason) = reason.filter(|r| !verdict.reason.contains(r.as_str())) {
        reading.wrong(at, format!("window {i}: expected a reason with `{reason}`, got {got}"), None);
    }
}

fn fixture(windows: &Table, i: usize, at: &[Step<'_>], reading: &mut Reading<'_>) -> Option<Fixture> {
    let Ok(Some(table)) = windows.raw_get::<Option<Table>>(i) else {
        reading.wrong(at, format!("window {i} is no table"), None);
        return None;
    };
    let before = reading.problems.len();
    reading.closed(&table, at, "a window of a case", &WINDOW_KEYS);
    let Some(w) = reading.table(&table, at, "w") else {
        reading.wrong(at, format!("window {i} has no `w`"), None);
        return None;
    };
    let at_w = [at, &[Step::Key("w")]].concat();
    let known: Vec<&str> = IDENTITY_KEYS.into_iter().chain(WINDOW_FIELDS).collect();
    reading.closed(&w, &at_w, "`w`", &known);
    let presence = match word(&w, "presence").as_deref() {
        None | Some("present") => Presence::Present,
        Some("missing") => Presence::Missing,
        Some("silent") => Presence::Silent,
        Some("sparse") => Presence::Sparse,
        Some("new") => Presence::New,
        Some(other) => {
            let help = Some("present, missing, silent, new, sparse".to_owned());
            reading.wrong(
                &[&at_w[..], &[Step::Key("presence")]].concat(),
                format!("presence `{other}` is unknown"),
                help,
            );
            Presence::Present
        }
    };
    let mut window: WindowRow = columns(&w, WINDOW_FIELDS);
    if window[0].is_nan() {
        let seen = matches!(presence, Presence::Present | Presence::New | Presence::Sparse);
        window[0] = if seen { DEFAULT_COUNT } else { 0.0 };
    }
    let baseline = match reading.table(&table, at, "b") {
        None => [f64::NAN; BASELINE_FIELDS.len()],
        Some(b) => {
            reading.closed(&b, &[at, &[Step::Key("b")]].concat(), "`b`", &BASELINE_FIELDS);
            columns(&b, BASELINE_FIELDS)
        }
    };
    let mode = mode_of(&table, at, reading);
    let unit = word(&w, "unit").unwrap_or_default();
    let series = series(&word(&w, "metric").unwrap_or_else(|| "metric".into()), &unit);
    let renamed = word(&w, "renamed").map(|metric| self::series(&metric, &unit));
    (reading.problems.len() == before).then_some(Fixture { series, renamed, presence, window, baseline, mode })
}

fn run_decision(vm: &PolicyVm, using: &RuleUse, case: &Table, place: &[Step<'_>], reading: &mut Reading<'_>) {
    let Some(table) = reading.table(case, place, "decision") else {
        reading.wrong(place, "a severity policy's case needs `decision` and `expect`", None);
        return;
    };
    let at = [place, &[Step::Key("decision")]].concat();
    reading.closed(&table, &at, "a decision", &DECISION_KEYS);
    let mut decision = decision(status_of(&table, &at, "status", reading), status_of(&table, &at, "previous", reading));
    decision.mode = mode_of(&table, &at, reading);
    decision.asset = word(&table, "asset").unwrap_or(decision.asset);
    decision.check = word(&table, "check").unwrap_or(decision.check);
    if let Some(list) = reading.table(&table, &at, "findings") {
        for i in 1..=list.raw_len() {
            let at = [&at[..], &[Step::Key("findings"), Step::Item(i)]].concat();
            let Ok(Some(found)) = list.raw_get::<Option<Table>>(i) else { continue };
            reading.closed(&found, &at, "a finding", &FINDING_KEYS);
            let status = status_of(&found, &at, "status", reading);
            let metric = word(&found, "metric").unwrap_or_else(|| "metric".into());
            let mut finding = finding(&metric, &word(&found, "unit").unwrap_or_default(), status);
            finding.rule = word(&found, "rule").unwrap_or(finding.rule);
            finding.reason = word(&found, "reason").unwrap_or(finding.reason);
            finding.value = number(&found.raw_get("value").unwrap_or(Value::Nil));
            finding.limit = number(&found.raw_get("limit").unwrap_or(Value::Nil));
            decision.findings.push(finding);
        }
    }
    let Some(wanted) = reading.text(case, place, "expect") else { return };
    let at = [place, &[Step::Key("expect")]].concat();
    if !matches!(wanted.as_str(), "WARN" | "FAIL" | "CRITICAL" | "none") {
        let help = Some("WARN, FAIL, CRITICAL or none".to_owned());
        reading.wrong(&at, format!("`{wanted}` is no severity"), help);
        return;
    }
    match vm.severity(using, &decision) {
        Ok(got) if got.map_or("none", Severity::as_str) == wanted => {}
        Ok(got) => {
            let message = format!("expected {wanted}, got {}", got.map_or("none", Severity::as_str));
            reading.wrong(&at, message, None);
        }
        Err(cause) => reading.wrong(&at, format!("expected {wanted}, the policy failed: {cause}"), None),
    }
}

fn status_of(table: &Table, at: &[Step<'_>], key: &str, reading: &mut Reading<'_>) -> Status {
    let Some(text) = word(table, key) else { return Status::Pass };
    statuses().find(|s| s.as_str() == text).unwrap_or_else(|| {
        let help = statuses().map(Status::as_str).collect::<Vec<_>>().join(", ");
        reading.wrong(&[at, &[Step::Key(key)]].concat(), format!("`{text}` is no status"), Some(help));
        Status::Pass
    })
}

fn mode_of(table: &Table, at: &[Step<'_>], reading: &mut Reading<'_>) -> Mode {
    let modes =
        [Mode::Startup, Mode::Nominal, Mode::Degraded, Mode::Fallback, Mode::Maintenance, Mode::Test, Mode::Emergency];
    let Some(text) = word(table, "mode") else { return Mode::default() };
    modes.into_iter().find(|m| m.as_str() == text).unwrap_or_else(|| {
        let help = modes.map(Mode::as_str).join(", ");
        reading.wrong(&[at, &[Step::Key("mode")]].concat(), format!("`{text}` is no mode"), Some(help));
        Mode::default()
    })
}

fn statuses() -> impl Iterator<Item = Status> {
    [Status::Pass, Status::NoData, Status::Drift, Status::Error, Status::Fail].into_iter()
}

fn word(table: &Table, key: &str) -> Option<String> {
    table.raw_get::<Value>(key).ok()?.as_string().map(mlua::LuaString::to_string_lossy)
}

fn number(value: &Value) -> Option<f64> {
    value.as_number().or_else(|| value.as_integer().map(|i| i as f64))
}

fn columns<const N: usize>(table: &Table, fields: [&str; N]) -> [f64; N] {
    fields.map(|field| number(&table.raw_get(field).unwrap_or(Value::Nil)).unwrap_or(f64::NAN))
}

/// A series for tests and probes.
pub(crate) fn series(metric: &str, unit: &str) -> SeriesDef {
    SeriesDef { metric: metric.to_owned(), unit: unit.to_owned(), kind: SeriesKind::Gauge, labels: BTreeMap::new() }
}

/// A finding for tests and probes.
pub(crate) fn finding(metric: &str, unit: &str, status: Status) -> Finding {
    Finding {
        series: series(metric, unit),
        rule: "test.rule".into(),
        status,
        value: None,
        limit: None,
        margin: None,
        contribution: 0.0,
        observed: None,
        expected: None,
        reason: "a test".into(),
    }
}

/// A decision without findings for tests and probes.
pub(crate) fn decision(status: Status, previous: Status) -> Decision {
    let none = Hash::of(b"");
    Decision {
        v: Decision::V,
        engine: hb_engine::ENGINE_VERSION.to_owned(),
        program: "test".into(),
        lane: "test".into(),
        asset: "test".into(),
        check: "test".into(),
        start_ns: 0,
        end_ns: WINDOW_NS,
        status,
        previous,
        severity: None,
        mode: Mode::default(),
        baseline: None,
        findings: Vec::new(),
        findings_hash: none,
        counts: Counts::default(),
        generations: Vec::new(),
        inputs: InputsRef { snapshot: none, journal: none, inputs: 0 },
    }
}
