//! The project's files as the rules see them: paths relative to the root, with their text.

use super::rust;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file that is UTF-8.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// Every file of the project, sorted.
#[derive(Debug)]
pub(super) struct Tree {
    /// Those that hold text.
    pub(super) files: Vec<File>,
    /// All paths, folders among them; the root itself is the empty path.
    paths: BTreeSet<String>,
    /// Path beginnings of modules that exist for tests alone.
    test_only: Vec<String>,
}

impl Tree {
    /// Reads the folder, without what builds and git leave there.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut found = Vec::new();
        collect(root, "", &mut found)?;
        Ok(Self::new(found))
    }

    fn new(mut found: Vec<(String, Option<String>)>) -> Self {
        found.sort();
        let mut paths = BTreeSet::from([String::new()]);
        for (path, _) in &found {
            paths.insert(path.clone());
            paths.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
        }
        let files: Vec<File> = found.into_iter().filter_map(|(path, text)| Some(File { path, text: text? })).collect();
        let test_only = files.iter().flat_map(test_modules).collect();
        Self { files, paths, test_only }
    }

    /// Files whose names end in `.kind`.
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |f| f.kind() == kind)
    }

    /// The file of that path, when it holds text.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Whether a file or folder has this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether a Rust file is compiled for tests alone.
    pub(super) fn is_test(&self, path: &str) -> bool {
        path.starts_with("tests/") || path.contains("/tests/") || self.test_only.iter().any(|p| path.starts_with(p))
    }
}

impl File {
    /// What stands behind the last dot of the name.
    pub(super) fn kind(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, kind)| kind)
    }

    /// Lines with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }
}

fn collect(root: &Path, folder: &str, found: &mut Vec<(String, Option<String>)>) -> Result<()> {
    let place = root.join(folder);
    for entry in fs::read_dir(&place).with_context(|| place.display().to_string())? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            // Cargo marks its target folders, whatever their names.
            let built = name == "target" || entry.path().join("CACHEDIR.TAG").is_file();
            if !built && name != ".git" {
                collect(root, &path, found)?;
            }
        } else if path != ".git" {
            // What is no UTF-8 is data; a link that leads nowhere is nobody's text either.
            let text = fs::read(entry.path()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            found.push((path, text));
        }
    }
    Ok(())
}

/// Where the modules lie that a file declares with `#[cfg(test)] mod name;`.
fn test_modules(file: &File) -> Vec<String> {
    if file.kind() != "rs" {
        return Vec::new();
    }
    let tokens = rust::tokens(&file.text);
    let code = rust::split_tests(&tokens);
    let stem = file.path.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((parent, "lib" | "main")) => parent,
        _ => stem,
    };
    code.test_modules.iter().flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]).collect()
}

#[cfg(test)]
pub(super) mod fixture {
    //! A small project for the tests of the rules.

    use super::Tree;

    /// A tree of `(path, text)`.
    pub(in super::super) fn tree(files: &[(&str, &str)]) -> Tree {
        Tree::new(files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_remembers_the_rest() {
        let root = std::env::temp_dir().join(format!("hb-tidy-{}", std::process::id()));
        for folder in ["docs", "target/debug", "cache", ".git"] {
            fs::create_dir_all(root.join(folder)).expect("folder");
        }
        for file in ["docs/a.md", "target/debug/b.rs", "cache/CACHEDIR.TAG", "cache/c.rs", ".git/d.rs"] {
            fs::write(root.join(file), "text\n").expect("file");
        }
        fs::write(root.join("docs/picture.png"), [0xFF, 0xFE]).expect("file");
        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).expect("removed");
        let tree = tree.expect("read");
        assert_eq!(tree.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["docs/a.md"]);
        assert!(tree.has("docs") && tree.has("docs/picture.png") && !tree.has("docs/b.md"));
    }

    #[test]
    fn modules_for_tests_are_known_by_their_declaration() {
        let tree = fixture::tree(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod helper;\nmod real;"),
            ("a/src/real.rs", "#[cfg(test)]\nmod tests;"),
        ]);
        for path in ["a/src/helper.rs", "a/src/helper/x.rs", "a/src/real/tests.rs", "a/tests/x.rs", "tests/x.rs"] {
            assert!(tree.is_test(path), "{path}");
        }
        assert!(!tree.is_test("a/src/real.rs"));
    }
}
