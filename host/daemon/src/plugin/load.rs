//! From bytes to a checked component: signatures, world, imports against grants, compiled code.

use std::collections::BTreeSet;
use std::sync::Arc;

use hb_log::hash::Hash;
use minisign_verify::{PublicKey, Signature};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::hb::plugin as wit;
use super::cache::{self, Origin};
use super::guest::Guest;
use super::host::{Engines, Host};
use super::limits::Limits;
use super::manifest::{Capability, Kind, Manifest};
use super::refusal::LoadError;

/// Package of the contract and its version, as they stand in the names of imports and exports.
const PACKAGE: &str = "hb:plugin/";
const VERSION: &str = "0.1.";

/// What the host's configuration gives to one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub BTreeSet<Capability>);

/// Whether and by whom a plugin must be signed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Refuse what carries no good signature of a trusted key.
    pub require_signed: bool,
    /// Trusted public keys: the base64 line, or a whole `.pub` file.
    pub keys: Vec<String>,
    /// The text of `plugin.wasm.minisig`, if there is one.
    pub wasm_signature: Option<String>,
    /// The text of `plugin.yaml.minisig`, if there is one.
    pub manifest_signature: Option<String>,
}

/// A checked component, ready to be instantiated any number of times, on any thread.
#[derive(Clone)]
pub struct Loaded {
    pub(super) inner: Arc<LoadedInner>,
}

pub(super) struct LoadedInner {
    pub(super) manifest: Manifest,
    pub(super) limits: Limits,
    pub(super) pre: InstancePre<Guest>,
    wasm_hash: Hash,
    origin: Origin,
    cache_error: Option<std::io::Error>,
    granted: BTreeSet<Capability>,
    // Last: keeps the deadline clock running as long as an instance may need it.
    pub(super) engines: Arc<Engines>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.inner.manifest.name)
            .field("wasm_hash", &self.inner.wasm_hash)
            .field("origin", &self.inner.origin)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// Whether it came from the cache of compiled code.
    pub fn origin(&self) -> Origin {
        self.inner.origin
    }

    /// Why its compiled code could not be kept, if so: the next start compiles again.
    pub fn cache_error(&self) -> Option<&std::io::Error> {
        self.inner.cache_error.as_ref()
    }

    /// What it may use: asked in the manifest and given in the configuration.
    pub fn granted(&self) -> &BTreeSet<Capability> {
        &self.inner.granted
    }
}

impl Host {
    /// Checks `wasm` against its manifest, the grants and the signature, and compiles it (or takes it from the cache).
    pub fn load(&self, wasm: &[u8], manifest: Manifest, grants: &Grants, trusted: &Trust) -> Result<Loaded, LoadError> {
        let plugin = manifest.name.clone();
        check_signature(&plugin, "plugin.wasm", wasm, trusted.wasm_signature.as_deref(), trusted)?;
        let text = manifest.text().as_bytes();
        check_signature(&plugin, "plugin.yaml", text, trusted.manifest_signature.as_deref(), trusted)?;
        check_magic(&plugin, wasm)?;
        let engine = self.engines.of(manifest.kind);
        let wasm_hash = Hash::of(wasm);
        let (component, origin, cache_error) = cache::compile(engine, manifest.kind, wasm, wasm_hash, &self.options)
            .map_err(|e| LoadError::NotAComponent { plugin: plugin.clone(), reason: format!("{e:#}") })?;
        check_export(&component, &manifest)?;
        let granted: BTreeSet<_> = manifest.capabilities.intersection(&grants.0).copied().collect();
        check_imports(&component, &manifest, grants)?;
        let incompatible =
            |e: wasmtime::Error| LoadError::Incompatible { plugin: plugin.clone(), reason: format!("{e:#}") };
        let linker = linker_for(engine, manifest.kind, &granted).map_err(incompatible)?;
        let pre = linker.instantiate_pre(&component).map_err(incompatible)?;
        let inner = LoadedInner {
            limits: manifest.limits,
            manifest,
            pre,
            wasm_hash,
            origin,
            cache_error,
            granted,
            engines: Arc::clone(&self.engines),
        };
        Ok(Loaded { inner: Arc::new(inner) })
    }
}

fn linker_for(
    engine: &wasmtime::Engine,
    kind: Kind,
    granted: &BTreeSet<Capability>,
) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wit::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?;
    wit::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?;
    if kind == Kind::Normalizer {
        wit::series::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?;
    }
    for capability in granted {
        match capability {
            Capability::Output => wit::output::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?,
            Capability::Http => wit::http::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?,
            Capability::Socket => wit::socket::add_to_linker::<_, HasSelf<_>>(&mut linker, |g: &mut Guest| g)?,
            Capability::Secret => {}
        }
    }
    Ok(linker)
}

