//! Type checks policies with Luau's own analysis against `policies/hb.d.luau`.
//!
//! The analysis is one release older than the VM: where they differ on syntax, the VM's compiler is right, so a file
//! comes here only after it compiled.

use luau_analysis::diagnostics::TypeErrorData;
use luau_analysis::{
    DefinitionEnvironment, FileResolver, Frontend, FrontendOptions, ModuleName, NullConfigResolver, SourceCode,
    SourceCodeType,
};
use luau_common::BString;

use super::PolicyProblem;
use super::lex::{Pos, Tokens};
use super::schema::PolicyKind;

/// The policy API as types; also the file an editor loads.
pub(crate) const DEFINITIONS: &str = include_str!("../../../../policies/hb.d.luau");

/// What the returned table is passed through for the check, so that its function's arguments have types without
/// annotations.
const EXPECTED: &str = "\ndeclare function hb_rule(policy: Rule): Rule\n\
                        declare function hb_severity(policy: SeverityPolicy): SeverityPolicy\n";

/// Put before files that choose no mode: without it hardly anything is checked.
const STRICT: &str = "--!strict\n";

/// Longest time for one file, seconds: shipped policies take 1 to 10 ms; a type that explodes must not hold a reload.
const TIME_LIMIT_SEC: f64 = 2.0;

/// A policy as the checker sees it, and how to find back to the author's text.
struct Subject<'a> {
    file: &'a str,
    checked: String,
    /// Whether the author says what the function answers.
    annotated: bool,
    /// Lines put before the text.
    above: u32,
    /// Where something was put into a line, and its length.
    inserted: Option<(Pos, u32)>,
}

impl<'a> Subject<'a> {
    fn new(file: &'a str, source: &'a str, kind: PolicyKind) -> Self {
        let call = if kind == PolicyKind::Rule { "hb_rule(" } else { "hb_severity(" };
        let strict = if chooses_mode(source) { "" } else { STRICT };
        let (body, inserted) = match Tokens::of(source).returned() {
            Some((pos, open, close)) => {
                let (before, table, after) = (&source[..open], &source[open..=close], &source[close + 1..]);
                (format!("{before}{call}{table}){after}"), Some((pos, call.len() as u32)))
            }
            None => (source.to_owned(), None),
        };
        let annotated = source.contains(": Verdict") || source.contains(": Severity");
        Subject { file, annotated, checked: format!("{strict}{body}"), above: u32::from(!strict.is_empty()), inserted }
    }

    /// The author's place of a line and a byte column from 0 of the checked text.
    fn place(&self, line: u32, bytes: u32) -> Pos {
        let line = (line + 1).saturating_sub(self.above).max(1);
        let text = self.checked.lines().nth((line - 1 + self.above) as usize).unwrap_or("");
        let col = text.get(..bytes as usize).map_or(bytes, |before| before.chars().count() as u32) + 1;
        match self.inserted {
            Some((pos, length)) if pos.line == line && col > pos.col => {
                Pos { line, col: col.saturating_sub(length).max(pos.col) }
            }
            _ => Pos { line, col },
        }
    }
}

struct Sources<'a>(&'a [Subject<'a>]);

impl FileResolver for Sources<'_> {
    fn read_source(&mut self, name: &ModuleName) -> Option<SourceCode> {
        let subject = self.0.iter().find(|subject| name == subject.file)?;
        Some(SourceCode { source: BString::from(subject.checked.as_str()), kind: SourceCodeType::Module })
    }
}

/// Whether the author chose a mode in the first lines.
fn chooses_mode(source: &str) -> bool {
    source.lines().take_while(|line| line.is_empty() || line.starts_with("--")).any(|line| line.starts_with("--!"))
}

/// Type errors of all `files` (path, source, kind).
pub(crate) fn check(files: &[(&str, &str, PolicyKind)]) -> Vec<PolicyProblem> {
    let subjects: Vec<Subject<'_>> =
        files.iter().map(|(file, source, kind)| Subject::new(file, source, *kind)).collect();
    let options = FrontendOptions { module_time_limit_sec: Some(TIME_LIMIT_SEC), ..FrontendOptions::default() };
    let mut frontend = Frontend::new(Sources(&subjects), NullConfigResolver::default(), options);
    if let Err(message) = define(&mut frontend) {
        return vec![PolicyProblem { file: "hb.d.luau".into(), line: 1, col: 1, message, help: None }];
    }
    let mut problems = Vec::new();
    for subject in &subjects {
        let name = BString::from(subject.file);
        let at = |pos: Pos, message: String| PolicyProblem {
            file: subject.file.to_owned(),
            line: pos.line,
            col: pos.col,
            message,
            help: None,
        };
        match frontend.check(&name, None) {
            Ok(result) => {
                let Some(model) = frontend.semantic_model(&name) else { continue };
                for error in &result.errors {
                    let begin = error.location.begin;
                    let text = model.error_message(error).to_string();
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    if !counts(&error.data, &text, subject) {
                        continue;
                    }
                    problems.push(at(subject.place(begin.line, begin.column), format!("type: {text}")));
                }
                if !result.timeout_hits.is_empty() {
                    problems.push(at(Pos::START, format!("the type check took longer than {TIME_LIMIT_SEC} s")));
                }
            }
            Err(e) => problems.push(at(Pos::START, format!("the type checker failed: {e}"))),
        }
    }
    problems
}

/// Whether an error stands in the way of a policy. In a file that chose its mode nearly all do; in another, whose
/// helpers may have no annotations, only those about the policy API: the analysis calls arithmetic on unknown types
/// an error.
fn counts(error: &TypeErrorData, text: &str, subject: &Subject<'_>) -> bool {
    let (chosen, annotated) = (subject.above == 0, subject.annotated);
    match error {
        // Hints, and an end without `return`, which is PASS.
        TypeErrorData::ExplicitFunctionAnnotationRecommended(_)
        | TypeErrorData::WhereClauseNeeded(_)
        | TypeErrorData::FunctionExitsWithoutReturning(_) => false,
        TypeErrorData::UnknownSymbol(_)
        | TypeErrorData::UnknownProperty(_)
        | TypeErrorData::UnknownPropButFoundLikeProp(_)
        | TypeErrorData::OptionalValueAccess(_)
        | TypeErrorData::PropertyAccessViolation(_) => true,
        TypeErrorData::TypeMismatch(_) | TypeErrorData::TypePackMismatch(_) if !text.contains("'()'") => {
            // A verdict made by a helper has a type of its own, which lacks what it leaves out.
            let own = text.contains("got '{ ") && !annotated;
            chosen
                || (!own && ["Verdict", "Severity", "\"PASS\"", "\"CRITICAL\""].iter().any(|name| text.contains(name)))
        }
        _ => chosen,
    }
}

/// Loads Luau's own definitions and the policy API.
fn define(frontend: &mut Frontend<Sources<'_>, NullConfigResolver>) -> Result<(), String> {
    frontend
        .register_builtin_globals(DefinitionEnvironment::Globals)
        .map_err(|e| format!("the type checker did not start: {e}"))?;
    let scope = frontend.global_scope(DefinitionEnvironment::Globals);
    let definitions = format!("{DEFINITIONS}{EXPECTED}");
    match frontend.load_definition_file(scope, definitions, "@hb", false) {
        Ok(loaded) if loaded.success => Ok(()),
        Ok(loaded) => Err(format!("the definitions have errors: {:?}", loaded.source_module.parse_errors)),
        Err(e) => Err(format!("the type checker failed on its definitions: {e}")),
    }
}
