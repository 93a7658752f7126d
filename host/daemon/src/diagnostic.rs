//! A diagnostic tells an operator what is wrong, where, and the way out.
//!
//! Mistakes in files a person wrote (config, policies, manifests, schemas) are collected as [`Diagnostics`]: all of
//! them, not the first. Text that came from outside is neutralised before it is shown, see [`neutralise`].

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

mod render;
mod text;

pub use text::{chain, clip, nearest, neutralise, neutralise_lines};

/// Exit codes of `hb`, after sysexits(3).
pub mod exit {
    /// Everything went well.
    pub const OK: u8 = 0;
    /// The gate says FAIL, or a verification did not hold.
    pub const GATE_FAIL: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// The input data is wrong.
    pub const DATA: u8 = 65;
    /// A bug in hb.
    pub const BUG: u8 = 70;
    /// A file or device could not be read or written, or another process worked on the state for too long.
    pub const IO: u8 = 74;
    /// Not permitted.
    pub const NOPERM: u8 = 77;
    /// The configuration, a policy or a plugin is wrong, or a daemon runs on the state already.
    pub const CONFIG: u8 = 78;
}

/// Most diagnostics kept of one run; beyond that only their number is of use.
pub const MAX_KEPT: usize = 100;

/// Whether something stops the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It works, but is unwise.
    Warning,
    /// It cannot be used.
    Error,
}

/// Which part of hb speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The config file.
    Config,
    /// A Luau rule or action policy.
    Policy,
    /// A plugin, its manifest or its signature.
    Plugin,
    /// A telemetry schema.
    Schema,
    /// A transport.
    Transport,
    /// Input data.
    Data,
    /// A file or directory.
    Io,
    /// The state directory.
    State,
    /// An evidence pack.
    Evidence,
    /// The command line.
    Usage,
}

impl Area {
    /// The text form, as it stands in brackets.
    pub fn as_str(self) -> &'static str {
        match self {
            Area::Config => "config",
            Area::Policy => "policy",
            Area::Plugin => "plugin",
            Area::Schema => "schema",
            Area::Transport => "transport",
            Area::Data => "data",
            Area::Io => "io",
            Area::State => "state",
            Area::Evidence => "evidence",
            Area::Usage => "usage",
        }
    }
}

/// Where in a file something stands. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as the operator named it.
    pub file: PathBuf,
    /// Line; 0 means the file as a whole.
    pub line: u32,
    /// Column; 0 means the line as a whole.
    pub col: u32,
    /// How many characters are meant; at least one caret is drawn.
    pub len: u32,
    /// The function or section, as `function 'rule'`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The text of the line; absent where it must not be shown (a secret) or is not at hand.
    #[serde(skip)]
    pub source_line: Option<String>,
}

impl Place {
    /// The file as a whole.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Place { file: file.into(), line: 0, col: 0, len: 0, within: None, source_line: None }
    }

    /// A span of one line; the line's text is looked up in `source`, the whole text of the file.
    pub fn span(file: impl Into<PathBuf>, source: &str, line: u32, col: u32, len: u32) -> Self {
        let source_line = source.lines().nth(line.saturating_sub(1) as usize).filter(|_| line > 0).map(str::to_owned);
        Place { file: file.into(), line, col, len, within: None, source_line }
    }

    /// A line of a file, without its text.
    pub fn line(file: impl Into<PathBuf>, line: u32) -> Self {
        Place { line, ..Place::file(file) }
    }

    /// The same place without the text of the line, for lines that may hold a secret.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.source_line = None;
        self
    }

    /// The same place inside a named function or section.
    #[must_use]
    pub fn within(mut self, what: impl Into<String>) -> Self {
        self.within = Some(what.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&neutralise(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.col > 0 {
                write!(f, ":{}", self.col)?;
            }
        }
        match &self.within {
            Some(within) => write!(f, " (in {})", neutralise(within)),
            None => Ok(()),
        }
    }
}

