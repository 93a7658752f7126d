//! Makes the pages that repeat what the source says, so that they can be compared with it.
//!
//! The reference of the metrics is made by [`super::metrics`], other pages by [`super::comments`]. The reference of the
//! config is made here, and by [`super::schema`] as a JSON Schema: every struct of settings in `host/daemon/src/config`
//! is a section, every public field a key, every comment its meaning, its default and an example. A key that is read and
//! that no field stands for is told.

use super::tree::{File, Tree};
use super::{Finding, comments, metrics, schema};

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
The same as a JSON Schema, for editors that complete and check while somebody types, is [hb.schema.json](hb.schema.json); a first line `# yaml-language-server: $schema=PATH` names it.
";

/// How a key is read: what stands between its reader and its name.
const READERS: [&str; 6] = [".need(\"", ".or(\"", ".optional(\"", ".whole(\"", ".seconds(\"", ".choice(\""];

/// Every generated file as it should be now: path and text.
pub(super) fn pages(tree: &Tree) -> Vec<(&'static str, String)> {
    // A tree without the source is a fixture of another rule.
    let config = tree.file(CONFIG_FILE).map(|_| {
        let sections = sections(tree).0;
        [(CONFIG_PAGE, config_page(&sections)), (schema::PAGE, schema::text(&sections))]
    });
    let metrics = metrics::page(tree).map(|page| (metrics::PAGE, page));
    config.into_iter().flatten().chain(metrics).chain(comments::pages(tree)).collect()
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
pub(super) struct Section {
    /// Name of the type.
    pub(super) name: String,
    pub(super) about: String,
    pub(super) keys: Vec<Key>,
    /// An enum: one of its keys is written.
    pub(super) is_choice: bool,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// The type in the source.
    pub(super) kind: String,
    pub(super) meaning: String,
    /// What holds without it, in words; a key without one must be written.
    pub(super) default: Option<String>,
    /// What may stand there, as it stands in a file.
    pub(super) example: Option<String>,
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
pub(super) fn item(kind: &str) -> &str {
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
            let is_choice = line.starts_with("pub enum ");
            sections.push(Section { name: name.to_owned(), about, keys: Vec::new(), is_choice });
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
    let (meaning, example) = last_part(&meaning, "Example: `");
    let (meaning, default) = last_part(&meaning, "Default: ");
    let example = example.map(|text| text.trim_end_matches('`').to_owned());
    Some(Key { name, kind: kind.to_owned(), meaning, default, example })
}

/// Cuts off a sentence at the end that begins with these words; it comes without them and without its final stop.
fn last_part(text: &str, begin: &str) -> (String, Option<String>) {
    match text.split_once(begin) {
        Some((before, part)) => (before.trim_end().to_owned(), Some(part.trim_end_matches('.').to_owned())),
        None => (text.to_owned(), None),
    }
}

/// The unit that a name ends with; other numbers are counts of what the meaning names.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    let units = [("_sec", "s"), ("_ms", "ms"), ("_bytes", "bytes"), ("_mib", "MiB"), ("_mb", "MiB")];
    units.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, unit)| unit)
}

