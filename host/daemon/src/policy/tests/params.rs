//! Parameters: what a config may put in place of a default, and what a policy says of all of them together.

use super::*;

#[test]
fn overrides_are_checked() {
    let set = open(&rule("return nil"));
    let one = |name: &str, value: Param| BTreeMap::from([(name.to_owned(), value)]);
    let using = set.resolve("t.t", &one("limit", Param::Number(5.0))).unwrap();
    assert_eq!(using.params["limit"], Param::Number(5.0));
    assert_eq!(using.state, [("n".to_owned(), 0.0)]);
    for (name, value, want) in [
        ("limt", Param::Number(1.0), "did you mean `limit`?"),
        ("limit", Param::Text("x".into()), "expected a finite number, as 1"),
        ("limit", Param::Number(f64::INFINITY), "expected a finite number"),
        ("kind", Param::Text("c".into()), "expected one of a, b"),
        ("on", Param::Number(1.0), "expected true or false"),
    ] {
        let found = set.resolve("t.t", &one(name, value)).unwrap_err();
        assert!(found[0].help.as_deref().unwrap().contains(want), "{found:?}");
    }
    let found = set.resolve("t.x", &BTreeMap::new()).unwrap_err();
    assert_eq!(found[0].help.as_deref(), Some("did you mean `t.t`?"));
}

/// A rule that passes everything and checks its parameters with this body.
fn checked(body: &str) -> Vec<(String, String)> {
    let mut files = rule("return nil");
    files[0].1 = files[0].1.replace("  judge =", &format!("  check = function(p)\n{body}\n  end,\n  judge ="));
    files
}

#[test]
fn parameters_are_checked_together_by_the_policy() {
    let body = "if p.limit > 3 and p.on then return `limit is {p.limit} and {p.kind}` end";
    assert_eq!(problems(&checked(body)), [], "the defaults are good");
    let set = open(&checked(body));
    let resolve = |limit: f64, on: bool| {
        let params = [("limit", Param::Number(limit)), ("on", Param::Bool(on))];
        set.resolve("t.t", &params.map(|(name, value)| (name.to_owned(), value)).into())
    };
    assert!(resolve(3.0, true).is_ok() && resolve(4.0, false).is_ok());
    let found = resolve(4.0, true).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "`t.t` refuses its parameters: limit is 4 and a");
    assert!(found[0].help.as_deref().unwrap().ends_with("explained in t.luau"), "{found:?}");
}

#[test]
fn a_check_that_does_not_end_well_refuses() {
    for (body, want) in [
        ("while true do end", "t/t.luau:5: out of steps"),
        ("error('boom')", "t/t.luau:5: boom"),
        ("error({})", "raised a table"),
        ("return 1", "returned a number; expected a sentence"),
        ("return true", "returned a boolean"),
        ("return ''", "returned an empty text"),
        ("return p.limt", "params has no `limt`; did you mean `limit`?"),
        ("p.limit = 1", "readonly"),
        ("local s = 'x' for i = 1, 40 do s = s .. s end", "not enough memory"),
    ] {
        let set = open(&checked(body));
        for _ in 0..2 {
            let found = set.resolve("t.t", &BTreeMap::new()).unwrap_err();
            assert!(
                found[0].message.contains("the `check` of `t.t` fails on these parameters: t/t.luau:"),
                "{found:?}"
            );
            assert!(found[0].message.contains(want), "{body}: {found:?}");
        }
        // Its own defaults are asked about at load, so that such a policy is found before anybody uses it.
        assert!(problems(&checked(body)).iter().any(|p| p.message.starts_with("with its defaults ")), "{body}");
    }
    let long = open(&checked("return string.rep('é', 4000)")).resolve("t.t", &BTreeMap::new()).unwrap_err();
    assert!(long[0].message.len() < 600, "{}", long[0].message.len());
    let found = problems(&checked("return 'no'"));
    assert!(found[0].message.ends_with("`t.t` refuses its parameters: no"), "{found:?}");
    let mut files = checked("calls += 1 if calls > 1 then return 'no' end");
    files[0].1.insert_str(0, "local calls = 0\n");
    assert!(problems(&files)[0].message.contains("the answer of `check` depends on calls before"));
}

#[test]
fn a_severity_policy_checks_its_parameters_too() {
    let source = "return { id = \"s.s\", version = \"1.0.0\", kind = \"severity\", about = \"t\", params = { x = 1 },\n  \
                  check = function(p) if p.x < 1 then return \"too small\" end end,\n  severity = function() end }";
    assert_eq!(problems(&file(source)), []);
    let found = open(&file(source)).resolve("s.s", &BTreeMap::from([("x".to_owned(), Param::Number(0.0))]));
    assert!(found.unwrap_err()[0].message.contains("too small"));
}

#[test]
fn a_check_has_the_type_of_a_check() {
    let source = "--!strict\nlocal function check(p: any): string?\n  return nil\nend\nreturn { id = \"s.s\", version = \
                  \"1.0.0\", kind = \"severity\", about = \"t\", params = {},\n  check = check, severity = function() return nil \
                  end }\n";
    assert_eq!(problems(&file(source)), []);
    for wrong in ["local function check(p: any): number?", "local function check(p: any, q: any): string?"] {
        let found = problems(&file(&source.replace("local function check(p: any): string?", wrong)));
        assert!(found.iter().any(|p| p.message.starts_with("type: ")), "{wrong}: {found:#?}");
    }
}

#[test]
fn tests_can_state_what_is_refused() {
    let policy =
        checked("if p.limit > 3 then return 'too large' end if p.limit < 0 then error('broken') end").remove(0);
    let failures = |test: &str| failures(&policy, test);
    for (test, want) in [
        ("return { { name = 'a', params = { limit = 4 }, expect_refused = 'small' } }", "got: too large"),
        ("return { { name = 'a', params = { limit = 3 }, expect_refused = 'large' } }", "takes these parameters"),
        ("return { { name = 'a', params = { limit = -1 }, expect_refused = 'broken' } }", "`check` failed: t/t.luau:"),
        ("return { { name = 'a', params = { limit = 4 }, expect_refused = 4 } }", "expected a text"),
        ("return { { name = 'a', params = { limit = 4 }, expect_refused = 'l', expect = {} } }", "it has no `expect`"),
        (
            "return { { name = 'a', params = { limit = 4 }, windows = { { w = {} } }, expect = { 'PASS' } } }",
            "refuses its parameters: too large",
        ),
    ] {
        let found = failures(test);
        assert!(found.iter().any(|p| p.message.contains(want)), "{test}: {found:?}");
    }
    assert!(failures("return { { name = 'a', params = { limit = 4 }, expect_refused = 'too l' } }").is_empty());
}
