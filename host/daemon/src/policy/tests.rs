//! Tests of the whole module: attacks on the sandbox, mistakes with their places, and isolation of failing rows.

mod params;

use std::collections::BTreeMap;
use std::time::Instant;

use hb_engine::decision::{Mode, Severity, Status};
use hb_engine::judge::{Ask, BASELINE_FIELDS, Judge, Param, Presence, Row, RuleUse, Verdict, WINDOW_FIELDS};
use hb_engine::series::SeriesDef;

use super::{PolicyProblem, PolicySet, check, suite, test};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");

/// A rule whose function has this body, as one file.
fn rule(body: &str) -> Vec<(String, String)> {
    let source = format!(
        "return {{\n  id = \"t.t\", version = \"1.0.0\", kind = \"rule\", about = \"t\",\n  params = {{ limit = 1, kind = \
         {{ \"a\", \"b\" }}, on = true }}, state = {{ n = 0 }},\n  judge = function(w, b, ctx)\n{body}\n  end,\n}}\n"
    );
    vec![("t.luau".to_owned(), source)]
}

fn file(source: &str) -> Vec<(String, String)> {
    vec![("t.luau".to_owned(), source.to_owned())]
}

fn open(files: &[(String, String)]) -> PolicySet {
    PolicySet::open(files).unwrap_or_else(|p| panic!("{p:?}"))
}

fn problems(files: &[(String, String)]) -> Vec<PolicyProblem> {
    PolicySet::load(files).err().unwrap_or_default()
}

/// Judges `metrics` with the rule `t.t`: metric `m5` has mean 5.
fn judge(set: &mut PolicySet, means: &[f64]) -> Vec<Verdict> {
    let using = set.resolve("t.t", &BTreeMap::new()).unwrap();
    judge_with(set, &using, means)
}

fn judge_with(set: &mut PolicySet, using: &RuleUse, means: &[f64]) -> Vec<Verdict> {
    let series: Vec<SeriesDef> = means.iter().map(|m| suite::series(&format!("m{m}"), "V")).collect();
    let state: Vec<f64> = using.state.iter().map(|s| s.1).collect();
    let rows = means.iter().zip(&series).map(|(mean, series)| {
        let mut window = [1.0; WINDOW_FIELDS.len()];
        window[1] = *mean;
        let baseline = [2.0; BASELINE_FIELDS.len()];
        Row { series, presence: Presence::Present, renamed: None, window, baseline, state: &state }
    });
    let ask = Ask {
        check: "c",
        rule: using,
        asset: "a",
        start_ns: 0,
        end_ns: 60_000_000_000,
        now_ns: 61_500_000_000,
        mode: Mode::Nominal,
        rows: rows.collect(),
    };
    set.judge(&ask)
}

/// The single verdict of a rule with this body.
fn verdict(body: &str) -> Verdict {
    judge(&mut open(&rule(body)), &[5.0]).remove(0)
}

/// The reason of the ERROR a rule with this body ends in.
fn error(body: &str) -> String {
    let verdict = verdict(body);
    assert_eq!(verdict.status, Status::Error, "{body}: {verdict:?}");
    verdict.reason
}

#[test]
fn shipped_policies_pass_all_checks_and_tests() {
    let found = check(&[SHIPPED]);
    assert!(found.is_empty(), "{found:#?}");
    let report = test(&[SHIPPED]);
    assert!(
        report.failures.is_empty() && report.problems.is_empty() && report.cases >= 20 && report.cases == report.passed,
        "{report:#?}"
    );
    assert!(report.untested.is_empty(), "{report:#?}");
}

