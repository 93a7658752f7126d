//! `hb init`, `hb check`, `hb keys`: setting an instance up.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hb_log::sign::claimed_key_id;
use serde::Serialize;

use super::{Done, Failure, Global, STATE_FILE, tell};
use crate::clock;
use crate::config::{Surroundings, template};
use crate::diagnostic::{Area, Diagnostic, chain, exit};
use crate::dispatch::Sinks;
use crate::generation::Generation;
use crate::keys::{KeyError, Signer};
use crate::pipeline::feed::Prepared;
use crate::pipeline::record::text_map;
use crate::pipeline::series::SeriesBook;
use crate::state::{Commit, NewEntry, Options, State};

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
    /// Make the host's signing key in the state directory; a log that another key signed goes on under it.
    #[command(after_help = "Example: hb keys init")]
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
        public_key: Signer::public_path(&state),
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
    Sinks::check(&file)?;
    tell(&generation.warnings(&file).render(global.coloured()));
    generation.units.iter().try_for_each(|unit| Prepared::new(unit, &SeriesBook::default()).map(drop))?;
    let checked = Checked {
        config: file.path.clone(),
        generation: generation.hash.to_string(),
        sources: generation.units.len(),
        checks: generation.spec.checks.len(),
    };
    global.print(&checked, |c| {
        format!(
            "{}: ok ({}, {}, generation {})\n",
            c.config.display(),
            counted(c.sources, "source"),
            counted(c.checks, "check"),
            &c.generation[..12]
        )
    });
    Ok(exit::OK)
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Makes the host's key.
pub(crate) fn keys_init(global: &Global) -> Done {
    let state = match &global.state {
        Some(state) => state.clone(),
        None => global.load()?.config.state,
    };
    let signer = if state.join(STATE_FILE).exists() { renew(&state)? } else { Signer::init(&state)? };
    let made = Made { public_key: Signer::public_path(&state), key_id: signer.key_id() };
    global.print(&made, |m| format!("wrote {} (key {})\n", m.public_key.display(), m.key_id));
    Ok(exit::OK)
}

/// A new key for a state that has lost its own. The log tells of it before it is there: none goes on under a key that
/// it does not name.
fn renew(dir: &Path) -> Result<Signer, Failure> {
    let state = State::open(dir, Options::default())?;
    if !matches!(Signer::load(dir), Err(KeyError::Missing(_))) {
        return Err(KeyError::Exists(Signer::secret_path(dir)).into());
    }
    let signer = Signer::generate();
    if let Some(head) = state.reader()?.checkpoint()? {
        let before = claimed_key_id(&head.signature).map_err(|e| Failure::data(chain(&e)))?;
        // The line that counts, without its comment.
        let public_key = signer.public_text().lines().last().unwrap_or_default().to_owned();
        let fields = [("key", signer.key_id()), ("public_key", public_key), ("before", before)];
        let body = text_map(&fields.each_ref().map(|(name, value)| (*name, value.as_str())));
        let entry = NewEntry { kind: "key".into(), time_ns: clock::now_ns(), body };
        state.commit(Commit { entries: vec![entry], ..Commit::default() }, &signer)?;
    }
    signer.save(dir)?;
    Ok(signer)
}

/// Keys that lie beside the installed plugins: whoever installs plugins there decides whom to trust.
pub(super) fn publishers(surroundings: &Surroundings) -> Vec<PathBuf> {
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
