//! Type checks policies with Luau's own analysis against `policies/hb.d.luau`.
//!
//! The analysis is one release older than the VM: where they differ on syntax, the VM's compiler is right, so a file
//! comes here only after it compiled.

use luau_analysis::{
    DefinitionEnvironment, FileResolver, Frontend, FrontendOptions, ModuleName, NullConfigResolver, SourceCode,
    SourceCodeType,
};
use luau_common::BString;

use super::PolicyProblem;

/// The policy API as types; also the file an editor loads.
pub(crate) const DEFINITIONS: &str = include_str!("../../../../policies/hb.d.luau");

/// Longest time for one file, seconds: shipped policies take 1 to 10 ms; a type that explodes must not hold a reload.
const TIME_LIMIT_SEC: f64 = 2.0;

/// Put before files that choose no mode: without it hardly anything is checked.
const STRICT: &str = "--!strict\n";

/// Path and source of each file.
struct Sources<'a>(&'a [(&'a str, &'a str)]);

/// Whether the author chose a mode in the first lines.
fn chooses_mode(source: &str) -> bool {
    source.lines().take_while(|line| line.is_empty() || line.starts_with("--")).any(|line| line.starts_with("--!"))
}

impl FileResolver for Sources<'_> {
    fn read_source(&mut self, name: &ModuleName) -> Option<SourceCode> {
        let (_, source) = self.0.iter().find(|(file, _)| name == file)?;
        let mode = if chooses_mode(source) { "" } else { STRICT };
        Some(SourceCode { source: BString::from(format!("{mode}{source}")), kind: SourceCodeType::Module })
    }
}

/// Type errors of all `files` (path, source).
pub(crate) fn check(files: &[(&str, &str)]) -> Vec<PolicyProblem> {
    let options = FrontendOptions { module_time_limit_sec: Some(TIME_LIMIT_SEC), ..FrontendOptions::default() };
    let mut frontend = Frontend::new(Sources(files), NullConfigResolver::default(), options);
    let mut problems = Vec::new();
    let mut broken = |what: String| {
        problems.push(PolicyProblem { file: "hb.d.luau".into(), line: 1, col: 1, message: what, help: None });
    };
    if let Err(e) = frontend.register_builtin_globals(DefinitionEnvironment::Globals) {
        broken(format!("the type checker did not start: {e}"));
        return problems;
    }
    let scope = frontend.global_scope(DefinitionEnvironment::Globals);
    match frontend.load_definition_file(scope, DEFINITIONS, "@hb", false) {
        Ok(loaded) if loaded.success => {}
        Ok(loaded) => {
            broken(format!("the definition file has errors: {:?}", loaded.source_module.parse_errors));
            return problems;
        }
        Err(e) => {
            broken(format!("the type checker failed on its definitions: {e}"));
            return problems;
        }
    }
    for (file, source) in files {
        let name = BString::from(*file);
        let above = u32::from(!chooses_mode(source));
        let at = |line: u32, col: u32, message: String| PolicyProblem {
            file: (*file).to_owned(),
            line: (line + 1).saturating_sub(above).max(1),
            col: col + 1,
            message,
            help: None,
        };
        match frontend.check(&name, None) {
            Ok(result) => {
                let Some(model) = frontend.semantic_model(&name) else { continue };
                for error in &result.errors {
                    let begin = error.location.begin;
                    let text = model.error_message(error).to_string();
                    problems.push(at(begin.line, begin.column, text.lines().collect::<Vec<_>>().join(" ")));
                }
                if !result.timeout_hits.is_empty() {
                    problems.push(at(0, 0, format!("the type check took longer than {TIME_LIMIT_SEC} s")));
                }
            }
            Err(e) => problems.push(at(0, 0, format!("the type checker failed: {e}"))),
        }
    }
    problems
}