#[test]
fn a_rule_sees_its_columns_and_keeps_its_state() {
    let body = "assert(w.metric == 'm5' and w.unit == 'V' and w.presence == 'present' and w.renamed == nil)\n\
                assert(w.count == 1 and w.mean == 5 and b.median == 2 and b.p99 == 2)\n\
                assert(ctx.now_sec == 61.5 and ctx.window_sec == 60 and ctx.mode == 'nominal')\n\
                assert(ctx.asset == 'a' and ctx.check == 'c' and ctx.params.limit == 1 and ctx.params.kind == 'a')\n\
                ctx.state.n += 1.5\n\
                return { status = 'DRIFT', value = 3, limit = ctx.params.limit, reason = 'r' }";
    let verdict = verdict(body);
    assert_eq!(
        verdict,
        Verdict { status: Status::Drift, value: 3.0, limit: 1.0, reason: "r".into(), state: vec![1.5] }
    );
}

#[test]
fn nil_is_pass_and_no_baseline_is_nil() {
    let mut set = open(&rule("if b then return nil end return { status = 'NO_DATA', reason = 'none' }"));
    assert_eq!(judge(&mut set, &[1.0])[0].status, Status::Pass);
    let using = set.resolve("t.t", &BTreeMap::new()).unwrap();
    let series = suite::series("m", "");
    let row = Row {
        series: &series,
        presence: Presence::Missing,
        renamed: Some(&series),
        window: [f64::NAN; WINDOW_FIELDS.len()],
        baseline: [f64::NAN; BASELINE_FIELDS.len()],
        state: &[0.0],
    };
    let ask = Ask {
        check: "c",
        rule: &using,
        asset: "a",
        start_ns: 0,
        end_ns: 1,
        now_ns: 1,
        mode: Mode::Test,
        rows: vec![row],
    };
    assert_eq!(set.judge(&ask)[0].status, Status::NoData);
}

#[test]
fn endless_work_is_stopped_and_named() {
    let reason = error("while true do end");
    assert!(reason.starts_with("t/t.luau:5: out of steps"), "{reason}");
    for body in [
        "for i = 1, 1e15 do end",
        "local function f() return f() end return f()",
        "local s = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' return { status = string.match(s, \
         'a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab') }",
        "local s = string.rep('a', 200) return string.find(s, '.-.-.-.-.-.-.-b')",
        "local s = 'a' string.gsub(string.rep('a', 9000), 'a', function() while true do end end)",
        "table.sort({3, 2, 1, 5, 4}, function() while true do end end)",
    ] {
        let started = Instant::now();
        error(body);
        assert!(started.elapsed().as_secs() < 20, "{body} took {:?}", started.elapsed());
    }
}

#[test]
fn an_overrun_cannot_be_caught() {
    let source = rule("while true do end")[0].1.clone();
    let with_pcall = source.replace("return {\n", "local f = pcall or function(g) return g() end\nreturn {\n");
    let with_pcall = with_pcall.replace("while true do end", "while true do f(function() while true do end end) end");
    let reason = judge(&mut open(&file(&with_pcall)), &[1.0]).remove(0);
    assert!(reason.reason.contains("out of steps"), "{}", reason.reason);
    assert!(
        PolicySet::open(&file("while true do end return {}")).is_err_and(|p| p[0].message.contains("out of steps"))
    );
}

#[test]
fn large_work_in_one_call_is_refused() {
    for (body, want) in [
        ("return string.rep('x', 1e9)", "string.rep"),
        ("return string.rep('', 1e15)", "string.rep"),
        ("return ('x'):rep(1e9)", "string.rep"),
        ("return string.find(string.rep('a', 16000), string.rep('a', 8000) .. 'b', 1, true)", "too much work"),
        ("local s = 'x' for i = 1, 20 do s = s .. s end return s:upper()", "string.upper"),
        ("return table.create(1e7, 1)", "table.create"),
        ("return table.move({}, 1, 1e9, 2)", "table.move"),
        ("return table.concat(table.move({}, 1, 4096, 1e6), 'x')", "bad argument"),
        ("local t = {} for i = 1, 5000 do t[i] = i end table.sort(t)", "table.sort"),
        ("local s = 'x' for i = 1, 40 do s = s .. s end", "not enough memory"),
        ("local t = {} for i = 1, 1e9 do t[i] = { i } end", "out of steps"),
        ("local function f() return 1 + f() end return f()", "out of steps"),
        ("local s = 'a' local function f() return s:gsub('a', f) end return f()", "overflow"),
    ] {
        let reason = error(body);
        if want != "bad argument" {
            assert!(reason.contains(want), "{body}: {reason}");
        }
    }
}

