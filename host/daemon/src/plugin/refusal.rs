//! Why a plugin was not loaded: what is wrong, and the way out.

use super::manifest::{Capability, Kind};

/// Why a plugin was not loaded; [`LoadError::help`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No signature although one is required.
    #[error("{file} of plugin `{plugin}` is not signed and `require_signed` is on")]
    Unsigned {
        /// Plugin name.
        plugin: String,
        /// The file without a signature.
        file: &'static str,
    },
    /// A signature that no trusted key accepts.
    #[error("the signature on {file} of plugin `{plugin}` is not good: {reason}")]
    BadSignature {
        /// Plugin name.
        plugin: String,
        /// The file whose signature is bad.
        file: &'static str,
        /// What each key said.
        reason: String,
    },
    /// A trusted key that cannot be read.
    #[error("trusted key {index} is not a minisign public key: {reason}")]
    BadKey {
        /// Position in the list of trusted keys, from 1.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A wasm core module where a component is expected.
    #[error("plugin `{plugin}` is a core module, not a component")]
    CoreModule {
        /// Plugin name.
        plugin: String,
    },
    /// Not wasm at all.
    #[error("plugin `{plugin}` is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// Plugin name.
        plugin: String,
        /// What the first bytes are, or what the parser said.
        reason: String,
    },
    /// The component is of another kind than its manifest says.
    #[error("plugin `{plugin}` exports `{found}`; its manifest says kind `{asked}`, which exports `{expected}`")]
    WrongWorld {
        /// Plugin name.
        plugin: String,
        /// Kind in the manifest.
        asked: Kind,
        /// The interface that kind exports.
        expected: &'static str,
        /// The interface the component exports.
        found: String,
    },
    /// The component exports nothing of the contract.
    #[error("plugin `{plugin}` does not export `hb:plugin/{expected}@0.1`; it exports {found}")]
    MissingExport {
        /// Plugin name.
        plugin: String,
        /// The interface its kind exports.
        expected: &'static str,
        /// What it exports instead.
        found: String,
    },
    /// Built against another version of the contract.
    #[error("plugin `{plugin}` was built for `{found}`; this host speaks hb:plugin@0.1")]
    WrongVersion {
        /// Plugin name.
        plugin: String,
        /// The import or export with the other version.
        found: String,
    },
    /// The component imports a capability that was not both asked for and given.
    #[error(
        "plugin `{plugin}` imports `{import}`, which is not granted: its manifest {}{}, the configuration {}",
        if *.asked { "asks for it" } else { "does not ask for it" },
        .line.map_or(String::new(), |line| format!(" (plugin.yaml:{line})")),
        if *.given { "gives it" } else { "does not give it" }
    )]
    NotGranted {
        /// Plugin name.
        plugin: String,
        /// The import.
        import: String,
        /// The capability behind it.
        capability: Capability,
        /// Whether the manifest asks.
        asked: bool,
        /// Whether the configuration gives.
        given: bool,
        /// The line of `capabilities` in the manifest.
        line: Option<usize>,
    },
    /// The component imports what no grant could give to its kind.
    #[error("plugin `{plugin}` imports `{import}`, which this host does not give to a {kind}")]
    UnknownImport {
        /// Plugin name.
        plugin: String,
        /// The import.
        import: String,
        /// Kind in the manifest.
        kind: Kind,
    },
    /// Names fit, types do not.
    #[error("plugin `{plugin}` does not fit the contract: {reason}")]
    Incompatible {
        /// Plugin name.
        plugin: String,
        /// What wasmtime said.
        reason: String,
    },
}

impl LoadError {
    /// What is wrong, in one sentence.
    pub fn what(&self) -> String {
        self.to_string()
    }

    /// The way out.
    pub fn help(&self) -> String {
        match self {
            LoadError::Unsigned { .. } => {
                "sign both files (`minisign -Sm plugin.wasm plugin.yaml`) and put the .minisig files beside them, or \
                 set `require_signed: false` on a machine where anybody's code may run"
                    .into()
            }
            LoadError::BadSignature { .. } => {
                "the file was changed after signing, or its publisher's key is not among the trusted keys".into()
            }
            LoadError::BadKey { .. } => "write the second line of the publisher's .pub file".into(),
            LoadError::CoreModule { .. } => {
                "encode it as a component: `cargo xtask plugins` does it, or `wasm-tools component new`".into()
            }
            LoadError::NotAComponent { .. } => "point to the plugin.wasm that the plugin's build wrote".into(),
            LoadError::WrongWorld { found, .. } => match Kind::of_export(found) {
                Some(kind) => format!("write `kind: {kind}` in plugin.yaml, or build the component for its world"),
                None => "build the component for the world of its kind".into(),
            },
            LoadError::MissingExport { expected, .. } => {
                format!("build it with hb-sdk against a world that exports `{expected}`")
            }
            LoadError::WrongVersion { .. } | LoadError::Incompatible { .. } => {
                "rebuild the plugin with the SDK of this release".into()
            }
            LoadError::NotGranted { plugin, capability, asked, given, .. } => {
                let ask = format!("write `capabilities: [{}]` in its plugin.yaml", capability.name());
                let give =
                    format!("write `{}` for the sink with plugin `{plugin}` in the configuration", capability.grant());
                match (asked, given) {
                    (false, false) => format!("{ask}, and {give}"),
                    (false, true) => ask,
                    _ => give,
                }
            }
            LoadError::UnknownImport { import, .. } if import.starts_with("wasi:") => {
                "build it for wasm32-unknown-unknown: plugins get no WASI, only what the contract names".into()
            }
            LoadError::UnknownImport { .. } => {
                "a plugin may import hb:plugin/log, normalizers hb:plugin/series, and granted capabilities".into()
            }
        }
    }
}
