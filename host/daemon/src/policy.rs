//! Policies judge: Luau files, each in its own closed VM, that answer the engine's questions.
//!
//! ```text
//! files --load--> PolicySet --resolve--> RuleUse (into the engine's spec)
//!                     ^ Ask, Decision    | Verdict, Severity
//!                     +----- engine -----+
//! ```
//!
//! A file returns one table with a closed schema: a *rule* judges one series of one window, a *severity* policy says
//! who should be woken by a decision. [`PolicySet::load`] runs every check a candidate must pass (size, syntax, types,
//! schema, a purity probe, the tests beside it); [`PolicySet::open`] only opens what was checked before. A VM belongs
//! to the thread that opened it, so the engine's thread opens its own set from the same files.
//!
//! A policy may have a function `check` that says which parameters make no sense together. [`PolicySet::resolve`] asks
//! it, so that such parameters keep a config from starting; a recorded generation is opened without asking again.
//!
//! A rule that fails on a row costs that row alone: it becomes the verdict ERROR with `file:line: message`, and the
//! row's state stays as it was.

mod check;
mod lex;
mod sandbox;
mod schema;
mod suite;
#[cfg(test)]
mod tests;
mod types;
mod vm;

use std::collections::BTreeMap;

use hb_engine::decision::{Decision, Severity, Status};
use hb_engine::judge::{Ask, Judge, Param, RuleUse, Verdict};
use hb_log::hash::Hash;

pub use check::{check, files, test};
pub use schema::{ParamDecl, PolicyKind};
pub use suite::{CaseFailure, TestReport};

use crate::diagnostic::nearest;
use vm::{ParamsCheck, PolicyVm};

/// Ending of a policy's file name.
pub const EXTENSION: &str = ".luau";

/// Ending of the file beside a policy that holds its tests.
pub const TEST_EXTENSION: &str = ".test.luau";

/// Ending of files for editors and the type checker, which hold no policy.
pub const DEFINITION_EXTENSION: &str = ".d.luau";

/// A mistake in a policy or its use, with the place the author wrote it at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{col}: {message}")]
pub struct PolicyProblem {
    /// Path as given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub col: u32,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

/// What a loaded policy declares.
#[derive(Clone, Debug)]
pub struct RuleMeta {
    /// Id, as `drift.robust_z`.
    pub id: String,
    /// Version.
    pub version: String,
    /// What it is for.
    pub kind: PolicyKind,
    /// One sentence for a list.
    pub about: String,
    /// Path as given.
    pub file: String,
    /// SHA-256 of the source.
    pub source: Hash,
    /// Metric patterns.
    pub applies_to: Vec<String>,
    /// Parameters by name.
    pub params: BTreeMap<String, ParamDecl>,
    /// State columns: name and first value, in order.
    pub state: Vec<(String, f64)>,
}

/// The policies of one generation.
#[derive(Default)]
pub struct PolicySet {
    /// By id.
    policies: BTreeMap<String, PolicyVm>,
    severity: Option<RuleUse>,
    faults: Vec<String>,
}

/// Most causes kept for [`PolicySet::take_faults`]; the verdicts themselves carry every cause.
const MAX_FAULTS: usize = 100;

impl PolicySet {
    /// Opens and checks every policy of `files` (path, source) and runs the tests among them.
    ///
    /// # Errors
    /// All problems of all files, never only the first.
    pub fn load(files: &[(String, String)]) -> Result<PolicySet, Vec<PolicyProblem>> {
        let problems = check::check_files(files);
        if problems.is_empty() { PolicySet::open(files) } else { Err(problems) }
    }

