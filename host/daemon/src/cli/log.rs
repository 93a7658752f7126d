//! `hb log`: the signed log, shown and verified.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hb_log::cbor::value_to_json;
use hb_log::entry::Entry;
use hb_log::sign::{PublicKey, claimed_key_id};
use serde_json::json;

use super::{Done, Failure, Global, existing_state, progress, read_keys};
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, chain, exit, neutralise};
use crate::keys::Signer;
use crate::state::{LogProblem, LogSummary, Reader};

/// Verbs of `hb log`.
#[derive(Subcommand)]
pub(crate) enum LogVerb {
    /// Show entries.
    #[command(after_help = "Example: hb log show --kind decision --count 10")]
    Show(ShowArgs),
    /// Recompute every hash and check the signature of the head.
    #[command(after_help = "Example: hb log verify --key hb.pub")]
    Verify(VerifyArgs),
}

/// Arguments of `hb log show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// First entry.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Entries at most.
    #[arg(long, default_value_t = 50)]
    count: u64,
    /// Only this kind, as `decision`.
    #[arg(long)]
    kind: Option<String>,
}

/// Arguments of `hb log verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Public key of the host, from its operator; otherwise the one beside the log. May be given more than once.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

/// Runs a log verb.
pub(crate) fn run(global: &Global, verb: &LogVerb) -> Done {
    let file = global.load()?;
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    match verb {
        LogVerb::Show(args) => {
            let mut shown = Vec::new();
            for item in reader.entries(args.from, u64::MAX)? {
                let entry = Entry::decode(&item?.1).map_err(|e| Failure::data(chain(&e)))?;
                if args.kind.as_ref().is_none_or(|k| *k == entry.kind) {
                    shown.push(json!({
                        "seq": entry.seq, "time": clock::rfc3339(entry.time_ns), "kind": entry.kind,
                        "body": value_to_json(&entry.body),
                    }));
                }
                if shown.len() as u64 >= args.count {
                    break;
                }
            }
            global.print(&shown, |lines| {
                lines
                    .iter()
                    .map(|l| {
                        let text = |k: &str| l[k].as_str().unwrap_or_default().to_owned();
                        let body = l["body"].to_string();
                        format!("{} {} {} {}\n", l["seq"], text("time"), text("kind"), neutralise(&body))
                    })
                    .collect()
            });
            Ok(exit::OK)
        }
        LogVerb::Verify(args) => {
            let (keys, trusted) = keys(&args.keys, &file.config.state)?;
            let busy = progress::busy("log verify");
            let (summary, key) = verify(&reader, &keys)?;
            busy.finish_and_clear();
            let key = key.key_id();
            let data = json!({
                "ok": true, "size": summary.size, "root": summary.root, "origin": summary.origin, "key": key,
                "trusted": trusted, "pruned": summary.pruned, "prune": summary.prune,
            });
            global.print(&data, |_| {
                let (origin, size, root) = (&summary.origin, summary.size, summary.root);
                let mut text = format!("log {origin}: {size} entries verified, root {root}, key {key}\n");
                if let Some((entry, to)) = summary.prune {
                    let pruned = summary.pruned;
                    text.push_str(&format!(
                        "{pruned} entries below {to} have no body any more, as entry {entry} says\n"
                    ));
                }
                if !trusted {
                    text.push_str(
                        "warning: the key lies beside the log: give one that you have from elsewhere by --key\n",
                    );
                }
                text + "freshness unproven: no witness\n"
            });
            Ok(exit::OK)
        }
    }
}

/// The keys to verify with, and whether they came from elsewhere than the state itself.
fn keys(given: &[PathBuf], state: &Path) -> Result<(Vec<PublicKey>, bool), Failure> {
    if !given.is_empty() {
        return Ok((read_keys(given)?, true));
    }
    let path = Signer::public_path(state);
    if !path.exists() {
        let d = Diagnostic::error(Area::State, format!("{} is missing", path.display()));
        return Err(Failure::new(exit::CONFIG, d.help("give the host's public key by --key FILE")));
    }
    Ok((read_keys(&[path])?, false))
}

/// Verifies the log with the key its head claims, or else with whichever is first to be told what is wrong.
fn verify(reader: &Reader, keys: &[PublicKey]) -> Result<(LogSummary, PublicKey), Failure> {
    let claimed = reader.checkpoint()?.and_then(|head| claimed_key_id(&head.signature).ok());
    let fits = keys.iter().find(|key| Some(key.key_id()) == claimed);
    let key = fits.or(keys.first()).ok_or_else(|| Failure::data("there is no key to verify with"))?;
    match reader.verify_log(key) {
        Ok(summary) => Ok((summary, key.clone())),
        Err(LogProblem::State(e)) => Err(e.into()),
        Err(problem) => Err(Failure::data(chain(&problem))),
    }
}
