//! Makes the pages that repeat comments: exit codes, what policies are given, what plugins are held to.

use super::tree::Tree;

/// A page, the files it is made of, the first of them mandatory, and how.
type Page = (&'static str, &'static str, fn(&Tree) -> Option<String>);

const PAGES: [Page; 3] = [
    ("docs/reference/exit-codes.md", EXIT_FILE, exit_codes),
    ("docs/reference/lua.md", LUA_FILE, lua),
    ("docs/reference/wit.md", WIT_FILE, wit),
];

const EXIT_FILE: &str = "host/daemon/src/diagnostic.rs";
const LUA_FILE: &str = "policies/hb.d.luau";
const WIT_FILE: &str = "sdk/wit/hb.wit";

const EXIT_HEAD: &str = "\
# Exit codes

<!-- Made by `cargo xtask generate` of host/daemon/src/diagnostic.rs; change it there. -->

Each code says who must act; the numbers above 1 are those of sysexits(3).
`hb analyze` ends with 1 only where `HB_GATE_FAIL_EXIT=1` is set, as in a pipeline that must stop then: for a FAIL, for an ERROR, since a rule that broke judged nothing, and where no window could be judged at all.
A process that a signal ended has no code of these.

| Code | Meaning |
|---|---|
";

const LUA_HEAD: &str = "\
# What policies are given

<!-- Made by `cargo xtask generate` of policies/hb.d.luau and host/daemon/src/policy; change them there. -->

