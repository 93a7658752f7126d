//! Keeps the modules of the daemon on floors: a module uses only what lies below it, and each world has one owner.

use super::Finding;
use super::rust;
use super::tree::{File, Tree};
use std::collections::{BTreeMap, BTreeSet};

use Place::{Config, Floor, Utility};

/// Where a module stands in the house.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Used by all, uses no floor.
    Utility,
    /// A utility for composition and above: lower floors are handed options, never the whole configuration.
    Config,
    /// Uses lower floors and utilities; from the third on also its siblings.
    Floor(u8),
}

/// Every module of `host/daemon/src` and nothing else. The engine and the log are crates of their own below it.
const TABLE: &[(&str, Place)] = &[
    ("diagnostic", Utility),
    ("clock", Utility),
    ("systemd", Utility),
    ("telemetry", Utility),
    ("plant", Utility),
    ("config", Config),
    // Signs for the state and for composition alike.
    ("keys", Floor(1)),
    // The outside worlds, each with one owner; they never meet.
    ("state", Floor(WORLDS)),
    ("plugin", Floor(WORLDS)),
    ("policy", Floor(WORLDS)),
    ("transport", Floor(WORLDS)),
    // Composition.
    ("generation", Floor(3)),
    ("pipeline", Floor(3)),
    ("alert", Floor(3)),
    ("dispatch", Floor(3)),
    ("artifact", Floor(3)),
    ("case", Floor(3)),
    ("evidence", Floor(3)),
    ("observe", Floor(3)),
    ("replay", Floor(3)),
    ("report", Floor(3)),
    // The loop.
    ("daemon", Floor(4)),
    // Faces.
    ("api", Floor(5)),
    ("cli", Floor(5)),
];

/// Crates that are a door to one outside world, and the modules that alone go through it: one, or where a crate is only
/// the frame of what they do there, one for each world.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["api"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("hmac", &["transport"]),
    ("luau_analysis", &["policy"]),
    ("luau_common", &["policy"]),
    ("minisign", &["keys"]),
    ("mlua", &["policy"]),
    ("prometheus_client", &["telemetry"]),
    ("ratatui", &["cli"]),
    ("redb", &["state"]),
    ("rumqttc", &["transport"]),
    ("rumqttd", &["transport"]),
    ("rustls", &["transport"]),
    ("sd_notify", &["systemd"]),
    ("terminal_size", &["cli"]),
    ("tokio", &["transport", "api"]),
    ("ureq", &["transport"]),
    ("wasmtime", &["plugin"]),
];

/// The page that shows the floors, and the heading above them.
const PAGE: (&str, &str) = ("docs/explain/ARCHITECTURE.md", "## Floors");

const WORLDS: u8 = 2;
const SOURCE: &str = "host/daemon/src/";

/// One module uses another; where that was seen first.
type Uses = BTreeMap<(String, String), (String, usize)>;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    [check_modules(tree), absent(tree, &names), page(tree, &names)].concat()
}

/// Names of the table that belong to no module any more.
fn absent(tree: &Tree, names: &[&str]) -> Vec<Finding> {
    let gone = names.iter().filter(|name| !tree.has(&format!("{SOURCE}{name}.rs")));
    gone.map(|name| {
        let quoted = format!("(\"{name}\",");
        let table = tree.file(file!()).and_then(|f| f.lines().find(|(_, line)| line.trim().starts_with(&quoted)));
        let message = format!("the table of floors names `{name}`, which is no module of {SOURCE}");
        Finding::new(file!(), table.map_or(1, |(line, _)| line), message, "remove its line")
    })
    .collect()
}

/// Names that the page and the table do not share.
fn page(tree: &Tree, names: &[&str]) -> Vec<Finding> {
    let (path, heading) = PAGE;
    let help = format!("{path} and the table of {} name the same modules", file!());
    let Some(file) = tree.file(path) else { return Vec::new() };
    let Some((start, _)) = file.lines().find(|(_, line)| *line == heading) else {
        return vec![Finding::new(path, 1, format!("no heading `{heading}`"), help)];
    };
    // Names stand behind the number of the floor; a wide gap ends them.
    let block = file.lines().skip(start).skip_while(|(_, l)| !l.starts_with("```")).skip(1);
    let block = block.take_while(|(_, line)| !line.starts_with("```"));
    let shown: Vec<(usize, &str)> = block
        .flat_map(|(number, line)| {
            let column = line.get(3..).unwrap_or_default().split("  ").next().unwrap_or_default();
            let words = column.split(['|', ',']).filter_map(|part| part.split_whitespace().next());
            words.map(move |word| (number, word))
        })
        .collect();
    let unknown = shown.iter().filter(|(_, word)| *word != "main" && !names.contains(word));
    let unknown = unknown.map(|(number, word)| (*number, format!("the floors show `{word}`, which is no module")));
    let missing = names.iter().filter(|name| !shown.iter().any(|(_, word)| word == *name));
    let missing = missing.map(|name| (start, format!("the floors do not show `{name}`")));
    unknown.chain(missing).map(|(line, message)| Finding::new(path, line, message, help.clone())).collect()
}

