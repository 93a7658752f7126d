use super::*;
use crate::diagnostic::MAX_KEPT;

/// A config without mistakes, as short as it can be.
const GOOD: &str = "\
sources:
  - name: plant
    plugin: file-replay
    transport: { file: { path: telemetry.jsonl } }
    normalizer: plant
normalizers:
  - name: plant
    plugin: schema-map
checks:
  - id: quick
    window_sec: 300
    every_sec: 60
    baseline: golden
    rules:
      - rule: drift.robust_z
require_signed: false
";

fn load(text: impl Into<Vec<u8>>) -> Result<ConfigFile, Diagnostics> {
    ConfigFile::from_bytes(Path::new("conf/hb.yaml"), text.into(), &Surroundings::default())
}

/// Replaces text of the good config and compares what is said of it, line by line, without the excerpts.
#[track_caller]
fn check(from: &str, to: &str, want: &str) {
    assert!(GOOD.contains(from), "{from}");
    check_text(GOOD.replacen(from, to, 1), want);
}

#[track_caller]
fn check_text(text: impl Into<Vec<u8>>, want: &str) {
    let found = load(text).expect_err("the config has mistakes").render(false);
    let short: Vec<&str> = found
        .lines()
        .filter(|l| l.contains("]: ") || l.contains("--> ") || l.contains("help: "))
        .map(str::trim)
        .collect();
    let short =
        short.join("\n").replace("\n--> conf/hb.yaml", " @").replace("\nhelp: ", " | ").replace("error[config]: ", "");
    assert_eq!(short, want.trim(), "\n{found}");
}

#[test]
fn a_good_config_has_values_and_defaults() {
    let file = load(GOOD).unwrap();
    let c = &file.config;
    assert_eq!((c.program.as_str(), c.asset_label.as_str()), ("default", "asset"));
    assert_eq!(c.state, Path::new("conf/state"));
    assert_eq!(
        c.sources[0].transport,
        TransportConfig::File(FileTransportConfig { path: "conf/telemetry.jsonl".into(), follow: false })
    );
    let check = &c.checks[0];
    assert_eq!((check.window_ns, check.every_ns, check.min_samples), (300_000_000_000, 60_000_000_000, 3));
    assert_eq!(check.metrics, [Pattern("*".into())]);
    assert_eq!(c.limits, LimitsConfig::default());
    assert_eq!(c.evidence.dir, Path::new("conf/evidence_packs"));
    assert_eq!(file.warnings.to_string().lines().next(), Some("warn[config]: unsigned plugins may be loaded"));
    assert_eq!(file.place("checks[0].rules[0].rule").to_string(), "conf/hb.yaml:15:15");
    assert_eq!(file.place("limits.max_series").to_string(), "conf/hb.yaml");
    assert_eq!(file.bytes, GOOD.as_bytes());
}

