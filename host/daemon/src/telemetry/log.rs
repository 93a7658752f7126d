//! Lines of talk on stderr: text for a person and for the journal, or one JSON object in each line for a collector.
//!
//! Text is what a terminal, the journal and `docker logs` show as it is, so it is the default wherever stderr goes; in
//! the journal a line carries its level in front, as sd-daemon(3) says, and the time is left to the journal. JSON is for
//! whoever asks: then everything on stderr is JSON, diagnostics too. Whatever a line quotes is neutralised.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;
use crate::diagnostic::{clip, neutralise_lines};

/// The target of what a verb says to its user; no filter holds it back.
const TALK: &str = "hb::talk";

/// Longest text of a message or field, in characters: a line stays readable whatever it quotes.
const TEXT_CHARS_MAX: usize = 8_192;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// One JSON object in each line.
    pub json: bool,
    /// Colour in text.
    pub colour: bool,
    /// What is shown when `RUST_LOG` does not say.
    pub level: &'static str,
}

/// Lets lines out on stderr from now on.
pub fn start(options: LogOptions) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(options.level));
    let filter = match format!("{TALK}=trace").parse() {
        Ok(talk) => filter.add_directive(talk),
        Err(_) => filter,
    };
    let style = match options {
        LogOptions { json: true, .. } => Style::Json,
        _ if is_journal() => Style::Journal,
        _ => Style::Text,
    };
    let shown =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(options.colour);
    // A stderr that is closed or full is no reason to stop, or to talk of it there.
    shown.log_internal_errors(false).event_format(style).init();
}

/// Talk for a person, of one or more lines. Where nobody listens to lines yet it goes straight to stderr.
pub fn tell(text: &str) {
    if !tracing::dispatcher::has_been_set() {
        // As above: nothing stops for it.
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    }
    // A diagnostic says its level itself.
    let plain = without_colour(text);
    if plain.starts_with("error[") {
        tracing::error!(target: TALK, "{text}");
    } else if plain.starts_with("warn[") {
        tracing::warn!(target: TALK, "{text}");
    } else {
        tracing::info!(target: TALK, "{text}");
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text,
    Journal,
    Json,
}

impl<S, N> FormatEvent<S, N> for Style
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self {
            Style::Json => writeln!(out, "{}", line.json(level, target)),
            // It is made for a person, and harmless already.
            _ if target == TALK => out.write_str(&line.message),
            Style::Journal => writeln!(out, "<{}>{target}: {}", priority(level), line.text()),
            Style::Text => {
                let colour = out.has_ansi_escapes().then(|| colour(level));
                let (on, off) = colour.map_or(("", ""), |on| (on, "\x1b[0m"));
                let time = clock::rfc3339(clock::now_ns() / 1_000 * 1_000);
                writeln!(out, "{time} {on}{level:>5}{off} {target}: {}", line.text())
            }
        }
    }
}

/// What an event says, with all that acts made visible.
#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }

    fn json(self, level: Level, target: &str) -> String {
        let mut all = Map::new();
        let time = clock::rfc3339(clock::now_ns() / 1_000 * 1_000);
        // Colour and the shape of a diagnostic mean nothing to a program.
        let message = if target == TALK {
            neutralise_lines(&without_colour(&self.message))
        } else {
            clip(&self.message, TEXT_CHARS_MAX).into_owned()
        };
        for (key, text) in [("timestamp", time.as_str()), ("level", level.as_str()), ("target", target)] {
            all.insert(key.to_owned(), text.into());
        }
        all.insert("message".to_owned(), message.trim_end().into());
        all.extend(self.fields);
        Value::Object(all).to_string()
    }

    fn text(&self) -> String {
        let mut text = clip(&self.message, TEXT_CHARS_MAX).into_owned();
        for (name, value) in &self.fields {
            // Writing to a String cannot fail.
            let _ = match value {
                // What acts is visible already; only the quotes of the value itself are left.
                Value::String(s) => write!(text, " {name}=\"{}\"", s.replace('"', "\\\"")),
                other => write!(text, " {name}={other}"),
            };
        }
        text
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, clip(value, TEXT_CHARS_MAX).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, clip(&text, TEXT_CHARS_MAX).into());
        }
    }
}

/// Text without the escape sequences that colour it.
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// Whether stderr goes to the journal: its service manager names the very stream.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let stderr = rustix::fs::fstat(std::io::stderr()).ok();
    named.zip(stderr).is_some_and(|(named, stderr)| named == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// After syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of events that quote telemetry.
    fn said(style: Style, ansi: bool, say: impl FnOnce()) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let shown = tracing_subscriber::fmt().with_ansi(ansi).with_writer(move || to.clone()).event_format(style);
        tracing::subscriber::with_default(shown.finish(), say);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn quote() {
        let asset = "a\u{1b}[2J\"\n\u{202e}b";
        tracing::warn!(asset, n = 3_u64, ok = true, why = %asset, "it says {asset}");
    }

    #[test]
    fn text_has_one_line_for_each_event_and_nothing_that_acts() {
        let text = said(Style::Text, false, quote);
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(clock::parse(time).is_ok(), "{text}");
        let quoted = "a\\u{1b}[2J\\\"\\u{a}\\u{202e}b";
        let plain = quoted.replace("\\\"", "\"");
        let target = module_path!();
        assert_eq!(rest, format!(" WARN {target}: it says {plain} asset=\"{quoted}\" n=3 ok=true why=\"{quoted}\"\n"));
        assert!(said(Style::Text, true, quote).contains("\u{1b}[33m WARN\u{1b}[0m"));
        assert!(said(Style::Journal, false, quote).starts_with(&format!("<4>{target}: it says ")));
    }

    #[test]
    fn json_is_one_object_in_each_line() {
        let text = said(Style::Json, true, || {
            quote();
            tracing::error!(target: TALK, "\u{1b}[31merror[config]\u{1b}[0m: no\n  --> hb.yaml:1\n");
        });
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!((&lines[0]["level"], &lines[0]["n"], &lines[0]["ok"]), (&"WARN".into(), &3.into(), &true.into()));
        assert_eq!(lines[0]["asset"], "a\\u{1b}[2J\"\\u{a}\\u{202e}b");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert_eq!(lines[1]["message"], "error[config]: no\n  --> hb.yaml:1");
    }

    #[test]
    fn talk_for_a_person_is_left_as_it_is() {
        let text = "error[config]: no\n   help: yes\n";
        assert_eq!(said(Style::Text, false, || tracing::info!(target: TALK, "{text}")), text);
    }
}
