//! Everything a policy must pass before it may judge: it opens, names nothing that is absent, type checks, takes its
//! own defaults, answers the same question always the same, and its tests hold.

use std::fs;
use std::path::Path;

use hb_engine::NS_PER_SEC;
use hb_engine::decision::{Decision, Mode, Status};
use hb_engine::judge::{Ask, BASELINE_FIELDS, Presence, Row, RuleUse, Verdict, WINDOW_FIELDS};
use hb_engine::series::SeriesDef;

use super::lex::Tokens;
use super::sandbox::ABSENT;
use super::schema::PolicyKind;
use super::suite::{self, CaseFailure, TestReport};
use super::vm::{MAX_SOURCE_BYTES, PolicyVm};
use super::{EXTENSION, PolicyProblem, TEST_EXTENSION, is_policy, refusal, types};

/// Deepest folder below a given path: a link that leads back must end.
const MAX_DEPTH: usize = 16;

/// Reads policies and tests: files as given (a policy brings its test and the other way round), folders in sorted
/// order.
///
/// # Errors
/// What cannot be read, is too large or is no UTF-8.
pub fn files(paths: &[impl AsRef<Path>]) -> Result<Vec<(String, String)>, Vec<PolicyProblem>> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            walk(path, MAX_DEPTH, &mut found, &mut problems);
            continue;
        }
        let text = path.to_string_lossy().into_owned();
        let beside = policy_of(&text).unwrap_or_else(|| test_of(&text));
        found.push(text);
        if Path::new(&beside).is_file() {
            found.push(beside);
        }
    }
    found.sort();
    found.dedup();
    let mut read = Vec::new();
    for file in found {
        match read_file(&file) {
            Ok(source) => read.push((file, source)),
            Err(message) => problems.push(PolicyProblem { file, line: 1, col: 1, message, help: None }),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

/// Checks all policies below `paths` and runs their tests.
pub fn check(paths: &[impl AsRef<Path>]) -> Vec<PolicyProblem> {
    match files(paths) {
        Ok(files) => check_files(&files),
        Err(problems) => problems,
    }
}

/// Runs the tests below `paths`.
pub fn test(paths: &[impl AsRef<Path>]) -> TestReport {
    match files(paths) {
        Ok(files) => test_files(&files),
        Err(problems) => TestReport { problems, ..TestReport::default() },
    }
}

/// All problems of `files` (path, source).
pub(super) fn check_files(files: &[(String, String)]) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    let mut sound = Vec::new();
    for (file, source) in files.iter().filter(|(file, _)| is_policy(file)) {
        let absent = absent_names(file, source);
        match PolicyVm::load(file, source) {
            // The names are the cause of what else went wrong.
            _ if !absent.is_empty() => problems.extend(absent),
            Ok(vm) => {
                sound.push((file.as_str(), source.as_str(), vm.declared.kind));
                problems.extend(probe(&vm, source));
            }
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(types::check(&sound));
    let report = test_files(files);
    // A policy that does not open was reported above.
    problems.extend(report.problems.into_iter().filter(|problem| !is_policy(&problem.file)));
    for CaseFailure { case, mut problem } in report.failures {
        problem.message = format!("test `{case}`: {}", problem.message);
        problems.push(problem);
    }
    problems
}

/// The policy a test file belongs to; none for other files.
fn policy_of(test: &str) -> Option<String> {
    test.strip_suffix(TEST_EXTENSION).map(|stem| format!("{stem}{EXTENSION}"))
}

fn test_of(policy: &str) -> String {
    format!("{}{TEST_EXTENSION}", policy.strip_suffix(EXTENSION).unwrap_or(policy))
}

fn test_files(files: &[(String, String)]) -> TestReport {
    let mut report = TestReport::default();
    for (file, source) in files {
        if let Some(policy) = policy_of(file) {
            match files.iter().find(|(name, _)| *name == policy) {
                Some((policy, text)) => suite::run((policy, text), (file, source), &mut report),
                None => report.problems.push(PolicyProblem {
                    file: file.clone(),
                    line: 1,
                    col: 1,
                    message: format!("there is no policy {policy} to test"),
                    help: Some(format!("a test is named after its policy: NAME{TEST_EXTENSION}")),
                }),
            }
        } else if is_policy(file) {
            let test = test_of(file);
            if !files.iter().any(|(name, _)| *name == test) {
                report.untested.push(file.clone());
            }
        }
    }
    report
}

/// Names of what a policy does not have. They would only fail when reached; here they fail before.
fn absent_names(file: &str, source: &str) -> Vec<PolicyProblem> {
    let tokens = Tokens::of(source);
    let mut problems = Vec::new();
    for (name, pos) in tokens.variables() {
        let Some((_, help)) = ABSENT.iter().find(|(absent, _)| *absent == name) else { continue };
        if !tokens.declares(name) {
            problems.push(PolicyProblem {
                file: file.to_owned(),
                line: pos.line,
                col: pos.col,
                message: format!("`{name}` is not available in a policy"),
                help: Some((*help).to_owned()),
            });
        }
    }
    problems
}

/// Tries the default parameters, and asks ordinary questions twice, and in another order in another VM: the answers must be equal, and none an error.
fn probe(vm: &PolicyVm, source: &str) -> Vec<PolicyProblem> {
    let Ok(fresh) = PolicyVm::load(&vm.file, source) else { return Vec::new() };
    let problem = |message: String, help: Option<&str>| PolicyProblem {
        file: vm.file.clone(),
        line: 1,
        col: 1,
        message,
        help: help.map(str::to_owned),
    };
    let pure = Some("use only the arguments; keep what must last in declared `state`");
    let using = vm.rule_use();
    if let Some((message, help)) = refusal(vm, &using) {
        return vec![problem(format!("with its defaults {message}"), Some(&help))];
    }
    if vm.check(&using) != fresh.check(&using) {
        return vec![problem("the answer of `check` depends on calls before".into(), pure)];
    }
    if vm.declared.kind == PolicyKind::Severity {
        let decisions = probe_decisions();
        let ask = |vm: &PolicyVm| decisions.iter().map(|d| vm.severity(&using, d)).collect::<Vec<_>>();
        let first = ask(vm);
        if let Some(Err(cause)) = first.iter().find(|answer| answer.is_err()) {
            return vec![problem(format!("the policy fails on an ordinary decision: {cause}"), None)];
        }
        let same = first == ask(vm) && first == ask(&fresh);
        return if same { vec![] } else { vec![problem("the policy's answers change by themselves".into(), pure)] };
    }
    let state: Vec<f64> = using.state.iter().map(|(_, first)| *first).collect();
    let series = [suite::series("probe", "V"), suite::series("probe_other", "V")];
    let rows = probe_rows(&series, &state);
    let order: Vec<usize> = (0..rows.len()).collect();
    let back: Vec<usize> = order.iter().rev().copied().collect();
    let first = ask(vm, &using, &rows, &order);
    for (index, verdict) in first.iter().enumerate() {
        if verdict.status == Status::Error {
            return vec![problem(format!("the rule fails on {}: {}", rows[index].0, verdict.reason), None)];
        }
    }
    let again = ask(vm, &using, &rows, &order);
    let mut turned = ask(&fresh, &using, &rows, &back);
    turned.reverse();
    let same = |other: &[Verdict]| first.iter().zip(other).all(|(a, b)| equal(a, b));
    if same(&again) && same(&turned) {
        vec![]
    } else {
        vec![problem("the rule's verdict on one series depends on calls before".into(), pure)]
    }
}

/// Rows every rule must stand, with what they are for the message.
fn probe_rows<'a>(series: &'a [SeriesDef; 2], state: &'a [f64]) -> Vec<(&'static str, Row<'a>)> {
    let mut window = [0.0; WINDOW_FIELDS.len()];
    for (i, value) in window.iter_mut().enumerate() {
        *value = 20.0 + i as f64;
    }
    let mut baseline = [0.0; BASELINE_FIELDS.len()];
    for (i, value) in baseline.iter_mut().enumerate() {
        *value = 10.0 + i as f64;
    }
    let mut empty = [f64::NAN; WINDOW_FIELDS.len()];
    empty[0] = 0.0;
    let none = [f64::NAN; BASELINE_FIELDS.len()];
    let mut flat = baseline;
    for (value, name) in flat.iter_mut().zip(BASELINE_FIELDS) {
        if name.ends_with("mad") || name == "sd" {
            *value = 0.0;
        }
    }
    let row =
        |presence, window, baseline, renamed| Row { series: &series[0], presence, renamed, window, baseline, state };
    vec![
        ("an ordinary series", row(Presence::Present, window, baseline, None)),
        ("a far series", row(Presence::Present, window.map(|v| v * 1e6), baseline, None)),
        ("a series with a baseline without spread", row(Presence::Present, window, flat, None)),
        ("a missing series", row(Presence::Missing, empty, baseline, None)),
        ("a silent series", row(Presence::Silent, empty, baseline, None)),
        ("a sparse series", row(Presence::Sparse, window, baseline, None)),
        ("a series without a baseline", row(Presence::New, window, none, None)),
        ("a renamed series", row(Presence::Missing, empty, baseline, Some(&series[1]))),
    ]
}

fn ask(vm: &PolicyVm, using: &RuleUse, rows: &[(&str, Row<'_>)], order: &[usize]) -> Vec<Verdict> {
    vm.judge(&Ask {
        check: "probe",
        rule: using,
        asset: "probe",
        start_ns: 0,
        end_ns: 60 * NS_PER_SEC,
        now_ns: 60 * NS_PER_SEC,
        mode: Mode::default(),
        rows: order.iter().map(|&i| rows[i].1.clone()).collect(),
    })
}

fn probe_decisions() -> Vec<Decision> {
    let statuses = [Status::Fail, Status::Drift, Status::NoData, Status::Error, Status::Pass];
    statuses
        .into_iter()
        .map(|status| {
            let mut decision = suite::decision(status, Status::Pass);
            if status != Status::Pass {
                decision.findings.push(suite::finding("probe", "V", status));
            }
            decision
        })
        .collect()
}

/// Equality to the bit; an absent value equals another.
fn equal(a: &Verdict, b: &Verdict) -> bool {
    let bits = |v: &Verdict| {
        let numbers = [v.value, v.limit].into_iter().chain(v.state.iter().copied());
        numbers.map(f64::to_bits).collect::<Vec<_>>()
    };
    a.status == b.status && a.reason == b.reason && bits(a) == bits(b)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<String>, problems: &mut Vec<PolicyProblem>) {
    let wrong = |message: String| PolicyProblem {
        file: folder.to_string_lossy().into_owned(),
        line: 1,
        col: 1,
        message,
        help: None,
    };
    if depth == 0 {
        problems.push(wrong(format!("folders are nested deeper than {MAX_DEPTH}")));
        return;
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => {
            problems.push(wrong(format!("cannot be read: {e}")));
            return;
        }
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let text = path.to_string_lossy().into_owned();
        if path.is_dir() {
            walk(&path, depth - 1, found, problems);
        } else if text.ends_with(TEST_EXTENSION) || is_policy(&text) {
            found.push(text);
        }
    }
}

fn read_file(file: &str) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|e| format!("cannot be read: {e}"))?.len();
    if length > MAX_SOURCE_BYTES as u64 {
        return Err(format!("the file has {length} bytes; at most {MAX_SOURCE_BYTES} are allowed"));
    }
    let bytes = fs::read(file).map_err(|e| format!("cannot be read: {e}"))?;
    String::from_utf8(bytes).map_err(|e| format!("byte {} is no UTF-8", e.utf8_error().valid_up_to()))
}