fn check_modules(tree: &Tree) -> Vec<Finding> {
    let modules: BTreeMap<&str, &File> = tree.of_kind("rs").filter_map(|f| Some((module(f)?, f))).collect();
    let mut findings = Vec::new();
    for (name, file) in &modules {
        if place(name).is_none() {
            let help = format!("give it a line in the table of {}; which floor does it stand on?", file!());
            findings.push(Finding::new(&file.path, 1, format!("module `{name}` has no floor"), help));
        }
    }
    let uses = uses(tree, &modules.keys().copied().collect());
    let mut allowed = Uses::new();
    for ((from, to), (path, line)) in uses {
        // What has no floor was told above.
        let (Some(a), Some(b)) = (place(&from), place(&to)) else { continue };
        match judge(a, b) {
            Ok(()) => drop(allowed.insert((from, to), (path, line))),
            Err(help) => findings.push(Finding::new(&path, line, format!("`{from}` uses `{to}`"), help)),
        }
    }
    findings.extend(circles(&allowed));
    findings.extend(tree.of_kind("rs").flat_map(trespasses));
    findings
}

fn place(module: &str) -> Option<Place> {
    TABLE.iter().find(|(name, _)| *name == module).map(|(_, place)| *place)
}

/// The top-level module that a file belongs to; the two roots belong to none.
fn module(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix(SOURCE)?.strip_suffix(".rs")?;
    let name = inside.split('/').next()?;
    (!matches!(inside, "lib" | "main")).then_some(name)
}

fn judge(from: Place, to: Place) -> Result<(), &'static str> {
    match (from, to) {
        (Utility | Config | Floor(_), Utility) => Ok(()),
        (Floor(n), Config) if n > WORLDS => Ok(()),
        (Utility | Config | Floor(_), Config) => Err("take a struct of the options it needs; composition fills it"),
        (Utility | Config, Floor(_)) => Err("a utility knows no floor; move what they share down"),
        (Floor(a), Floor(b)) if b < a => Ok(()),
        (Floor(WORLDS), Floor(WORLDS)) => Err("the owners of two outside worlds never meet; join them above"),
        (Floor(a), Floor(b)) if a == b => Ok(()),
        (Floor(_), Floor(_)) => Err("a module uses only lower floors; turn the call around or move the code up"),
    }
}

fn uses(tree: &Tree, modules: &BTreeSet<&str>) -> Uses {
    let mut uses = Uses::new();
    for file in tree.of_kind("rs") {
        let Some(from) = module(file) else { continue };
        let depth = file.path[SOURCE.len()..].split('/').count();
        for path in rust::paths(&rust::tokens(&file.text)) {
            let Some(to) = target(&path, depth).filter(|to| *to != from && modules.contains(to)) else { continue };
            uses.entry((from.to_owned(), to.to_owned())).or_insert_with(|| (file.path.clone(), path.line));
        }
    }
    uses
}

/// The top-level module a path leads to, from a file `depth` modules below the root.
fn target<'a>(path: &rust::RustPath<'a>, depth: usize) -> Option<&'a str> {
    if path.segments.first() == Some(&"crate") {
        return path.segments.get(1).copied();
    }
    let supers = path.segments.iter().take_while(|s| **s == "super").count();
    (supers == depth + path.nested).then(|| path.segments.get(supers).copied())?
}

/// Uses of an outside world by a module that does not own it.
fn trespasses(file: &File) -> Vec<Finding> {
    let Some(module) = module(file) else { return Vec::new() };
    let tokens = rust::tokens(&file.text);
    let owned = rust::paths(&tokens).into_iter().filter_map(|path| {
        let (krate, owners) = OWNERS.iter().find(|(krate, _)| path.segments[0] == *krate)?;
        let help = format!("only `{}` uses it; ask for what you need in words of its own", owners.join("` and `"));
        (!owners.contains(&module))
            .then(|| Finding::new(&file.path, path.line, format!("`{module}` uses {krate}"), help))
    });
    owned.collect()
}

/// One finding for each circle, at its first use.
fn circles(uses: &Uses) -> Vec<Finding> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in uses.keys() {
        next.entry(from).or_default().push(to);
    }
    let mut findings = Vec::new();
    let mut done = BTreeSet::new();
    for start in next.keys() {
        let mut trail = vec![*start];
        visit(&next, &mut trail, &mut done, &mut |circle| {
            let (path, line) = &uses[&(circle[0].to_owned(), circle[1].to_owned())];
            let message = format!("modules use each other in a circle: {}", circle.join(" -> "));
            let steps = circle.windows(2).map(|s| &uses[&(s[0].to_owned(), s[1].to_owned())]);
            let steps: Vec<String> = steps.map(|(path, line)| format!("{path}:{line}")).collect();
            let help = format!("cut it at one of {}: move what they share to a module below both", steps.join(", "));
            findings.push(Finding::new(path, *line, message, help));
        });
    }
    findings
}