fn check_signature(
    plugin: &str,
    file: &'static str,
    bytes: &[u8],
    signature: Option<&str>,
    trust: &Trust,
) -> Result<(), LoadError> {
    let Some(text) = signature else {
        return if trust.require_signed { Err(LoadError::Unsigned { plugin: plugin.into(), file }) } else { Ok(()) };
    };
    // Without keys a signature proves nothing; where none is required it is not a reason to refuse either.
    if trust.keys.is_empty() && !trust.require_signed {
        return Ok(());
    }
    let bad = |reason: String| LoadError::BadSignature { plugin: plugin.into(), file, reason };
    let signature = Signature::decode(text).map_err(|e| bad(e.to_string()))?;
    let mut reasons = Vec::new();
    for (i, key) in trust.keys.iter().enumerate() {
        let key = if key.lines().count() > 1 { PublicKey::decode(key) } else { PublicKey::from_base64(key.trim()) };
        let key = key.map_err(|e| LoadError::BadKey { index: i + 1, reason: e.to_string() })?;
        match key.verify(bytes, &signature, false) {
            Ok(()) => return Ok(()),
            Err(e) => reasons.push(format!("key {}: {e}", i + 1)),
        }
    }
    Err(bad(if reasons.is_empty() { "there are no trusted keys".into() } else { reasons.join("; ") }))
}

// The first eight bytes tell modules (version 1, layer 0) from components (layer 1), before the compiler sees them.
fn check_magic(plugin: &str, wasm: &[u8]) -> Result<(), LoadError> {
    let not = |reason: &str| Err(LoadError::NotAComponent { plugin: plugin.into(), reason: reason.into() });
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(LoadError::CoreModule { plugin: plugin.into() }),
        [0, b'a', b's', b'm', ..] => not("it is of an unknown version of WebAssembly"),
        [] => not("the file is empty"),
        _ => not("it does not begin with the magic bytes of WebAssembly"),
    }
}

fn check_export(component: &Component, manifest: &Manifest) -> Result<(), LoadError> {
    let plugin = || manifest.name.clone();
    let expected = manifest.kind.export();
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(component.engine()).map(|(name, _)| name).collect();
    let ours: Vec<Name<'_>> = exports.iter().filter_map(|e| Name::parse(e)).collect();
    if ours.iter().any(|n| n.interface == expected && n.is_spoken()) {
        return Ok(());
    }
    if let Some(other) = ours.iter().find(|n| n.interface == expected) {
        return Err(LoadError::WrongVersion { plugin: plugin(), found: other.full.into() });
    }
    if let Some(other) = ours.iter().find(|n| Kind::of_export(n.interface).is_some()) {
        let (asked, found) = (manifest.kind, other.interface.to_owned());
        return Err(LoadError::WrongWorld { plugin: plugin(), asked, expected, found });
    }
    let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err(LoadError::MissingExport { plugin: plugin(), expected, found })
}

fn check_imports(component: &Component, manifest: &Manifest, grants: &Grants) -> Result<(), LoadError> {
    let plugin = || manifest.name.clone();
    let ty = component.component_type();
    for (import, item) in ty.imports(component.engine()) {
        let unknown = || LoadError::UnknownImport { plugin: plugin(), import: import.into(), kind: manifest.kind };
        // Interfaces of types only bring no power.
        if matches!(&item.ty, ComponentItem::ComponentInstance(i) if i.exports(component.engine()).len() == 0) {
            continue;
        }
        let Some(name) = Name::parse(import) else { return Err(unknown()) };
        if !name.is_spoken() {
            return Err(LoadError::WrongVersion { plugin: plugin(), found: import.into() });
        }
        match name.interface {
            "types" | "log" => {}
            "series" if manifest.kind == Kind::Normalizer => {}
            other => {
                let Some(&capability) = Capability::ALL.iter().find(|c| c.interface() == Some(other)) else {
                    return Err(unknown());
                };
                let (asked, given) = (manifest.capabilities.contains(&capability), grants.0.contains(&capability));
                if !(asked && given) {
                    let import = import.into();
                    let line = manifest.capabilities_line();
                    return Err(LoadError::NotGranted { plugin: plugin(), import, capability, asked, given, line });
                }
            }
        }
    }
    Ok(())
}

// `hb:plugin/log@0.1.0`, taken apart.
struct Name<'a> {
    full: &'a str,
    interface: &'a str,
    version: &'a str,
}

impl<'a> Name<'a> {
    fn parse(full: &'a str) -> Option<Name<'a>> {
        let (interface, version) = full.strip_prefix(PACKAGE)?.split_once('@')?;
        Some(Name { full, interface, version })
    }

    fn is_spoken(&self) -> bool {
        self.version.starts_with(VERSION)
    }
}
