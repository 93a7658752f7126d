//! Finds places in a policy's text: where a key stands, which names and operators it uses.
//!
//! The VM's compiler is the authority on syntax. This reader only splits text into tokens, so that a mistake found
//! in the returned table can be shown where the author wrote it.

/// Line and column of a token, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) col: u32,
}

impl Pos {
    /// Where a mistake without a better place is shown.
    pub(crate) const START: Pos = Pos { line: 1, col: 1 };
}

/// One step into a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A named entry.
    Key(&'a str),
    /// A positional entry, from 1.
    Item(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Text,
    Number,
    Symbol,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    pos: Pos,
    /// Byte offset.
    at: usize,
}

/// A policy's text as tokens; comments are gone, the inside of interpolated strings is read as code.
pub(crate) struct Tokens<'a> {
    list: Vec<Token<'a>>,
}

impl<'a> Tokens<'a> {
    /// Splits `source`; text that is no Luau gives odd tokens, never an error.
    pub(crate) fn of(source: &'a str) -> Self {
        let mut reader = Reader { source, at: 0, line: 1, line_start: 0, templates: Vec::new() };
        let mut list = Vec::new();
        while let Some(token) = reader.next() {
            list.push(token);
        }
        Tokens { list }
    }

    /// Where the power operator is used.
    pub(crate) fn powers(&self) -> impl Iterator<Item = Pos> {
        self.list.iter().filter(|t| t.kind == Kind::Symbol && matches!(t.text, "^" | "^=")).map(|t| t.pos)
    }

