//! The tour in README.md is typed as it stands there, and shows what hb really says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::guests::publisher_key;
use crate::support::hb::{Hb, Output, repository, surround};

/// The very telemetry of `cargo xtask demo`.
#[path = "../xtask/src/demo/telemetry.rs"]
#[allow(dead_code, reason = "the demo uses all of it")]
mod telemetry;

/// Shortest run of hex digits that is taken for a hash or a key: they are others on every machine.
const HASH_DIGITS: usize = 12;

#[test]
fn the_tour_shows_what_hb_says() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let hb = tour();
    let mut place = hb.dir().canonicalize().unwrap();
    let (mut shown, mut wrong) = (0, String::new());
    for block in readme.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        for step in block.split("$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap();
            let command = real(command, &hb);
            let said = typed(&command, &mut place);
            if !fits(expected, &said) {
                wrong.push_str(&format!("$ {command}\nREADME.md says:\n{expected}hb says:\n{said}\n"));
            }
            shown += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(shown > 12, "{shown} commands are no tour");
}

#[test]
fn three_dots_stand_for_lines_and_hashes_for_each_other() {
    let said = "one\ncase-63bd2e8c1f2d\nthree\n";
    for expected in [said, "...\nthree\n", "one\n...\n", "one\ncase-0123456789ab\n...\nthree\n", "...\n"] {
        assert!(fits(expected, said), "{expected}");
    }
    for expected in
        ["one\nthree\n", "...\ntwo\n", "one\ncase-0123456789a\nthree\n", "one\n...\ncase-63bd2e8c1f2d\n", ""]
    {
        assert!(!fits(expected, said), "{expected}");
    }
}

/// What `cargo xtask demo` prepares.
fn tour() -> Hb {
    let hb = Hb::new();
    let repository = repository();
    for name in ["hb.yaml", "telemetry_schema.yaml"] {
        fs::copy(repository.join("examples/tour").join(name), hb.path(name)).unwrap();
    }
    hb.write("publisher.pub", &publisher_key());
    super::hostile::copy_folder(&repository.join("policies"), &hb.path("policies"));
    hb.write("clean.jsonl", &telemetry::clean_hour());
    hb.write("today.jsonl", &telemetry::faulty_hour());
    hb
}

/// A command with the name that the case has here.
fn real(command: &str, hb: &Hb) -> String {
    let Some((_, name)) = command.split_once("case-") else { return command.to_owned() };
    let name: String = name.chars().take_while(char::is_ascii_hexdigit).collect();
    let pack = fs::read_dir(hb.path("evidence_packs")).unwrap().map(|e| e.unwrap().file_name()).min().unwrap();
    let case = pack.to_str().unwrap().strip_prefix("evidence_").unwrap().to_owned();
    if name.len() < HASH_DIGITS { command.to_owned() } else { command.replace(&format!("case-{name}"), &case) }
}

/// Types one command; a `cd` in it lasts. An exit code is told as the demo tells it.
fn typed(command: &str, place: &mut PathBuf) -> String {
    let hb_dir = Path::new(env!("CARGO_BIN_EXE_hb")).parent().unwrap();
    let path = format!("{}:{}", hb_dir.display(), std::env::var("PATH").unwrap_or_default());
    let note = tempfile::NamedTempFile::new().unwrap();
    let script = format!("{{ {command}; }} 2>&1\ncode=$?\npwd > {}\nexit $code", note.path().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(&*place).env("PATH", path).env("NO_COLOR", "1").stdin(Stdio::null());
    surround(&mut shell);
    let output = Output::of(&mut shell);
    *place = PathBuf::from(fs::read_to_string(note.path()).unwrap().trim_end());
    let code = if output.code == 0 { String::new() } else { format!("(exit code {})\n", output.code) };
    output.stdout + &code
}

/// Whether `said` is what is expected, in which a line of three dots stands for any lines.
fn fits(expected: &str, said: &str) -> bool {
    let (expected, said) = (without_hashes(expected), without_hashes(said));
    fn lines(expected: &[&str], said: &[&str]) -> bool {
        match expected {
            [] => said.is_empty(),
            ["...", rest @ ..] => (0..=said.len()).any(|skipped| lines(rest, &said[skipped..])),
            [first, rest @ ..] => said.first() == Some(first) && lines(rest, &said[1..]),
        }
    }
    lines(&expected.lines().collect::<Vec<_>>(), &said.lines().collect::<Vec<_>>())
}

/// Each run of enough hex digits as one sign.
fn without_hashes(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for letter in text.chars().chain(['\n']) {
        if letter.is_ascii_hexdigit() {
            run.push(letter);
            continue;
        }
        out.push_str(if run.len() >= HASH_DIGITS { "#" } else { &run });
        run.clear();
        out.push(letter);
    }
    out
}