#[test]
fn a_vm_works_on_after_running_out_of_memory() {
    let mut set = open(&rule("if w.mean == 1 then local s = 'x' for i = 1, 40 do s = s .. s end end"));
    let verdicts = judge(&mut set, &[1.0, 2.0, 1.0, 3.0]);
    let statuses: Vec<Status> = verdicts.iter().map(|v| v.status).collect();
    assert_eq!(statuses, [Status::Error, Status::Pass, Status::Error, Status::Pass]);
}

#[test]
fn what_is_absent_is_absent() {
    for name in [
        "io",
        "os",
        "require",
        "loadstring",
        "getfenv",
        "setfenv",
        "newproxy",
        "print",
        "collectgarbage",
        "debug",
        "coroutine",
        "dofile",
        "loadfile",
        "rawset",
        "rawget",
        "rawequal",
        "rawlen",
        "getmetatable",
        "setmetatable",
        "pcall",
        "xpcall",
        "buffer",
        "vector",
        "_G",
        "gcinfo",
        "integer",
    ] {
        let verdict = verdict(&format!("local x = {name} if x == nil then return nil end error('there')"));
        assert_eq!(verdict.status, Status::Pass, "{name}: {}", verdict.reason);
        // A call must not be turned into a built-in instruction either.
        assert!(error(&format!("return {name}({{}}, 1, 2)")).contains("attempt to call a nil value"), "{name}");
        let found = problems(&rule(&format!("return {name}.x")));
        assert!(found[0].message.contains(&format!("`{name}` is not available")), "{found:?}");
        assert_eq!((found[0].line, found[0].col), (5, 8));
    }
    for member in ["math.random", "math.randomseed", "math.noise", "string.pack", "table.foreach"] {
        assert!(error(&format!("return {member}(1, 2)")).contains("attempt to call a nil value"), "{member}");
    }
}

#[test]
fn nothing_global_can_be_written() {
    for body in ["x = 1", "function f() end", "math.sin = nil", "string.x = 1", "ctx.mode = 1", "ctx.params.limit = 2"]
    {
        let reason = error(body);
        assert!(reason.contains("readonly"), "{body}: {reason}");
    }
    assert!(PolicySet::open(&file("x = 1 return {}")).is_err_and(|p| p[0].message.contains("readonly")));
}

#[test]
fn arithmetic_is_the_same_everywhere() {
    let number = |body: &str| {
        let verdict = verdict(&format!("return {{ status = 'PASS', value = {body} }}"));
        assert!(verdict.reason.is_empty(), "{body}: {}", verdict.reason);
        verdict.value
    };
    for x in [0.1, 0.7, 1.3, 2.9, 11.5, 1234.567] {
        assert_eq!(number(&format!("math.sin({x})")), libm::sin(x));
        assert_eq!(number(&format!("math.exp({x} / 100)")), libm::exp(x / 100.0));
        assert_eq!(number(&format!("math.log({x})")), libm::log(x));
        assert_eq!(number(&format!("math.log({x}, 2)")), libm::log2(x));
        assert_eq!(number(&format!("math.log({x}, 10)")), libm::log10(x));
        assert_eq!(number(&format!("math.pow({x}, 0.3)")), libm::pow(x, 0.3));
        assert_eq!(number(&format!("math.atan2({x}, 3)")), libm::atan2(x, 3.0));
    }
    assert!(error("return math.sin('x')").starts_with("t/t.luau:5: math.sin: a number was expected"));
    let found = problems(&rule("  return w.mean ^ 2"));
    assert_eq!((found[0].line, found[0].col, found.len()), (5, 17, 1));
    assert!(found[0].help.as_deref().unwrap().contains("math.pow"));
}

