//! Runs the tour: a plant, a baseline, a fault, a decision, the evidence, and someone who doubts it all.
//!
//! Every command is shown as a user would type it, with its real output, and the demo fails when one expectation does.

mod telemetry;

use crate::{machine, plugins};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use telemetry::{BROKEN, FAULTY, LINES_PER_HOUR};

/// One line to stdout; a closed pipe is nobody's fault.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Builds hb with the same features of its dependencies as `cargo xtask test`, so that each is compiled once for both.
/// Cargo unites features over what it builds: the whole workspace, and with the example what only tests depend on.
const BUILD: [&str; 7] = ["build", "--locked", "--workspace", "--bin", "hb", "--example", "bench"];

/// Lines of one command's output that are shown; the rest is counted.
const SHOWN_LINES: usize = 14;

/// The key of this host, as its operator would hand it to an auditor.
const HOST_KEY: &str = "state/keys/host.pub";

/// Runs the tour in `keep`, or in a directory of its own that is left behind for a look.
pub(crate) fn run(root: &Path, keep: Option<&Path>) -> Result<()> {
    machine::ensure_packages()?;
    let built = plugins::build(root)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(BUILD).current_dir(root).status();
    ensure!(status.context("cargo")?.success(), "hb could not be built");
    let bin = built.dir.parent().context("target directory")?.join("debug");

    let start = Instant::now();
    let dir = prepare(root, &built.dir, keep)?;
    let mut tour = Tour { path: search_path(&bin)?, dir, failed: Vec::new() };
    let found = tour.walk()?;
    tour.summarise(&found, &bin, start);
    ensure!(tour.failed.is_empty(), "the tour did not go as it should: {}", tour.failed.join("; "));
    Ok(())
}

/// What the summary speaks of.
#[derive(Default)]
struct Found {
    fault_began: String,
    found_at: String,
    case: String,
    decisions: u64,
    alarms: usize,
    false_alarms: usize,
    quarantined: u64,
    verified: bool,
    reproduced: bool,
}

/// A directory with a config, telemetry and `hb` on the path.
struct Tour {
    dir: PathBuf,
    path: std::ffi::OsString,
    failed: Vec<String>,
}

impl Tour {
    fn walk(&mut self) -> Result<Found> {
        let mut found = Found { fault_began: telemetry::fault_began(), ..Found::default() };
        chapter("Set up: a config, a schema, a key. `check` starts nothing and finds every mistake.");
        self.expect("hb keys init", 0)?;
        self.expect("hb check", 0)?;
        self.expect("tail -n 1 clean.jsonl", 0)?;

        chapter("Learn: an hour in which all was well becomes the baseline `golden`.");
        self.expect("hb ingest clean.jsonl --out clean", 0)?;
        self.expect("head -n 4 clean/metrics.csv", 0)?;
        self.expect("hb baseline create --from clean", 0)?;
        self.expect("hb baseline promote --version 1 --tag golden", 0)?;

        chapter("Judge: today's telemetry. One press draws more and more power, and five lines are broken.");
        self.expect("hb daemon --once", 0)?;
        self.expect("hb status", 0)?;
        self.expect("hb quarantine list", 0)?;
        self.judge(&mut found)?;

        chapter("Prove: the evidence of the case, checked by tools that know nothing of hb.");
        let case = found.case.clone();
        self.expect(&format!("hb export evidence-pack --case {case} --out case.zip"), 0)?;
        let pack = format!("evidence_packs/evidence_{case}");
        let stock = format!(
            "cd {pack} && minisign -Vm tagmanifest-sha256.txt -x tagmanifest-sha256.txt.minisig -p ../../{HOST_KEY} \
             && sha256sum --check --strict --quiet tagmanifest-sha256.txt manifest-sha256.txt && echo every file is as signed"
        );
        let stock = self.expect(&stock, 0)?;
        let verified = self.expect(&format!("hb verify case.zip --key {HOST_KEY}"), 0)?;
        found.verified = stock == 0 && verified == 0;

        chapter("Doubt: somewhere else, without config and state, the decision is made again from the pack alone.");
        fs::create_dir_all(self.dir.join("elsewhere"))?;
        let replayed = self.expect("cd elsewhere && hb replay ../case.zip", 0)?;
        found.reproduced = replayed == 0;
        let tampered = "cp case.zip bad.zip && printf X | dd of=bad.zip bs=1 seek=4000 conv=notrunc status=none";
        self.expect(tampered, 0)?;
        let bad = self.show(&format!("hb verify bad.zip --key {HOST_KEY}"))?;
        self.check(bad != 0, "a changed pack must not verify");

        chapter("Gate: the same judgement for a script. Damage a good recording on purpose and see it stopped.");
        fs::create_dir_all(self.dir.join("hurt"))?;
        self.expect("hb analyze clean --baseline golden", 0)?;
        let inject = "cp clean/* hurt/ && hb inject --fault value_corruption --input clean/metrics.csv \
                      --output hurt/metrics.csv --param metric=temperature --param offset=30";
        self.expect(inject, 0)?;
        self.expect("HB_GATE_FAIL_EXIT=1 hb analyze hurt --baseline golden", 1)?;
        self.expect("hb log verify", 0)?;
        Ok(found)
    }

