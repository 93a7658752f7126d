//! Reads Rust source as far as the rules need it: tokens without comments and literals, paths, and what is test code.

/// A name or a sign, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// A path such as `std::fs::File`, with groups (`std::{fs, io}`) spread out.
#[derive(Debug, PartialEq)]
pub(super) struct RustPath<'a> {
    pub(super) line: usize,
    /// Inline modules around it.
    pub(super) nested: usize,
    pub(super) segments: Vec<&'a str>,
}

/// The tokens of a file, those of the product apart from those of its tests.
#[derive(Debug, Default)]
pub(super) struct Code<'a> {
    pub(super) product: Vec<Token<'a>>,
    pub(super) test: Vec<Token<'a>>,
    /// Names of modules in other files that are declared for tests alone.
    pub(super) test_modules: Vec<&'a str>,
}

/// Keywords that may stand before a path with a leading `::`, and are no part of it.
const BEFORE_PATH: &[&str] =
    &["as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use", "while"];

/// Names, `::` and single signs. A literal is one token `""`; comments and lifetimes leave nothing.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let (length, kind) = next(rest);
        let piece = &text[at..at + length];
        match kind {
            Kind::Word | Kind::Sign => out.push(Token { line, text: piece }),
            Kind::Literal => out.push(Token { line, text: "\"\"" }),
            Kind::Nothing => {}
        }
        line += piece.bytes().filter(|b| *b == b'\n').count();
        at += length;
    }
    out
}

/// All paths with a `::`, in order. What stands behind a `*` or `<` is left out.
pub(super) fn paths<'a>(tokens: &[Token<'a>]) -> Vec<RustPath<'a>> {
    let nested = nesting(tokens);
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].text;
        if is_word(word) && !BEFORE_PATH.contains(&word) && text(tokens, at + 1) == "::" {
            at = walk(tokens, at, nested[at], &[], &mut out).max(at + 1);
        } else {
            at += 1;
        }
    }
    out
}

/// Splits off what `#[cfg(test)]` marks, and all of it where `#![cfg(test)]` heads the file.
pub(super) fn split_tests<'a>(tokens: &[Token<'a>]) -> Code<'a> {
    let mut code = Code::default();
    let mut at = 0;
    while at < tokens.len() {
        if starts(tokens, at, &["#", "!", "[", "cfg", "(", "test", ")", "]"]) {
            code.test.extend(&tokens[at..]);
            break;
        }
        if !starts(tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            code.product.push(tokens[at]);
            at += 1;
            continue;
        }
        let end = item_end(tokens, at + 7);
        let item = &tokens[at..end];
        if let [.., Token { text: "mod", .. }, name, Token { text: ";", .. }] = item {
            code.test_modules.push(name.text);
        }
        code.test.extend(item);
        at = end;
    }
    code
}

/// Whether `pattern` stands at `at`.
pub(super) fn starts(tokens: &[Token<'_>], at: usize, pattern: &[&str]) -> bool {
    pattern.iter().enumerate().all(|(i, want)| text(tokens, at + i) == *want)
}

enum Kind {
    Word,
    Sign,
    Literal,
    Nothing,
}

/// Length and kind of what comes next.
fn next(rest: &[u8]) -> (usize, Kind) {
    let word = rest.iter().take_while(|b| is_word_byte(**b)).count();
    match rest {
        [b'/', b'/', ..] => (until(rest, b'\n'), Kind::Nothing),
        [b'/', b'*', ..] => (block_comment(rest), Kind::Nothing),
        [b'"', ..] => (string(rest), Kind::Literal),
        [b'\'', ..] => quote(rest),
        [b':', b':', ..] => (2, Kind::Sign),
        [b'r', b'#', c, ..] if is_word_byte(*c) => (2 + next(&rest[2..]).0, Kind::Word),
        _ if word > 0 => match (&rest[..word], rest.get(word)) {
            (b"b" | b"c", Some(b'"')) => (1 + string(&rest[1..]), Kind::Literal),
            (b"b", Some(b'\'')) => (1 + quote(&rest[1..]).0, Kind::Literal),
            (b"r" | b"br" | b"cr", Some(b'"' | b'#')) => (raw_string(rest, word), Kind::Literal),
            _ if rest[0].is_ascii_digit() => (word, Kind::Literal),
            _ => (word, Kind::Word),
        },
        [c, ..] if c.is_ascii_graphic() => (1, Kind::Sign),
        // White space, and the bytes of a character beyond ASCII together.
        [c, tail @ ..] if !c.is_ascii() => (1 + tail.iter().take_while(|b| !b.is_ascii()).count(), Kind::Nothing),
        _ => (1, Kind::Nothing),
    }
}

fn until(rest: &[u8], end: u8) -> usize {
    rest.iter().position(|b| *b == end).unwrap_or(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = prefix + hashes + 1;
    let length = rest.get(body..).and_then(|b| b.windows(close.len()).position(|w| w == close));
    length.map_or(rest.len(), |l| body + l + close.len())
}

/// A character or a lifetime.
fn quote(rest: &[u8]) -> (usize, Kind) {
    let Some(first) = rest.get(1) else { return (1, Kind::Nothing) };
    if *first == b'\\' {
        // The escaped sign may itself be a quote.
        let end = rest.get(3..).map_or(rest.len(), |tail| 3 + until(tail, b'\'') + 1);
        return (end.min(rest.len()), Kind::Literal);
    }
    let width = 1 + rest.iter().skip(2).take_while(|b| (0x80..0xC0).contains(*b)).count();
    if rest.get(1 + width) == Some(&b'\'') {
        return (width + 2, Kind::Literal);
    }
    let word = rest[1..].iter().take_while(|b| is_word_byte(**b)).count();
    (1 + word, Kind::Nothing)
}

fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| is_word_byte(b) || b == b'#') && text != "#"
}

fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |t| t.text)
}

/// The end of the item whose tokens begin at `at`: behind its `;` or its closing brace.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < tokens.len() {
        match tokens[at].text {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// For each token the number of inline modules around it.
fn nesting(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut open = Vec::new();
    let mut nested = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => open.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => drop(open.pop()),
            _ => {}
        }
        nested.push(open.iter().filter(|is_module| **is_module).count());
    }
    nested
}

/// Reads one path or group at `at` and returns where it ends.
fn walk<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    nested: usize,
    before: &[&'a str],
    out: &mut Vec<RustPath<'a>>,
) -> usize {
    let mut segments = before.to_vec();
    let line = tokens.get(at).map_or(0, |t| t.line);
    while is_word(text(tokens, at)) && at < tokens.len() {
        segments.push(tokens[at].text);
        at += 1;
        if text(tokens, at) != "::" {
            break;
        }
        at += 1;
    }
    if text(tokens, at) != "{" {
        out.push(RustPath { line, nested, segments });
        return at;
    }
    at += 1;
    while at < tokens.len() && tokens[at].text != "}" {
        at = match tokens[at].text {
            "as" => at + 2,
            word if is_word(word) || word == "{" => walk(tokens, at, nested, &segments, out),
            _ => at + 1,
        };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> String {
        tokens(source).iter().map(|t| t.text).collect::<Vec<_>>().join(" ")
    }

    fn spread(source: &str) -> Vec<String> {
        paths(&tokens(source)).iter().map(|p| format!("{}:{}:{}", p.line, p.nested, p.segments.join("::"))).collect()
    }

    #[test]
    fn literals_and_comments_hide_nothing_behind_them() {
        assert_eq!(words("a /* x /* y */ z */ b // c\nd"), "a b d");
        assert_eq!(words(r#"f("a\"b", 'x', '\'', '"', b'"', b"q") g"#), r#"f ( "" , "" , "" , "" , "" , "" ) g"#);
        assert_eq!(words("r#\"a\"b\"# c br##\"x\"#\"## d r#type"), "\"\" c \"\" d r#type");
        assert_eq!(words("&'a str <'_> 'ä' 1_000.5e3 x"), "& str < > \"\" \"\" . \"\" x");
    }

    #[test]
    fn lines_count_through_literals() {
        let source = "a\n\"x\ny\"\n/* \n */ b";
        assert_eq!(tokens(source).last(), Some(&Token { line: 5, text: "b" }));
    }

    #[test]
    fn groups_are_spread() {
        let found = spread("use std::{fs, io::{self, Read as R}, time};\nlet x = crate::state::open::<A>();");
        assert_eq!(
            found,
            ["1:0:std::fs", "1:0:std::io::self", "1:0:std::io::Read", "1:0:std::time", "2:0:crate::state::open"]
        );
        assert_eq!(spread("mod a { mod b { use super::super::c; } }"), ["1:2:super::super::c"]);
        assert_eq!(spread("use a::*;\nuse ::b::{c, *};"), ["1:0:a", "2:0:b::c"]);
    }

    #[test]
    fn test_code_is_told_apart() {
        let source = "fn a() {}\n#[cfg(test)]\nmod far;\n#[cfg(test)]\nmod tests { fn t() { x(); } }\nfn b() {}";
        let all = tokens(source);
        let code = split_tests(&all);
        assert_eq!(code.test_modules, ["far"]);
        assert!(code.product.iter().all(|t| t.text != "x"));
        assert!(code.product.iter().any(|t| t.text == "b"));
        assert_eq!(split_tests(&tokens("#![cfg(test)]\nuse a;")).product, []);
    }
}
