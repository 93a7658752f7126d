use std::process::Command;

use super::*;

/// Set for the child of the test, which is the test itself.
const CHILD: &str = "HB_TEST_PANIC";

#[test]
fn a_panic_ends_the_process_with_a_code_and_words_of_its_own() {
    if std::env::var_os(CHILD).is_some() {
        std::process::exit(guarded(|| panic!("three is\nnot four")).into());
    }
    let name = "cli::tests::a_panic_ends_the_process_with_a_code_and_words_of_its_own";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
    let output = child.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit::BUG.into()), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "error[bug]: this is a bug in hb: three is; not four");
    assert!(lines[1].contains(&format!("{}:", file!())) && lines[1].contains("thread "), "{said}");
    assert!(lines[2].contains(env!("CARGO_PKG_VERSION")), "{said}");
}
