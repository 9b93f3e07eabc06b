//! The serializer writes the same JSON as `serde_json`, and refuses the same values with the same errors.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{FEW, append, put_few};

fn assert_same<T: Serialize + ?Sized>(value: &T) {
    let mut out = b"before".to_vec();
    let ours = append(&mut out, value).map_err(|error| error.to_string());
    let theirs = serde_json::to_string(value).map_err(|error| error.to_string());
    let ours = ours.map(|()| String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned());
    assert_eq!(ours, theirs);
}

#[test]
fn short_bytes_are_copied() {
    let bytes: Vec<u8> = (0..=FEW as u8).collect();
    for len in 0..=FEW {
        let mut out = vec![255];
        put_few(&mut out, &bytes[..len]);
        assert_eq!(out[1..], bytes[..len]);
    }
}

#[derive(Serialize)]
struct Unit;
#[derive(Serialize)]
struct Newtype(&'static str);
#[derive(Serialize)]
struct Tuple(u8, &'static str);
#[derive(Serialize)]
struct Empty {}
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Choice {
    Unit,
    Newtype(i8),
    Tuple(i8, bool),
    Struct { a: i8, b: bool },
}
#[derive(Serialize)]
struct Flat {
    name: &'static str,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn values_equal_serde_jsons() {
    assert_same(&(true, false, 'x', '"', '\u{7f}', "é\u{2028}", ()));
    assert_same(&(i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
    assert_same(&[0.0, -0.0, 1.5, 1e300, 1e-7, f64::NAN, f64::INFINITY]);
    assert_same(&[0.1_f32, f32::MAX, f32::NAN]);
    assert_same(&(None::<u8>, Some(Some(3)), Unit, Newtype("n"), Tuple(1, "t"), Empty {}));
    assert_same(&[Choice::Unit, Choice::Newtype(-1), Choice::Tuple(2, true), Choice::Struct { a: 3, b: false }]);
    assert_same(&Flat { name: "f", rest: [("k\n".to_owned(), json!([1, {"x": null}, []]))].into() });
    assert_same(&json!({"a": {}, "b": [[], [{}]], "n": f64::NAN}));
}

#[test]
fn numbers_and_raw_values_keep_spelling() {
    let value: Value = serde_json::from_str(r#"{"big":123456789012345678901234567890,"small":1.50e-3}"#).unwrap();
    assert_same(&value);
    let raw = RawValue::from_string("{ \"as\" : [ \"it\",\n1.0 ] }".to_owned()).unwrap();
    assert_same(&(raw, 1));
}

#[test]
fn map_keys_equal_serde_jsons() {
    fn key<K: Serialize + Ord>(key: K) {
        assert_same(&BTreeMap::from([(key, 1)]));
    }
    key(1_u8);
    key(-5_i64);
    key(u128::MAX);
    key(true);
    key('"');
    key("a\"b");
    key(Choice::Unit);
    key(Some("s"));
    key(Choice::Newtype(1));
    key(Choice::Tuple(1, true));
    key(Choice::Struct { a: 1, b: true });
    key(None::<&str>);
    key(());
    key((1, 2));
    key(vec![1]);
    key(BTreeMap::from([(1, 2)]));
    struct Float(f64);
    impl Serialize for Float {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(self.0, 1)])
        }
    }
    assert_same(&[Float(1.5), Float(1e300)]);
    assert_same(&Float(f64::NAN));
}

#[test]
fn bytes_and_displayed_values() {
    struct Bytes;
    impl Serialize for Bytes {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(b"\x00\"z")
        }
    }
    assert_same(&Bytes);
    assert_same(&format_args!("{}\t{}", 1, "\""));
}

#[test]
fn escapes_are_found_at_every_position() {
    for length in 0..40 {
        for at in 0..length {
            for byte in 0..0x80_u8 {
                let mut text = vec![b'x'; length];
                text[at] = byte;
                assert_same(std::str::from_utf8(&text).unwrap());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_equals_serde_jsons(text in prop_oneof![any::<String>(), "[a-zé\"\\\\\n\u{0}\u{7f}]{0,40}"]) {
        assert_same(&text);
    }
}
