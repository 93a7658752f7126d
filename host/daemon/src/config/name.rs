//! Names an operator gives: they become keys, file names and label values, so they are plain.

use std::borrow::Borrow;
use std::fmt;

use serde::Serialize;

use crate::config::read::{FromNode, Reader};
use crate::config::yaml::Node;

/// Longest name in bytes: it is part of every key of the state.
pub const MAX_NAME_BYTES: usize = 64;

/// A name of letters, digits, `.`, `_` and `-` that begins with a letter or digit. It is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Checks a text.
    pub fn parse(text: &str) -> Option<Name> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = text.len() <= MAX_NAME_BYTES && text.bytes().all(plain);
        (fits && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| Name(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl FromNode for Name {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_node(node, reader)?;
        let name = Name::parse(&text);
        if name.is_none() {
            let d = reader.error(format!("`{text}` cannot be a name"));
            let help = format!(
                "use letters, digits, `.`, `_` and `-`, a letter or digit first, at most {MAX_NAME_BYTES} characters"
            );
            reader.push(node.at, d.help(help));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_file_name() {
        for good in ["a", "file-replay", "drift.robust_z", "0"] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "-x", &"x".repeat(65)] {
            assert!(Name::parse(bad).is_none(), "{bad}");
        }
    }
}
