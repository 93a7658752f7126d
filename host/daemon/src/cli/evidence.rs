//! `hb export`, `hb verify`, `hb replay`: evidence packs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hb_engine::decision::Decision;
use hb_log::archive;
use hb_log::bag::Files;
use hb_log::cbor;
use hb_log::pack;

use super::{Done, Failure, Global, open_state, progress, read_keys, session};
use crate::case::Case;
use crate::clock;
use crate::config::Config;
use crate::diagnostic::{Area, Diagnostic, chain, exit, neutralise};
use crate::evidence;
use crate::keys::Signer;
use crate::pipeline::record::text_map;
use crate::replay::{self, ReplayError};
use crate::state::{Commit, Lookup, NewEntry, Reader, State};

/// Files of one pack directory at most.
const FILES_MAX: usize = 20_000;

/// Bytes of one pack at most, as for archives.
const BYTES_MAX: u64 = 1 << 30;

/// Exit code of `hb replay` when another release made the decision.
const OTHER_RELEASE: u8 = 69;

/// Verbs of `hb export`.
#[derive(Subcommand)]
pub(crate) enum ExportVerb {
    /// Everything a decision was made from, sealed.
    #[command(after_help = "Example: hb export evidence-pack --case case-1f00ba4 --out packs")]
    EvidencePack(ExportArgs),
}

/// Arguments of `hb export evidence-pack`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Case id, decision id or run id; the beginning is enough when it is unique.
    #[arg(long, value_name = "ID")]
    case: String,
    /// Directory for the pack, or a .zip file.
    #[arg(long, value_name = "DIR|FILE.zip")]
    out: PathBuf,
}

/// Arguments of `hb verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Pack: a directory or a .zip file.
    pack: PathBuf,
    /// Public key of the host, from its operator and not from the pack; may be given more than once.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

/// Arguments of `hb replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Pack: a directory or a .zip file.
    pack: PathBuf,
}

/// Exports the pack of a case.
pub(crate) fn export(global: &Global, args: &ExportArgs) -> Done {
    let file = global.load()?;
    let (state, signer) = open_state(&file.config)?;
    let case = find_case(&state.reader()?, file.config.program.as_str(), &args.case)?;
    let busy = progress::busy("export");
    let path = write_pack(&state, &signer, &case, &session::path(&args.out))?;
    busy.finish_and_clear();
    // The pack is sealed: who took it away when is told by the log alone, without the paths of this machine.
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let body = text_map(&[("case", &case.id), ("file", &name)]);
    let entry = NewEntry { kind: "custody.exported".into(), time_ns: clock::now_ns(), body };
    let program = case.program.clone();
    state.commit(Commit { program, entries: vec![entry], ..Commit::default() }, &signer)?;
    global.print(&serde_json::json!({ "case": case.id, "pack": path }), |_| format!("{}\n", path.display()));
    Ok(exit::OK)
}

/// Verifies a pack.
pub(crate) fn verify(global: &Global, args: &VerifyArgs) -> Done {
    let trusted = read_keys(&args.keys)?;
    let busy = progress::busy("verify");
    let report = if is_zip(&args.pack) {
        pack::verify_zip(&read(&args.pack)?, &trusted)
    } else {
        pack::verify(&read_dir(&args.pack)?, &trusted)
    };
    busy.finish_and_clear();
    global.print(&report, |r| {
        let mut text = String::new();
        for p in &r.problems {
            // A problem of the archive as a whole lies in no file of it.
            let place = if p.path.is_empty() { args.pack.to_string_lossy() } else { p.path.as_str().into() };
            text.push_str(&format!("problem: {}: {} ({})\n", neutralise(&place), neutralise(&p.what), p.help));
        }
        for w in &r.warnings {
            text.push_str(&format!("warning: {w}\n"));
        }
        let shown = |v: &Option<String>| neutralise(v.as_deref().unwrap_or("unknown")).into_owned();
        let hash = r.facts.decision.map_or_else(|| "unknown".into(), |h| h.to_string());
        let verdict = if r.ok { "verified" } else { "NOT VERIFIED" };
        text.push_str(&format!(
            "{verdict}: case {}, decision {hash}, key {}\n",
            shown(&r.facts.case),
            shown(&r.facts.key_id)
        ));
        text
    });
    Ok(if report.ok { exit::OK } else { exit::DATA })
}

/// Re-executes a pack.
pub(crate) fn replay(global: &Global, args: &ReplayArgs) -> Done {
    let busy = progress::busy("replay");
    let (files, _) = whole(&args.pack)?;
    let replayed = replay::replay(&files).map_err(|e| not_replayed(&args.pack, &e))?;
    busy.finish_and_clear();
    global.print(&replayed, |r| match &r.difference {
        None if r.recorded_faults > 0 => {
            format!("reproduced with {} recorded faults: decision {}\n", r.recorded_faults, r.decision)
        }
        None => format!("reproduced: decision {} ({} frames, {} samples)\n", r.decision, r.frames, r.samples),
        Some(d) => format!(
            "NOT reproduced: first difference in {} ({})\n  recorded: {}\n  computed: {}\n",
            d.stage, d.what, d.recorded, d.computed
        ),
    });
    Ok(if replayed.reproduced { exit::OK } else { exit::DATA })
}