A policy is one file in [Luau](https://luau.org) that returns one table; its name ends in `.luau`, and the tests beside it in `.test.luau`.
[The guide for policies](../guide/policy.md) writes, tests and loads one.
`hb policy check` finds what is wrong with one before anything uses it: size, syntax, types, unknown keys, impurity, failing tests.

## Types

A function gets its arguments by value and answers; nothing it does lasts but what it writes into `ctx.state`.

```lua
";

const LUA_SANDBOX: &str = "```

## Sandbox

One virtual machine for each version of a policy, with text alone as input: no bytecode.
Steps are turns of a loop and calls; they are counted, not timed, so that a budget ends at the same place on every machine.
A rule that goes beyond a limit, or raises, is ERROR for that series alone; the others are judged.
Transcendental functions of `math` and `^` give the same bits on every machine.
`math.random`, `math.randomseed`, `math.noise`, `math.lerp` and `math.map` are absent, as are `table.foreach`, `table.foreachi` and `table.getn`.

| Limit | Value | Meaning |
|---|---|---|
";

/// What of the policies' files is a limit that an author meets.
const LUA_LIMITS: [(&str, &[&str]); 4] = [
    ("host/daemon/src/policy/vm.rs", &["MAX_SOURCE_BYTES"]),
    ("host/daemon/src/policy/sandbox.rs", &["MEMORY_BYTES", "FUEL_PER_ROW", "FUEL_SHARE", "FUEL_LOAD"]),
    ("host/daemon/src/policy/schema.rs", &["MAX_PARAMS", "MAX_STATE", "MAX_NAME", "MAX_ABOUT"]),
    ("host/daemon/src/policy/types.rs", &["TIME_LIMIT_SEC"]),
];

const LUA_ABSENT: &str = "
## What is absent, and what to use instead

| Name | Way out |
|---|---|
";

const LUA_SANDBOX_FILE: &str = "host/daemon/src/policy/sandbox.rs";

const WIT_HEAD: &str = "\
# What plugins are held to

<!-- Made by `cargo xtask generate` of sdk/wit/hb.wit and host/daemon/src/plugin; change them there. -->

A plugin is a WebAssembly component that exports one interface; it can do what it imports and nothing else.
The contract with all its records is [hb.wit](../../sdk/wit/hb.wit), package `hb:plugin`; [the guide for connectors](../guide/connector.md) writes, tests and loads two.

## Worlds

| World | Imports | Exports | For |
|---|---|---|---|
";

const WIT_CAPABILITIES: &str = "
## Capabilities

A capability is there when the manifest asks for it in `capabilities` and the config gives it in `grants` or `output`; a component that imports more does not load.
Today they are for sinks; sources get their bytes from transports that the host owns.

| Capability | Allows |
|---|---|
";

const WIT_LIMITS: &str = "
## Limits

`resource_limits` in the manifest chooses `memory_mib`, `fuel_per_frame`, `deadline_ms` and `rows_per_frame` within these; the config's `limits` choose the size of batches.
Normalizers have fuel, which is the same on every machine; sources and sinks have a deadline.

| Limit | Value | Meaning |
|---|---|---|
";

const WIT_FAULTS: &str = "
## Faults

A fault costs the plugin, never the host.
The guilty frames go to the dead letters with the cause, which `hb quarantine list` shows; the instance is made anew, after growing pauses, and after 5 faults in a row it is given up loudly.

| Fault | Meaning |
|---|---|
";

const PLUGIN_LIMITS: &str = "host/daemon/src/plugin/limits.rs";
const PLUGIN_FAULTS: &str = "host/daemon/src/plugin/fault.rs";
const PLUGIN_MANIFEST: &str = "host/daemon/src/plugin/manifest.rs";

/// The pages of a tree that has what they are made of.
pub(super) fn pages(tree: &Tree) -> Vec<(&'static str, String)> {
    let made = PAGES.iter().map(|(page, source, make)| tree.file(source).and_then(|_| Some((*page, make(tree)?))));
    made.flatten().collect()
}

fn exit_codes(tree: &Tree) -> Option<String> {
    let (_, module) = tree.file(EXIT_FILE)?.text.split_once("pub mod exit {")?;
    let (module, _) = module.split_once("\n}")?;
    Some(constants(module).into_iter().fold(EXIT_HEAD.to_owned(), |page, c| page + &row(&[&c.value, &c.about])))
}

fn lua(tree: &Tree) -> Option<String> {
    let mut page = LUA_HEAD.to_owned() + &tree.file(LUA_FILE)?.text + LUA_SANDBOX;
    for (file, names) in LUA_LIMITS {
        let all = constants(&tree.file(file)?.text);
        for c in all.iter().filter(|c| names.contains(&c.name.as_str())) {
            page.push_str(&row(&[&spoken(&c.name), &c.value, &c.about]));
        }
    }
    page.push_str(LUA_ABSENT);
    let (_, absent) = tree.file(LUA_SANDBOX_FILE)?.text.split_once("const ABSENT: ")?;
    for line in absent.lines().skip(1).take_while(|line| *line != "];") {
        // What stands between quotes is every second part.
        let parts: Vec<&str> = line.split('"').collect();
        page.push_str(&row(&[&format!("`{}`", parts.get(1)?), parts.get(3)?]));
    }
    Some(page)
}

fn wit(tree: &Tree) -> Option<String> {
    let mut page = WIT_HEAD.to_owned();
    let text = &tree.file(WIT_FILE)?.text;
    let blocks = text.split("\nworld ").collect::<Vec<_>>();
    for pair in blocks.windows(2) {
        let about: Vec<&str> = pair[0].lines().rev().take_while(|line| line.starts_with("///")).collect();
        let about: Vec<&str> = about.iter().rev().map(|line| line.trim_start_matches('/').trim()).collect();
        let (name, body) = pair[1].split_once(" {")?;
        let body = body.split_once("\n}")?.0;
        let listed = |word: &str| {
            let found = body.lines().filter_map(|line| line.trim().strip_prefix(word)?.strip_suffix(';'));
            found.map(|name| format!("`{}`", name.trim())).collect::<Vec<_>>().join(", ")
        };
        page.push_str(&row(&[&format!("`{name}`"), &listed("import "), &listed("export "), &about.join(" ")]));
    }
    page.push_str(WIT_CAPABILITIES);
    for (name, about) in variants(&tree.file(PLUGIN_MANIFEST)?.text, "pub enum Capability {")? {
        page.push_str(&row(&[&format!("`{}`", name.to_lowercase()), &about]));
    }
    page.push_str(WIT_LIMITS);
    for c in constants(&tree.file(PLUGIN_LIMITS)?.text) {
        page.push_str(&row(&[&spoken(&c.name), &c.value, &c.about]));
    }
    page.push_str(WIT_FAULTS);
    for (name, about) in variants(&tree.file(PLUGIN_FAULTS)?.text, "pub enum PluginFault {")? {
        page.push_str(&row(&[&format!("`{}`", kebab(&name)), &about]));
    }
    Some(page)
}

struct Constant {
    name: String,
    value: String,
    about: String,
}

/// The constants with a comment that are a number.
fn constants(text: &str) -> Vec<Constant> {
    let (mut found, mut comment) = (Vec::new(), String::new());
    for line in text.lines().take_while(|line| *line != "#[cfg(test)]").map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            comment.push_str(words);
            continue;
        }
        let declared = line.split_once("const ").and_then(|(_, rest)| rest.strip_suffix(';'));
        let parts =
            declared.and_then(|rest| rest.split_once(": ")).zip(declared.and_then(|rest| rest.split_once(" = ")));
        if let Some(((name, _), (_, value))) = parts
            && let Some(value) = evaluated(value)
        {
            found.push(Constant { name: name.to_owned(), value, about: prose(&comment) });
        }
        comment.clear();
    }
    found
}

