//! What the command line says of itself: the reference, man pages, completions.

use std::fs;
use std::process::Command;

use crate::support::hb::{Hb, Output, repository};

#[test]
fn the_page_of_the_command_line_is_what_the_program_says() {
    let hb = Hb::new();
    let said = hb.done(&["man", "--markdown"]).stdout;
    let page = fs::read_to_string(repository().join("docs/reference/cli.md")).unwrap();
    let line = said
        .lines()
        .zip(page.lines())
        .position(|(a, b)| a != b)
        .unwrap_or(page.lines().count().min(said.lines().count()));
    assert!(said == page, "docs/reference/cli.md:{}: run `hb man --markdown >docs/reference/cli.md`", line + 1);
    // Whatever the environment is.
    let mut command = hb.command(&["man", "--markdown"]);
    assert!(Output::of(command.env("HB_CONFIG", "elsewhere.yaml").env("COLUMNS", "40")).stdout == page);
}

#[test]
fn completions_and_man_pages_are_taken_by_their_readers() {
    let hb = Hb::new();
    for (shell, word) in [("bash", "complete -F _hb"), ("zsh", "#compdef hb"), ("fish", "complete -c hb")] {
        let script = hb.done(&["completions", shell]).stdout;
        assert!(script.contains(word) && script.contains("quarantine"), "{shell}: {script}");
        hb.write(&format!("completions.{shell}"), &script);
    }
    let syntax = Output::of(Command::new("bash").arg("-n").arg(hb.path("completions.bash")));
    assert_eq!((syntax.code, syntax.stderr.as_str()), (0, ""), "bash does not take it");
    assert_eq!(hb.run(&["completions", "tcsh"]).code, 64);

    hb.done(&["man", "--out", "share/man1"]);
    let page = fs::read_to_string(hb.path("share/man1/hb-daemon.1")).unwrap();
    assert!(page.contains(".TH hb-daemon 1") && page.contains("\\-\\-once"), "{page}");
    assert!(hb.path("share/man1/hb.1").is_file() && hb.path("share/man1/hb-baseline-promote.1").is_file());
    assert_eq!(hb.run(&["man"]).code, 64);
    hb.write("file", "");
    assert_eq!(hb.run(&["man", "--out", "file/below"]).code, 74);
}