#[test]
fn addresses_have_no_text() {
    for body in
        ["return tostring({})", "return `{w}`", "return string.format('%s', tostring)", "return ('%s'):format({})"]
    {
        let reason = error(body);
        assert!(reason.contains("has no text"), "{body}: {reason}");
    }
}

#[test]
fn only_text_is_loaded() {
    let bytecode = mlua::chunk::Compiler::new().compile("return {}").unwrap();
    let text = String::from_utf8_lossy(&bytecode).into_owned();
    assert!(PolicySet::open(&file(&text)).is_err());
    let long = format!("return {{}} --{}", "x".repeat(super::vm::MAX_SOURCE_BYTES));
    assert!(PolicySet::open(&file(&long)).is_err_and(|p| p[0].message.contains("at most 262144")));
    for source in ["", "return 1", "return {}, {}", "error('x')", "return nil"] {
        assert!(PolicySet::open(&file(source)).is_err(), "{source}");
    }
}

#[test]
fn a_syntax_error_has_its_line() {
    let found = problems(&file("return {\n  id = ,\n}"));
    assert_eq!((found[0].file.as_str(), found[0].line, found.len()), ("t.luau", 2, 1));
}

#[test]
fn the_schema_is_closed() {
    let good = rule("return nil")[0].1.clone();
    let wrong = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        problems(&file(&good.replace(from, to)))
    };
    let first = |found: &[PolicyProblem]| {
        let p = &found[0];
        (p.line, p.col, p.message.clone(), p.help.clone().unwrap_or_default())
    };
    assert!(problems(&file(&good)).is_empty(), "{:?}", problems(&file(&good)));
    for (from, to, line, col, message, help) in [
        ("state =", "sttae =", 3, 59, "has no key `sttae`", "did you mean `state`?"),
        ("version =", "verson =", 2, 15, "has no key `verson`", "did you mean `version`?"),
        ("about = \"t\"", "about = 1", 2, 49, "`about` is a", ""),
        ("\"1.0.0\"", "\"1\"", 2, 15, "is not a version", "1.0.0"),
        ("\"t.t\"", "\"T t\"", 2, 3, "is not a name", "drift.robust_z"),
        ("\"rule\"", "\"rul\"", 2, 34, "kind `rul`", "kind = \"rule\""),
        ("limit = 1", "limit = 0/0", 3, 14, "parameter `limit`", "a default is"),
        ("limit = 1", "[1] = 1", 3, 3, "without a name", ""),
        ("n = 0", "n = \"x\"", 3, 69, "state `n`", "first value"),
        ("{ \"a\", \"b\" }", "{ \"a\", 1, {} }", 3, 25, "no list of texts", "the default first"),
        ("judge = function(w, b, ctx)", "judge = 1, x = function()", 4, 3, "`judge` is a", ""),
        ("judge = function(w, b, ctx)", "judg = function(w, b, ctx)", 1, 8, "`judge` is missing", "add `judge"),
        ("judge =", "check = { 1 }, judge =", 4, 3, "`check` is a table; expected a function", ""),
        ("judge =", "chekc = 1, judge =", 4, 3, "has no key `chekc`", "did you mean `check`?"),
    ] {
        let found = wrong(from, to);
        let got = found
            .iter()
            .map(|p| first(std::slice::from_ref(p)))
            .find(|(_, _, m, h)| m.contains(message) && h.contains(help));
        let got = got.unwrap_or_else(|| panic!("{to}: {found:#?}"));
        assert_eq!((got.0, got.1), (line, col), "{to}: {found:#?}");
    }
}

