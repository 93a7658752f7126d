//! Writes a value as canonical bytes.

use ciborium::Value;

use super::CborError;

/// Appends `value` to `out`; `depth` is how many levels of arrays and maps may still open.
pub(super) fn value(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), CborError> {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::Integer(i) => integer(i128::from(*i), out)?,
        Value::Float(f) => float(*f, out),
        Value::Bytes(b) => {
            head(2, b.len() as u64, out);
            out.extend_from_slice(b);
        }
        Value::Text(s) => {
            head(3, s.len() as u64, out);
            out.extend_from_slice(s.as_bytes());
        }
        Value::Array(items) => {
            let depth = deeper(depth)?;
            head(4, items.len() as u64, out);
            for item in items {
                self::value(item, depth, out)?;
            }
        }
        Value::Map(pairs) => map(pairs, deeper(depth)?, out)?,
        Value::Tag(tag, _) => return Err(unwritable(format!("tag {tag} (an integer beyond 64 bits?)"))),
        _ => return Err(unwritable("a kind of value this profile does not have".to_owned())),
    }
    Ok(())
}

/// The shortest head of a major type with its argument.
pub(super) fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 0x18, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 0x19);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 0x1a);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 0x1b);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

fn integer(i: i128, out: &mut Vec<u8>) -> Result<(), CborError> {
    let (major, argument) = if i >= 0 { (0, i) } else { (1, -1 - i) };
    let argument = u64::try_from(argument).map_err(|_| unwritable(format!("integer {i} beyond 64 bits")))?;
    head(major, argument, out);
    Ok(())
}

/// The shortest of half, single and double that holds the same value; every NaN becomes the one canonical NaN.
fn float(f: f64, out: &mut Vec<u8>) {
    let single = f as f32;
    if f.is_nan() {
        out.extend_from_slice(&[0xf9, 0x7e, 0x00]);
    } else if let Some(half) = to_half(f) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else if f64::from(single).to_bits() == f.to_bits() {
        out.push(0xfa);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&f.to_be_bytes());
    }
}

/// The half-precision bits of a value that half precision holds exactly; not for NaN.
pub(super) fn to_half(f: f64) -> Option<u16> {
    let bits = f.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    let fraction = bits & ((1 << 52) - 1);
    let half = match ((bits >> 52) & 0x7ff) as i32 - 1023 {
        -1023 if fraction == 0 => 0,
        1024 => 0x7c00,
        // Normal halves: 10 bits of fraction.
        exponent @ -14..=15 if fraction.trailing_zeros() >= 42 => {
            (((exponent + 15) as u16) << 10) | (fraction >> 42) as u16
        }
        // Subnormal halves: a multiple of 2^-24, with the leading one now explicit.
        exponent @ -24..=-15 => {
            let shift = 28 - exponent; // 52 bits of fraction brought to a unit of 2^-24
            let whole = fraction | (1 << 52);
            if whole.trailing_zeros() < shift as u32 {
                return None;
            }
            (whole >> shift) as u16
        }
        _ => return None,
    };
    Some(sign | half)
}

fn map(pairs: &[(Value, Value)], depth: usize, out: &mut Vec<u8>) -> Result<(), CborError> {
    let mut encoded = Vec::with_capacity(pairs.len());
    for (key, item) in pairs {
        let mut bytes = Vec::new();
        value(key, depth, &mut bytes)?;
        encoded.push((bytes, item));
    }
    encoded.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(twin) = encoded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(unwritable(format!("map key written twice: 0x{}", data_encoding::HEXLOWER.encode(&twin[0].0))));
    }
    head(5, pairs.len() as u64, out);
    for (key, item) in encoded {
        out.extend_from_slice(&key);
        value(item, depth, out)?;
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, CborError> {
    depth.checked_sub(1).ok_or_else(|| unwritable(format!("nested deeper than {}", super::MAX_DEPTH)))
}

fn unwritable(what: String) -> CborError {
    CborError::Unwritable { what }
}
