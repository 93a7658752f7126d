//! Keeps every dependency in one place: the root names it with its version, members say `workspace = true`.

use super::Finding;
use super::tree::{File, Tree};
use std::collections::BTreeMap;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let manifests = tree.files.iter().filter(|f| f.path.rsplit('/').next() == Some("Cargo.toml"));
    // A manifest with its own workspace is a root, or a template that leaves the project.
    let members = manifests.filter(|f| !f.lines().any(|(_, line)| line.trim() == "[workspace]"));
    members.flat_map(check_member).collect()
}

fn check_member(file: &File) -> Vec<Finding> {
    // Dependency to its first line, and whether it is taken from the workspace.
    let mut found: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    let mut section = String::new();
    for (number, line) in file.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        // Either `name = ...` and `name.workspace = ...` in a table of dependencies, or a table for one of them.
        let path = if section.ends_with("dependencies") { format!("{section}.{key}") } else { section.clone() };
        let Some((table, rest)) = path.split_once("dependencies.") else { continue };
        let name = rest.split('.').next().unwrap_or_default();
        let inline = value.replace(' ', "");
        let shared = (key == "workspace" || key.ends_with(".workspace")) && value == "true"
            || inline.contains("{workspace=true")
            || inline.contains(",workspace=true");
        let entry = found.entry(format!("{table}dependencies.{name}")).or_insert((number, false));
        entry.1 |= shared;
    }
    let alone = found.into_iter().filter(|(_, (_, shared))| !shared);
    alone
        .map(|(name, (line, _))| {
            let help = "name it in [workspace.dependencies] of the root and write `workspace = true` here";
            Finding::new(&file.path, line, format!("`{name}` is not taken from the workspace"), help)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;

    #[test]
    fn members_take_dependencies_from_the_workspace() {
        check(
            super::check,
            &[
                ("Cargo.toml", "[workspace]\n[workspace.dependencies]\na = \"1\""),
                (
                    "x/Cargo.toml",
                    "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"c\"] }\n\
                     a.features = [\"d\"]\n[dev-dependencies.e]\nworkspace = true\n",
                ),
                ("template/Cargo.toml", "[workspace]\n[dependencies]\nhb-sdk = \"0.1\""),
            ],
            &[],
        );
    }

    #[test]
    fn a_version_of_its_own_is_told() {
        check(
            super::check,
            &[(
                "x/Cargo.toml",
                "[dependencies]\na = \"1\"\nb = { path = \"../b\" }\n[target.'cfg(unix)'.dependencies]\nc = \"1\"\n\
                 [build-dependencies.d]\nversion = \"1\"\n",
            )],
            &[
                "x/Cargo.toml:2: `dependencies.a` is not taken from the workspace",
                "x/Cargo.toml:3: `dependencies.b` is not taken from the workspace",
                "x/Cargo.toml:5: `target.'cfg(unix)'.dependencies.c` is not taken from the workspace",
                "x/Cargo.toml:7: `build-dependencies.d` is not taken from the workspace",
            ],
        );
    }
}
