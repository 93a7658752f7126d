//! Keeps files readable one by one: their length, their text, and what has no place in them.

use super::Finding;
use super::rust::{self, Token};
use super::tree::{File, Tree};

/// Lines of source that can be read in one sitting.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with the reason why it is still one thing.
const LONG: &[(&str, &str)] = &[
    ("host/daemon/src/transport/mqtt/tests.rs", "one test after the other, each read alone; the broker is beside it"),
    ("host/daemon/src/transport/socket/tests.rs", "one test after the other, each read alone"),
];

/// What is written by hand, and so checked. Recorded data may hold anything.
const WRITTEN: &[&str] = &["conf", "luau", "md", "rs", "service", "sh", "toml", "wit", "yaml", "yml"];
const SCRIPT: &str = ".ci/run";

/// Beginnings of paths that exist on somebody's machine alone.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/tm", "p/"),
    concat!("/Use", "rs/"),
    concat!("/wo", "rk/"),
];

/// Text that means something to nobody but a project's tracker.
const TRACKER: &str = concat!("issue", " #");

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|f| WRITTEN.contains(&f.kind()) || f.path == SCRIPT) {
        check_text(file, &mut findings);
        if matches!(file.kind(), "rs" | "luau" | "wit") {
            check_length(file, &mut findings);
        }
        if file.kind() == "rs" {
            check_rust(tree, file, &mut findings);
        }
    }
    findings
}

fn check_text(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.lines() {
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::new(&file.path, number, "white space at the end of the line", "remove it"));
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| has_path(line, path)) {
            let help = "say it relative to the project, or let the user choose the place";
            findings.push(Finding::new(&file.path, number, format!("a path of one machine: `{path}`"), help));
        }
        if line.contains(TRACKER) {
            let help = "say what happened; the text speaks of the project alone";
            findings.push(Finding::new(&file.path, number, "a number in a tracker", help));
        }
    }
}

/// Whether `line` holds an absolute path that begins so.
fn has_path(line: &str, beginning: &str) -> bool {
    line.match_indices(beginning).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | '>' | '*'))
    })
}

fn check_length(file: &File, findings: &mut Vec<Finding>) {
    let lines = file.lines().count();
    if lines > LINES_MAX && !LONG.iter().any(|(path, _)| *path == file.path) {
        let message = format!("{lines} lines; {LINES_MAX} can be read in one sitting");
        let help = format!("split it by what its parts are for, or give the reason in `LONG` of {}", file!());
        findings.push(Finding::new(&file.path, LINES_MAX + 1, message, help));
    }
}

fn check_rust(tree: &Tree, file: &File, findings: &mut Vec<Finding>) {
    if file.path.ends_with("/mod.rs") {
        findings.push(Finding::new(&file.path, 1, "a file called mod.rs", "call it by its module: name.rs and name/"));
    }
    let tokens = rust::tokens(&file.text);
    for (at, token) in tokens.iter().enumerate() {
        if let Some((message, help)) = check_token(&tokens, at) {
            findings.push(Finding::new(&file.path, token.line, message, help));
        }
    }
    let code = rust::split_tests(&tokens);
    let test = if tree.is_test(&file.path) { &tokens } else { &code.test };
    for path in rust::paths(test) {
        if let [.., "thread" | "time", "sleep"] = path.segments.as_slice() {
            let help = "wait for what must happen, with a deadline";
            findings.push(Finding::new(&file.path, path.line, "a test that sleeps", help));
        }
    }
}

fn check_token(tokens: &[Token<'_>], at: usize) -> Option<(String, &'static str)> {
    if rust::starts(tokens, at, &["#", "[", "ignore"]) {
        return Some(("an ignored test".to_owned(), "assert what happens now, and say in a comment what should"));
    }
    let name = tokens[at].text;
    if matches!(name, "dbg" | "todo" | "unimplemented") && rust::starts(tokens, at + 1, &["!"]) {
        return Some((format!("`{name}!`"), "finish it, or leave it out"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::{LINES_MAX, MACHINE_PATHS, TRACKER};

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        fixture::check(super::check, files, expected);
    }

    #[test]
    fn unfinished_and_silenced_code_is_told() {
        check(
            &[
                ("a/src/x.rs", "fn f() { todo!() }\n#[test]\n#[ignore = \"slow\"]\nfn t() { dbg!(1); }\n// todo!()"),
                ("a/src/y/mod.rs", ""),
            ],
            &[
                "a/src/x.rs:1: `todo!`",
                "a/src/x.rs:3: an ignored test",
                "a/src/x.rs:4: `dbg!`",
                "a/src/y/mod.rs:1: a file called mod.rs",
            ],
        );
    }

    #[test]
    fn tests_do_not_sleep_but_the_product_may() {
        check(
            &[
                ("tests/a.rs", "fn wait() { std::thread::sleep(d) }"),
                ("a/src/x.rs", "fn f() { thread::sleep(d) }\n#[cfg(test)]\nmod tests {\n use std::thread::sleep; }"),
            ],
            &["a/src/x.rs:4: a test that sleeps", "tests/a.rs:1: a test that sleeps"],
        );
    }

    #[test]
    fn text_speaks_of_the_project_alone() {
        let machine = MACHINE_PATHS[0];
        let text = format!("see {machine}me\nsee frame{machine}x and {TRACKER}7\ntail \n");
        let place = format!("a.md:1: a path of one machine: `{machine}`");
        check(
            &[("a.md", &text), ("data.csv", &text)],
            &[&place, "a.md:2: a number in a tracker", "a.md:3: white space at the end of the line"],
        );
    }

    #[test]
    fn a_file_can_be_read_in_one_sitting() {
        let fits = "\n".repeat(LINES_MAX);
        let long = "\n".repeat(LINES_MAX + 1);
        let files = [("a.luau", long.as_str()), ("b.rs", &fits), ("long.md", &long)];
        check(&files, &["a.luau:601: 601 lines; 600 can be read in one sitting"]);
    }
}
