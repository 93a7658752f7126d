//! The directory of packs keeps within its cap: the oldest go first.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// What a pack's file or directory is called before its case.
const PREFIX: &str = "evidence_";
/// What is being removed is called so first: a pack is there whole, or not at all.
const GOING: &str = ".gone-";

/// A pack on the shelf.
struct Pack {
    name: String,
    made: SystemTime,
    bytes: u64,
}

/// Removes the oldest packs until the rest needs at most `cap_bytes`; returns the names of those removed. Packs of
/// cases that are kept stay, and the newest one; what is no pack is left alone.
pub fn trim(dir: &Path, cap_bytes: u64, is_kept: &dyn Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut packs = Vec::new();
    for item in fs::read_dir(dir)? {
        let item = item?;
        let Ok(name) = item.file_name().into_string() else { continue };
        if name.starts_with(GOING) {
            // A run that was killed here had decided already.
            remove(&item.path())?;
        } else if name.starts_with(PREFIX) {
            packs.push(Pack { name, made: item.metadata()?.modified()?, bytes: size(&item.path())? });
        }
    }
    packs.sort_by(|a, b| (a.made, &a.name).cmp(&(b.made, &b.name)));
    let mut bytes = packs.iter().map(|pack| pack.bytes).sum::<u64>();
    packs.pop();
    let mut removed = Vec::new();
    for pack in packs {
        if bytes <= cap_bytes {
            break;
        }
        let case = pack.name.trim_start_matches(PREFIX).trim_end_matches(".zip");
        if is_kept(case) {
            continue;
        }
        let going = dir.join(format!("{GOING}{}", pack.name));
        fs::rename(dir.join(&pack.name), &going)?;
        remove(&going)?;
        bytes -= pack.bytes;
        removed.push(pack.name);
    }
    Ok(removed)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Bytes of a file, or of all below a directory.
fn size(path: &Path) -> io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut bytes = 0;
    for item in fs::read_dir(path)? {
        bytes += size(&item?.path())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_kept_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let begin = SystemTime::UNIX_EPOCH;
        for (n, name) in ["evidence_case-a", "evidence_case-b", "evidence_case-c", "evidence_case-d"].iter().enumerate()
        {
            let pack = dir.path().join(name);
            fs::create_dir(&pack).unwrap();
            fs::write(pack.join("data"), [0; 1_000]).unwrap();
            let made = begin + std::time::Duration::from_secs(n as u64);
            fs::File::open(&pack).unwrap().set_modified(made).unwrap();
        }
        fs::write(dir.path().join("notes.txt"), [0; 9_000]).unwrap();
        fs::create_dir(dir.path().join(".gone-evidence_case-0")).unwrap();
        let removed = trim(dir.path(), 2_500, &|case| case == "case-a").unwrap();
        assert_eq!(removed, ["evidence_case-b", "evidence_case-c"]);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["evidence_case-a", "evidence_case-d", "notes.txt"]);
        assert!(trim(dir.path(), 0, &|case| case == "case-a").unwrap().is_empty(), "the newest stays");
    }
}