#[test]
fn verdicts_are_checked() {
    for (body, want) in [
        ("return 1", "the rule returned a number"),
        ("return { status = 'BAD' }", "`status` is \"BAD\"; expected"),
        ("return { reason = 'x' }", "`status` is missing"),
        ("return { status = 'DRIFT' }", "DRIFT without a `reason`"),
        ("return { status = 'PASS', value = 'x' }", "`value` is a string"),
        ("return { status = 'PASS', value = 0/0 }", "`value` is nan"),
        ("return { status = 'PASS', limit = math.huge }", "`limit` is inf"),
        ("return { status = 'PASS', vlaue = 1 }", "has no `vlaue`; did you mean `value`?"),
        ("return { status = 'DRIFT', reason = 1 }", "`reason` is a number"),
        ("ctx.state.n = 0/0", "state `n` became nan"),
        ("ctx.state.n = nil", "state `n` became nil"),
        ("ctx.state.m = 1", "ctx.state has no `m`"),
        ("return w.maen", "a window has no `maen`; did you mean `mean`?"),
        ("return b.medain", "did you mean `median`?"),
        ("return ctx.params.limt", "did you mean `limit`?"),
        ("return ctx.parms", "did you mean `params`?"),
        ("error({})", "raised a table"),
        ("error('mine')", "mine"),
        ("error(nil)", "raised a nil"),
    ] {
        let reason = error(body);
        assert!(reason.starts_with("t/t.luau:") && reason.contains(want), "{body}: {reason}");
    }
}

#[test]
fn absent_numbers_raise() {
    let mut set = open(&rule("if has(w, 'mean') then return nil end return w.mean"));
    let means = [f64::NAN, 1.0];
    let verdicts = judge(&mut set, &means);
    assert!(verdicts[0].reason.contains("the window has no `mean`"), "{}", verdicts[0].reason);
    assert_eq!(verdicts[1].status, Status::Pass);
}

#[test]
fn one_failing_row_costs_itself_only() {
    let body = "ctx.state.n = 9\nif w.mean == 2 then error('boom') end\nif w.mean == 3 then while true do end end\n\
                return { status = 'FAIL', value = w.mean, reason = w.metric }";
    let verdicts = judge(&mut open(&rule(body)), &[1.0, 2.0, 3.0, 4.0]);
    let got: Vec<(Status, &str, f64)> = verdicts.iter().map(|v| (v.status, v.reason.as_str(), v.state[0])).collect();
    assert_eq!(got[0], (Status::Fail, "m1", 9.0));
    assert_eq!(got[1], (Status::Error, "t/t.luau:6: boom", 0.0));
    assert!(got[2].1.starts_with("t/t.luau:7: out of steps") && got[2].2 == 0.0, "{got:?}");
    assert_eq!(got[3], (Status::Fail, "m4", 9.0));
}

#[test]
fn a_reason_does_not_depend_on_where_the_file_lies() {
    let files = rule("error('boom')");
    let elsewhere = vec![("/somewhere/else/named.luau".to_owned(), files[0].1.clone())];
    assert_eq!(judge(&mut open(&files), &[1.0])[0].reason, judge(&mut open(&elsewhere), &[1.0])[0].reason);
}

#[test]
fn many_endless_rows_end_soon() {
    let means: Vec<f64> = (0..500).map(f64::from).collect();
    let verdicts = judge(&mut open(&rule("while true do end")), &means);
    assert_eq!(verdicts.len(), 500);
    assert!(verdicts.iter().all(|v| v.status == Status::Error));
    assert!(verdicts[499].reason.contains("the rows before took all"), "{}", verdicts[499].reason);
}

#[test]
fn more_rows_than_one_crossing_keep_their_order() {
    let means: Vec<f64> = (0..5_000).map(f64::from).collect();
    let body = "return { status = 'DRIFT', value = w.mean, reason = w.metric }";
    let verdicts = judge(&mut open(&rule(body)), &means);
    assert!(verdicts.iter().enumerate().all(|(i, v)| v.value == i as f64 && v.reason == format!("m{i}")));
}

#[test]
fn hidden_memory_is_found() {
    let source = rule("calls += 1 return { status = 'PASS', value = calls }")[0].1.clone();
    let found = problems(&file(&format!("local calls = 0\n{source}")));
    assert!(found.iter().any(|p| p.message.contains("depends on calls before")), "{found:?}");
    let found = problems(&rule("return { status = 'PASS', value = b.median }"));
    assert!(found.iter().any(|p| p.message.contains("fails on a series without a baseline")), "{found:?}");
}

