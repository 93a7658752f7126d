//! Finds the built plugins and the hostile guests, and plays the host for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use hb::plugin::{Attribute, Grants, Host, HostCalls, HostOptions, Loaded, Manifest, SeriesKind, Trust};

/// A built component with its manifest.
pub(crate) struct Built {
    /// `plugin.wasm`.
    pub(crate) wasm: Vec<u8>,
    /// `plugin.yaml`.
    pub(crate) manifest: Manifest,
    /// The folder that holds both, and their signatures.
    pub(crate) folder: PathBuf,
}

/// A shipped plugin.
pub(crate) fn plugin(name: &str) -> Built {
    Built::read(&target().join("plugins").join(name))
}

/// The names of the shipped plugins that are built, sorted.
pub(crate) fn shipped() -> Vec<String> {
    let folder = target().join("plugins");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| absent(&folder, &e));
    let folders = entries.map(|e| e.unwrap().path()).filter(|p| p.join("plugin.wasm").is_file());
    let mut names: Vec<String> = folders.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A guest of `tests/guests`.
pub(crate) fn guest(name: &str) -> Built {
    Built::read(&target().join("plugins-test").join(name))
}

/// The key that signs development builds.
pub(crate) fn publisher_key() -> String {
    read_text(&target().join("plugins/dev-publisher.pub"))
}

/// One host for all tests that do not look at its cache. Compiled guests outlive the run: compiling them is most of it.
pub(crate) static HOST: LazyLock<Host> = LazyLock::new(|| {
    let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests"));
    Host::new(HostOptions { cache_dir, ..HostOptions::default() }).expect("engines")
});

impl Built {
    fn read(folder: &Path) -> Built {
        let wasm = std::fs::read(folder.join("plugin.wasm")).unwrap_or_else(|e| absent(folder, &e));
        let manifest = Manifest::parse(&read_text(&folder.join("plugin.yaml"))).expect("manifest");
        Built { wasm, manifest, folder: folder.to_owned() }
    }

    /// The text of a signature beside the component.
    pub(crate) fn signature(&self, of: &str) -> String {
        read_text(&self.folder.join(format!("{of}.minisig")))
    }

    /// Loads it with nothing but what every plugin gets.
    pub(crate) fn load(&self) -> Loaded {
        self.load_with(&Grants::default())
    }

    /// Loads it with grants.
    pub(crate) fn load_with(&self, grants: &Grants) -> Loaded {
        HOST.load(&self.wasm, self.manifest.clone(), grants, &Trust::default()).expect("loads")
    }
}

fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| absent(path, &e))
}

fn absent(path: &Path, e: &std::io::Error) -> ! {
    panic!("{}: {e}; run `cargo xtask plugins` first", path.display())
}

fn target() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    repository.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// What a [`FakeHost`] was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Log lines.
    pub(crate) log: Vec<(u8, String)>,
    /// Ids by definition.
    pub(crate) series: BTreeMap<String, u32>,
    /// Codes by text.
    pub(crate) states: BTreeMap<String, u32>,
    /// Bytes of the output.
    pub(crate) output: Vec<u8>,
}

/// Series a [`FakeHost`] has room for.
pub(crate) const FAKE_SERIES_CAP: usize = 1_000;

/// A host that remembers. Clones share what they remember.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeHost(pub(crate) Arc<Mutex<Asked>>);

impl FakeHost {
    /// A clone to hand to an instance.
    pub(crate) fn calls(&self) -> Box<dyn HostCalls> {
        Box::new(self.clone())
    }
}

impl HostCalls for FakeHost {
    fn log(&mut self, level: u8, text: &str) {
        self.0.lock().unwrap().log.push((level, text.to_owned()));
    }

    fn define_series(
        &mut self,
        metric: &str,
        unit: &str,
        kind: SeriesKind,
        labels: &[Attribute],
    ) -> Result<u32, String> {
        let labels: BTreeMap<_, _> = labels.iter().map(|l| (&l.key, &l.value)).collect();
        let name = format!("{metric} {unit} {kind:?} {labels:?}");
        let mut asked = self.0.lock().unwrap();
        let next = asked.series.len();
        match asked.series.get(&name) {
            Some(&id) => Ok(id),
            None if next >= FAKE_SERIES_CAP => Err(format!("there are {next} series")),
            None => {
                asked.series.insert(name, next as u32);
                Ok(next as u32)
            }
        }
    }

    fn state_code(&mut self, _series: u32, text: &str) -> Result<f64, String> {
        let mut asked = self.0.lock().unwrap();
        let next = asked.states.len() as u32;
        Ok(f64::from(*asked.states.entry(text.to_owned()).or_insert(next)))
    }

    fn output(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.lock().unwrap().output.extend_from_slice(bytes);
        Ok(())
    }
}