/// A number as a person reads it, of a literal, a product or a shift.
fn evaluated(value: &str) -> Option<String> {
    if let Some(ms) = value.strip_prefix("Duration::from_millis(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(format!("{ms} ms"));
    }
    let literal = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    if let Some((number, bits)) = value.split_once("<<") {
        return Some(grouped(literal(number)? << literal(bits)?));
    }
    if let Some(seconds) = value.strip_suffix(".0") {
        return literal(seconds).map(grouped);
    }
    value.split('*').map(literal).product::<Option<u64>>().map(grouped)
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The variants of an enum with their comments.
fn variants(text: &str, begin: &str) -> Option<Vec<(String, String)>> {
    let (_, body) = text.split_once(begin)?;
    let (mut found, mut comment) = (Vec::new(), String::new());
    for line in body.lines().take_while(|line| *line != "}") {
        // Fields of a variant stand deeper.
        let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}'])) else { continue };
        if let Some(words) = line.strip_prefix("///") {
            comment.push_str(words);
            continue;
        }
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !name.is_empty() {
            found.push((name, prose(&comment)));
        }
        comment.clear();
    }
    Some(found)
}

/// `MAX_SOURCE_BYTES` in small letters.
fn spoken(name: &str) -> String {
    name.to_lowercase().replace('_', " ")
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// A comment on one line, without links into the source.
fn prose(comment: &str) -> String {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

/// A row of a table; a bar would end a cell.
fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn a_row_for_each_exit_code() {
        let source = "pub mod exit {\n    /// Well.\n    pub const OK: u8 = 0;\n    /// Bad | worse.\n    pub const BAD: u8 \
                      = 64;\n}\n/// Not one.\nconst X: u8 = 1;\n";
        let pages = pages(&tree::fixture::tree(&[(EXIT_FILE, source)]));
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].1.strip_prefix(EXIT_HEAD), Some("| 0 | Well. |\n| 64 | Bad \\| worse. |\n"));
    }

    #[test]
    fn numbers_are_shown_as_they_are() {
        for (text, shown) in [
            ("20_000", Some("20,000")),
            ("16 * 1024 * 1024", Some("16,777,216")),
            ("64 << 20", Some("67,108,864")),
            ("2.0", Some("2")),
            ("Duration::from_millis(250)", Some("250 ms")),
            ("\"text\"", None),
            ("size_of::<f64>()", None),
        ] {
            assert_eq!(evaluated(text).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn variants_are_read_without_their_fields() {
        let text = "/// X.\npub enum E {\n    /// One\n    /// more.\n    One(String),\n    /// Two.\n    TwoWords {\n        \
                    /// Inner.\n        text: String,\n    },\n}\n";
        let found = variants(text, "pub enum E {").unwrap();
        assert_eq!(found, [("One".into(), "One more.".into()), ("TwoWords".into(), "Two.".into())]);
        assert_eq!(kebab("TwoWords"), "two-words");
    }
}
