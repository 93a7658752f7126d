//! Keeps the commands of documents true: what stands in a box for a shell is typed by a test, or says here what runs it.
//!
//! A `console` box shows commands with their answers; its page is played by a test, which names it. A `sh` box shows
//! commands alone: tasks of xtask, or a page of [`RUN`].

use super::Finding;
use super::tree::{File, Tree};

/// Pages with a `sh` box, and the file that runs what stands in it.
const RUN: &[(&str, &str)] = &[
    // Reads the commands from the page.
    ("docs/reference/sinks.md", "tests/sinks.rs"),
    ("examples/yardstick/README.md", "tests/yardstick.rs"),
    ("host/daemon/src/evidence/VERIFY.md", "tests/evidence.rs"),
    // Builds so before anything is measured; a release build inside a test would take ten minutes.
    ("docs/guide/operate.md", "xtask/src/bench/ground.rs"),
];

/// Where the tasks of xtask are told apart.
const TASKS: &str = "xtask/src/main.rs";

/// What a `sh` box may hold on any page: `.ci/run` runs these, or a test does the work behind them.
const TASK: &str = "cargo xtask ";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.of_kind("md") {
        for found in boxes(file) {
            findings.extend(check_box(tree, file, &found));
        }
    }
    for (page, by) in RUN {
        let Some(file) = tree.file(page) else { continue };
        if !boxes(file).iter().any(Shell::is_bare) || !tree.has(by) {
            let help = "take the page out of the list in xtask/src/tidy/boxes.rs, or name the file that runs it";
            findings.push(Finding::new(page, 1, format!("no box that {by} could run"), help));
        }
    }
    findings
}

fn check_box(tree: &Tree, file: &File, found: &Shell<'_>) -> Option<Finding> {
    let told = |message: &str, help: &str| Some(Finding::new(&file.path, found.line, message, help));
    if !found.is_bare() {
        // The whole of it, or sections: "PAGE#Heading".
        let named = ["\"", "#"].map(|end| format!("\"{}{end}", file.path));
        let mut tests = tree.of_kind("rs").filter(|f| f.path.starts_with("tests/"));
        if tests.any(|f| named.iter().any(|name| f.text.contains(name))) {
            return None;
        }
        return told("commands that no test types", "play the page in tests/readme.rs, by its path");
    }
    let tasks = tree.file(TASKS).map_or("", |f| f.text.as_str());
    let is_task = |line: &&str| {
        let name = line.strip_prefix(TASK).and_then(|rest| rest.split_whitespace().next());
        name.is_some_and(|name| tasks.contains(&format!("[\"{name}\"")))
    };
    if RUN.iter().any(|(page, _)| *page == file.path) || found.lines.iter().all(is_task) {
        return None;
    }
    told(
        "commands that nothing runs",
        "make it a `console` box of a page that a test plays, or name what runs it in xtask/src/tidy/boxes.rs",
    )
}

/// A box for a shell.
struct Shell<'t> {
    /// Where it begins.
    line: usize,
    word: &'t str,
    /// Those that are not empty.
    lines: Vec<&'t str>,
}

impl Shell<'_> {
    /// Whether it shows commands without their answers.
    fn is_bare(&self) -> bool {
        self.word != "console"
    }
}

/// The boxes of a page that a shell would understand.
fn boxes(file: &File) -> Vec<Shell<'_>> {
    let mut found: Vec<Shell<'_>> = Vec::new();
    let mut is_inside = None;
    for (number, line) in file.lines() {
        let text = line.trim();
        match (is_inside, text.strip_prefix("```")) {
            (None, Some(word)) => {
                let is_shell = matches!(word, "sh" | "bash" | "shell" | "console");
                is_inside = Some(is_shell);
                if is_shell {
                    found.push(Shell { line: number, word, lines: Vec::new() });
                }
            }
            (Some(_), Some(_)) => is_inside = None,
            (Some(true), None) if !text.is_empty() => {
                if let Some(last) = found.last_mut() {
                    last.lines.push(text);
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let xtask = ("xtask/src/main.rs", "match args { [\"demo\", args @ ..] => demo(), [\"test\"] => test() }");
        let files: Vec<(&str, &str)> = files.iter().copied().chain([xtask]).collect();
        fixture::check(super::check, &files, expected);
    }

    #[test]
    fn commands_that_are_typed_or_run_pass() {
        check(
            &[
                ("docs/a.md", "# A\n```console\n$ hb check\n```\n```text\n$ hb check\n```\n"),
                ("tests/readme.rs", "typed_in(\"docs/a.md\", 3);"),
                ("README.md", "# R\n```sh\ncargo xtask demo    # words\n\ncargo xtask test\n```\n"),
                ("docs/reference/sinks.md", "# S\n```sh\nopenssl dgst\n```\n"),
                ("tests/sinks.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn commands_that_nothing_types_are_told() {
        check(
            &[
                ("docs/a.md", "# A\n```console\n$ hb check\n```\n"),
                ("docs/b.md", "# B\ntext\n```bash\ncargo xtask demo\nhb check\n```\n"),
                ("docs/c.md", "# C\n```sh\ncargo xtask dance\n```\n"),
                ("docs/reference/sinks.md", "# S\n```text\nopenssl dgst\n```\n"),
                ("host/daemon/src/a.rs", "\"docs/a.md\""),
            ],
            &[
                "docs/a.md:2: commands that no test types",
                "docs/b.md:3: commands that nothing runs",
                "docs/c.md:2: commands that nothing runs",
                "docs/reference/sinks.md:1: no box that tests/sinks.rs could run",
            ],
        );
    }
}