    /// Compares what was decided with what was done to the machines.
    fn judge(&mut self, found: &mut Found) -> Result<()> {
        let status = self.json("hb status --json")?;
        let texts = |key: &str| -> Vec<String> {
            let list = status[key].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        // Newest first: the last line is the first case.
        let cases = texts("cases");
        found.false_alarms = cases.iter().filter(|c| !c.ends_with(FAULTY)).count();
        found.alarms = cases.len() - found.false_alarms;
        let mut first = cases.iter().rev().find(|c| c.ends_with(FAULTY)).map(|c| c.split(' ')).into_iter().flatten();
        found.case = first.next().unwrap_or_default().to_owned();
        found.found_at = first.next().unwrap_or_default().to_owned();
        let counters = &status["counters"];
        let count = |key: &str| counters[key].as_u64().unwrap_or_default();
        found.decisions =
            ["pass", "no_data", "drift", "error", "fail"].map(|s| count(&format!("decisions.{s}"))).iter().sum();
        let errors = count("decisions.error") + count("faults");
        found.quarantined = count("rejects");
        self.check(found.alarms == 1, &format!("one case on {FAULTY} expected, found {}", found.alarms));
        self.check(found.false_alarms == 0, "no case on a healthy machine expected");
        self.check(errors == 0, "no rule and no plugin may fail");
        self.check(found.found_at > found.fault_began, "the fault must be found after it began");
        let broken = BROKEN.len() as u64;
        self.check(
            found.quarantined == broken,
            &format!("{broken} refused lines expected, found {}", found.quarantined),
        );
        let lines = LINES_PER_HOUR + broken;
        let read = status["sources"]["plant"]["lines"].as_u64().unwrap_or_default();
        self.check(read == lines, &format!("{lines} lines expected, {read} read"));
        if found.case.is_empty() {
            bail!("no case was opened: there is no evidence to show ({})", self.failed.join("; "));
        }
        Ok(())
    }

    fn summarise(&self, f: &Found, bin: &Path, start: Instant) {
        let yes = |b: bool| if b { "yes" } else { "NO" };
        say!("\n== Summary ({:.1} s)\n", start.elapsed().as_secs_f64());
        say!("  fault        {FAULTY} draws more power from {}", f.fault_began);
        say!("  found at     {}", f.found_at);
        say!("  case         {}", f.case);
        say!("  evidence     case.zip: verified {}, reproduced {}", yes(f.verified), yes(f.reproduced));
        say!("  decisions    {}, all in the signed log", f.decisions);
        say!("  false alarms {}", f.false_alarms);
        say!("  quarantined  {} lines", f.quarantined);
        say!("\nLook further:\n");
        say!("  cd {} && export PATH={}:$PATH", self.dir.display(), bin.display());
        say!("  xdg-open evidence_packs/evidence_{}/data/drift_report.html", f.case);
        say!("  hb status; hb log --help; less hb.yaml");
    }

    /// Runs and shows a command that must end with `code`.
    fn expect(&mut self, command: &str, code: i32) -> Result<i32> {
        let ended = self.show(command)?;
        self.check(ended == code, &format!("`{command}` ended with {ended} instead of {code}"));
        Ok(ended)
    }

    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            say!("  [!] {what}");
            self.failed.push(what.to_owned());
        }
    }

    /// Runs a command as a shell would and shows it with what it says.
    fn show(&self, command: &str) -> Result<i32> {
        say!("\n$ {command}");
        let output = self.command(&format!("{{ {command}; }} 2>&1"))?;
        let code = output.status.code().unwrap_or(-1);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(SHOWN_LINES) {
            say!("{line}");
        }
        if lines.len() > SHOWN_LINES {
            say!("... {} more lines", lines.len() - SHOWN_LINES);
        }
        if code != 0 {
            say!("(exit code {code})");
        }
        Ok(code)
    }

    /// Data of a command that is not shown.
    fn json(&self, command: &str) -> Result<Value> {
        let output = self.command(command)?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("`{command}` printed no JSON"))
    }

    fn command(&self, command: &str) -> Result<std::process::Output> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&self.dir).env("PATH", &self.path).env("NO_COLOR", "1");
        // What the operator of this machine has set must not change the tour.
        for name in ["HB_CONFIG", "HB_PLUGINS_DIR", "HB_POLICIES_DIR", "HB_GATE_FAIL_EXIT", "RUST_LOG"] {
            shell.env_remove(name);
        }
        shell.output().context("sh")
    }
}

fn chapter(text: &str) {
    say!("\n== {text}");
}

/// A fresh directory with config, schema, policies, publisher's key and two hours of telemetry.
fn prepare(root: &Path, plugins: &Path, keep: Option<&Path>) -> Result<PathBuf> {
    let dir = match keep {
        Some(dir) => {
            fs::create_dir_all(dir)?;
            ensure!(fs::read_dir(dir)?.next().is_none(), "{} is not empty", dir.display());
            dir.to_owned()
        }
        None => fresh_dir()?,
    };
    let dir = dir.canonicalize()?;
    for name in ["hb.yaml", "telemetry_schema.yaml"] {
        let from = root.join("examples/tour").join(name);
        fs::copy(&from, dir.join(name)).with_context(|| from.display().to_string())?;
    }
    fs::copy(plugins.join("dev-publisher.pub"), dir.join("publisher.pub")).context("the publisher's key")?;
    copy_tree(&root.join("policies"), &dir.join("policies"))?;
    fs::write(dir.join("clean.jsonl"), telemetry::clean_hour())?;
    fs::write(dir.join("today.jsonl"), telemetry::faulty_hour())?;
    Ok(dir)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A new directory below the machine's temporary one, for this user alone.
fn fresh_dir() -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let id = std::process::id();
    for n in 0..u32::MAX {
        let dir = std::env::temp_dir().join(format!("hb-tour-{id}-{n}"));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir.clone()).with_context(|| dir.display().to_string()),
        }
    }
    bail!("no free name for a directory")
}

/// The path with the freshly built `hb` first.
fn search_path(bin: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&old));
    Ok(std::env::join_paths(dirs)?)
}