#[test]
fn every_mistake_is_shown_at_its_place_with_the_way_out() {
    let names = "use letters, digits, `.`, `_` and `-`, a letter or digit first, at most 64 characters";
    check("    baseline: golden", "    baselin: golden", "unknown key `baselin` @:13:5 | did you mean `baseline`?");
    check(
        "require_signed: false",
        "colour: red",
        "unknown key `colour` @:16:1 | known here: program, state, plugins_dir, policies_dir, require_signed, \
         trusted_publishers, asset_label, sources, normalizers, sinks, checks, severity, schedule, event_time, limits, \
         evidence, http",
    );
    check(
        "    plugin: schema-map",
        "    plugin: a\n    plugin: b",
        "duplicate key `plugin` @:9:5 | it is already given in line 8",
    );
    check("window_sec: 300", "window_sec: five", "expected a number, found the text \"five\" @:11:17");
    check("window_sec: 300", "window_sec: \"300\"", "expected a number, found the text \"300\" @:11:17");
    check(
        "window_sec: 300",
        "window_sec: 310",
        "`window_sec` 310 is not a multiple of `every_sec` 60 @:11:17 | the nearest multiple is 300",
    );
    check("window_sec: 300", "window_sec: 1e9", "`window_sec` is 1000000000 s; it must be 0.01 to 2678400 s @:11:17");
    check(
        "window_sec: 300",
        "window_sec: .nan",
        "the number .nan cannot be kept @:11:17 | use a finite number \
         within 64 bits, or quotes if text is meant",
    );
    check(
        "every_sec: 60",
        "every_sec: 0.05",
        "a window of 6000 steps; `limits.max_buckets` is 4096 @:11:17 | make \
         `every_sec` longer, or raise `limits.max_buckets`",
    );
    check("{ file: {", "{ fiel: {", "unknown transport `fiel` @:4:18 | did you mean `file`?");
    check(
        "{ file: { path: telemetry.jsonl } }",
        "{}",
        "a source has exactly one transport, found 0 @:4:16 | \
         known here: file, socket, exec, mqtt",
    );
    check("path: telemetry.jsonl", "path: 7", "expected text, found the number 7 @:4:32 | put it in quotes");
    check("    normalizer: plant\n", "", "a source needs the key `normalizer` @:2:5");
    check("normalizer: plant", "normalizer: plnat", "no normalizer is named `plnat` @:5:17 | did you mean `plant`?");
    check("name: plant", "name: ../plant", &format!("`../plant` cannot be a name @:2:11 | {names}"));
    check("require_signed: false", "require_signed: no", "expected true or false, found the text \"no\" @:16:17");
    check(
        "  - id: quick",
        "  - id: quick\n    rules: [{ rule: a }]\n    window_sec: 1\n  - id: quick",
        "`quick` is used \
         twice in `checks` @:13:9 | first used in line 10",
    );
    check(
        "      - rule: drift.robust_z",
        "      - rule: a\n      - rule: a",
        "rule `a` is listed twice in this check @:16:15 | use a second check for other parameters",
    );
    check("    rules:\n      - rule: drift.robust_z", "    rules: []", "a check has 1 to 64 rules, found 0 @:14:12");
    check(
        "    plugin: schema-map",
        "    plugin: schema-map\n    workers: 17",
        "`workers` is 17; it must be 1 to 16 @:9:14",
    );
    check(
        "require_signed: false",
        "event_time: { late_event_policy: bufer }",
        "`late_event_policy` cannot be `bufer` @:16:34 | did you mean `buffer`?",
    );
    let sink = |text: &str| format!("sinks:\n  - {{ name: s, plugin: jsonl, {text} }}\nrequire_signed: false");
    check(
        "require_signed: false",
        &sink("deliver: [alert]"),
        "no kind of document is named `alert` @:17:41 | did you mean `alerts`?",
    );
    check(
        "require_signed: false",
        &sink("deliver: []"),
        "`deliver` is empty: the sink would get nothing @:17:40 | name `alerts`, `decisions` or both, or remove the sink",
    );
    check(
        "require_signed: false",
        &sink("retry: { max_attempts: 0 }"),
        "`max_attempts` is 0; it must be 1 to 100000 @:17:54",
    );
    check("sources:", "sources: &a", "anchors are not allowed here @:2:3 | text that begins with `&` needs quotes");
    check("golden", "!!str golden", "tags are not allowed here @:13:21 | text that begins with `!` needs quotes");
    check("require_signed: false", "---\nprogram: b", "the file holds a second document @:16:1");
    check("golden", "\"golden", "not valid YAML: invalid indentation in multiline quoted scalar @:14:5");
}

#[test]
fn secrets_in_plain_text_are_refused_and_not_shown() {
    let help = "the forms are ${file:/etc/hb/mqtt.pass}, ${credential:mqtt} or ${env:HB_MQTT_PASS}";
    let with =
        |settings: &str| GOOD.replacen("    normalizer", &format!("    settings: {settings}\n    normalizer"), 1);
    for (settings, want) in [
        (
            "{ mqtt: { password: hunter2 } }",
            format!(
                "secret in plain text @:5:35 | write `password: \
            ${{file:/etc/hb/password}}`; {help}"
            ),
        ),
        (
            "{ api_key: 31337 }",
            format!("secret in plain text @:5:26 | write `api_key: ${{file:/etc/hb/api_key}}`; {help}"),
        ),
        (
            "{ url: \"https://${env:X}/\" }",
            format!("not a secret reference @:5:22 | {help}; a file needs an absolute path"),
        ),
        (
            "{ token: \"${file:rel}\" }",
            format!("not a secret reference @:5:24 | {help}; a file needs an absolute path"),
        ),
    ] {
        check_text(with(settings), &want);
    }
    for settings in ["{ password: hunter2, password: hunter3 }", "{ password: [hunter2, { x: hunter3 }] }"] {
        let shown = load(with(settings)).unwrap_err().render(false);
        assert!(shown.contains("secret in plain text") && !shown.contains("hunter"), "{shown}");
    }
    let file = load(with("{ password: \"${env:P}\", password_file: /etc/p, list: [\"${credential:c}\"] }")).unwrap();
    assert_eq!(format!("{:?}", file.config.sources[0].secrets), "[${env:P}, ${credential:c}]");
    // Settings of a normalizer name fields of foreign data.
    load(GOOD.replacen("plugin: schema-map", "plugin: m\n    settings: { token: tok }", 1)).unwrap();
}