#[test]
fn rules_without_annotations_are_not_refused() {
    let helpers = "local function dev(w, b) return (w.mean - b.median) / math.max(b.mad, 1) end\nlocal function \
                   verdict(s, z) return { status = s, value = z, reason = 'x' } end\n";
    for body in [
        "ctx.state.n += 1\nif has(w, 'mean') and w.mean > ctx.params.limit then return { status = 'DRIFT', value = w.mean, \
         reason = `{w.metric} {short(w.mean)}` } end",
        "if not b or w.presence ~= 'present' then return end\nlocal z = dev(w, b) if z > 5 then return verdict('DRIFT', z) end",
        "if b then local t = {} for i = 1, 3 do t[i] = b.p99 end table.sort(t) ctx.state.n = #t end",
    ] {
        let mut files = rule(body);
        files[0].1 = format!("{helpers}{}", files[0].1);
        assert_eq!(problems(&files), [], "{body}");
    }
    // What concerns the API is found without annotations too.
    for (body, want) in [
        ("return w.maen", "maen"),
        ("return { status = 'FATAL', reason = 'x' }", "FATAL"),
        ("return { status = 'PASS', value = b.median }", "could be nil"),
        ("shrot(1)", "shrot"),
    ] {
        let found = problems(&rule(body));
        assert!(found.iter().any(|p| p.message.starts_with("type: ") && p.message.contains(want)), "{found:#?}");
    }
}

#[test]
fn types_are_checked() {
    let source = "local function judge(w: Window, b: Baseline?, ctx: Ctx): Verdict?\n  if w.mean > 1 then return { status = \
                  \"FATAL\", reason = \"x\" } end\n  return nil\nend\nreturn { id = \"t.t\", version = \"1.0.0\", kind = \
                  \"rule\", about = \"t\", judge = judge }\n";
    let found = problems(&file(source));
    assert!(
        found.iter().any(|p| p.line == 2 && p.message.contains("type: ") && p.message.contains("FATAL")),
        "{found:#?}"
    );
    let found = problems(&file(&source.replace("\"FATAL\"", "\"FAIL\"").replace("w.mean", "w.maen")));
    assert!(found.iter().any(|p| p.line == 2 && p.message.contains("maen")), "{found:#?}");
}

#[test]
fn a_rule_that_is_not_loaded_is_an_error() {
    let mut set = open(&rule("return nil"));
    let mut using = set.resolve("t.t", &BTreeMap::new()).unwrap();
    using.rule = "gone".into();
    assert!(judge_with(&mut set, &using, &[1.0])[0].reason.contains("`gone` 1.0.0 is not loaded"));
}

#[test]
fn a_broken_severity_policy_still_alerts() {
    let source = "return { id = \"s.s\", version = \"1.0.0\", kind = \"severity\", about = \"t\",\n  severity = \
                  function(d, ctx) return d.sttaus end }";
    let mut set = open(&file(source));
    let decision = suite::decision(Status::Fail, Status::Pass);
    assert_eq!(set.severity(&decision), None);
    let using = set.resolve("s.s", &BTreeMap::new()).unwrap();
    set.use_severity(Some(using));
    assert_eq!(set.severity(&decision), Some(Severity::Fail));
    let faults = set.take_faults();
    assert!(faults[0].starts_with("s/s.luau:2: a decision has no `sttaus`; did you mean `status`?"), "{faults:?}");
}

/// What the tests of one file find wrong with a policy.
fn failures(policy: &(String, String), test: &str) -> Vec<PolicyProblem> {
    let mut report = super::TestReport::default();
    suite::run((&policy.0, &policy.1), ("t.test.luau", test), &mut report);
    report.problems.into_iter().chain(report.failures.into_iter().map(|f| f.problem)).collect()
}

