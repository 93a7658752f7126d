//! Makes the pages that repeat what the source says, so that they can be compared with it.
//!
//! So far that is the reference of the config: every struct of settings in `host/daemon/src/config` is a section, every
//! public field a key, every comment its meaning. A key that is read and that no field stands for is told.

use super::Finding;
use super::tree::{File, Tree};

/// The reference of the config.
const CONFIG_PAGE: &str = "docs/reference/config.md";

/// Where it is taken from, in the order of its sections.
const CONFIG_SOURCE: [&str; 4] = [
    "host/daemon/src/config.rs",
    "host/daemon/src/config/pipeline.rs",
    "host/daemon/src/config/checks.rs",
    "host/daemon/src/config/limits.rs",
];

const CONFIG_HEAD: &str = "\
# Configuration

<!-- Made by `cargo xtask generate` of the comments in host/daemon/src/config; change them there. -->

One YAML file says what an instance of hb reads, judges and reports; `hb init` writes a commented one, `hb check` finds every mistake in one.
Unknown and duplicate keys are errors.
Units stand last in names.
A relative path starts at the directory of the file.
Secrets stand here as references alone: `${file:PATH}`, `${credential:NAME}` or `${env:NAME}`.
";

/// How a key is read: what stands between its reader and its name.
const READERS: [&str; 6] = [".need(\"", ".or(\"", ".optional(\"", ".whole(\"", ".seconds(\"", ".choice(\""];

/// Every generated file as it should be now: path and text.
pub(super) fn pages(tree: &Tree) -> Vec<(&'static str, String)> {
    // A tree without the source is a fixture of another rule.
    if tree.file(CONFIG_SOURCE[0]).is_none() { Vec::new() } else { vec![(CONFIG_PAGE, config_page(tree))] }
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let stale = pages(tree).into_iter().filter_map(|(path, text)| {
        let now = tree.file(path).map_or("", |f| f.text.as_str());
        let differs = now.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = differs.unwrap_or(now.lines().count().min(text.lines().count())) + 1;
        (now != text).then(|| Finding::new(path, line, "a stale page", "run `cargo xtask generate`"))
    });
    stale.chain(undocumented(tree)).collect()
}

/// A struct or enum of settings.
#[derive(Debug)]
struct Section {
    /// Name of the type.
    name: String,
    about: String,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: String,
    kind: String,
    meaning: String,
}

fn sections(tree: &Tree) -> Vec<Section> {
    CONFIG_SOURCE.iter().filter_map(|path| tree.file(path)).flat_map(read_sections).collect()
}

/// Reads what rustfmt wrote: an item begins at the left, a member is indented once, a comment stands above.
fn read_sections(file: &File) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut comment, mut inside, mut hidden) = (String::new(), false, false);
    for (_, line) in file.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            comment.push_str(words);
            continue;
        }
        if text.starts_with("#[") {
            hidden |= text == "#[serde(skip)]";
            continue;
        }
        let item = ["pub struct ", "pub enum "].iter().find_map(|begin| line.strip_prefix(begin));
        if let Some(name) = item.and_then(|rest| rest.strip_suffix(" {")).filter(|name| name.ends_with("Config")) {
            let about = prose(&comment);
            sections.push(Section { name: name.to_owned(), about, keys: Vec::new() });
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if let Some(section) = sections.last_mut().filter(|_| inside && !hidden) {
            section.keys.extend(member(text, &comment));
        }
        (hidden, comment) = (false, String::new());
    }
    sections
}

/// The key of a public field, or of a variant.
fn member(text: &str, comment: &str) -> Option<Key> {
    let text = text.strip_suffix(',')?;
    let (name, kind) = match text.strip_prefix("pub ") {
        Some(field) => field.split_once(": ").map(|(name, kind)| (name.to_owned(), kind))?,
        None => match text.split_once('(') {
            Some((name, kind)) => (name.to_lowercase(), kind.strip_suffix(')')?),
            None => (text.to_lowercase(), ""),
        },
    };
    // A field that holds another unit than the file says so: "`window_sec`: ...  In ns here."
    let comment = comment.trim().replace(" In ns here.", "");
    let (name, meaning) = match comment.strip_prefix('`').and_then(|rest| rest.split_once("`: ")) {
        Some((key, meaning)) => (key.to_owned(), meaning.to_owned()),
        None => (name, comment),
    };
    let kind = if name.ends_with("_sec") { "seconds".to_owned() } else { shown_kind(kind) };
    let meaning = prose(&meaning);
    let mut letters = meaning.chars();
    let meaning = letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
    Some(Key { name, kind, meaning })
}

/// A type as an operator would say it.
fn shown_kind(kind: &str) -> String {
    let inside = |outer: &str| kind.strip_prefix(outer).and_then(|k| k.strip_suffix('>'));
    if let Some(item) = inside("Vec<") {
        return format!("list: {}", shown_kind(item));
    }
    if let Some(item) = inside("Option<") {
        return shown_kind(item);
    }
    match kind {
        "bool" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "whole number".to_owned(),
        "PathBuf" => "path".to_owned(),
        "Name" | "String" => "name".to_owned(),
        "Pattern" => "pattern".to_owned(),
        "" | "LatePolicy" => "word".to_owned(),
        _ if kind.ends_with("Config") => format!("[{}](#{})", title(kind).to_lowercase(), anchor(kind)),
        _ => "mapping".to_owned(),
    }
}