#[test]
fn one_look_shows_all_mistakes() {
    let text = GOOD
        .replace("window_sec", "windowsec")
        .replace("require_signed: false", "require_signed: 1\nstat: x")
        .replace("path:", "pth:");
    let found = load(text).unwrap_err();
    assert_eq!(found.errors(), 6, "{found}");
}

#[test]
fn hostile_files_are_refused_in_bounded_time_and_memory() {
    check_text("", "the file is empty @ | `hb init` writes a commented config");
    check_text("# only a comment\n", "the file is empty @ | `hb init` writes a commented config");
    check_text("- a\n", "expected the config with its keys, found a list @:1:1");
    check_text(b"a: 1\nb: \xff\n", "byte 0xff is not UTF-8 text @:2:4 | save the file as UTF-8");
    check_text(
        "a: b\0c\n",
        "control character \\u{0} @:1:5 | remove it; inside double quotes it can be written as an \
         escape",
    );
    let levels = "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n";
    assert!(load(levels).unwrap_err().to_string().contains("aliases are not allowed here"));
    check_text("[".repeat(100_000), "nested deeper than 32 levels @:1:33");
    let many = "k: 1\n".repeat(60_000);
    let found = load(many).unwrap_err();
    assert_eq!(found.iter().count(), MAX_KEPT);
    assert!(found.to_string().contains("duplicate key `k`"));
    let list = format!("sources: [{}]", "1,".repeat(200_000));
    assert!(load(list).unwrap_err().to_string().contains("more than 100000 values in one file"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hb.yaml");
    let open = |path: &Path| ConfigFile::load(path, &Surroundings::default()).unwrap_err().to_string();
    assert!(open(&path).contains("file not found"));
    assert!(open(dir.path()).contains("this is a directory, not a file"));
    std::fs::write(&path, "#".repeat(MAX_FILE_BYTES as usize + 1)).unwrap();
    assert!(open(&path).contains("the file is larger than 1048576 bytes"));

    let text = GOOD.replace("plugin: schema-map", "plugin: m\n    schema: s.yaml") + "trusted_publishers: [p.pub]\n";
    std::fs::write(&path, text).unwrap();
    let found = open(&path);
    assert!(found.contains("s.yaml: file not found") && found.contains("hb.yaml:9:13"), "{found}");
    assert!(found.contains("p.pub: file not found") && found.contains("hb.yaml:18:22"), "{found}");
    std::fs::write(dir.path().join("p.pub"), "key").unwrap();
    std::fs::write(dir.path().join("s.yaml"), "fields:\n  a: 1\n  a: 2\n").unwrap();
    let found = open(&path);
    assert!(found.contains("error[schema]: duplicate key `a`") && found.contains("s.yaml:3:3"), "{found}");
    std::fs::write(dir.path().join("s.yaml"), "fields: { a: 1.5, b: no, c: 0x10, d: ~, e: 007 }\n").unwrap();
    let file = ConfigFile::load(&path, &Surroundings::default()).unwrap();
    assert_eq!(
        file.config.normalizers[0].settings,
        serde_json::json!({"fields": {"a": 1.5, "b": "no", "c": 16, "d": null, "e": 7}})
    );
    let roles: Vec<&FileRole> = file.files.iter().map(|f| &f.role).collect();
    assert_eq!(roles, [&FileRole::Schema(Name::parse("plant").unwrap()), &FileRole::Publisher]);
}

#[test]
fn what_init_writes_loads_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("publisher.pub");
    std::fs::write(&key, "key").unwrap();
    std::fs::write(dir.path().join(template::SCHEMA_NAME), template::SCHEMA).unwrap();
    let path = dir.path().join(template::CONFIG_NAME);
    std::fs::write(&path, template::config(&[&key])).unwrap();
    let file = ConfigFile::load(&path, &Surroundings::default()).unwrap_or_else(|d| panic!("{d}"));
    assert!(file.warnings.is_empty(), "{}", file.warnings);
    assert_eq!(file.config.trusted_publishers, [key]);
    std::fs::write(&path, template::config(&[])).unwrap();
    let file = ConfigFile::load(&path, &Surroundings::default()).unwrap();
    assert_eq!(file.warnings.warnings(), 1, "{}", file.warnings);
}

#[test]
fn directories_default_to_what_lies_near_the_executable() {
    let dir = tempfile::tempdir().unwrap();
    let exe_dir = dir.path().join("target/debug");
    let mut s = Surroundings { exe_dir: exe_dir.clone(), ..Surroundings::default() };
    assert_eq!((s.plugins(), s.policies()), (exe_dir.join("../lib/hb/plugins"), exe_dir.join("../share/hb/policies")));
    std::fs::create_dir_all(exe_dir.join("plugins")).unwrap();
    std::fs::create_dir_all(dir.path().join("policies")).unwrap();
    assert_eq!((s.plugins(), s.policies()), (exe_dir.join("plugins"), exe_dir.join("../../policies")));
    s.plugins_dir = Some("/p".into());
    assert_eq!(s.plugins(), Path::new("/p"));
}

#[test]
fn numbers_follow_the_core_schema() {
    let read = |text: &str| {
        let source = Source::new(Path::new("f"), Area::Schema, format!("v: {text}\n").as_bytes()).unwrap();
        let mut out = Diagnostics::new();
        let node = source.parse(&mut out).unwrap();
        (node.to_json()["v"].clone(), out.errors())
    };
    for (text, want) in [
        ("-17", serde_json::json!(-17)),
        ("+3", serde_json::json!(3)),
        ("0o17", serde_json::json!(15)),
        ("0xfF", serde_json::json!(255)),
        ("0x-1", serde_json::json!("0x-1")),
        ("0x", serde_json::json!("0x")),
        ("18446744073709551615", serde_json::json!(u64::MAX)),
        ("1.", serde_json::json!(1.0)),
        ("-.5e-3", serde_json::json!(-0.0005)),
        ("1e3", serde_json::json!(1000.0)),
        ("infinity", serde_json::json!("infinity")),
        ("nan", serde_json::json!("nan")),
        ("e5", serde_json::json!("e5")),
        (".", serde_json::json!(".")),
        ("10:30", serde_json::json!("10:30")),
        ("2026-11-20", serde_json::json!("2026-11-20")),
        ("yes", serde_json::json!("yes")),
        ("'12'", serde_json::json!("12")),
        ("", serde_json::json!(null)),
        ("|\n  a\n  b", serde_json::json!("a\nb\n")),
    ] {
        assert_eq!(read(text), (want, 0), "{text}");
    }
    for text in ["18446744073709551616", "1e999", "-.inf", ".NaN", "0xfffffffffffffffffffffffffffffffffffff"] {
        assert_eq!(read(text).1, 1, "{text}");
    }
}

#[test]
fn health_is_served_to_this_machine_alone_unless_told_otherwise() {
    let http = |text: &str| load(format!("{GOOD}http: {text}\n"));
    assert_eq!(load(GOOD).unwrap().config.http, None);
    let default = http("{}").unwrap().config.http.unwrap();
    assert_eq!((default.listen.to_string().as_str(), default.allow_remote), ("127.0.0.1:9464", false));
    assert_eq!(http("{ listen: \"[::1]:0\" }").unwrap().config.http.unwrap().listen.port(), 0);
    let refused = |text: &str, want: &str| check_text(format!("{GOOD}http: {text}\n"), want);
    refused(
        "{ listen: \"0.0.0.0:9464\" }",
        "`0.0.0.0` is reached by other machines @:17:17 | listen on 127.0.0.1, or write `allow_remote: true` where the \
         network keeps strangers out",
    );
    for text in ["9464", "localhost:9464", "127.0.0.1"] {
        refused(
            &format!("{{ listen: \"{text}\" }}"),
            &format!(
                "`{text}` is no address with a port @:17:17 | write it as 127.0.0.1:9464 or [::1]:9464; port 0 takes a free one"
            ),
        );
    }
    let warned = http("{ listen: \"0.0.0.0:9464\", allow_remote: true }").unwrap().warnings.render(false);
    assert!(warned.contains("other machines can ask for health and metrics"), "{warned}");
}