    /// Opens policies that were checked before, as on the engine's thread or from an evidence pack.
    ///
    /// # Errors
    /// What keeps a file from opening: size, syntax, schema, an id used twice.
    pub fn open(files: &[(String, String)]) -> Result<PolicySet, Vec<PolicyProblem>> {
        let mut set = PolicySet::default();
        let mut problems = Vec::new();
        for (file, source) in files.iter().filter(|(file, _)| is_policy(file)) {
            match PolicyVm::load(file, source) {
                Ok(vm) => match set.policies.get(&vm.declared.id) {
                    Some(first) => problems.push(PolicyProblem {
                        file: file.clone(),
                        line: 1,
                        col: 1,
                        message: format!("id `{}` is already used by {}", vm.declared.id, first.file),
                        help: Some("give one of them another id".into()),
                    }),
                    None => {
                        set.policies.insert(vm.declared.id.clone(), vm);
                    }
                },
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    /// What the policy `id` declares.
    pub fn rule(&self, id: &str) -> Option<RuleMeta> {
        self.policies.get(id).map(meta)
    }

    /// The text of the policy `id`, as it was opened.
    pub fn text(&self, id: &str) -> Option<&str> {
        self.policies.get(id).map(|vm| vm.text.as_str())
    }

    /// All policies by id.
    pub fn rules(&self) -> impl Iterator<Item = RuleMeta> {
        self.policies.values().map(meta)
    }

    /// The policy `id` with a config's overrides, checked for name and type and then, all parameters together, by the
    /// policy's own `check`.
    ///
    /// # Errors
    /// Every override that does not fit, what `check` refuses, that it fails, or that the policy does not exist; the
    /// place is the policy's file.
    pub fn resolve(&self, id: &str, overrides: &BTreeMap<String, Param>) -> Result<RuleUse, Vec<PolicyProblem>> {
        let problem = |file: &str, message: String, help: String| PolicyProblem {
            file: file.to_owned(),
            line: 1,
            col: 1,
            message,
            help: Some(help),
        };
        let Some(vm) = self.policies.get(id) else {
            let known = self.policies.keys().map(String::as_str);
            let help = match nearest(id, known.clone()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("loaded policies: {}", known.collect::<Vec<_>>().join(", ")),
            };
            return Err(vec![problem("", format!("there is no policy `{id}`"), help)]);
        };
        let mut using = vm.rule_use();
        let mut problems = Vec::new();
        for (name, value) in overrides {
            let Some(decl) = vm.declared.params.get(name) else {
                let known = vm.declared.params.keys().map(String::as_str);
                let help = match nearest(name, known.clone()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("parameters: {}", known.collect::<Vec<_>>().join(", ")),
                };
                problems.push(problem(&vm.file, format!("policy `{id}` has no parameter `{name}`"), help));
                continue;
            };
            match misfit(decl, value) {
                Some(help) => {
                    problems.push(problem(&vm.file, format!("parameter `{name}` of `{id}` does not fit"), help));
                }
                None => {
                    using.params.insert(name.clone(), value.clone());
                }
            }
        }
        if problems.is_empty()
            && let Some((message, help)) = refusal(vm, &using)
        {
            problems.push(problem(&vm.file, message, help));
        }
        if problems.is_empty() { Ok(using) } else { Err(problems) }
    }

    /// Sets the policy that names severities, resolved before; without one no decision alerts anybody.
    pub fn use_severity(&mut self, using: Option<RuleUse>) {
        self.severity = using;
    }

    /// Causes of severity policies' failures since the last call, to be counted and shown.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }
}

impl Judge for PolicySet {
    fn judge(&mut self, ask: &Ask<'_>) -> Vec<Verdict> {
        match self.policies.get(&ask.rule.rule).filter(|vm| vm.source == ask.rule.source) {
            Some(vm) => vm.judge(ask),
            None => ask
                .rows
                .iter()
                .map(|row| Verdict {
                    status: Status::Error,
                    value: f64::NAN,
                    limit: f64::NAN,
                    reason: format!("rule `{}` {} is not loaded", ask.rule.rule, ask.rule.version),
                    state: row.state.to_vec(),
                })
                .collect(),
        }
    }

    fn severity(&mut self, decision: &Decision) -> Option<Severity> {
        let using = self.severity.as_ref()?;
        let answer = match self.policies.get(&using.rule).filter(|vm| vm.source == using.source) {
            Some(vm) => vm.severity(using, decision),
            None => Err(format!("severity policy `{}` {} is not loaded", using.rule, using.version)),
        };
        answer.unwrap_or_else(|cause| {
            if self.faults.len() < MAX_FAULTS {
                self.faults.push(cause);
            }
            // A broken policy must not silence an alert.
            (decision.status != Status::Pass).then_some(if decision.status == Status::Fail {
                Severity::Fail
            } else {
                Severity::Warn
            })
        })
    }
}

/// Whether a path names a policy, not its test or a definition file.
pub fn is_policy(path: &str) -> bool {
    path.ends_with(EXTENSION) && !path.ends_with(TEST_EXTENSION) && !path.ends_with(DEFINITION_EXTENSION)
}

/// Why `value` cannot stand for the parameter, as help.
fn misfit(decl: &ParamDecl, value: &Param) -> Option<String> {
    match (&decl.default, value) {
        (Param::Number(_), Param::Number(number)) if number.is_finite() => None,
        (Param::Number(default), _) => Some(format!("expected a finite number, as {default}")),
        (Param::Bool(_), Param::Bool(_)) => None,
        (Param::Bool(default), _) => Some(format!("expected true or false, as {default}")),
        (Param::Text(_), Param::Text(text)) if decl.choices.is_empty() || decl.choices.contains(text) => None,
        (Param::Text(default), _) if decl.choices.is_empty() => Some(format!("expected a text, as `{default}`")),
        (Param::Text(_), _) => Some(format!("expected one of {}", decl.choices.join(", "))),
    }
}

/// Why the policy does not take the parameters of `using`, and the way out.
fn refusal(vm: &PolicyVm, using: &RuleUse) -> Option<(String, String)> {
    let id = &using.rule;
    match vm.check(using) {
        ParamsCheck::Fit => None,
        ParamsCheck::Refused(sentence) => Some((
            format!("`{id}` refuses its parameters: {sentence}"),
            format!("overrides and defaults count together; both are explained in {}", vm.file),
        )),
        ParamsCheck::Broken(cause) => Some((
            format!("the `check` of `{id}` fails on these parameters: {cause}"),
            format!("mend `check` in {}: it returns nil, or a sentence that says what does not fit", vm.file),
        )),
    }
}

fn meta(vm: &PolicyVm) -> RuleMeta {
    let declared = &vm.declared;
    RuleMeta {
        id: declared.id.clone(),
        version: declared.version.clone(),
        kind: declared.kind,
        about: declared.about.clone(),
        file: vm.file.clone(),
        source: vm.source,
        applies_to: declared.applies_to.clone(),
        params: declared.params.clone(),
        state: declared.state.clone(),
    }
}
