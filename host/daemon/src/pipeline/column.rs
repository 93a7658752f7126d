//! Number columns as bytes: varints, rising sequences, differences.

/// Appends an unsigned LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a sequence that never falls as first value and differences.
pub(super) fn put_rising(out: &mut Vec<u8>, values: &[u64]) {
    let mut before = 0;
    for &v in values {
        put_varint(out, v.wrapping_sub(before));
        before = v;
    }
}

/// Appends signed values as zigzag differences.
pub(super) fn put_deltas(out: &mut Vec<u8>, values: &[i64]) {
    let mut before = 0_i64;
    for &v in values {
        let d = v.wrapping_sub(before);
        put_varint(out, ((d << 1) ^ (d >> 63)) as u64);
        before = v;
    }
}

/// Reads from the front of a slice; every method is `None` when it is too short or malformed.
pub(super) struct Cut<'a>(pub(super) &'a [u8]);

impl<'a> Cut<'a> {
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut v = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&b, rest) = self.0.split_first()?;
            self.0 = rest;
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Some(v);
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.varint()?).ok()?;
        self.take(n)
    }

    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn rising(&mut self, n: usize) -> Option<Vec<u64>> {
        let mut before = 0_u64;
        (0..n)
            .map(|_| {
                before = before.wrapping_add(self.varint()?);
                Some(before)
            })
            .collect()
    }

    pub(super) fn deltas(&mut self, n: usize) -> Option<Vec<i64>> {
        let mut before = 0_i64;
        (0..n)
            .map(|_| {
                let z = self.varint()?;
                before = before.wrapping_add((z >> 1) as i64 ^ -((z & 1) as i64));
                Some(before)
            })
            .collect()
    }
}
