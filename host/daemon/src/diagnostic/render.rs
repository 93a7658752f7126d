//! The look of a diagnostic on a terminal.

use std::fmt::Write as _;

use super::text::{acts, neutralise};
use super::{Diagnostic, Level, Place};

/// Widest piece of a source line that is shown, in characters; a longer line is cut around the carets.
const MAX_LINE_CHARS: usize = 120;

/// Narrowest gutter, in columns, so that the arrows of most diagnostics stand below each other.
const MIN_GUTTER: usize = 2;

pub(super) fn diagnostic(d: &Diagnostic, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let (label, code) = match d.level {
        Level::Error => ("error", "1;31"),
        Level::Warning => ("warn", "1;33"),
    };
    let head = paint(code, &format!("{label}[{}]", d.area.as_str()));
    let mut out = format!("{head}: {}\n", paint("1", &neutralise(&d.message)));
    let gutter = d.place.as_ref().map_or(0, |p| p.line.to_string().len()).max(MIN_GUTTER);
    let indent = " ".repeat(gutter + 1);
    if let Some(place) = &d.place {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{} {place}", " ".repeat(gutter), paint("34", "-->"));
        if let Some(line) = &place.source_line {
            let (shown, carets) = excerpt(line, place);
            let bar = paint("34", "|");
            let _ = writeln!(out, "{indent}{bar}");
            let number = paint("34", &format!("{:gutter$}", place.line));
            let _ = writeln!(out, "{number} {bar} {shown}");
            if !carets.is_empty() {
                let _ = writeln!(out, "{indent}{bar} {}", paint(code, &carets));
            }
        }
    }
    for (label, text) in &d.notes {
        let _ = writeln!(out, "{indent}{}: {}", neutralise(label), neutralise(text));
    }
    if let Some(help) = &d.help {
        let _ = writeln!(out, "{indent}{}: {}", paint("36", "help"), neutralise(help));
    }
    out
}

/// The shown part of a source line, and the carets below it.
fn excerpt(line: &str, place: &Place) -> (String, String) {
    let chars: Vec<char> = line.chars().collect();
    let start = (place.col.saturating_sub(1) as usize).min(chars.len());
    let end = (start + (place.len as usize).max(1)).min(chars.len().max(start + 1));
    let from = if chars.len() <= MAX_LINE_CHARS { 0 } else { start.saturating_sub(MAX_LINE_CHARS / 2) };
    let to = (from + MAX_LINE_CHARS).min(chars.len());

    let mut shown = String::new();
    let mut carets = String::new();
    if from > 0 {
        shown.push_str("...");
        carets.push_str("   ");
    }
    for (i, &c) in chars.iter().enumerate().take(to).skip(from) {
        let before = shown.chars().count();
        match c {
            '\t' => shown.push(' '),
            c if acts(c) => shown.push_str(&neutralise(c.encode_utf8(&mut [0; 4]))),
            c => shown.push(c),
        }
        let mark = if (start..end).contains(&i) { '^' } else { ' ' };
        carets.extend(std::iter::repeat_n(mark, shown.chars().count() - before));
    }
    if to < chars.len() {
        shown.push_str("...");
    }
    if start >= chars.len() {
        carets.push('^');
    }
    let carets = if place.col == 0 { String::new() } else { carets.trim_end().to_owned() };
    (shown.trim_end().to_owned(), carets)
}

#[cfg(test)]
mod tests {
    use super::super::{Area, Diagnostic, Place};

    fn check(d: &Diagnostic, want: &str) {
        assert_eq!(d.render(false), want, "\n{}", d.render(false));
    }

    #[test]
    fn an_unknown_key_shows_the_line_the_carets_and_the_way_out() {
        let source = "a: 1\n".repeat(13) + "  intervall_sec: 60\n";
        let place = Place::span("config/daemon.yaml", &source, 14, 3, 13);
        let d = Diagnostic::error(Area::Config, "unknown key `intervall_sec`").at(place);
        check(
            &d.suggest("intervall_sec", ["interval_sec"]),
            "error[config]: unknown key `intervall_sec`\n  --> config/daemon.yaml:14:3\n   |\n\
             14 |   intervall_sec: 60\n   |   ^^^^^^^^^^^^^\n   help: did you mean `interval_sec`?\n",
        );
    }

    #[test]
    fn a_secret_is_not_shown() {
        let place = Place::span("config/daemon.yaml", "password: hunter2", 1, 11, 7).hidden();
        check(
            &Diagnostic::error(Area::Config, "secret in plain text")
                .at(place)
                .help("write `${file:/etc/hb/mqtt.pass}`"),
            "error[config]: secret in plain text\n  --> config/daemon.yaml:1:11\n   \
             help: write `${file:/etc/hb/mqtt.pass}`\n",
        );
    }

    #[test]
    fn a_policy_names_the_function_and_its_input() {
        check(
            &Diagnostic::error(Area::Policy, "rule returned severity \"warning\"")
                .at(Place::line("policies/drift/threshold.luau", 18).within("function 'rule'"))
                .note("input", "metric=bus_voltage")
                .note("kept", "generation 41 stays active"),
            "error[policy]: rule returned severity \"warning\"\n  \
             --> policies/drift/threshold.luau:18 (in function 'rule')\n   input: metric=bus_voltage\n   \
             kept: generation 41 stays active\n",
        );
    }

    #[test]
    fn hostile_text_is_neutralised_and_the_carets_still_meet() {
        let place = Place::span("x\x1b.yaml", "\ta\x1b: b", 1, 6, 1);
        check(
            &Diagnostic::warning(Area::Config, "odd \u{202e}").at(place),
            "warn[config]: odd \\u{202e}\n  --> x\\u{1b}.yaml:1:6\n   |\n 1 |  a\\u{1b}: b\n   |           ^\n",
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_carets() {
        let line = format!("{}X{}", "a".repeat(1000), "b".repeat(1000));
        let text = Diagnostic::error(Area::Data, "x").at(Place::span("f", &line, 1, 1001, 1)).render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[3].len() < 140 && lines[3].contains("...aaa") && lines[3].ends_with("bbb..."), "{text}");
        assert_eq!(lines[3].find('X'), lines[4].find('^'), "{text}");
    }

    #[test]
    fn a_caret_may_stand_behind_the_end_and_colour_is_only_there_when_told() {
        let d = Diagnostic::error(Area::Config, "x").at(Place::span("f", "ab", 1, 3, 0));
        check(&d, "error[config]: x\n  --> f:1:3\n   |\n 1 | ab\n   |   ^\n");
        assert!(d.render(true).starts_with("\x1b[1;31merror[config]\x1b[0m: "));
    }
}
