//! Known vectors, hostile spellings and properties of the canonical encoding.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

#[test]
fn rfc_8949_appendix_a_round_trips() {
    let integers = [
        (0_i128, "00"),
        (1, "01"),
        (10, "0a"),
        (23, "17"),
        (24, "1818"),
        (100, "1864"),
        (1000, "1903e8"),
        (1_000_000, "1a000f4240"),
        (1_000_000_000_000, "1b000000e8d4a51000"),
        (18_446_744_073_709_551_615, "1bffffffffffffffff"),
        (-18_446_744_073_709_551_616, "3bffffffffffffffff"),
        (-1, "20"),
        (-10, "29"),
        (-100, "3863"),
        (-1000, "3903e7"),
    ];
    for (value, text) in integers {
        let value = Value::Integer(ciborium::value::Integer::try_from(value).unwrap());
        assert_eq!(encode(&value), hex(text));
        assert_eq!(decode::<Value>(&hex(text)).unwrap(), value);
    }
    let floats = [
        (0.0, "f90000"),
        (-0.0, "f98000"),
        (1.0, "f93c00"),
        (1.1, "fb3ff199999999999a"),
        (1.5, "f93e00"),
        (65504.0, "f97bff"),
        (100_000.0, "fa47c35000"),
        (3.402_823_466_385_288_6e38, "fa7f7fffff"),
        (1.0e300, "fb7e37e43c8800759c"),
        (5.960_464_477_539_063e-8, "f90001"),
        (0.000_061_035_156_25, "f90400"),
        (-4.0, "f9c400"),
        (-4.1, "fbc010666666666666"),
        (f64::INFINITY, "f97c00"),
        (f64::NEG_INFINITY, "f9fc00"),
    ];
    for (value, text) in floats {
        assert_eq!(encode(&value), hex(text), "{value}");
        assert_eq!(decode::<f64>(&hex(text)).unwrap().to_bits(), f64::to_bits(value));
    }
    assert_eq!(encode(&f64::NAN), hex("f97e00"));
    assert_eq!(encode(&-f64::NAN), hex("f97e00"));
    assert!(decode::<f64>(&hex("f97e00")).unwrap().is_nan());
    for text in [
        "f4",
        "f5",
        "f6",
        "40",
        "4401020304",
        "60",
        "6161",
        "62225c",
        "62c3bc",
        "80",
        "83010203",
        "a0",
        "a201020304",
        "a26161016162820203",
        "8301820203820405",
        "826161a161626163",
    ] {
        let value: Value = decode(&hex(text)).unwrap();
        assert_eq!(encode(&value), hex(text), "{text}");
    }
}

