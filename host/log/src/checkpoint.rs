//! A checkpoint is the log's head in three lines: whose log, how long, which root (C2SP tlog-checkpoint).
//!
//! It says nothing by itself; a signature over its bytes does.

use data_encoding::BASE64;

use crate::hash::Hash;

/// Longest text that is read, bytes: the longest origin, 20 digits, 44 of base64, 3 newlines.
pub const MAX_BYTES: usize = MAX_ORIGIN_BYTES + 67;

/// Longest origin, bytes: a host id, `/log/` and an epoch need a quarter of it.
pub const MAX_ORIGIN_BYTES: usize = 256;

/// The head of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `<host id>/log/<epoch>`. No spaces, no plus sign, as the format demands of names.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Not the text of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: expected the lines origin, size and base64 root, each ended by a newline, and nothing else")]
pub struct NotACheckpoint;

impl Checkpoint {
    /// The text that is signed.
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Reads what [`Checkpoint::body`] wrote, and no other spelling of it; extension lines are refused.
    pub fn parse(text: &str) -> Result<Self, NotACheckpoint> {
        if text.len() > MAX_BYTES {
            return Err(NotACheckpoint);
        }
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(NotACheckpoint);
        let (origin, size, root) = (line()?, line()?, line()?);
        if !is_origin(origin) {
            return Err(NotACheckpoint);
        }
        let root = BASE64.decode(root.as_bytes()).map_err(|_| NotACheckpoint)?;
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| NotACheckpoint)?,
            root: Hash::from_bytes(root.try_into().map_err(|_| NotACheckpoint)?),
        };
        if checkpoint.body() == text { Ok(checkpoint) } else { Err(NotACheckpoint) }
    }
}

/// Whether a text can name a log: not empty, not too long, printable, without spaces or plus signs.
pub fn is_origin(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    !text.is_empty() && text.len() <= MAX_ORIGIN_BYTES && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "example/log/1\n42\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

    #[test]
    fn a_checkpoint_is_three_lines() {
        let head = Checkpoint { origin: "example/log/1".into(), size: 42, root: Hash::of(b"") };
        assert_eq!(head.body(), TEXT);
        assert_eq!(Checkpoint::parse(TEXT), Ok(head));
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            String::new(),
            TEXT.trim_end().into(),
            format!("{TEXT}\n"),
            format!("{TEXT}extension\n"),
            format!("\n{TEXT}"),
            TEXT.replace("42", "042"),
            TEXT.replace("42", "+42"),
            TEXT.replace("42", "-42"),
            TEXT.replace("42", " 42"),
            TEXT.replace("42", "99999999999999999999"),
            TEXT.replace('\n', "\r\n"),
            TEXT.replace("uFU=", "uFV="),
            TEXT.replace("uFU=", "uFU"),
            TEXT.replace("example", "exa mple"),
            TEXT.replace("example", "exa+mple"),
            TEXT.replace("example", &"x".repeat(300)),
        ] {
            assert_eq!(Checkpoint::parse(&bad), Err(NotACheckpoint), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "(.*\n){0,4}", size in any::<u64>(), origin in "[^ +]{1,20}") {
            let _ = Checkpoint::parse(&text);
            let head = Checkpoint { origin, size, root: Hash::ZERO };
            if is_origin(&head.origin) {
                prop_assert_eq!(Checkpoint::parse(&head.body()), Ok(head));
            }
        }
    }
}
