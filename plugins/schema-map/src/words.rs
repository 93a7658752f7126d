//! Bytes eight at a time: in a guest, where no call into a library is free, this is several times faster than one by one.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Where the first byte lies that is a quote, a backslash, a control character or above ASCII.
#[inline]
pub(crate) fn plain_until(bytes: &[u8], mut i: usize) -> usize {
    // Eight at a time: subtracting sets the high bit of the bytes in question, as in memchr.
    while let Some(chunk) = bytes.get(i..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let slash = word ^ (ONES * u64::from(b'\\'));
        let hit = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word)
            | word;
        let hit = hit & HIGHS;
        if hit != 0 {
            // A borrow can only mark bytes above a true one, and the lowest mark counts.
            return i + (hit.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while let Some(&b) = bytes.get(i) {
        if b == b'"' || b == b'\\' || !(0x20..0x80).contains(&b) {
            break;
        }
        i += 1;
    }
    i
}

/// The place behind `wanted`, if it stands at `at`.
#[inline]
pub(crate) fn behind(bytes: &[u8], at: usize, wanted: &[u8]) -> Option<usize> {
    let end = at + wanted.len();
    let found = bytes.get(at..end)?;
    let (words, rest) = found.as_chunks::<8>();
    let (wanted_words, wanted_rest) = wanted.as_chunks::<8>();
    let same = words.iter().zip(wanted_words).all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b));
    (same && rest.iter().zip(wanted_rest).all(|(a, b)| a == b)).then_some(end)
}

/// The number that the digits at `at` make, and how many they are; no more than eight are looked at.
#[inline]
pub(crate) fn few_digits(bytes: &[u8], at: usize) -> (u64, usize) {
    const HIGH: u64 = ONES * 0xF0;
    const ZEROS: u64 = ONES * b'0' as u64;
    let word = word_at(bytes, at);
    // Digits are 0x30 to 0x39: the upper half of the byte is 3, also when 6 is added. What one sum carries over lies
    // behind the first byte that is no digit.
    let other = (word & HIGH ^ ZEROS) | (word.wrapping_add(ONES * 6) & HIGH ^ ZEROS);
    let count = other.trailing_zeros() as usize / 8;
    if count == 0 {
        return (0, 0);
    }
    // As eight digits with zeros in front, then pairs, then fours (Lemire 2022, "Fast number parsing").
    let digits = (word << (64 - 8 * count)) & (ONES * 0x0F);
    let pairs = digits * 10 + (digits >> 8);
    let odd = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(100 + (1_000_000 << 32));
    let even = (pairs >> 16 & 0x0000_00FF_0000_00FF).wrapping_mul(1 + (10_000 << 32));
    (odd.wrapping_add(even) >> 32, count)
}

/// The eight bytes at `at`, the first one lowest; zeros where the bytes end.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    if let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        return u64::from_le_bytes(*chunk);
    }
    match bytes.last_chunk::<8>() {
        Some(last) if at < bytes.len() => u64::from_le_bytes(*last) >> (8 * (at + 8 - bytes.len())),
        Some(_) => 0,
        None => bytes.iter().skip(at).rev().fold(0, |word, &b| word << 8 | u64::from(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_stops_or_passes_alike_at_every_place() {
        for place in 0..20 {
            for byte in 0..=255_u8 {
                let mut bytes = [b'a'; 24];
                bytes[place] = byte;
                let plain = byte != b'"' && byte != b'\\' && (0x20..0x80).contains(&byte);
                let expected = if plain { bytes.len() } else { place };
                assert_eq!(plain_until(&bytes, 0), expected, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn what_is_wanted_stands_or_does_not() {
        let text = b"0123456789abcdefghijklmn";
        for len in 0..=text.len() {
            for at in 0..=text.len() {
                let end = at + len;
                assert_eq!(
                    behind(text, at, text.get(at..end).unwrap_or(&text[..len])),
                    (end <= text.len()).then_some(end)
                );
                if let Some(found) = text.get(at..end) {
                    for wrong in 0..len {
                        let mut wanted = found.to_vec();
                        wanted[wrong] ^= 1;
                        assert_eq!(behind(text, at, &wanted), None);
                    }
                }
            }
        }
    }

    #[test]
    fn digits_are_counted_and_read_at_every_place() {
        for text in [
            "",
            "7",
            "09",
            "12345678",
            "123456789",
            "99999999",
            "00000001",
            "1.5",
            "12:34",
            "x",
            "-1",
            "5\u{fa}9",
            "5/",
            "5:",
        ] {
            let expected: String = text.chars().take(8).take_while(char::is_ascii_digit).collect();
            for before in 0..10 {
                for behind in 0..10 {
                    let whole = [&b"}".repeat(before), text.as_bytes(), &b"}".repeat(behind)].concat();
                    let value = expected.parse().unwrap_or(0);
                    assert_eq!(few_digits(&whole, before), (value, expected.len()), "{text} of {whole:?}");
                }
            }
        }
        for byte in 0..=255_u8 {
            let count = usize::from(byte.is_ascii_digit());
            assert_eq!(few_digits(&[byte, b'}', 0xff, 0xfa, 0, 0, 0, 0], 0).1, count, "{byte:#x}");
        }
    }
}
