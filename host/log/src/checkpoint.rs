//! A checkpoint is the head of the log as three lines of text: whose log, how many entries, which root.
//!
//! The form is the body of a C2SP tlog-checkpoint. Its signature lies beside it as a minisign file, so that stock
//! `minisign -V` checks it:
//!
//! ```text
//! hb.example/log/1
//! 1042
//! qrs0tR4fR+1w8bT2TqCCnqZT0bC6pZkQv2lX1w0mY1E=
//! ```

use data_encoding::BASE64;

use crate::hash::Hash;
use crate::tree::Frontier;

/// Longest checkpoint in bytes: three lines, of which only the origin has a free length.
pub const MAX_CHECKPOINT_BYTES: usize = 1024;

/// The signed head of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log, for ever: host and epoch, such as `hb/<host id>/log/<epoch>`. Printable ASCII, no spaces.
    pub origin: String,
    /// Entries under the root.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: {what}")]
pub struct CheckpointError {
    /// Which rule is broken.
    pub what: &'static str,
}

impl Checkpoint {
    /// The checkpoint of a tree as it stands.
    pub fn of(origin: &str, frontier: &Frontier) -> Checkpoint {
        Checkpoint { origin: origin.to_owned(), size: frontier.size, root: frontier.root() }
    }

    /// The text that is signed: origin, size and base64 root, each line with its newline.
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Reads a checkpoint, refusing every text that [`Checkpoint::body`] would not have written.
    pub fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        let wrong = |what| CheckpointError { what };
        if text.len() > MAX_CHECKPOINT_BYTES {
            return Err(wrong("it is too long"));
        }
        let mut lines = text.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let (origin, size, root) = (line(), line(), line());
        if origin.is_empty() || !origin.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("its first line is not an origin of printable ASCII without spaces"));
        }
        let size = size.parse().map_err(|_| wrong("its second line is not a number of entries"))?;
        let root = BASE64.decode(root.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes.as_slice()).ok());
        let root = root.ok_or(wrong("its third line is not a hash in base64"))?;
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root };
        if checkpoint.body() != text {
            return Err(wrong("it is not exactly three lines in the one canonical spelling"));
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Checkpoint {
        Checkpoint { origin: "hb.example/log/1".into(), size: 1042, root: Hash::of(b"root") }
    }

    #[test]
    fn body_is_golden_and_reads_back() {
        let body = example().body();
        assert_eq!(body, "hb.example/log/1\n1042\nSBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=\n");
        assert_eq!(Checkpoint::parse(&body), Ok(example()));
        assert_eq!(
            Checkpoint::of("x", &Frontier::new()).body(),
            "x\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        let body = example().body();
        let changed = [
            body.replace("1042", "01042"),
            body.replace("1042", "+1042"),
            body.replace("1042", "-1"),
            body.replace("1042", "99999999999999999999"),
            body.replace('\n', "\r\n"),
            body.replace('=', ""),
            body.replace("7I=", "7J="), // not zero in the bits that fall away
            body.replace("hb.", "h b."),
            body.replace("hb.example/log/1", ""),
            body.trim_end().to_owned(),
            format!("{body}\n"),
            format!("{body}extension\n"),
            format!("\n{body}"),
            format!("{}{body}", "x".repeat(MAX_CHECKPOINT_BYTES)),
            String::new(),
        ];
        for text in changed {
            assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "(\\PC|\n|\r)*") {
            let _ = Checkpoint::parse(&text);
        }

        #[test]
        fn near_checkpoints_are_read_exactly(origin in "[!-~]{1,20}", size in "[0-9]{1,22}", root in "[A-Za-z0-9+/]{43}=") {
            let text = format!("{origin}\n{size}\n{root}\n");
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.body(), text);
            }
        }
    }
}
