//! `hb cases`: which cases are kept, and by whom.

use clap::{Args, Subcommand};
use hb_log::cbor;
use serde::Serialize;

use super::{Done, Failure, Global, existing_state, open_state};
use crate::case::Case;
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::pipeline::record::text_map;
use crate::state::{Commit, HoldChange, HoldRow, NewEntry, Reader};

/// Verbs of `hb cases`.
#[derive(Subcommand)]
pub(crate) enum CasesVerb {
    /// List cases, and why each is kept.
    #[command(after_help = "Example: hb cases list --json")]
    List,
    /// Keep all that a case's pack is made from, whatever its age.
    #[command(after_help = "Example: hb cases pin case-1f00ba4")]
    Pin(PinArgs),
    /// Let a case go when its time comes.
    #[command(after_help = "Example: hb cases unpin case-1f00ba4")]
    Unpin(PinArgs),
}

/// Arguments of `hb cases pin` and `hb cases unpin`.
#[derive(Args)]
pub(crate) struct PinArgs {
    /// Case id; the beginning is enough when it is unique.
    case: String,
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and a field of the JSON")]
struct Line {
    case: String,
    status: String,
    check: String,
    asset: String,
    end: String,
    /// What its pack is made from is stored.
    held: bool,
    open: bool,
    pinned: bool,
    packed: bool,
}

/// Runs a verb of cases.
pub(crate) fn run(global: &Global, verb: &CasesVerb) -> Done {
    match verb {
        CasesVerb::List => list(global),
        CasesVerb::Pin(args) => pin(global, &args.case, true),
        CasesVerb::Unpin(args) => pin(global, &args.case, false),
    }
}

fn list(global: &Global) -> Done {
    let file = global.load()?;
    let program = file.config.program.as_str();
    let state = existing_state(&file.config)?;
    let lines = lines(&state.reader()?, program)?;
    global.print(&lines, |lines| lines.iter().map(text).collect());
    Ok(exit::OK)
}

fn lines(reader: &Reader, program: &str) -> Result<Vec<Line>, Failure> {
    let holds = reader.holds(program)?;
    let mut cases = Vec::new();
    for (_, bytes) in reader.cases(program)? {
        cases.push(cbor::decode::<Case>(&bytes).map_err(|e| Failure::data(e.to_string()))?);
    }
    cases.sort_by_key(|case| (case.end_ns, case.id.clone()));
    let line = |case: Case| -> Result<Line, Failure> {
        let hold: Option<&HoldRow> = holds.iter().find(|hold| hold.case == case.id);
        Ok(Line {
            held: hold.is_some(),
            open: hold.is_some_and(|hold| hold.kept.open),
            pinned: hold.is_some_and(|hold| hold.kept.pinned),
            packed: reader.meta(program, &crate::case::packed_name(&case.id))?.is_some(),
            end: clock::rfc3339(case.end_ns),
            case: case.id,
            status: case.status.to_string(),
            check: case.check,
            asset: case.asset,
        })
    };
    cases.into_iter().map(line).collect()
}

fn text(line: &Line) -> String {
    let words = [(line.open, "open"), (line.pinned, "pinned"), (line.packed, "packed"), (!line.held, "not kept")];
    let words: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    let (asset, words) = (neutralise(&line.asset), words.join(", "));
    format!("{} {} {} {} {asset} [{words}]\n", line.case, line.end, line.status, line.check)
}

fn pin(global: &Global, case: &str, pinned: bool) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let (state, signer) = open_state(&file.config)?;
    let id = find(&state.reader()?, &program, case)?;
    let kind = if pinned { "custody.pinned" } else { "custody.unpinned" };
    let entry = NewEntry { kind: kind.to_owned(), time_ns: clock::now_ns(), body: text_map(&[("case", &id)]) };
    let change = HoldChange { case: id.clone(), pinned: Some(pinned), ..HoldChange::default() };
    state.commit(Commit { program, hold_changes: vec![change], entries: vec![entry], ..Commit::default() }, &signer)?;
    let word = if pinned { "pinned" } else { "not pinned any more" };
    global.print(&serde_json::json!({ "case": id, "pinned": pinned }), |_| format!("{id}: {word}\n"));
    Ok(exit::OK)
}

/// The one case that an id, or the beginning of one, stands for.
fn find(reader: &Reader, program: &str, id: &str) -> Result<String, Failure> {
    let wanted = |name: &String| name.starts_with(id) || name.trim_start_matches("case-").starts_with(id);
    let mut found: Vec<String> = reader.cases(program)?.into_iter().map(|c| c.0).filter(wanted).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            Err(Failure::usage(format!("`{}` names several cases", neutralise(id)), "write more of it"))
        }
        (None, _) => {
            let d = Diagnostic::error(Area::Data, format!("there is no case `{}`", neutralise(id)));
            Err(Failure::new(exit::DATA, d.help("`hb cases list` shows them")))
        }
    }
}
