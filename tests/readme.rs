//! What stands in a box of a page is typed as it stands there, and the page shows what is really said: the tour in
//! README.md where a reader plays it, a guide for operators on a machine of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::deploy;

use crate::support::hb::{Hb, Output, note as noted, repository, surround, target};
use crate::support::machine::{GIVEN, Machine};

/// Shortest run of hex digits that is taken for a hash or a key: they are others on every machine.
const HASH_DIGITS: usize = 12;

#[test]
fn the_tour_shows_what_hb_says() {
    let hb = Hb::new();
    typed_in("README.md", &source_tree(&hb), 25, |command| real(command, &hb.path("tour")));
}

#[test]
fn the_guide_for_policies_is_typed() {
    typed_in("docs/guide/policy.md", Hb::new().dir(), 14, str::to_owned);
}

#[test]
fn the_guide_for_connectors_is_typed() {
    // Always the same folder, in which cargo finds what it has built before.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connector-guide");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    typed_in("docs/guide/connector.md", &place, 20, str::to_owned);
}

/// Plays a page, or its section behind a `#`, in a folder of this machine, with `hb` on the path and the source tree at
/// `$HB`.
pub(crate) fn typed_in(page: &str, folder: &Path, commands: usize, real: impl Fn(&str) -> String) {
    let mut place = folder.canonicalize().unwrap();
    let hb_dir = Path::new(env!("CARGO_BIN_EXE_hb")).parent().unwrap();
    let path = format!("{}:{}", hb_dir.display(), std::env::var("PATH").unwrap_or_default());
    let root = repository().canonicalize().unwrap();
    let target = root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let note = tempfile::NamedTempFile::new().unwrap();
    let begun = Instant::now();
    let shown = play(page, |command| {
        let mut shell = Command::new("sh");
        shell.env("PATH", &path).env("NO_COLOR", "1").stdin(Stdio::null());
        shell.env("HB", &root).env("CARGO_TARGET_DIR", &target).env("CARGO_NET_OFFLINE", "true");
        surround(&mut shell);
        typed(&real(command), shell, &mut place, note.path(), note.path())
    });
    assert!(shown >= commands, "{page}: only {shown} commands");
    // How long it takes a machine; a guide promises a reader a quarter of an hour.
    noted(&format!("{page}: {shown} commands typed in {} s", begun.elapsed().as_secs()));
}

#[test]
fn the_guide_for_operators_is_typed_on_a_machine() {
    typed_on_a_machine("docs/guide/operate.md", 40);
}

#[test]
fn the_secure_installation_is_typed_on_a_machine() {
    typed_on_a_machine("SECURE_INSTALL.md", 8);
}

fn typed_on_a_machine(page: &str, commands: usize) {
    let Some(machine) = deploy::machine(page) else { return };
    typed_on(&machine, page, commands);
}

/// Plays a page, or its section behind a `#`, as root in the source tree of a new machine.
pub(crate) fn typed_on(machine: &Machine, page: &str, commands: usize) {
    deploy::lay_out(&machine.given().join("tree"));
    let mut place = PathBuf::from(GIVEN).join("tree");
    let (note, inside) = (machine.given().join("place"), PathBuf::from(GIVEN).join("place"));
    let shown = play(page, |command| typed(command, machine.command("sh"), &mut place, &note, &inside));
    assert!(shown >= commands, "{page}: only {shown} commands");
}

/// Types the commands of a page one after the other, and finds what it says wrongly of their answers. Returns how many
/// there are.
fn play(page: &str, mut answer: impl FnMut(&str) -> String) -> usize {
    let text = section(page);
    let (mut shown, mut wrong) = (0, String::new());
    for block in text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        for step in format!("\n{block}").split("\n$ ").skip(1) {
            let step = format!("{step}\n");
            let (command, expected) = step.split_at(end_of_command(&step));
            let (command, expected) = (command.trim_end(), expected.trim_matches('\n'));
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

/// A page, or what stands below one heading of it: `PAGE#Heading`.
fn section(page: &str) -> String {
    let (path, heading) = page.split_once('#').unwrap_or((page, ""));
    let text = fs::read_to_string(repository().join(path)).unwrap();
    let mut parts = text.split("\n## ").filter(|part| part.starts_with(heading));
    match heading {
        "" => text,
        _ => parts.next().unwrap_or_else(|| panic!("{path} has no heading `{heading}`")).to_owned(),
    }
}

/// Where a command ends: with its line, or with the file that it writes, which a line `END` ends.
fn end_of_command(step: &str) -> usize {
    let line = step.find('\n').unwrap_or(step.len());
    if !step[..line].contains("<<") {
        return line;
    }
    let end = "\nEND\n";
    step.find(end).map_or(line, |at| at + end.len())
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

/// The source tree as a reader has it who has built hb: what is built lies in `target`.
fn source_tree(hb: &Hb) -> PathBuf {
    let tree = hb.path("harmony-bridge");
    fs::create_dir(&tree).unwrap();
    for entry in fs::read_dir(repository()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" {
            symlink(entry.path(), tree.join(entry.file_name())).unwrap();
        }
    }
    symlink(target(), tree.join("target")).unwrap();
    tree
}

/// A command with the name that the case has in this tour.
fn real(command: &str, tour: &Path) -> String {
    let Some((_, name)) = command.split_once("case-") else { return command.to_owned() };
    let name: String = name.chars().take_while(char::is_ascii_hexdigit).collect();
    let pack = fs::read_dir(tour.join("evidence_packs")).unwrap().map(|e| e.unwrap().file_name()).min().unwrap();
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
pub(crate) fn fits(expected: &str, said: &str) -> bool {
    // What a server answers may end without a line feed.
    let (expected, said) =
        (without_hashes(expected.trim_end_matches('\n')), without_hashes(said.trim_end_matches('\n')));
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