    /// Names used as variables, with their places: not fields (`a.name`), methods, table keys or type annotations'
    /// field names.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'a str, Pos)> {
        self.list.iter().enumerate().filter(|(_, t)| t.kind == Kind::Name).filter_map(|(i, t)| {
            let before = i.checked_sub(1).map_or("", |b| self.text(b));
            let after = self.text(i + 1);
            let field = matches!(before, "." | ":");
            let key = matches!(before, "{" | "," | ";") && matches!(after, "=" | ":");
            (!field && !key).then_some((t.text, t.pos))
        })
    }

    /// Names the text declares itself (`local name`, `function name`, parameters are not followed).
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.list.windows(2).any(|w| matches!(w[0].text, "local" | "function") && w[1].text == name)
    }

    /// Where the entry at `path` of the returned table stands, or the closest part of the path that can be found.
    pub(crate) fn place(&self, path: &[Step<'_>]) -> Pos {
        let Some(root) = self.returned_table() else {
            return self.anywhere(path).unwrap_or(Pos::START);
        };
        let (mut table, mut found) = (root, self.list[root].pos);
        for step in path {
            let Some((at, value)) = self.entry(table, *step) else { break };
            found = self.list[at].pos;
            if self.text(value) != "{" {
                break;
            }
            table = value;
        }
        found
    }

    /// Place and byte offsets of the braces of the returned table.
    pub(crate) fn returned(&self) -> Option<(Pos, usize, usize)> {
        let open = self.returned_table()?;
        Some((self.list[open].pos, self.list[open].at, self.list[self.closing(open)?].at))
    }

    fn text(&self, at: usize) -> &'a str {
        self.list.get(at).map_or("", |t| t.text)
    }

    /// Index of the `{` of a `return {...}` that ends the text.
    fn returned_table(&self) -> Option<usize> {
        let last = self.list.iter().rposition(|t| t.text != ";")?;
        (0..self.list.len())
            .rev()
            .filter(|&i| self.text(i) == "return" && self.text(i + 1) == "{")
            .map(|i| i + 1)
            .find(|&open| self.closing(open) == Some(last))
    }

    /// Index of the `}` that closes the `{` at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for i in open..self.list.len() {
            match self.text(i) {
                "{" if self.list[i].kind == Kind::Symbol => depth += 1,
                "}" if self.list[i].kind == Kind::Symbol => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Index of the entry's first token and of its value, in the table that opens at `open`.
    fn entry(&self, open: usize, step: Step<'_>) -> Option<(usize, usize)> {
        let close = self.closing(open)?;
        let mut item = 0;
        let mut at = open + 1;
        while at < close {
            let named = self.list[at].kind == Kind::Name && self.text(at + 1) == "=";
            let quoted = self.text(at) == "[" && self.list[at + 1].kind == Kind::Text && self.text(at + 3) == "=";
            let (key, value) = match (named, quoted) {
                (true, _) => (Some(self.text(at)), at + 2),
                (_, true) => (Some(self.text(at + 1).trim_matches(['"', '\''])), at + 4),
                _ => (None, at),
            };
            if key.is_none() {
                item += 1;
            }
            match step {
                Step::Key(wanted) if key == Some(wanted) => return Some((at, value)),
                Step::Item(wanted) if key.is_none() && item == wanted => return Some((at, value)),
                _ => at = self.after(value, close),
            }
        }
        None
    }

    /// Index behind the separator that ends the value at `at`. Function bodies are passed over by counting blocks;
    /// an `if` expression inside one may be miscounted, which costs a position, never a verdict.
    fn after(&self, mut at: usize, close: usize) -> usize {
        let (mut nested, mut blocks) = (0_i32, 0_i32);
        while at < close {
            let token = self.list[at];
            if token.kind != Kind::Text {
                match token.text {
                    "(" | "{" | "[" => nested += 1,
                    ")" | "}" | "]" => nested -= 1,
                    "function" | "do" | "repeat" => blocks += 1,
                    "if" if blocks > 0 && !self.expression_follows(at) => blocks += 1,
                    "end" | "until" => blocks -= 1,
                    "," | ";" if nested == 0 && blocks <= 0 => return at + 1,
                    _ => {}
                }
            }
            at += 1;
        }
        close
    }

    /// Whether the token at `at` begins an expression, judged by the one before it.
    fn expression_follows(&self, at: usize) -> bool {
        let before = at.checked_sub(1).map_or("", |b| self.text(b));
        matches!(before, "=" | "(" | "," | "{" | "[" | "return" | "and" | "or" | "not" | "+" | "-" | "*" | "/" | "..")
    }

    /// For a table built elsewhere: the last key of `path` that stands anywhere as `key =`.
    fn anywhere(&self, path: &[Step<'_>]) -> Option<Pos> {
        path.iter().rev().find_map(|step| {
            let Step::Key(key) = step else { return None };
            let at = (0..self.list.len())
                .find(|&i| self.list[i].kind == Kind::Name && self.text(i) == *key && self.text(i + 1) == "=")?;
            Some(self.list[at].pos)
        })
    }
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    /// Open braces inside each interpolated string being read, the innermost last.
    templates: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.skip_blank();
            let byte = self.peek(0)?;
            if byte == b'}' && self.templates.last() == Some(&0) {
                self.templates.pop();
                self.at += 1;
                self.template();
                continue;
            }
            let before = self.source.get(self.line_start..self.at).unwrap_or("");
            let (start, pos) = (self.at, Pos { line: self.line, col: before.chars().count() as u32 + 1 });
            let kind = match byte {
                b'`' => {
                    self.at += 1;
                    self.template();
                    Kind::Text
                }
                b'"' | b'\'' => {
                    self.quoted(byte);
                    Kind::Text
                }
                b'[' if self.long_bracket().is_some() => {
                    self.skip_long();
                    Kind::Text
                }
                b'0'..=b'9' => {
                    self.skip_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
                    Kind::Number
                }
                b if b == b'_' || b.is_ascii_alphabetic() => {
                    self.skip_while(|b| b == b'_' || b.is_ascii_alphanumeric());
                    Kind::Name
                }
                b => {
                    self.symbol(b);
                    Kind::Symbol
                }
            };
            return Some(Token { kind, text: self.source.get(start..self.at).unwrap_or(""), pos, at: start });
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.as_bytes().get(self.at + ahead).copied()
    }

    fn bump(&mut self) {
        if self.peek(0) == Some(b'\n') {
            self.line += 1;
            self.line_start = self.at + 1;
        }
        self.at += 1;
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.bump();
        }
    }

    fn skip_blank(&mut self) {
        loop {
            self.skip_while(|b| b.is_ascii_whitespace());
            if self.peek(0) != Some(b'-') || self.peek(1) != Some(b'-') {
                return;
            }
            self.at += 2;
            if self.peek(0) == Some(b'[') && self.long_bracket().is_some() {
                self.skip_long();
            } else {
                self.skip_while(|b| b != b'\n');
            }
        }
    }

    /// Number of `=` of the long bracket that opens here.
    fn long_bracket(&self) -> Option<usize> {
        let rest = self.source.as_bytes().get(self.at + 1..)?;
        let level = rest.iter().take_while(|&&b| b == b'=').count();
        (self.peek(level + 1) == Some(b'[')).then_some(level)
    }

    fn skip_long(&mut self) {
        let level = self.long_bracket().unwrap_or(0);
        self.at += level + 2;
        while let Some(byte) = self.peek(0) {
            let closes =
                byte == b']' && (1..=level).all(|i| self.peek(i) == Some(b'=')) && self.peek(level + 1) == Some(b']');
            if closes {
                self.at += level + 2;
                return;
            }
            self.bump();
        }
    }

    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            if byte == b'\\' {
                self.at += 1;
                if self.peek(0).is_some() {
                    self.bump();
                }
            } else if byte == quote {
                self.at += 1;
                return;
            } else if byte == b'\n' {
                return;
            } else {
                self.at += 1;
            }
        }
    }

    /// The text part of an interpolated string, up to its end or to the next `{`.
    fn template(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => {
                    self.at += 1;
                    if self.peek(0).is_some() {
                        self.bump();
                    }
                }
                b'`' => {
                    self.at += 1;
                    return;
                }
                b'{' => {
                    self.at += 1;
                    self.templates.push(0);
                    return;
                }
                _ => self.bump(),
            }
        }
    }

    fn symbol(&mut self, byte: u8) {
        if let Some(open) = self.templates.last_mut() {
            match byte {
                b'{' => *open += 1,
                b'}' => *open -= 1,
                _ => {}
            }
        }
        // Any other byte, also one inside a character that is not ASCII, stands alone.
        self.at += 1;
        while !self.source.is_char_boundary(self.at) {
            self.at += 1;
        }
        let two = matches!(
            (byte, self.peek(0)),
            (b'=' | b'~' | b'<' | b'>' | b'^' | b'+' | b'-' | b'*' | b'/' | b'%', Some(b'='))
                | (b':', Some(b':'))
                | (b'.', Some(b'.'))
                | (b'-', Some(b'>'))
        );
        if two {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str, path: &[Step<'_>]) -> (u32, u32) {
        let pos = Tokens::of(source).place(path);
        (pos.line, pos.col)
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let source = "-- return { id = 1 }\nlocal x = { id = 2 }\nreturn {\n  id = \"a\",\n  judge = function(w, b)\n    local id, \
                      warn = 1, 2\n    if w then return { status = 1 } end\n  end,\n  params = { warn = 4, [\"fail\"] = 8 \
                      },\n}\n";
        assert_eq!(place(source, &[]), (3, 8));
        assert_eq!(place(source, &[Step::Key("id")]), (4, 3));
        assert_eq!(place(source, &[Step::Key("params"), Step::Key("warn")]), (9, 14));
        assert_eq!(place(source, &[Step::Key("params"), Step::Key("fail")]), (9, 24));
        assert_eq!(place(source, &[Step::Key("params"), Step::Key("none")]), (9, 3));
    }

    #[test]
    fn items_are_counted_past_functions_and_tables() {
        let source = "return { f(1, 2), { a = 1 }, function() return 1, 2 end, { a = 2, b = 3 } }";
        assert_eq!(place(source, &[Step::Item(4), Step::Key("b")]), (1, 67));
        assert_eq!(place("local t = {\n  stat = 1 }\nreturn t", &[Step::Key("stat")]), (2, 3));
        assert_eq!(place("nonsense", &[Step::Key("stat")]), (1, 1));
    }

    #[test]
    fn powers_are_seen_in_code_only() {
        let count = |source: &str| Tokens::of(source).powers().count();
        assert_eq!(count("return 2 ^ 3"), 1);
        assert_eq!(count("x ^= 2"), 1);
        assert_eq!(count("-- a ^ b\nlocal s = '^' .. \"^%d\" .. [[ ^ ]] --[==[ ^ ]] ^ ]==]"), 0);
        assert_eq!(count("local s = `a ^ {f({ x = 2 ^ 3 })} ^`"), 1);
        assert_eq!(count("local s = `{a}` local t = 'it\\'s ^'"), 0);
    }

    #[test]
    fn variables_are_not_fields_or_keys() {
        let names: Vec<&str> =
            Tokens::of("local a = os.time() x.os = { os = 1 } y:os()").variables().map(|v| v.0).collect();
        assert_eq!(names.iter().filter(|n| **n == "os").count(), 1);
    }

    #[test]
    fn odd_text_ends() {
        for source in ["", "`{", "[==[", "'\\", "\"a\nb", "é^ü", "}}}`}`", "--[[", "return {", "`\\"] {
            let _ = Tokens::of(source).place(&[Step::Key("id")]);
        }
    }
}