/// The files of a pack that nobody changed, and what it says of itself. What is not whole is not worth running.
pub(super) fn whole(path: &Path) -> Result<(Files, pack::Facts), Failure> {
    let files = if is_zip(path) {
        archive::zip_read(&read(path)?).map_err(|e| not_a_pack(path, &chain(&e)))?.1
    } else {
        read_dir(path)?
    };
    let report = pack::verify(&files, &[]);
    match report.problems.first() {
        Some(p) => Err(not_a_pack(path, &format!("{}: {}", neutralise(&p.path), neutralise(&p.what)))),
        None => Ok((files, report.facts)),
    }
}

/// Why a pack could not be re-executed.
pub(super) fn not_replayed(path: &Path, error: &ReplayError) -> Failure {
    match error {
        ReplayError::Version { found } => {
            let d = Diagnostic::error(Area::Evidence, error.to_string());
            Failure::new(OTHER_RELEASE, d.help(format!("use a release with engine version {}", neutralise(found))))
        }
        _ => not_a_pack(path, &chain(error)),
    }
}

/// Writes a case's pack below `out`, or as the archive `out`.
fn write_pack(state: &State, signer: &Signer, case: &Case, out: &Path) -> Result<PathBuf, Failure> {
    place_pack(&evidence::pack(state, signer, case)?, case, out)
}

/// Writes a case's pack to the directory of packs, which makes room for it before.
pub(crate) fn shelve_pack(state: &State, signer: &Signer, case: &Case, config: &Config) -> Result<PathBuf, Failure> {
    let files = evidence::pack(state, signer, case)?;
    trim_packs(state, signer, config, files.values().map(|bytes| bytes.len() as u64).sum())?;
    place_pack(&files, case, &config.evidence.dir)
}

/// Places the files of a pack; it appears under its name when it is whole, and stays through a power cut.
fn place_pack(files: &Files, case: &Case, out: &Path) -> Result<PathBuf, Failure> {
    let root = evidence::root_name(case);
    if is_zip(out) {
        let bytes = archive::zip_write(files, &root).map_err(|e| Failure::data(chain(&e)))?;
        let part = out.with_extension("zip.part");
        let made = write_synced(&part, &bytes).and_then(|()| fs::rename(&part, out)).and_then(|()| sync_above(out));
        made.map_err(|e| Failure::io(out, &e))?;
        return Ok(out.to_owned());
    }
    let target = out.join(&root);
    if target.exists() {
        // Equal by construction when nothing touched it; whoever changed it must decide what happens to it.
        if read_dir(&target)? != *files {
            return Err(Failure::data(format!("{} is there and differs: move it away", target.display())));
        }
    } else {
        fs::create_dir_all(out).and_then(|()| sync_above(out)).map_err(|e| Failure::io(out, &e))?;
        let part = tempfile::Builder::new().prefix(".pack-").tempdir_in(out).map_err(|e| Failure::io(out, &e))?;
        write_files(part.path(), files)?;
        let made = part.keep();
        fs::rename(&made, &target).map_err(|e| Failure::io(&target, &e))?;
    }
    // Also for one that is there: whoever renamed it may have been killed before this.
    sync_above(&target).map_err(|e| Failure::io(out, &e))?;
    Ok(target)
}

/// Keeps the directory of packs within its cap, with so much room left for the next one; what was removed goes to the
/// log.
pub(crate) fn trim_packs(state: &State, signer: &Signer, config: &Config, room_bytes: u64) -> Result<(), Failure> {
    let dir = &config.evidence.dir;
    if !dir.is_dir() {
        return Ok(());
    }
    let program = config.program.to_string();
    let holds = state.reader()?.holds(&program)?;
    let is_kept = |case: &str| holds.iter().any(|hold| hold.case == case && hold.kept.is_kept());
    let cap_bytes = u64::from(config.limits.max_report_dir_mb) << 20;
    let removed =
        evidence::shelf::trim(dir, cap_bytes.saturating_sub(room_bytes), &is_kept).map_err(|e| Failure::io(dir, &e))?;
    if removed.is_empty() {
        return Ok(());
    }
    let entry = |file: &String| NewEntry {
        kind: "custody.removed".into(),
        time_ns: clock::now_ns(),
        body: text_map(&[("file", file), ("why", "limits.max_report_dir_mb")]),
    };
    state.commit(Commit { program, entries: removed.iter().map(entry).collect(), ..Commit::default() }, signer)?;
    Ok(())
}

/// Writes all files below a directory and makes them, and the directories, durable.
fn write_files(root: &Path, files: &Files) -> Result<(), Failure> {
    let mut dirs = BTreeSet::from([root.to_owned()]);
    for (name, bytes) in files {
        let path = root.join(name);
        let above = path.ancestors().skip(1).take_while(|dir| *dir != root);
        dirs.extend(above.map(Path::to_owned));
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| write_synced(&path, bytes));
        made.map_err(|e| Failure::io(&path, &e))?;
    }
    dirs.iter().try_for_each(|dir| File::open(dir)?.sync_all()).map_err(|e| Failure::io(root, &e))
}

