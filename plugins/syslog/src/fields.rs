//! Fields of a message: structured data, and pairs found in its text.

use crate::message::Reason;
use serde::{Serialize, Serializer};

/// Values of one message. Real ones have tens; the bound keeps the search for a name that is there twice cheap.
const MAX_FIELDS: usize = 512;

/// Names and values in the order in which they were met. Values are text, also where they look like numbers: a
/// normalizer that maps a field reads the number.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    list: Vec<(String, String)>,
    values: usize,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a field. RFC 5424 lets a name repeat, an object does not: its values are joined by a comma.
    pub(crate) fn add(&mut self, name: String, value: &str) -> Result<(), Reason> {
        if self.values == MAX_FIELDS {
            return Err("more than 512 fields");
        }
        self.values += 1;
        if let Some((_, known)) = self.list.iter_mut().find(|(known, _)| *known == name) {
            known.push(',');
            known.push_str(value);
        } else {
            self.list.push((name, value.to_owned()));
        }
        Ok(())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.list.iter().map(|(name, value)| (name, value)))
    }
}

/// Adds the pairs that stand in a text: `key=value`, `key="quoted value"`. What is no pair is passed over.
///
/// A key begins a word and is made of letters, digits, `_`, `-` and `.`; a value ends at white space, a comma, a
/// semicolon or a bracket.
pub(crate) fn add_pairs(text: &str, fields: &mut Fields) -> Result<(), Reason> {
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (before, value) = (&rest[..equals], &rest[equals + 1..]);
        rest = value;
        let Some(key) = key_at_end(before) else { continue };
        if let Some(quoted) = value.strip_prefix('"') {
            let Some((content, behind)) = unquote(quoted) else { continue };
            fields.add(key.to_owned(), &content)?;
            rest = behind;
        } else {
            let end = value.find(|c: char| ends_value(c) || "\"()[]{}".contains(c)).unwrap_or(value.len());
            let (content, behind) = value.split_at(end);
            // A quote within a value or a bracket in front of it belongs to a grammar that is not known here.
            let is_odd = behind.starts_with('"') || content.starts_with('=');
            if is_odd || (content.is_empty() && !behind.is_empty() && !behind.starts_with(ends_value)) {
                continue;
            }
            fields.add(key.to_owned(), content)?;
            rest = behind;
        }
    }
    Ok(())
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || c == ',' || c == ';'
}

/// The word at the end of a text, if it is a key and nothing but a separator or an opening bracket stands before it.
fn key_at_end(text: &str) -> Option<&str> {
    let start =
        text.rfind(|c: char| !is_key_char(c)).map_or(0, |i| i + text[i..].chars().next().map_or(0, char::len_utf8));
    let key = &text[start..];
    let begins_word = text[..start].chars().next_back().is_none_or(|c| ends_value(c) || "([{".contains(c));
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (is_name && begins_word).then_some(key)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The content up to the closing quote, with `\"` and `\\` resolved, and what follows; none without a closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => content.push(escaped),
                Some((_, other)) => content.extend(['\\', other]),
                None => return None,
            },
            _ => content.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> String {
        let mut fields = Fields::default();
        add_pairs(text, &mut fields).unwrap();
        serde_json::to_string(&fields).unwrap()
    }

    #[test]
    fn pairs_are_found_in_running_text() {
        for (text, found) in [
            ("temp=21.5 fan=3, state=ok; end=", r#"{"temp":"21.5","fan":"3","state":"ok","end":""}"#),
            (r#"said="two words" why="a \"b\" \\ \n" x=1"#, r#"{"said":"two words","why":"a \"b\" \\ \\n","x":"1"}"#),
            ("session opened for user root(uid=0) by (uid=0)", r#"{"uid":"0,0"}"#),
            (
                "IN=eth0 OUT= MAC=00:11 SRC=10.0.0.1 LEN=60",
                r#"{"IN":"eth0","OUT":"","MAC":"00:11","SRC":"10.0.0.1","LEN":"60"}"#,
            ),
            ("[level=info](a.b-c=é)", r#"{"level":"info","a.b-c":"é"}"#),
            ("url=http://x/?a=b q=1", r#"{"url":"http://x/?a=b","q":"1"}"#),
            ("x=1 x=2", r#"{"x":"1,2"}"#),
        ] {
            assert_eq!(pairs(text), found, "{text}");
        }
    }

    #[test]
    fn what_is_no_pair_is_passed_over() {
        for text in [
            "",
            "=",
            "a = 1",
            "=1",
            "a==1",
            "x<=5",
            "1a=2",
            "é=1",
            "$a=1",
            "a=[::1]:80",
            "a=b\"c\"",
            "a=\"open",
            "a=\"b\\",
        ] {
            assert_eq!(pairs(text), "{}", "{text}");
        }
        assert_eq!(pairs("a=\"open b=1"), r#"{"b":"1"}"#);
        assert_eq!(pairs("if a == b then c=1"), r#"{"c":"1"}"#);
    }

    #[test]
    fn fields_are_bounded() {
        let text: String = (0..=MAX_FIELDS).map(|i| format!("f{i}=1 ")).collect();
        assert_eq!(add_pairs(&text, &mut Fields::default()), Err("more than 512 fields"));
        assert_eq!(add_pairs(&"a=1 ".repeat(MAX_FIELDS), &mut Fields::default()), Ok(()));
        assert!(add_pairs(&"a=1 ".repeat(MAX_FIELDS + 1), &mut Fields::default()).is_err());
    }
}
