//! Watches the files of the active generation, and reloads when they have changed and come to rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Built;
use super::reload::Reloader;

/// Files that were written are read when nothing more was written for this long, ms: an editor writes a file in several
/// steps, and a copy of a directory has many files.
const REST_MS: u64 = 100;

/// They are read after this long even when writing goes on, ms.
const REST_MS_MAX: u64 = 1_000;

/// Directories are looked for anew this often, s: one that was replaced as a whole is another one.
const AGAIN_SEC: u64 = 10;

/// Reloads whenever a file of the active generation changes, until `stop` is closed. Where the kernel cannot watch it
/// says so once: `hb reload` and SIGHUP still work.
pub fn watch_files(reloader: &Arc<Reloader>, stop: &Receiver<()>) {
    let (told, changes) = bounded(1);
    let mut watched = Watched::new(told);
    loop {
        watched.look_at(&reloader.generations().active());
        let mut path = match wait(stop, &changes) {
            Heard::Change(path) => path,
            Heard::Nothing => continue,
            Heard::Stop => return,
        };
        let latest = Instant::now() + Duration::from_millis(REST_MS_MAX);
        loop {
            match changes.recv_deadline(latest.min(Instant::now() + Duration::from_millis(REST_MS))) {
                Ok(next) => path = next,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= latest {
                break;
            }
        }
        let reason = format!("{} has changed", path.display());
        match reloader.reload_if_new("file watch", &reason) {
            Ok(done) => tracing::info!(?done, reason, "reloaded"),
            // The reloader has said it in one line; here is all of it.
            Err(found) => tracing::warn!(reason, "{}", found.render(false)),
        }
    }
}

enum Heard {
    Change(PathBuf),
    /// Nothing: time to look for directories again.
    Nothing,
    Stop,
}

fn wait(stop: &Receiver<()>, changes: &Receiver<PathBuf>) -> Heard {
    select! {
        recv(stop) -> _ => Heard::Stop,
        recv(changes) -> path => path.map_or(Heard::Stop, Heard::Change),
        default(Duration::from_secs(AGAIN_SEC)) => Heard::Nothing,
    }
}

/// What is watched: directories, since files that are replaced by a rename have no other handle.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    files: Arc<Mutex<Files>>,
}

/// The files of a generation.
#[derive(Default)]
struct Files {
    /// The config and what it names: other files beside them are nobody's business, and may be written all the time.
    alone: BTreeSet<PathBuf>,
    /// Directories of plugins and policies: everything in them counts.
    whole: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(told: Sender<PathBuf>) -> Watched {
        let files = Arc::new(Mutex::new(Files::default()));
        let known = Arc::clone(&files);
        let heard = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(path) = event.paths.into_iter().find(|path| known.holds(path)) {
                // One that waits already stands for all.
                let _ = told.try_send(path);
            }
        };
        let watcher = notify::recommended_watcher(heard);
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "files are not watched; use `hb reload`"));
        Watched { watcher: watcher.ok(), files }
    }

    fn look_at(&mut self, built: &Built) {
        let Some(watcher) = &mut self.watcher else { return };
        let files = Files::of(built);
        let wanted = files.dirs();
        let before = std::mem::replace(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner), files).dirs();
        for gone in before.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for dir in &wanted {
            // Watching again is how one that was replaced is found.
            if let Err(error) = watcher.watch(dir, RecursiveMode::NonRecursive)
                && !before.contains(dir)
            {
                tracing::warn!(dir = %dir.display(), %error, "the directory is not watched; use `hb reload`");
            }
        }
    }
}

impl Files {
    fn of(built: &Built) -> Files {
        let config = &built.file.config;
        let alone = std::iter::once(&built.file.path).chain(built.file.files.iter().map(|file| &file.path));
        let plugins = config.sources.iter().map(|s| s.plugin.as_str());
        let plugins = plugins.chain(config.normalizers.iter().map(|n| n.plugin.as_str()));
        let plugins = plugins.chain(config.sinks.iter().map(|s| s.plugin.as_str()));
        let mut whole: BTreeSet<PathBuf> = plugins.map(|name| config.plugins_dir.join(name)).collect();
        whole.insert(config.policies_dir.clone());
        // Policies lie one directory deep, by kind.
        let below = std::fs::read_dir(&config.policies_dir).into_iter().flatten().flatten();
        whole.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
        Files { alone: alone.cloned().collect(), whole }
    }

    fn dirs(&self) -> BTreeSet<PathBuf> {
        self.alone.iter().map(|path| above(path).to_owned()).chain(self.whole.iter().cloned()).collect()
    }

    /// Whether a change of this path may be a change of the generation. Where a volume is mounted by links, as
    /// orchestrators do, only the link `..data` beside the files changes.
    fn holds(&self, path: &Path) -> bool {
        let is_link = path.file_name().is_some_and(|name| name == "..data");
        self.alone.contains(path) || is_link || (self.whole.contains(above(path)) && !is_passing(path))
    }
}

/// Editors and package managers write beside the file they are about to replace.
fn is_passing(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let is_half = path.extension().is_some_and(|e| e == "swp" || e == "tmp" || e == "new");
    name.starts_with('.') || name.ends_with('~') || is_half
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_a_generation_is_looked_at() {
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let files = Files { alone: set(&["/etc/hb/hb.yaml"]), whole: set(&["/opt/hb/policies/drift"]) };
        let holds = |path: &str| files.holds(Path::new(path));
        assert!(holds("/etc/hb/hb.yaml") && holds("/opt/hb/policies/drift/mine.luau") && holds("/etc/hb/..data"));
        for other in ["/etc/hb/telemetry.jsonl", "/etc/hb/hb.yaml.tmp", "/opt/hb/policies/drift/.mine.luau.swp"] {
            assert!(!holds(other), "{other}");
        }
        assert!(!holds("/opt/hb/policies/drift/mine.luau~") && !holds("/opt/hb/other/x.luau"));
    }
}