/// `EventTimeConfig` is headed "Event time"; the whole is "The file".
fn title(name: &str) -> String {
    let mut title = String::new();
    for letter in name.strip_suffix("Config").unwrap_or(name).chars() {
        if letter.is_uppercase() && !title.is_empty() {
            title.push(' ');
            title.extend(letter.to_lowercase());
        } else {
            title.push(letter);
        }
    }
    if title.is_empty() { "The file".to_owned() } else { title }
}

fn anchor(name: &str) -> String {
    title(name).to_lowercase().replace(' ', "-")
}

/// A comment on one line, without links into the source.
fn prose(comment: &str) -> String {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

fn config_page(tree: &Tree) -> String {
    let mut page = CONFIG_HEAD.to_owned();
    for Section { name, about, keys } in sections(tree) {
        page.push_str(&format!("\n## {}\n\n{about}\n\n| Key | Value | Meaning |\n|---|---|---|\n", title(&name)));
        for Key { name, kind, meaning } in keys {
            // A bar would end the cell.
            page.push_str(&format!("| `{name}` | {kind} | {} |\n", meaning.replace('|', "\\|")));
        }
    }
    page
}

/// Keys that are read by a name no field or variant stands for.
fn undocumented(tree: &Tree) -> Vec<Finding> {
    let sections = sections(tree);
    let known = |key: &str| sections.iter().flat_map(|s| &s.keys).any(|k| k.name == key);
    let mut findings = Vec::new();
    for file in CONFIG_SOURCE.iter().filter_map(|path| tree.file(path)) {
        let product = file.lines().take_while(|(_, line)| *line != "#[cfg(test)]");
        for (number, line) in product {
            let keys = READERS.iter().flat_map(|r| line.match_indices(r).map(|(at, _)| &line[at + r.len()..]));
            for key in keys.filter_map(|rest| rest.split('"').next()).filter(|key| !known(key)) {
                let help = "give a public field this name, or begin its comment with \"`name`: \"";
                findings.push(Finding::new(&file.path, number, format!("no comment explains the key `{key}`"), help));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::{fixture, tree};
    use super::*;

    const SOURCE: &str = r#"/// All of it.
#[derive(Clone)]
pub struct Config {
    /// Who. Default:
    /// `me`.
    pub program: Name,
    /// Where [`telemetry`] is | comes from.
    pub sources: Vec<SourceConfig>,
    /// Not here.
    #[serde(skip)]
    pub secrets: Vec<u8>,
}

/// One.
pub enum SourceConfig {
    /// A file.
    File(PathBuf),
    /// The rest.
    Stdin,
}

/// Time.
pub struct EventTimeConfig {
    /// `late_sec`: how late. In ns here.
    pub late_ns: i64,
}

fn read(f: F) {
    f.need("program", r);
    f.or("sources", r);
}

#[cfg(test)]
fn t() { f.need("odd") }
"#;

    const PAGE: &str = "
## The file

All of it.

| Key | Value | Meaning |
|---|---|---|
| `program` | name | Who. Default: `me`. |
| `sources` | list: [source](#source) | Where `telemetry` is \\| comes from. |

## Source

One.

| Key | Value | Meaning |
|---|---|---|
| `file` | path | A file. |
| `stdin` | word | The rest. |

## Event time

Time.

| Key | Value | Meaning |
|---|---|---|
| `late_sec` | seconds | How late. |
";

    #[test]
    fn a_section_for_each_struct_and_a_row_for_each_key() {
        let tree = tree::fixture::tree(&[(CONFIG_SOURCE[0], SOURCE)]);
        let page = config_page(&tree);
        assert_eq!(page.strip_prefix(CONFIG_HEAD), Some(PAGE));
        fixture::check(check, &[(CONFIG_SOURCE[0], SOURCE), (CONFIG_PAGE, &page)], &[]);
    }

    #[test]
    fn a_stale_page_is_told_at_its_first_difference() {
        let page = config_page(&tree::fixture::tree(&[(CONFIG_SOURCE[0], SOURCE)]));
        let changed = page.replace("All of it.", "Nearly all of it.");
        let line = page.lines().position(|l| l == "All of it.").expect("the line") + 1;
        let expected = format!("{CONFIG_PAGE}:{line}: a stale page");
        fixture::check(check, &[(CONFIG_SOURCE[0], SOURCE), (CONFIG_PAGE, &changed)], &[&expected]);
        let expected = format!("{CONFIG_PAGE}:1: a stale page");
        fixture::check(check, &[(CONFIG_SOURCE[0], SOURCE)], &[&expected]);
    }

    #[test]
    fn a_key_that_nothing_explains_is_told() {
        let source = SOURCE.replace("\"sources\"", "\"source\"");
        let page = config_page(&tree::fixture::tree(&[(CONFIG_SOURCE[0], &source)]));
        let expected = format!("{}:30: no comment explains the key `source`", CONFIG_SOURCE[0]);
        fixture::check(check, &[(CONFIG_SOURCE[0], &source), (CONFIG_PAGE, &page)], &[&expected]);
    }
}
