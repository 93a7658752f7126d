//! `hb policy`: checks and tests policies before anything uses them.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Done, Failure, Global};
use crate::diagnostic::{Diagnostics, exit};
use crate::generation::policy_diagnostic;
use crate::policy;

/// Verbs of `hb policy`.
#[derive(Subcommand)]
pub(crate) enum PolicyVerb {
    /// Size, syntax, types, schema, purity and the tests beside each policy.
    Check {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Runs the tests beside each policy.
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
            let mut found = Diagnostics::new();
            for problem in policy::check(paths) {
                found.push(policy_diagnostic(problem));
            }
            if found.has_errors() {
                return Err(Failure { code: exit::DATA, found });
            }
            global.print(&Checked { ok: true }, |_| "policies: ok\n".to_owned());
            Ok(exit::OK)
        }
        PolicyVerb::Test { paths } => {
            let report = policy::test(paths);
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