/// A file whose content is durable; its name is when its directory was synced too.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the name of a file or directory durable.
fn sync_above(path: &Path) -> std::io::Result<()> {
    let above = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above)?.sync_all()
}

/// A case by its id, by the id of its decision, or the worst decision of a run.
fn find_case(reader: &Reader, program: &str, id: &str) -> Result<Case, Failure> {
    let cases: Vec<(String, Vec<u8>)> = reader.cases(program)?;
    let decode = |bytes: &[u8]| cbor::decode::<Case>(bytes).map_err(|e| Failure::data(e.to_string()));
    let wanted = |name: &str| name.starts_with(id) || name.trim_start_matches("case-").starts_with(id);
    let found: Vec<&(String, Vec<u8>)> = cases.iter().filter(|c| wanted(&c.0)).collect();
    match found.as_slice() {
        [one] => return decode(&one.1),
        [] => {}
        many => {
            let names: Vec<&str> = many.iter().map(|c| c.0.as_str()).collect();
            return Err(Failure::usage(format!("`{id}` may be {}", names.join(", ")), "write more of it"));
        }
    }
    if reader.run(program, id)?.is_some() {
        let mut of_run = Vec::new();
        for (_, bytes) in &cases {
            let case = decode(bytes)?;
            if case.lane == id {
                of_run.push(case);
            }
        }
        let worst = of_run.into_iter().max_by_key(|c| (c.status, std::cmp::Reverse(c.start_ns)));
        return worst.ok_or_else(|| Failure::data(format!("run {id} opened no case: nothing failed in it")));
    }
    match reader.decision(program, id)? {
        Lookup::One { row, .. } => {
            let decision: Decision = cbor::decode(&row.bytes).map_err(|e| Failure::data(e.to_string()))?;
            let entry = log_entry(reader, row.id)?.ok_or_else(|| {
                Failure::data("the decision is an unchanged PASS: the log keeps its hash, not an entry of its own")
            })?;
            Ok(Case::open(row.id, &decision, entry))
        }
        Lookup::Many(_) => Err(Failure::usage(format!("`{id}` names several decisions"), "write more of it")),
        Lookup::None => {
            let d = Diagnostic::error(Area::Data, format!("there is no case, run or decision `{}`", neutralise(id)));
            Err(Failure::new(exit::DATA, d.help("`hb status` lists the cases")))
        }
    }
}

/// The log entry that records a decision in full; an unchanged PASS has none.
pub(super) fn log_entry(reader: &Reader, decision: hb_log::hash::Hash) -> Result<Option<u64>, Failure> {
    for item in reader.entries(0, u64::MAX)? {
        let (index, bytes) = item?;
        let entry = hb_log::entry::Entry::decode(&bytes).map_err(|e| Failure::data(chain(&e)))?;
        let named = entry.kind == pack::DECISION_KIND
            && entry.field(pack::DECISION_FIELD).and_then(|v| v.as_bytes()).is_some_and(|b| b == decision.as_bytes());
        if named {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let size = fs::metadata(path).map_err(|e| Failure::io(path, &e))?.len();
    if size > BYTES_MAX {
        return Err(not_a_pack(path, &format!("{size} bytes; a pack has at most {BYTES_MAX}")));
    }
    fs::read(path).map_err(|e| Failure::io(path, &e))
}

/// All files below a directory; links and special files are no part of a pack.
fn read_dir(root: &Path) -> Result<Files, Failure> {
    let (mut files, mut left, mut bytes) = (Files::new(), vec![root.to_owned()], 0);
    while let Some(dir) = left.pop() {
        for item in fs::read_dir(&dir).map_err(|e| Failure::io(&dir, &e))? {
            let item = item.map_err(|e| Failure::io(&dir, &e))?;
            let path = item.path();
            let meta = item.file_type().map_err(|e| Failure::io(&path, &e))?;
            if meta.is_dir() {
                left.push(path);
                continue;
            }
            if !meta.is_file() {
                return Err(not_a_pack(&path, "it is a link or a special file"));
            }
            let name = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
            let name = name.ok_or_else(|| not_a_pack(&path, "its name is not UTF-8"))?;
            let content = read(&path)?;
            bytes += content.len() as u64;
            files.insert(name, content);
            if files.len() > FILES_MAX || bytes > BYTES_MAX {
                return Err(not_a_pack(root, &format!("more than {FILES_MAX} files or {BYTES_MAX} bytes")));
            }
        }
    }
    Ok(files)
}

fn not_a_pack(path: &Path, what: &str) -> Failure {
    let d = Diagnostic::error(Area::Evidence, format!("{}: {what}", path.display()));
    Failure::new(exit::DATA, d.help("`hb verify` lists everything that is wrong with a pack"))
}

fn is_zip(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "zip")
}
