//! Makes the pages that repeat what the source says, so that they can be compared with it.
//!
//! The reference of the metrics is made by [`super::metrics`]. The reference of the config is made here: every struct of settings in `host/daemon/src/config` is a section, every
//! public field a key, every comment its meaning. A key that is read and that no field stands for is told.

use super::tree::{File, Tree};
use super::{Finding, metrics};

/// The reference of the config.
const CONFIG_PAGE: &str = "docs/reference/config.md";

/// Where it is taken from: the file of the whole, and the folder of its parts.
const CONFIG_FILE: &str = "host/daemon/src/config.rs";
const CONFIG_FOLDER: &str = "host/daemon/src/config/";

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
    let config = tree.file(CONFIG_FILE).map(|_| (CONFIG_PAGE, config_page(tree)));
    let metrics = metrics::page(tree).map(|page| (metrics::PAGE, page));
    config.into_iter().chain(metrics).collect()
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
    /// The type in the source.
    kind: String,
    meaning: String,
}

/// The files that say what a config holds.
fn sources(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.of_kind("rs").filter(|f| f.path == CONFIG_FILE || f.path.starts_with(CONFIG_FOLDER) && !tree.is_test(&f.path))
}

/// The sections in the order in which a reader of the file meets them, and the types that nothing leads to.
fn sections(tree: &Tree) -> (Vec<Section>, Vec<Section>) {
    let mut left: Vec<Section> = sources(tree).flat_map(read_sections).collect();
    let mut found = Vec::new();
    follow("Config", &mut left, &mut found);
    (found, left)
}

/// Moves a section, and behind it those that its keys hold. Each is moved once, so this ends.
fn follow(name: &str, left: &mut Vec<Section>, found: &mut Vec<Section>) {
    let Some(at) = left.iter().position(|s| s.name == name) else { return };
    let section = left.remove(at);
    let held: Vec<String> = section.keys.iter().map(|k| item(&k.kind).to_owned()).collect();
    found.push(section);
    for kind in held {
        follow(&kind, left, found);
    }
}

/// The type inside lists and options.
fn item(kind: &str) -> &str {
    let inside = ["Vec<", "Option<"].iter().find_map(|outer| kind.strip_prefix(outer)?.strip_suffix('>'));
    inside.map_or(kind, item)
}

/// Reads what rustfmt wrote: an item begins at the left, a member is indented once, a comment stands above.
fn read_sections(file: &File) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut comment, mut inside) = (String::new(), false);
    for (_, line) in file.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            comment.push_str(words);
            continue;
        }
        if text.starts_with("#[") {
            continue;
        }
        let item = ["pub struct ", "pub enum "].iter().find_map(|begin| line.strip_prefix(begin));
        if let Some(name) = item.and_then(|rest| rest.strip_suffix(" {")).filter(|name| name.ends_with("Config")) {
            let about = prose(&comment);
            sections.push(Section { name: name.to_owned(), about, keys: Vec::new() });
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if let Some(section) = sections.last_mut().filter(|_| inside) {
            section.keys.extend(member(text, &comment));
        }
        comment.clear();
    }
    sections
}

/// The key of a public field, or of a variant.
fn member(text: &str, comment: &str) -> Option<Key> {
    let text = text.strip_suffix(',')?;
    let (name, kind) = match text.strip_prefix("pub ") {
        Some(field) => field.split_once(": ").map(|(name, kind)| (name.to_owned(), kind))?,
        None => match text.split_once('(') {
            Some((name, kind)) => (snake(name), kind.strip_suffix(')')?),
            None => (snake(text), ""),
        },
    };
    // Gathered from the settings, not written by anybody.
    if kind == "Vec<SecretRef>" {
        return None;
    }
    // A field that holds another unit than the file says so: "`window_sec`: ...  In ns here."
    let comment = comment.trim().replace(" In ns here.", "");
    let (name, meaning) = match comment.strip_prefix('`').and_then(|rest| rest.split_once("`: ")) {
        Some((key, meaning)) => (key.to_owned(), meaning.to_owned()),
        None => (name, comment),
    };
    let meaning = capital(&prose(&meaning));
    Some(Key { name, kind: kind.to_owned(), meaning })
}

/// What stands there, as an operator would say it.
fn value(name: &str, kind: &str) -> String {
    let held = item(kind);
    let shown = match held {
        _ if name.ends_with("_sec") => "seconds".to_owned(),
        _ if held.ends_with("Config") => format!("[{}](#{})", title(held).to_lowercase(), anchor(held)),
        "bool" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "whole number".to_owned(),
        "PathBuf" => "path".to_owned(),
        "Name" => "name".to_owned(),
        "String" => "text".to_owned(),
        "Pattern" => "pattern".to_owned(),
        "SocketAddr" => "address and port".to_owned(),
        "SecretRef" => "secret reference".to_owned(),
        "" | "LatePolicy" | "DocumentKind" => "word".to_owned(),
        _ => "mapping".to_owned(),
    };
    if kind.starts_with("Vec<") { format!("list: {shown}") } else { shown }
}