#[test]
fn other_spellings_are_refused() {
    for (text, why) in [
        ("1800", "integer in two bytes"),
        ("190017", "integer in three"),
        ("1a0000ffff", "in five"),
        ("1b00000000ffffffff", "in nine"),
        ("580100", "length in two bytes"),
        ("9f01ff", "indefinite array"),
        ("bfff", "indefinite map"),
        ("5f4101ff", "indefinite bytes"),
        ("7f6161ff", "indefinite text"),
        ("fa3fc00000", "single that is a half"),
        ("fb3ff8000000000000", "double that is a half"),
        ("fb40f86a0000000000", "double that is a single"),
        ("fa7fc00000", "NaN in single"),
        ("fb7ff8000000000000", "NaN in double"),
        ("f97e01", "NaN with a payload"),
        ("f9fe00", "negative NaN"),
        ("a2616201616101", "keys out of order"),
        ("a2616101616101", "key twice"),
        ("a26161011801", "short first"),
        ("f7", "undefined"),
        ("f0", "simple 16"),
        ("f8ff", "simple 255"),
        ("c001", "tag"),
        ("c24101", "bignum"),
        ("1c", "reserved"),
        ("fc", "reserved"),
        ("ff", "break"),
        ("61ff", "not UTF-8"),
        ("", "nothing"),
        ("0000", "trailing"),
        ("8201", "array too short"),
        ("a101", "map too short"),
        ("19ff", "cut integer"),
        ("5bffffffffffffffff00", "length beyond memory"),
        ("9bffffffffffffffff", "count beyond memory"),
    ] {
        assert!(decode::<Value>(&hex(text)).is_err(), "{text}: {why}");
        assert!(to_json(&hex(text)).is_err(), "{text}: {why}");
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Fields {
    zeta: u8,
    a: Option<f32>,
    list: BTreeMap<String, u8>,
    bytes: Bytes,
}

#[test]
fn maps_are_sorted_by_encoded_key() {
    let map = Value::Map(["aa", "b", "a"].iter().map(|k| (Value::from(*k), Value::Null)).collect());
    assert_eq!(encode(&map), hex("a36161f66162f6626161f6"));
    let fields = Fields { zeta: 1, a: None, list: BTreeMap::new(), bytes: Bytes(vec![7; 9000]) };
    let bytes = encode(&fields);
    assert_eq!(&bytes[..4], &hex("a46161f6"));
    assert_eq!(decode::<Fields>(&bytes).unwrap(), fields);
}

/// Each shape that serde knows, and lengths that are not told beforehand.
#[derive(Serialize)]
enum Shapes {
    Unit,
    Newtype(Option<u8>),
    Tuple(i8, f32),
    Struct { zeta: char, a: () },
    Untold(#[serde(serialize_with = "untold")] Vec<u32>),
    Flat(Flat),
}

#[derive(Serialize)]
struct Flat {
    z: u8,
    #[serde(flatten)]
    rest: BTreeMap<&'static str, bool>,
}

fn untold<S: Serializer>(items: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().filter(|i| **i > 0))
}

#[test]
fn every_shape_of_serde_has_its_bytes() {
    for (shape, text) in [
        (Shapes::Unit, "64556e6974"),
        (Shapes::Newtype(None), "a1674e657774797065f6"),
        (Shapes::Newtype(Some(9)), "a1674e65777479706509"),
        (Shapes::Tuple(-1, 1.5), "a1655475706c658220f93e00"),
        (Shapes::Struct { zeta: 'ü', a: () }, "a166537472756374a26161f6647a65746162c3bc"),
        (Shapes::Untold(vec![0, 1, 0, 2]), "a166556e746f6c64820102"),
        (Shapes::Flat(Flat { z: 1, rest: [("aa", true), ("b", false)].into() }), "a164466c6174a36162f4617a01626161f5"),
    ] {
        assert_eq!(data_encoding::HEXLOWER.encode(&encode(&shape)), text);
        assert_eq!(encode(&Value::serialized(&shape).unwrap()), encode(&shape), "by way of a tree");
    }
}

#[test]
fn long_strings_come_back() {
    let long = "ü".repeat(10_000);
    assert_eq!(decode::<String>(&encode(&long)).unwrap(), long);
    assert_eq!(decode::<Value>(&encode(&long)).unwrap(), Value::Text(long));
}

#[test]
fn what_cannot_be_written_is_said() {
    let twins = Value::Map(vec![(Value::from(1), Value::Null), (Value::from(1), Value::Null)]);
    for value in [twins, Value::Tag(1, Box::new(Value::Null)), nested(MAX_DEPTH + 1)] {
        assert!(matches!(try_encode(&value), Err(CborError::Unwritable { .. })));
    }
    assert!(matches!(try_encode(&u128::MAX), Err(CborError::Unwritable { .. })));
}

#[test]
fn depth_is_bounded_on_both_sides() {
    let deepest = encode(&nested(MAX_DEPTH));
    assert_eq!(encode(&decode::<Value>(&deepest).unwrap()), deepest);
    let mut deeper = vec![0x81];
    deeper.extend_from_slice(&deepest);
    assert!(matches!(decode::<Value>(&deeper), Err(CborError::TooDeep { .. })));
    assert!(matches!(decode::<Value>(&vec![0x81; 1_000_000]), Err(CborError::TooDeep { .. })));
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, level| {
        if level % 2 == 0 { Value::Array(vec![inner]) } else { Value::Map(vec![(Value::from(0), inner)]) }
    })
}

#[test]
fn json_rendering() {
    let value = Value::Map(vec![
        (Value::from("zz"), Value::Bytes(vec![0xab, 0x01])),
        (Value::from("b"), Value::Array(vec![Value::from(-5), Value::Float(5.0), Value::Float(f64::NAN)])),
        (Value::from("a"), Value::Map(vec![(Value::from(1), Value::Bool(true))])),
        (Value::from("n"), Value::Float(f64::NEG_INFINITY)),
    ]);
    let json = to_json(&encode(&value)).unwrap();
    let text = r#"{"a":[[1,true]],"b":[-5,5.0,"NaN"],"n":"-Infinity","zz":"ab01"}"#;
    assert_eq!(json.to_string(), text);
    assert_eq!(json["zz"], json!("ab01"));
    // Golden: how numbers look in an audit log must not change with a library.
    for (float, text) in [
        (1e16, "1e16"),
        (1.5e300, "1.5e300"),
        (1e15, "1000000000000000.0"),
        (0.1, "0.1"),
        (1e-7, "1e-7"),
        (0.0001, "0.0001"),
        (123_456.75, "123456.75"),
        (-0.0, "-0.0"),
        (5.0, "5.0"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
    ] {
        let line = json_line(&Value::Array(vec![Value::Float(float)]));
        assert_eq!(line, format!("[{text}]"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), json!([float]));
    }
    assert_eq!(json_line(&value), text);
    assert_eq!(to_json(&hex("1bffffffffffffffff")).unwrap().to_string(), "18446744073709551615");
    assert_eq!(to_json(&hex("3bffffffffffffffff")).unwrap().to_string(), "\"-18446744073709551616\"");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|i| Value::Integer(i.into())),
        any::<u64>().prop_map(|i| Value::Integer(i.into())),
        (-300_i64..300).prop_map(|i| Value::Integer(i.into())),
        any::<f64>().prop_map(Value::Float),
        any::<f32>().prop_map(|f| Value::Float(f64::from(f))),
        any::<u16>().prop_map(|i| Value::Float(f64::from(i) / 1024.0)),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ".{0,12}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_to_the_same_bytes(value in any_value()) {
        if let Ok(bytes) = try_encode(&value) {
            let back: Value = decode(&bytes).unwrap();
            prop_assert_eq!(encode(&back), bytes);
        }
    }

    #[test]
    fn hostile_bytes_never_panic_and_what_passes_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = to_json(&bytes);
        let _ = decode::<crate::Hash>(&bytes);
        if let Ok(value) = decode::<Value>(&bytes) {
            prop_assert_eq!(encode(&value), bytes);
        }
    }

    #[test]
    fn a_flipped_byte_is_another_value_or_refused(
        value in any_value(), at in any::<prop::sample::Index>(), mask in 1_u8..,
    ) {
        if let Ok(mut bytes) = try_encode(&value) {
            let index = at.index(bytes.len());
            bytes[index] ^= mask;
            if let Ok(other) = decode::<Value>(&bytes) {
                prop_assert_eq!(encode(&other), bytes);
            }
        }
    }

    #[test]
    fn halves_agree_with_arithmetic(bits in any::<u16>()) {
        let (exponent, fraction) = (i32::from((bits >> 10) & 0x1f), f64::from(bits & 0x3ff));
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let value = sign * match exponent {
            0 => fraction * 2_f64.powi(-24),
            31 => if fraction == 0.0 { f64::INFINITY } else { return Ok(()) },
            e => (1.0 + fraction / 1024.0) * 2_f64.powi(e - 15),
        };
        prop_assert_eq!(write::to_half(value), Some(bits));
    }
}