fn visit<'a>(
    next: &BTreeMap<&'a str, Vec<&'a str>>,
    trail: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
    report: &mut dyn FnMut(&[&'a str]),
) {
    let Some(here) = trail.last().copied() else { return };
    if done.contains(here) {
        return;
    }
    for to in next.get(here).into_iter().flatten() {
        if let Some(at) = trail.iter().position(|t| t == to) {
            report(&[&trail[at..], &[*to]].concat());
        } else {
            trail.push(to);
            visit(next, trail, done, report);
            trail.pop();
        }
    }
    done.insert(here);
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let files: Vec<_> = files.iter().map(|(path, text)| (format!("host/daemon/src/{path}"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let expected: Vec<_> = expected.iter().map(|e| format!("host/daemon/src/{e}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        fixture::check(super::check_modules, &files, &expected);
    }

    #[test]
    fn a_line_of_the_table_without_a_module_is_told() {
        let rule = |tree: &super::Tree| super::absent(tree, &["state", "gone"]);
        let table = "const TABLE: &[(&str, Place)] = &[\n    (\"state\", Floor(2)),\n    (\"gone\", Floor(3)),\n];";
        let files = [("host/daemon/src/state.rs", ""), ("host/daemon/src/gone/x.rs", ""), (file!(), table)];
        let expected =
            format!("{}:3: the table of floors names `gone`, which is no module of host/daemon/src/", file!());
        fixture::check(rule, &files, &[&expected]);
    }

    #[test]
    fn the_page_shows_what_the_table_names() {
        let rule = |tree: &super::Tree| super::page(tree, &["cli", "state", "plugin", "case", "clock"]);
        let text = "# A\n\n## Floors\n\n```text\n4  main, cli           faces\n3  case, gone,\n   odd       composition\n\
                    2  state (redb) | plugin (wasmtime)\n0                 the crate hb-log\n```\n\n```text\n1  other\n```\n";
        fixture::check(
            rule,
            &[(super::PAGE.0, text)],
            &[
                "docs/explain/ARCHITECTURE.md:3: the floors do not show `clock`",
                "docs/explain/ARCHITECTURE.md:7: the floors show `gone`, which is no module",
                "docs/explain/ARCHITECTURE.md:8: the floors show `odd`, which is no module",
            ],
        );
        let nothing = ["docs/explain/ARCHITECTURE.md:1: no heading `## Floors`"];
        fixture::check(rule, &[(super::PAGE.0, "# A\n")], &nothing);
    }

    #[test]
    fn owners_are_modules() {
        for (krate, owners) in super::OWNERS {
            assert!(owners.iter().all(|owner| super::place(owner).is_some()), "{krate} belongs to {owners:?}");
        }
    }

    #[test]
    fn lower_floors_and_utilities_may_be_used() {
        check(
            &[
                ("lib.rs", "pub mod state; pub use state::Store;"),
                ("main.rs", "use hb::cli;"),
                ("state.rs", "use crate::{diagnostic::Diagnostic, keys};\nuse hb_log::hash;"),
                ("keys.rs", ""),
                ("diagnostic.rs", "mod text;"),
                ("config.rs", "use crate::diagnostic;"),
                ("pipeline.rs", "use crate::{config::Config, state, generation};"),
                ("generation.rs", "fn f() -> crate::state::Store {}"),
            ],
            &[],
        );
    }

    #[test]
    fn higher_floors_and_other_worlds_may_not() {
        check(
            &[
                ("state.rs", ""),
                ("state/read.rs", "\nuse super::super::plugin::Host;\nmod m { use super::super::super::pipeline; }"),
                ("plugin.rs", "// crate::state\nconst S: &str = \"crate::state\";\nfn f() { crate::config::read() }"),
                ("pipeline.rs", ""),
                ("config.rs", "use crate::state::{Store, Reader};"),
            ],
            &[
                "config.rs:1: `config` uses `state`",
                "plugin.rs:3: `plugin` uses `config`",
                "state/read.rs:2: `state` uses `plugin`",
                "state/read.rs:3: `state` uses `pipeline`",
            ],
        );
    }

    #[test]
    fn a_module_without_a_floor_is_told() {
        check(&[("surprise/inner.rs", "")], &["surprise/inner.rs:1: module `surprise` has no floor"]);
    }

    #[test]
    fn an_outside_world_has_one_owner() {
        check(
            &[("state.rs", "use redb::Database;"), ("case.rs", "// redb::x\nfn f(e: redb::Error) {}")],
            &["case.rs:2: `case` uses redb"],
        );
    }

    #[test]
    fn siblings_above_may_meet_but_not_in_a_circle() {
        check(
            &[
                ("case.rs", "use crate::evidence;"),
                ("evidence.rs", "use crate::replay;"),
                ("replay.rs", "\nuse crate::case;"),
            ],
            &["case.rs:1: modules use each other in a circle: case -> evidence -> replay -> case"],
        );
    }
}
