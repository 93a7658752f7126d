//! `hb log`: the signed log, shown and verified.

use clap::{Args, Subcommand};
use hb_log::cbor::value_to_json;
use hb_log::entry::Entry;
use hb_log::sign::PublicKey;
use serde_json::json;

use super::{Done, Failure, Global, chain, existing_state};
use crate::clock;
use crate::diagnostic::{exit, neutralise};
use crate::keys::Signer;
use crate::state::LogProblem;

/// Verbs of `hb log`.
#[derive(Subcommand)]
pub(crate) enum LogVerb {
    /// Show entries.
    Show(ShowArgs),
    /// Recompute every hash and check the signature of the head.
    Verify,
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
        LogVerb::Verify => {
            let signer = Signer::load(&file.config.state)?;
            let key = PublicKey::parse(&signer.public_text()).map_err(|e| Failure::data(chain(&e)))?;
            match reader.verify_log(&key) {
                Ok(s) => {
                    let data = json!({ "ok": true, "size": s.size, "root": s.root, "origin": s.origin });
                    global.print(&data, |_| {
                        format!(
                            "log {}: {} entries verified, root {}\nfreshness unproven: no witness\n",
                            s.origin, s.size, s.root
                        )
                    });
                    Ok(exit::OK)
                }
                Err(LogProblem::State(e)) => Err(e.into()),
                Err(problem) => Err(Failure::data(chain(&problem))),
            }
        }
    }
}