#[test]
fn tests_must_fit_their_policy() {
    let policy = rule("return nil").remove(0);
    let failures = |test: &str| failures(&policy, test);
    for (test, want) in [
        ("return {}", "holds no case"),
        ("return { { name = 'a', windows = {}, expect = {} } }", "0 windows and 0 expectations"),
        ("return { { name = 'a', windows = { { w = {} } }, expect = {} } }", "1 windows and 0 expectations"),
        ("return { { name = 'a', windows = { { w = {} } }, expect = { 'DRIFT' } } }", "expected DRIFT, got PASS"),
        ("return { { name = 'a', windws = {}, expect = {} } }", "no key `windws`"),
        ("return { { name = 'a', windows = { { w = { maen = 1 } } }, expect = { 'PASS' } } }", "no key `maen`"),
        ("return { { name = 'a', params = { limt = 1 }, windows = { { w = {} } }, expect = { 'PASS' } } }", "`limt`"),
        ("return { { name = 'a', windows = { { w = {} } }, expect = { 'PAS' } } }", "`PAS` is no status"),
        ("return { { name = 'a', windows = { { w = {} } }, expect = { { status = 'PASS', value = 1 } } } }", "value 1"),
        ("return 1", "expected one table"),
    ] {
        let found = failures(test);
        assert!(found.iter().any(|p| p.message.contains(want)), "{test}: {found:?}");
    }
    assert!(failures("return { { name = 'a', windows = { { w = {} } }, expect = { 'PASS' } } }").is_empty());
    let lonely = vec![("x.test.luau".to_owned(), "return {}".to_owned())];
    assert!(problems(&lonely)[0].message.contains("there is no policy x.luau"));
}

#[test]
fn the_definitions_name_what_a_policy_is_given() {
    let fields = |name: &str| -> Vec<&str> {
        let head = format!("export type {name} = {{\n");
        let body = super::types::DEFINITIONS.split_once(&head).unwrap_or_else(|| panic!("no {name}")).1;
        let lines = body.split_once("\n}").unwrap().0.lines().map(str::trim).filter(|line| !line.starts_with("--"));
        lines.filter_map(|line| line.trim_start_matches("read ").split_once(':')).map(|(field, _)| field).collect()
    };
    let known = |keys: &[&'static str], more: &[&'static str]| [keys, more].concat();
    assert_eq!(fields("Window"), known(&["metric", "unit", "presence", "renamed"], &WINDOW_FIELDS));
    assert_eq!(fields("Baseline"), BASELINE_FIELDS);
    let loops = [include_str!("rows.luau"), include_str!("severity.luau")];
    let listed = |name: &str| -> Vec<String> {
        let list = loops.iter().find_map(|text| text.split_once(&format!("strict(\"{name}\", {{ "))).unwrap().1;
        list.split_once(" }").unwrap().0.split(", ").map(|key| key.trim_matches('"').to_owned()).collect()
    };
    assert_eq!(fields("Ctx"), listed("ctx"));
    assert_eq!(fields("Decision"), listed("a decision"));
    for (name, text, list) in
        [("Verdict", loops[0], "local VERDICT_KEYS = { "), ("Finding", loops[1], "local FINDING_KEYS = { ")]
    {
        let keys = text.split_once(list).unwrap().1.split_once(" }").unwrap().0;
        assert_eq!(fields(name), keys.split(", ").map(|key| key.trim_matches('"')).collect::<Vec<_>>());
    }
    assert_eq!(fields("Rule"), super::schema::RULE_KEYS);
    assert_eq!(fields("SeverityPolicy"), super::schema::SEVERITY_KEYS);
    let words = super::types::DEFINITIONS.split_once("read presence: ").unwrap().1.lines().next().unwrap();
    let given = loops[0].split_once("local PRESENCE = { [0] = ").unwrap().1.split_once(" }").unwrap().0;
    assert_eq!(words.trim_end_matches(',').split(" | ").collect::<Vec<_>>(), given.split(", ").collect::<Vec<_>>());
}