/// What stands there, as an operator would say it.
fn value(name: &str, kind: &str) -> String {
    let held = item(kind);
    let shown = match held {
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
    match unit(name) {
        Some("s") if held == "i64" => "number, s".to_owned(),
        Some(unit) => format!("{shown}, {unit}"),
        None if kind.starts_with("Vec<") => format!("list: {shown}"),
        None => shown,
    }
}

/// `EventTimeConfig` is headed "Event time"; the whole is "The file".
pub(super) fn title(name: &str) -> String {
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

pub(super) fn anchor(name: &str) -> String {
    title(name).to_lowercase().replace(' ', "-")
}

/// A comment on one line, without links into the source.
fn prose(comment: &str) -> String {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

fn config_page(sections: &[Section]) -> String {
    let mut page = CONFIG_HEAD.to_owned();
    for Section { name, about, keys, is_choice } in sections {
        let head = "| Key | Value | Default | Example | Meaning |\n|---|---|---|---|---|\n";
        page.push_str(&format!("\n## {}\n\n{about}\n\n{head}", title(name)));
        for key in keys {
            let Key { name, kind, meaning, default, example } = key;
            let value = value(name, kind);
            let default = default.as_deref().unwrap_or(if *is_choice { "one of these" } else { "must be given" });
            let example = match example {
                Some(text) => format!("`{text}`"),
                // A word is its own example.
                None if kind.is_empty() => format!("`{name}`"),
                // JSON is YAML.
                None => format!("`{}`", schema::example(key, sections)),
            };
            let cells = [&format!("`{name}`"), &value, default, &example, meaning].map(cell);
            page.push_str(&format!("|{}|\n", cells.concat().trim_end_matches('|')));
        }
    }
    page
}

/// One cell of a table; a bar would end it.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|");
    if text.is_empty() { " |".to_owned() } else { format!(" {text} |") }
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
    for key in schema::unexplained(&sections) {
        let help = "end its comment with \"Default: ... .\", unless it must be given, and \"Example: `...`.\"";
        findings.push(Finding::new(CONFIG_FILE, 1, format!("no example of the key {key}"), help));
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
    /// `me`. Example: `you`.
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
    /// `late_sec`: how late, 1 to 9. Example: `2`. In ns here.
    pub late_ns: i64,
}

/// One.
pub enum SourceConfig {
    /// A file. Example: `a.txt`.
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

| Key | Value | Default | Example | Meaning |
|---|---|---|---|---|
| `program` | name | `me` | `you` | Who. |
| `sources` | list: [source](#source) | must be given | `[{\"file\":\"a.txt\"}]` | Where `telemetry` is \\| comes from. |
| `event_time` | [event time](#event-time) | must be given | `{\"late_sec\":2}` | When. |

## Source

One.

| Key | Value | Default | Example | Meaning |
|---|---|---|---|---|
| `file` | path | one of these | `a.txt` | A file. |
| `std_in` | word | one of these | `std_in` | The rest. |

## Event time

Time.

| Key | Value | Default | Example | Meaning |
|---|---|---|---|---|
| `late_sec` | number, s | must be given | `2` | How late, 1 to 9. |
";

    #[test]
    fn a_section_for_each_struct_and_a_row_for_each_key() {
        let (page, schema) = made(SOURCE);
        assert_eq!(page.strip_prefix(CONFIG_HEAD), Some(PAGE));
        fixture::check(check, &[(CONFIG_FILE, SOURCE), (CONFIG_PAGE, &page), (schema::PAGE, &schema)], &[]);
    }

    #[test]
    fn a_stale_page_is_told_at_its_first_difference() {
        let (page, schema) = made(SOURCE);
        let schema = (schema::PAGE, schema.as_str());
        let changed = page.replace("All of it.", "Nearly all of it.");
        let line = page.lines().position(|l| l == "All of it.").expect("the line") + 1;
        let expected = format!("{CONFIG_PAGE}:{line}: a stale page");
        fixture::check(check, &[(CONFIG_FILE, SOURCE), (CONFIG_PAGE, &changed), schema], &[&expected]);
        let expected = format!("{CONFIG_PAGE}:1: a stale page");
        fixture::check(check, &[(CONFIG_FILE, SOURCE), schema], &[&expected]);
    }

    #[test]
    fn a_key_that_nothing_explains_is_told() {
        let source = SOURCE.replace("\"sources\"", "\"source\"");
        let (page, schema) = made(&source);
        let expected = format!("{CONFIG_FILE}:32: no comment explains the key `source`");
        let files = [(CONFIG_FILE, source.as_str()), (CONFIG_PAGE, &page), (schema::PAGE, &schema)];
        fixture::check(check, &files, &[&expected]);
    }

    #[test]
    fn a_struct_that_is_no_part_of_the_file_is_told() {
        let part =
            (format!("{CONFIG_FOLDER}part.rs"), "/// Two.\npub struct LostConfig {\n    /// X.\n    pub x: bool,\n}\n");
        let (page, schema) = made(SOURCE);
        let expected = format!("{CONFIG_FILE}:1: nothing holds a `LostConfig`");
        let files = [(CONFIG_FILE, SOURCE), (&part.0, part.1), (CONFIG_PAGE, &page), (schema::PAGE, &schema)];
        fixture::check(check, &files, &[&expected]);
    }

    #[test]
    fn a_key_without_example_is_told() {
        let source = SOURCE.replace(" Example: `2`.", "");
        let (page, schema) = made(&source);
        let expected = format!("{CONFIG_FILE}:1: no example of the key `late_sec` of event time");
        let files = [(CONFIG_FILE, source.as_str()), (CONFIG_PAGE, &page), (schema::PAGE, &schema)];
        fixture::check(check, &files, &[&expected]);
    }

    /// The page and the schema of a source.
    fn made(source: &str) -> (String, String) {
        let sections = sections(&tree::fixture::tree(&[(CONFIG_FILE, source)])).0;
        (config_page(&sections), schema::text(&sections))
    }
}
