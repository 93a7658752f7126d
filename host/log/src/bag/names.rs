//! Which file names a bag may have: names that mean the same file on every system and cannot leave the folder.

use super::Problem;

/// Longest path in bytes: with the folder's own name it still fits the 260 characters of Windows.
pub const MAX_PATH_BYTES: usize = 180;

/// True for a relative path of plain parts (`a-z A-Z 0-9 . _ - + = @ , ( ) # ~ !`) between single slashes, where no
/// part begins with `~`, ends with a dot or is `.` or `..`.
pub fn is_clean_path(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES && path.split('/').all(is_clean_part)
}

fn is_clean_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+=@,()#~!".contains(&b);
    !part.is_empty() && !part.ends_with('.') && !part.starts_with('~') && part.bytes().all(plain)
}

/// Names that are not clean, that differ in case only, or that are a file and a folder at once.
pub(super) fn check<'a>(paths: impl Iterator<Item = &'a String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: std::collections::BTreeMap<String, &str> = std::collections::BTreeMap::new();
    for path in paths {
        if !is_clean_path(path) {
            let help = "paths are relative, of plain letters, digits and `. _ -`, without `..`, spaces or backslashes";
            problems.push(Problem::new(path, "a file name that is not allowed", help));
        }
        if let Some(other) = seen.insert(path.to_ascii_lowercase(), path) {
            let what = format!("differs from {other:?} in case only");
            problems.push(Problem::new(path, what, "the two are one file on many systems"));
        }
    }
    for (lower, path) in &seen {
        let folders = lower.match_indices('/').map(|(at, _)| &lower[..at]);
        for file in folders.filter_map(|folder| seen.get(folder)) {
            let what = format!("lies inside of {file:?}, which is a file");
            problems.push(Problem::new(*path, what, "a name cannot be a file and a folder at once"));
        }
    }
    problems
}
