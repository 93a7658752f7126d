//! Walks over bytes and says whether they are one canonical document, without allocating.

use super::{CborError, MAX_DEPTH, MAX_DOCUMENT_BYTES, write};

/// Accepts exactly the byte strings that the writer writes.
pub(super) fn check(bytes: &[u8]) -> Result<(), CborError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(CborError::TooLong { len: bytes.len() });
    }
    let mut walk = Walk { bytes, at: 0 };
    walk.item(MAX_DEPTH)?;
    match bytes.len() - walk.at {
        0 => Ok(()),
        extra => Err(CborError::Trailing { extra }),
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn item(&mut self, depth: usize) -> Result<(), CborError> {
        let at = self.at;
        let first = self.take(1, at)?[0];
        let (major, low) = (first >> 5, first & 0x1f);
        if major == 7 {
            return self.simple(low, at);
        }
        let argument = self.argument(low, at)?;
        match major {
            0 | 1 => {}
            2 => {
                self.take(argument, at)?;
            }
            3 => {
                let text = self.take(argument, at)?;
                if std::str::from_utf8(text).is_err() {
                    return Err(CborError::NotAllowed { at, what: "text that is not UTF-8" });
                }
            }
            4 => {
                let depth = depth.checked_sub(1).ok_or(CborError::TooDeep { at })?;
                for _ in 0..argument {
                    self.item(depth)?;
                }
            }
            5 => self.pairs(argument, depth.checked_sub(1).ok_or(CborError::TooDeep { at })?)?,
            _ => return Err(CborError::NotAllowed { at, what: "a tag" }),
        }
        Ok(())
    }

    fn pairs(&mut self, count: u64, depth: usize) -> Result<(), CborError> {
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let at = self.at;
            self.item(depth)?;
            let key = &self.bytes[at..self.at];
            // The first key is longer than nothing, so it passes.
            if key <= last {
                let what = if key == last { "map key written twice" } else { "map keys out of order" };
                return Err(CborError::NotCanonical { at, what });
            }
            last = key;
            self.item(depth)?;
        }
        Ok(())
    }

    /// Floats and the three simple values.
    fn simple(&mut self, low: u8, at: usize) -> Result<(), CborError> {
        let canonical = match low {
            20..=22 => true,
            25 => {
                let bits = self.unsigned(2, at)?;
                // Any number, an infinity, or the one NaN.
                bits & 0x7c00 != 0x7c00 || bits & 0x7fff == 0x7c00 || bits == 0x7e00
            }
            26 => {
                let f = f64::from(f32::from_bits(self.unsigned(4, at)? as u32));
                !f.is_nan() && write::to_half(f).is_none()
            }
            27 => {
                let f = f64::from_bits(self.unsigned(8, at)?);
                !f.is_nan() && write::to_half(f).is_none() && f64::from(f as f32).to_bits() != f.to_bits()
            }
            31 => return Err(CborError::NotCanonical { at, what: "indefinite length" }),
            _ => return Err(CborError::NotAllowed { at, what: "a simple value other than false, true, null" }),
        };
        if canonical { Ok(()) } else { Err(CborError::NotCanonical { at, what: "float not in its shortest form" }) }
    }

    fn argument(&mut self, low: u8, at: usize) -> Result<u64, CborError> {
        let (argument, least) = match low {
            0..=23 => return Ok(u64::from(low)),
            24 => (self.unsigned(1, at)?, 24),
            25 => (self.unsigned(2, at)?, 1 << 8),
            26 => (self.unsigned(4, at)?, 1 << 16),
            27 => (self.unsigned(8, at)?, 1 << 32),
            31 => return Err(CborError::NotCanonical { at, what: "indefinite length" }),
            _ => return Err(CborError::NotAllowed { at, what: "a reserved length code" }),
        };
        if argument < least {
            return Err(CborError::NotCanonical { at, what: "integer or length not in its shortest form" });
        }
        Ok(argument)
    }

    fn unsigned(&mut self, len: u64, at: usize) -> Result<u64, CborError> {
        Ok(self.take(len, at)?.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    fn take(&mut self, len: u64, at: usize) -> Result<&'a [u8], CborError> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len()).ok_or(CborError::Truncated { at })?;
        self.at += len;
        Ok(&rest[..len])
    }
}