/// `EventTimeConfig` is headed "Event time"; the whole is "The file".
fn title(name: &str) -> String {
    match snake(name.strip_suffix("Config").unwrap_or(name)).as_str() {
        "" => "The file".to_owned(),
        words => capital(&words.replace('_', " ")),
    }
}

/// `FileTransport` as serde writes it.
fn snake(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
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
    for Section { name, about, keys } in sections(tree).0 {
        page.push_str(&format!("\n## {}\n\n{about}\n\n| Key | Value | Meaning |\n|---|---|---|\n", title(&name)));
        for Key { name, kind, meaning } in keys {
            // A bar would end the cell.
            page.push_str(&format!("| `{name}` | {} | {} |\n", value(&name, &kind), meaning.replace('|', "\\|")));
        }
    }
    page
}

/// Keys that are read by a name no field or variant stands for, and structs that are no part of the file.
fn undocumented(tree: &Tree) -> Vec<Finding> {
    let (sections, left) = sections(tree);
    let known = |key: &str| sections.iter().flat_map(|s| &s.keys).any(|k| k.name == key);
    let mut findings = Vec::new();
    for section in left {
        let help = "name it in a field, or call it otherwise: what ends in `Config` is a section of the reference";
        findings.push(Finding::new(CONFIG_FILE, 1, format!("nothing holds a `{}`", section.name), help));
    }
    for file in sources(tree) {
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
    /// Not written by anybody.
    #[serde(skip)]
    pub secrets: Vec<SecretRef>,
    /// When.
    pub event_time: Option<EventTimeConfig>,
}

/// Time.
pub struct EventTimeConfig {
    /// `late_sec`: how late. In ns here.
    pub late_ns: i64,
}

/// One.
pub enum SourceConfig {
    /// A file.
    File(PathBuf),
    /// The rest.
    StdIn,
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
| `event_time` | [event time](#event-time) | When. |

## Source

One.

| Key | Value | Meaning |
|---|---|---|
| `file` | path | A file. |
| `std_in` | word | The rest. |

## Event time

Time.

| Key | Value | Meaning |
|---|---|---|
| `late_sec` | seconds | How late. |
";

    #[test]
    fn a_section_for_each_struct_and_a_row_for_each_key() {
        let tree = tree::fixture::tree(&[(CONFIG_FILE, SOURCE)]);
        let page = config_page(&tree);
        assert_eq!(page.strip_prefix(CONFIG_HEAD), Some(PAGE));
        fixture::check(check, &[(CONFIG_FILE, SOURCE), (CONFIG_PAGE, &page)], &[]);
    }

    #[test]
    fn a_stale_page_is_told_at_its_first_difference() {
        let page = config_page(&tree::fixture::tree(&[(CONFIG_FILE, SOURCE)]));
        let changed = page.replace("All of it.", "Nearly all of it.");
        let line = page.lines().position(|l| l == "All of it.").expect("the line") + 1;
        let expected = format!("{CONFIG_PAGE}:{line}: a stale page");
        fixture::check(check, &[(CONFIG_FILE, SOURCE), (CONFIG_PAGE, &changed)], &[&expected]);
        let expected = format!("{CONFIG_PAGE}:1: a stale page");
        fixture::check(check, &[(CONFIG_FILE, SOURCE)], &[&expected]);
    }

    #[test]
    fn a_key_that_nothing_explains_is_told() {
        let source = SOURCE.replace("\"sources\"", "\"source\"");
        let page = config_page(&tree::fixture::tree(&[(CONFIG_FILE, &source)]));
        let expected = format!("{CONFIG_FILE}:32: no comment explains the key `source`");
        fixture::check(check, &[(CONFIG_FILE, &source), (CONFIG_PAGE, &page)], &[&expected]);
    }

    #[test]
    fn a_struct_that_is_no_part_of_the_file_is_told() {
        let part =
            (format!("{CONFIG_FOLDER}part.rs"), "/// Two.\npub struct LostConfig {\n    /// X.\n    pub x: bool,\n}\n");
        let page = config_page(&tree::fixture::tree(&[(CONFIG_FILE, SOURCE)]));
        let expected = format!("{CONFIG_FILE}:1: nothing holds a `LostConfig`");
        fixture::check(check, &[(CONFIG_FILE, SOURCE), (&part.0, part.1), (CONFIG_PAGE, &page)], &[&expected]);
    }
}
