//! `hb init`, `hb check`, `hb keys`: setting an instance up.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Done, Failure, Global};
use crate::config::{Surroundings, template};
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::dispatch::Sinks;
use crate::generation::Generation;
use crate::keys::Signer;
use crate::pipeline::feed::Feed;

/// Arguments of `hb init`.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// Directory to write into.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Verbs of `hb keys`.
#[derive(Subcommand)]
pub(crate) enum KeysVerb {
    /// Make the host's signing key in the state directory.
    Init,
}

/// Writes a config, a schema and a key; an existing file is never overwritten.
pub(crate) fn init(global: &Global, args: &InitArgs) -> Done {
    fs::create_dir_all(&args.dir).map_err(|e| Failure::io(&args.dir, &e))?;
    let publishers = publishers(&Surroundings::of_process());
    let shown: Vec<&Path> = publishers.iter().map(PathBuf::as_path).collect();
    let files = [
        (args.dir.join(template::CONFIG_NAME), template::config(&shown)),
        (args.dir.join(template::SCHEMA_NAME), template::SCHEMA.to_owned()),
    ];
    if let Some((path, _)) = files.iter().find(|f| f.0.exists()) {
        let d = Diagnostic::error(Area::Config, format!("{} is there already", path.display()));
        return Err(Failure::new(exit::CONFIG, d.help("hb init overwrites nothing: choose another --dir")));
    }
    for (path, text) in &files {
        fs::write(path, text).map_err(|e| Failure::io(path, &e))?;
    }
    let state = global.state.clone().unwrap_or_else(|| args.dir.join("state"));
    let signer = Signer::init(&state)?;
    let done = Initialised {
        config: files[0].0.clone(),
        schema: files[1].0.clone(),
        public_key: state.join("keys/host.pub"),
        key_id: signer.key_id(),
    };
    global.print(&done, |d| {
        format!(
            "wrote {}\nwrote {}\nwrote {} (key {}); keep a copy elsewhere: packs are verified with it\n",
            d.config.display(),
            d.schema.display(),
            d.public_key.display(),
            d.key_id
        )
    });
    Ok(exit::OK)
}

/// Runs the daemon's start code without starting.
pub(crate) fn check(global: &Global) -> Done {
    let file = global.load()?;
    let generation = Generation::build(&file)?;
    Sinks::open(&file)?;
    generation.units.iter().try_for_each(Feed::check)?;
    let checked = Checked {
        config: file.path.clone(),
        generation: generation.hash.to_string(),
        sources: generation.units.len(),
        checks: generation.spec.checks.len(),
    };
    global.print(&checked, |c| {
        format!(
            "{}: ok ({} sources, {} checks, generation {})\n",
            c.config.display(),
            c.sources,
            c.checks,
            &c.generation[..12]
        )
    });
    Ok(exit::OK)
}

/// Makes the host's key.
pub(crate) fn keys_init(global: &Global) -> Done {
    let state = match &global.state {
        Some(state) => state.clone(),
        None => global.load()?.config.state,
    };
    let signer = Signer::init(&state)?;
    let made = Made { public_key: state.join("keys/host.pub"), key_id: signer.key_id() };
    global.print(&made, |m| format!("wrote {} (key {})\n", m.public_key.display(), m.key_id));
    Ok(exit::OK)
}

/// Keys that lie beside the installed plugins: whoever installs plugins there decides whom to trust.
fn publishers(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut keys: Vec<PathBuf> = fs::read_dir(surroundings.plugins())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "pub"))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    keys.sort();
    keys
}

#[derive(Serialize)]
struct Initialised {
    config: PathBuf,
    schema: PathBuf,
    public_key: PathBuf,
    key_id: String,
}

#[derive(Serialize)]
struct Checked {
    config: PathBuf,
    generation: String,
    sources: usize,
    checks: usize,
}

#[derive(Serialize)]
struct Made {
    public_key: PathBuf,
    key_id: String,
}
