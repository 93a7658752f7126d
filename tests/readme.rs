//! What stands in a box of a page is typed as it stands there, and the page shows what is really said: the tour in
//! README.md where a reader plays it, a guide for operators on a machine of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::deploy;

use crate::support::guests::publisher_key;
use crate::support::hb::{Hb, Output, repository, surround};
use crate::support::machine::GIVEN;

/// Shortest run of hex digits that is taken for a hash or a key: they are others on every machine.
const HASH_DIGITS: usize = 12;

#[test]
fn the_tour_shows_what_hb_says() {
    let hb = tour();
    let mut place = hb.dir().canonicalize().unwrap();
    let hb_dir = Path::new(env!("CARGO_BIN_EXE_hb")).parent().unwrap();
    let path = format!("{}:{}", hb_dir.display(), std::env::var("PATH").unwrap_or_default());
    let note = tempfile::NamedTempFile::new().unwrap();
    let shown = play("README.md", |command| {
        let mut shell = Command::new("sh");
        shell.env("PATH", &path).env("NO_COLOR", "1").stdin(Stdio::null());
        surround(&mut shell);
        typed(&real(command, &hb), shell, &mut place, note.path(), note.path())
    });
    assert!(shown > 12, "{shown} commands are no tour");
}

#[test]
fn the_guide_for_operators_is_typed_on_a_machine() {
    typed_on_a_machine("docs/guide/operate.md", 40);
}

#[test]
fn the_secure_installation_is_typed_on_a_machine() {
    typed_on_a_machine("SECURE_INSTALL.md", 8);
}

/// Plays a page as root in the source tree of a new machine.
fn typed_on_a_machine(page: &str, commands: usize) {
    let Some(machine) = deploy::machine(page) else { return };
    deploy::lay_out(&machine.given().join("tree"));
    let mut place = PathBuf::from(GIVEN).join("tree");
    let (note, inside) = (machine.given().join("place"), PathBuf::from(GIVEN).join("place"));
    let shown = play(page, |command| typed(command, machine.command("sh"), &mut place, &note, &inside));
    assert!(shown >= commands, "{page}: only {shown} commands");
}

/// Types the commands of a page one after the other, and finds what it says wrongly of their answers. Returns how many
/// there are.
fn play(page: &str, mut answer: impl FnMut(&str) -> String) -> usize {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let (mut shown, mut wrong) = (0, String::new());
    for block in text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        for step in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
            let expected = expected.trim_end_matches('\n');
            let expected = if expected.is_empty() { String::new() } else { format!("{expected}\n") };
            let said = answer(command);
            if !fits(&expected, &said) {
                wrong.push_str(&format!("$ {command}\n{page} says:\n{expected}the answer is:\n{said}\n"));
            }
            shown += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    shown
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

/// What the tour wants to lie in its directory.
fn tour() -> Hb {
    let hb = Hb::new();
    let repository = repository();
    for name in ["tour/hb.yaml", "plant/telemetry_schema.yaml"] {
        let to = Path::new(name).file_name().unwrap().to_str().unwrap();
        fs::copy(repository.join("examples").join(name), hb.path(to)).unwrap();
    }
    hb.write("publisher.pub", &publisher_key());
    super::hostile::copy_folder(&repository.join("policies"), &hb.path("policies"));
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

/// Types one command in a shell; a `cd` in it lasts, by a note that the shell knows as `inside`. An exit code is told as
/// well.
fn typed(command: &str, mut shell: Command, place: &mut PathBuf, note: &Path, inside: &Path) -> String {
    let line = format!("cd \"$1\" || exit\n{{ {command}\n}} 2>&1\ncode=$?\npwd >\"$2\"\nexit $code");
    let output = Output::of(shell.args(["-c", &line, "typed"]).arg(&*place).arg(inside));
    *place = PathBuf::from(fs::read_to_string(note).unwrap().trim_end());
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
