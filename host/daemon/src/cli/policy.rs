//! `hb policy`: checks and tests policies before anything uses them.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Done, Failure, Global};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, exit};
use crate::generation::policy_diagnostic;
use crate::policy::{self, EXTENSION, PolicyProblem, TEST_EXTENSION, is_policy};

/// Verbs of `hb policy`.
#[derive(Subcommand)]
pub(crate) enum PolicyVerb {
    /// Size, syntax, types, schema, purity and the tests beside each policy.
    #[command(after_help = "Example: hb policy check policies/drift/robust_z.luau")]
    Check {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Runs the tests beside each policy.
    #[command(after_help = "Example: hb policy test policies")]
    Test {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// Runs a policy verb.
pub(crate) fn run(global: &Global, verb: &PolicyVerb) -> Done {
    match verb {
        PolicyVerb::Check { paths } => {
            refuse_empty(paths)?;
            refuse(policy::check(paths))?;
            global.print(&Checked { ok: true }, |_| "policies: ok\n".to_owned());
            Ok(exit::OK)
        }
        PolicyVerb::Test { paths } => {
            refuse_empty(paths)?;
            let report = policy::test(paths);
            // What could not be run did not pass.
            refuse(report.problems)?;
            let shown = Tested {
                passed: report.passed,
                failed: report.failures.len(),
                failures: report.failures.iter().map(|f| format!("{}: {}", f.case, f.problem)).collect(),
                untested: report.untested,
            };
            global.print(&shown, |t| {
                let mut text: String = t.failures.iter().map(|f| format!("FAILED {f}\n")).collect();
                t.untested.iter().for_each(|p| text.push_str(&format!("no tests beside {p}\n")));
                text.push_str(&format!("{} passed, {} failed\n", t.passed, t.failed));
                text
            });
            Ok(if shown.failed == 0 { exit::OK } else { exit::DATA })
        }
    }
}

/// A path that leads to no policy is a slip of the finger; all of them, not the first.
fn refuse_empty(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut found = Diagnostics::new();
    for path in paths {
        let shown = path.display();
        let message = match policy::files(&[path]) {
            _ if !path.exists() => format!("there is no {shown}"),
            Ok(files) if !files.iter().any(|(name, _)| is_policy(name) || name.ends_with(TEST_EXTENSION)) => {
                format!("there is no policy in {shown}, and no test")
            }
            // What cannot be read is told with all else.
            Ok(_) | Err(_) => continue,
        };
        let help = format!("name a file or a directory of files that end in `{EXTENSION}`");
        found.push(Diagnostic::error(Area::Usage, message).help(help));
    }
    if found.has_errors() { Err(Failure { code: exit::USAGE, ..found.into() }) } else { Ok(()) }
}

fn refuse(problems: Vec<PolicyProblem>) -> Result<(), Failure> {
    let mut found = Diagnostics::new();
    for problem in problems {
        found.push(policy_diagnostic(problem));
    }
    if found.has_errors() { Err(Failure { code: exit::DATA, ..found.into() }) } else { Ok(()) }
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
}

#[derive(Serialize)]
struct Tested {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    untested: Vec<String>,
}
