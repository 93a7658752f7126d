//! Writes any serde value as canonical bytes, straight into the output.

use serde::ser::{self, Serialize, Serializer};

use super::{CborError, MAX_DEPTH};

/// Appends `value` to `out`.
pub(super) fn value<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CborError> {
    value.serialize(Item { out, depth: MAX_DEPTH })
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

/// The shortest of half, single and double that holds the same value; every NaN becomes the one canonical NaN.
#[inline]
fn float(f: f64, out: &mut Vec<u8>) {
    // What most measurements are: they have digits that single precision lacks.
    if f.is_finite() && f.to_bits().trailing_zeros() < f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS {
        let mut item = [0xfb; 9];
        item[1..].copy_from_slice(&f.to_be_bytes());
        return out.extend_from_slice(&item);
    }
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

/// The place of one item; `depth` is how many levels of arrays and maps may still open.
struct Item<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'a> Item<'a> {
    fn integer(self, i: i128) -> Result<(), CborError> {
        let (major, argument) = if i >= 0 { (0, i) } else { (1, -1 - i) };
        let argument = u64::try_from(argument).map_err(|_| unwritable(format!("integer {i} beyond 64 bits")))?;
        head(major, argument, self.out);
        Ok(())
    }

    fn text(self, text: &str) {
        head(3, text.len() as u64, self.out);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn deeper(self) -> Result<Self, CborError> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| unwritable(format!("nested deeper than {MAX_DEPTH}")))?;
        Ok(Item { depth, ..self })
    }

    fn array(self, len: Option<usize>) -> Result<Array<'a>, CborError> {
        let Item { out, depth } = self.deeper()?;
        let announced = Announced::write(4, len, out);
        Ok(Array { out, depth, announced, count: 0 })
    }

    fn map(self, len: Option<usize>) -> Result<Map<'a>, CborError> {
        let Item { out, depth } = self.deeper()?;
        let announced = Announced::write(5, len, out);
        Ok(Map { out, depth, announced, entries: Vec::with_capacity(len.unwrap_or_default().min(64)) })
    }

    /// A variant with content is a map of one entry; this is the place of its content.
    fn variant(self, name: &'static str, variant: &'static str) -> Result<Self, CborError> {
        // How `ciborium::Value` spells a tag to serde.
        if name == "@@TAG@@" {
            return Err(unwritable("a tag (an integer beyond 64 bits?)".to_owned()));
        }
        let Item { out, depth } = self.deeper()?;
        head(5, 1, out);
        Item { out: &mut *out, depth }.text(variant);
        Ok(Item { out, depth })
    }
}

/// Forwards the integer types of serde.
macro_rules! integers {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name(self, v: $kind) -> Result<(), CborError> {
            self.integer(i128::from(v))
        })*
    };
}

impl<'a> Serializer for Item<'a> {
    type Ok = ();
    type Error = CborError;
    type SerializeSeq = Array<'a>;
    type SerializeTuple = Array<'a>;
    type SerializeTupleStruct = Array<'a>;
    type SerializeTupleVariant = Array<'a>;
    type SerializeMap = Map<'a>;
    type SerializeStruct = Map<'a>;
    type SerializeStructVariant = Map<'a>;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    );

    fn serialize_u128(self, v: u128) -> Result<(), CborError> {
        let small = u64::try_from(v).map_err(|_| unwritable(format!("integer {v} beyond 64 bits")))?;
        self.serialize_u64(small)
    }

    fn serialize_bool(self, v: bool) -> Result<(), CborError> {
        self.out.push(if v { 0xf5 } else { 0xf4 });
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), CborError> {
        self.serialize_f64(f64::from(v))
    }

