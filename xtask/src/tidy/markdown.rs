//! Keeps the documents together: links between files and to headings lead somewhere, and each file has one title.

use super::Finding;
use super::tree::{File, Tree};
use std::collections::BTreeSet;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.of_kind("md").flat_map(|file| check_file(tree, file)).collect()
}

fn check_file(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let titles: Vec<usize> = prose(file).filter(|(_, l)| l.starts_with("# ")).map(|(number, _)| number).collect();
    if titles.is_empty() {
        findings.push(Finding::new(&file.path, 1, "no title", "begin the file with one line `# Title`"));
    }
    for line in titles.iter().skip(1) {
        findings.push(Finding::new(&file.path, *line, "a second title", "make it a section (`##`), or a file"));
    }
    for (number, line) in prose(file) {
        for link in links(&line) {
            if let Err((message, help)) = follow(tree, file, link) {
                findings.push(Finding::new(&file.path, number, message, help));
            }
        }
    }
    findings
}

/// Lines outside code fences, code spans blanked.
fn prose(file: &File) -> impl Iterator<Item = (usize, String)> {
    let mut fence: Option<&str> = None;
    file.lines().filter_map(move |(number, line)| {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((number, without_code(line))),
            _ => {}
        }
        None
    })
}

fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        // Every second part is code, except behind a backtick that nothing closes.
        let code = i % 2 == 1 && i + 1 < parts.len();
        out.push_str(if code { "code" } else { part });
    }
    out
}

/// Targets of `[text](target)` and `[name]: target`.
fn links(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    let defined = line.strip_prefix('[').and_then(|l| l.split_once("]: ")).map(|(_, target)| target);
    let ends = |c: char| c.is_whitespace() || c == ')';
    inline.chain(defined).map(|tail| tail.split(ends).next().unwrap_or_default()).collect()
}

fn follow(tree: &Tree, file: &File, link: &str) -> Result<(), (String, &'static str)> {
    let link = link.trim_start_matches('<').trim_end_matches('>');
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(());
    }
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let target = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
    let Some(target) = target.filter(|t| tree.has(t)) else {
        return Err((format!("dead link `{link}`"), "links are relative to the file they stand in"));
    };
    let Some(heading) = heading else { return Ok(()) };
    match tree.file(&target) {
        Some(document) if document.kind() == "md" && !anchors(document).contains(heading) => {
            Err((format!("no heading for `{link}`"), "an anchor is the heading in lower case with `-` for spaces"))
        }
        _ => Ok(()),
    }
}

/// The path from the root; none when it leaves the project.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    (!link.starts_with('/')).then(|| parts.join("/"))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(file: &File) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for (_, line) in file.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        if fenced || text.len() == line.len() || !text.starts_with(' ') {
            continue;
        }
        let anchor = slug(text.trim());
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|a| !anchors.contains(a));
        anchors.extend(free);
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        fixture::check(super::check, files, expected);
    }

    #[test]
    fn living_links_pass() {
        check(
            &[
                (
                    "README.md",
                    "# A\n[d](docs/b.md#two-words--more), [folder](docs/), [here](#a) [`code`](docs/b.md \"title\")\n\
                     [w](https://example.org/x#y)\n[ref]: docs/b.md\n```\n# no title [x](nowhere)\n```\n`[x](nowhere)`\n",
                ),
                ("docs/b.md", "# B\n## Two words & more\n## Same\n## Same\n[up](../README.md) [s](#same-1)\n"),
            ],
            &[],
        );
    }

    #[test]
    fn dead_links_are_told() {
        check(
            &[("docs/b.md", "# B\n[x](c.md)\n[y](#none) and [z](../../out.md)\n[r]: /docs/b.md\n")],
            &[
                "docs/b.md:2: dead link `c.md`",
                "docs/b.md:3: dead link `../../out.md`",
                "docs/b.md:3: no heading for `#none`",
                "docs/b.md:4: dead link `/docs/b.md`",
            ],
        );
    }

    #[test]
    fn a_file_has_one_title() {
        check(
            &[("a.md", "text\n## Section\n"), ("b.md", "# One\n# Two\n")],
            &["a.md:1: no title", "b.md:2: a second title"],
        );
    }
}