/// One thing an operator or author must know: what, where, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Diagnostic {
    /// Whether it stops the work.
    pub level: Level,
    /// Which part speaks.
    pub area: Area,
    /// What is wrong, in one line without a final stop.
    pub message: String,
    /// Where. Boxed, so that a `Result` with a diagnostic stays small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// Facts that help to understand it, as `input: metric=bus_voltage`: label and text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, String)>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// Something that cannot be used.
    pub fn error(area: Area, message: impl Into<String>) -> Self {
        Diagnostic { level: Level::Error, area, message: message.into(), place: None, notes: Vec::new(), help: None }
    }

    /// Something that works but is unwise.
    pub fn warning(area: Area, message: impl Into<String>) -> Self {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(area, message) }
    }

    /// Says where it stands.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// Says how to mend it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a fact.
    pub fn note(mut self, label: impl Into<String>, text: impl Into<String>) -> Self {
        self.notes.push((label.into(), text.into()));
        self
    }

    /// Adds `did you mean` when one of `known` resembles `word`, else lists them all.
    pub fn suggest<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(word, known.iter().copied()) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None if known.is_empty() => self,
            None => self.help(format!("known here: {}", known.join(", "))),
        }
    }

    /// The text for a terminal or a log, with a final line feed; colour only when told.
    pub fn render(&self, colour: bool) -> String {
        render::diagnostic(self, colour)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// All that was found, in the order it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// At most [`MAX_KEPT`].
    kept: Vec<Diagnostic>,
    /// Errors, kept or not.
    errors: usize,
    /// Warnings, kept or not.
    warnings: usize,
}

impl Diagnostics {
    /// Nothing found yet.
    pub fn new() -> Self {
        Diagnostics::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match diagnostic.level {
            Level::Error => self.errors += 1,
            Level::Warning => self.warnings += 1,
        }
        if self.kept.len() < MAX_KEPT {
            self.kept.push(diagnostic);
        }
    }

    /// Adds all of another collection.
    pub fn append(&mut self, other: Diagnostics) {
        let room = MAX_KEPT.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
        self.errors += other.errors;
        self.warnings += other.warnings;
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    /// Whether anything stops the work.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Those that are kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.kept.iter()
    }

    /// All of them as text, in the order of file and line.
    pub fn render(&self, colour: bool) -> String {
        let mut sorted: Vec<&Diagnostic> = self.kept.iter().collect();
        sorted.sort_by_key(|d| d.place.as_ref().map(|p| (p.file.clone(), p.line, p.col)));
        let mut out: String = sorted.iter().map(|d| d.render(colour)).collect();
        let hidden = self.errors + self.warnings - self.kept.len();
        if hidden > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "... and {hidden} more");
        }
        out
    }

    /// The last line: `hb: 2 errors in config/daemon.yaml; nothing was started (exit 78)`.
    pub fn summary(&self, file: &Path, consequence: &str, exit: u8) -> String {
        let (count, what) = if self.errors > 0 { (self.errors, "error") } else { (self.warnings, "warning") };
        let plural = if count == 1 { "" } else { "s" };
        let file = file.to_string_lossy();
        format!("hb: {count} {what}{plural} in {}; {consequence} (exit {exit})", neutralise(&file))
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        let mut all = Diagnostics::new();
        all.push(diagnostic);
        all
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_kept_and_all_are_counted() {
        let mut all = Diagnostics::new();
        for i in 0..150 {
            all.push(Diagnostic::error(Area::Config, format!("e{i}")));
        }
        all.push(Diagnostic::warning(Area::Config, "w"));
        assert_eq!((all.iter().count(), all.errors(), all.warnings()), (MAX_KEPT, 150, 1));
        assert!(all.render(false).ends_with("error[config]: e99\n... and 51 more\n"));
    }

    #[test]
    fn the_summary_counts_errors_before_warnings() {
        let mut all = Diagnostics::from(Diagnostic::warning(Area::Config, "w"));
        let file = Path::new("config/daemon.yaml");
        assert_eq!(all.summary(file, "started", exit::OK), "hb: 1 warning in config/daemon.yaml; started (exit 0)");
        all.push(Diagnostic::error(Area::Config, "a"));
        all.push(Diagnostic::error(Area::Config, "b"));
        assert_eq!(
            all.summary(file, "nothing was started", exit::CONFIG),
            "hb: 2 errors in config/daemon.yaml; nothing was started (exit 78)"
        );
    }

    #[test]
    fn a_suggestion_is_the_nearest_word_or_all_of_them() {
        let d = |word| Diagnostic::error(Area::Config, "x").suggest(word, ["interval_sec", "window_sec"]).help;
        assert_eq!(d("intervall_sec").as_deref(), Some("did you mean `interval_sec`?"));
        assert_eq!(d("colour").as_deref(), Some("known here: interval_sec, window_sec"));
    }
}