    fn serialize_f64(self, v: f64) -> Result<(), CborError> {
        float(v, self.out);
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), CborError> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, v: &str) -> Result<(), CborError> {
        self.text(v);
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), CborError> {
        head(2, v.len() as u64, self.out);
        self.out.extend_from_slice(v);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CborError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CborError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CborError> {
        self.out.push(0xf6);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CborError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), CborError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CborError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CborError> {
        value.serialize(self.variant(name, variant)?)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Array<'a>, CborError> {
        self.array(len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Array<'a>, CborError> {
        self.array(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Array<'a>, CborError> {
        self.array(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Array<'a>, CborError> {
        self.variant(name, variant)?.array(Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Map<'a>, CborError> {
        self.map(len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Map<'a>, CborError> {
        self.map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Map<'a>, CborError> {
        self.variant(name, variant)?.map(Some(len))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The head of an array or map whose content is being written.
struct Announced {
    major: u8,
    /// Written before the content when serde told it beforehand; else put there at the end.
    len: Option<usize>,
    /// Where the content begins.
    start: usize,
}

impl Announced {
    fn write(major: u8, len: Option<usize>, out: &mut Vec<u8>) -> Self {
        if let Some(len) = len {
            head(major, len as u64, out);
        }
        Announced { major, len, start: out.len() }
    }

    fn finish(self, count: usize, out: &mut Vec<u8>) -> Result<(), CborError> {
        match self.len {
            Some(len) if len != count => return Err(unwritable(format!("{count} items, {len} announced"))),
            Some(_) => {}
            None => {
                let mut bytes = Vec::with_capacity(9);
                head(self.major, count as u64, &mut bytes);
                out.splice(self.start..self.start, bytes);
            }
        }
        Ok(())
    }
}

/// An array being written.
struct Array<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
    announced: Announced,
    count: usize,
}

impl Array<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
        self.count += 1;
        value.serialize(Item { out: self.out, depth: self.depth })
    }

    fn finish(self) -> Result<(), CborError> {
        self.announced.finish(self.count, self.out)
    }
}

/// A map being written: entries in their order of arrival, brought into canonical order at the end.
struct Map<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
    announced: Announced,
    /// Where each key and its item begin.
    entries: Vec<(usize, usize)>,
}

impl Map<'_> {
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CborError> {
        let at = self.out.len();
        key.serialize(Item { out: self.out, depth: self.depth })?;
        self.entries.push((at, self.out.len()));
        Ok(())
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
        value.serialize(Item { out: self.out, depth: self.depth })
    }

    fn finish(self) -> Result<(), CborError> {
        let key = |e: &(usize, usize)| &self.out[e.0..e.1];
        if !self.entries.is_sorted_by(|a, b| key(a) < key(b)) {
            let sorted = self.sorted()?;
            self.out[self.announced.start..].copy_from_slice(&sorted);
        }
        self.announced.finish(self.entries.len(), self.out)
    }

    /// The content in canonical order.
    fn sorted(&self) -> Result<Vec<u8>, CborError> {
        let key = |nth: usize| &self.out[self.entries[nth].0..self.entries[nth].1];
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by(|&a, &b| key(a).cmp(key(b)));
        if let Some(twin) = order.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
            let key = data_encoding::HEXLOWER.encode(key(twin[0]));
            return Err(unwritable(format!("map key written twice: 0x{key}")));
        }
        let mut sorted = Vec::with_capacity(self.out.len() - self.announced.start);
        for nth in order {
            let end = self.entries.get(nth + 1).map_or(self.out.len(), |next| next.0);
            sorted.extend_from_slice(&self.out[self.entries[nth].0..end]);
        }
        Ok(sorted)
    }
}

/// Forwards the array-like traits of serde to [`Array`].
macro_rules! arrays {
    ($($name:ident: $method:ident),*) => {
        $(impl ser::$name for Array<'_> {
            type Ok = ();
            type Error = CborError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CborError> {
                self.finish()
            }
        })*
    };
}

arrays!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
);

impl ser::SerializeMap for Map<'_> {
    type Ok = ();
    type Error = CborError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CborError> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
        self.item(value)
    }

    fn end(self) -> Result<(), CborError> {
        self.finish()
    }
}

/// Forwards the struct-like traits of serde to [`Map`].
macro_rules! structs {
    ($($name:ident),*) => {
        $(impl ser::$name for Map<'_> {
            type Ok = ();
            type Error = CborError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), CborError> {
                self.key(key)?;
                self.item(value)
            }

            fn end(self) -> Result<(), CborError> {
                self.finish()
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::Error for CborError {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        unwritable(what.to_string())
    }
}

fn unwritable(what: String) -> CborError {
    CborError::Unwritable { what }
}
