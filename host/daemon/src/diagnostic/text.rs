//! Words and characters of diagnostics: what resembles a misspelt word, and how foreign text is made harmless.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest word worth comparing, in characters: the comparison is quadratic and no key is longer.
const MAX_COMPARED_CHARS: usize = 64;

/// The candidate that most resembles `word`, if any is near enough to be a slip of the finger: at most one edit in
/// three characters (insert, delete, replace, swap of neighbours). Case and `-` against `_` do not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &folded(candidate)), candidate))
        .filter(|&(edits, candidate)| edits <= allowed && edits < candidate.chars().count())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// An error and what caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

/// Shows characters that would act on a terminal, forge a line or reorder text as `\u{..}`: C0 and C1 controls (line
/// feeds and tabs too), DEL, line separators, bidirectional and invisible marks. Costs nothing for clean text.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(acts) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if acts(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Neutralised text of at most `max_chars` characters of the original, with `...` where it was cut.
pub fn clip(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((cut, _)) => Cow::Owned(format!("{}...", neutralise(&text[..cut]))),
        None => neutralise(text),
    }
}

/// Like [`neutralise`] for whole output: line feeds stay.
pub fn neutralise_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(body) => neutralise(body).into_owned() + "\n",
            None => neutralise(line).into_owned(),
        })
        .collect()
}

/// Whether a character does something other than being seen.
pub(super) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn folded(word: &str) -> Vec<char> {
    let same = |c| if c == '-' { '_' } else { c };
    word.chars().take(MAX_COMPARED_CHARS).flat_map(char::to_lowercase).map(same).collect()
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["interval_sec", "window_sec", "path", "id"];
        for (word, want) in [
            ("intervall_sec", Some("interval_sec")),
            ("interval-sec", Some("interval_sec")),
            ("INTERVAL_SEC", Some("interval_sec")),
            ("widnow_sec", Some("window_sec")),
            ("pth", Some("path")),
            ("window_ms", Some("window_sec")),
            ("di", Some("id")),
            ("xy", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
    }

    #[test]
    fn text_that_acts_is_shown_as_a_number() {
        for (text, want) in [
            ("bus voltage: 3.3 V, größe ✓", "bus voltage: 3.3 V, größe ✓"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("a\nb\tc\r\0", "a\\u{a}b\\u{9}c\\u{d}\\u{0}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
            ("\u{2028}\u{feff}\u{e0041}", "\\u{2028}\\u{feff}\\u{e0041}"),
        ] {
            assert_eq!(neutralise(text), want);
        }
        assert!(matches!(neutralise("clean"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_clip_counts_characters_of_the_original() {
        assert_eq!(clip("größer", 4), "größ...");
        assert_eq!(clip("\x1b\x1b\x1b", 2), "\\u{1b}\\u{1b}...");
        assert_eq!(clip("ok", 2), "ok");
    }
}
