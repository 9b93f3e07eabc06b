//! A serde `Serializer` that writes the same JSON as `serde_json`, byte for byte, with a third of the instructions. It
//! scans text eight bytes at a time and uses no generic writer.
//!
//! - `serde_json` itself writes the rare cases: texts with escapes, floats, its own numbers and raw values, and map
//!   keys that are not strings.
//! - Short texts avoid musl's `memcpy`: see [`put_bytes`].
//! - The buffer holds partial JSON after an error, and the caller truncates it.

use serde::Serialize;
use serde::ser::{self, Error as _, Impossible, Serializer};
use serde_json::Error;

/// Prefix of the struct names by which `serde_json` marks its own numbers and raw values.
const PRIVATE: &str = "$serde_json::private::";
const ONES: u64 = 0x0101_0101_0101_0101;
/// Length up to which bytes are copied word by word. A UUID's text fits.
const FEW: usize = 40;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Appends `value` as JSON to `out`.
pub(crate) fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    value.serialize(Json(out))
}

/// Returns a mask of the bytes of `word` that need an escape: control characters, `"` and `\`.
const fn escapes(word: u64) -> u64 {
    let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & HIGHS
}

/// Inlined with every caller that writes names, so that checks of constant names happen at compile time.
#[inline(always)]
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return is_short_plain(text);
    };
    let (words, _) = text.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| found | escapes(u64::from_ne_bytes(*word)));
    // The last eight bytes again, to cover a partial word at the end.
    (found | escapes(u64::from_ne_bytes(*last))) == 0
}

/// Checks less than eight bytes: the first and last four, or each byte.
#[inline(always)]
fn is_short_plain(text: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let word = u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last));
        return escapes(word) == 0;
    }
    !text.iter().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
}

/// Appends a text as JSON.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    put_name(out, text)
}

#[inline(always)]
fn put_name(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    if !is_plain(text.as_bytes()) {
        return serde_json::to_writer(out, text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    put_bytes(out, text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// Appends bytes, word by word if they are few and the C library is musl. musl's `memcpy` is slow for short copies on
/// many processors: one call for each short text tripled the cost of an event.
#[inline(always)]
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if cfg!(target_env = "musl") && bytes.len() <= FEW {
        return put_few(out, bytes);
    }
    out.extend_from_slice(bytes);
}

#[inline(always)]
fn put_few(out: &mut Vec<u8>, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| out.extend_from_slice(word));
    let (words, rest) = rest.as_chunks::<4>();
    words.iter().for_each(|word| out.extend_from_slice(word));
    rest.iter().for_each(|byte| out.push(*byte));
}

struct Json<'a>(&'a mut Vec<u8>);

impl<'a> Json<'a> {
    fn put(self, text: &str) -> Result<(), Error> {
        put_bytes(self.0, text.as_bytes());
        Ok(())
    }

    fn members(self, open: u8, close: &'static str) -> Members<'a> {
        self.0.push(open);
        Members { out: self.0, any: false, close, private: None }
    }

    /// Starts an object of one member. The caller writes its value next.
    fn variant(self, name: &str) -> Result<Self, Error> {
        self.0.push(b'{');
        put_text(self.0, name)?;
        self.0.push(b':');
        Ok(self)
    }
}

macro_rules! integers {
    ($($method:ident: $integer:ty),+) => {$(
        fn $method(self, value: $integer) -> Result<(), Error> {
            self.put(itoa::Buffer::new().format(value))
        }
    )+};
}

impl<'a> Serializer for Json<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Members<'a>;
    type SerializeTuple = Members<'a>;
    type SerializeTupleStruct = Members<'a>;
    type SerializeTupleVariant = Members<'a>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Members<'a>;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    );

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.put(if value { "true" } else { "false" })
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        put_text(self.0, value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        put_text(self.0, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        put_text(self.0, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let object = self.variant(variant)?;
        value.serialize(Json(object.0))?;
        object.put("}")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        Ok(self.members(b'[', "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Members<'a>, Error> {
        Ok(self.members(b'[', "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Error> {
        Ok(self.members(b'[', "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'a>, Error> {
        Ok(self.variant(variant)?.members(b'[', "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        Ok(self.members(b'{', "}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Members<'a>, Error> {
        if name.starts_with(PRIVATE) {
            return Ok(Members { out: self.0, any: false, close: "", private: Some(name) });
        }
        Ok(self.members(b'{', "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'a>, Error> {
        Ok(self.variant(variant)?.members(b'{', "}}"))
    }
}

/// An array or object that is being written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
    close: &'static str,
    /// Name of the private struct of `serde_json`, whose single field is its whole text.
    private: Option<&'static str>,
}

impl Members<'_> {
    #[inline(always)]
    fn next(&mut self) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.next();
        value.serialize(Json(self.out))
    }

    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        if let Some(private) = self.private {
            let mut inner = serde_json::Serializer::new(&mut *self.out);
            let mut inner = inner.serialize_struct(private, 1)?;
            ser::SerializeStruct::serialize_field(&mut inner, name, value)?;
            return ser::SerializeStruct::end(inner);
        }
        self.next();
        put_name(self.out, name)?;
        self.out.push(b':');
        value.serialize(Json(self.out))
    }

    fn close(self) -> Result<(), Error> {
        put_bytes(self.out, self.close.as_bytes());
        Ok(())
    }
}

macro_rules! members {
    ($($of:ident, $method:ident($($name:ident)?), $by:ident;)+) => {$(
        impl ser::$of for Members<'_> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Result<(), Error> {
                self.$by($($name,)? value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )+};
}

members! {
    SerializeSeq, serialize_element(), element;
    SerializeTuple, serialize_element(), element;
    SerializeTupleStruct, serialize_field(), element;
    SerializeTupleVariant, serialize_field(), element;
    SerializeStruct, serialize_field(name), field;
    SerializeStructVariant, serialize_field(name), field;
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.next();
        key.serialize(Key(self.out))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Json(self.out))
    }

    #[inline(always)]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        self.next();
        key.serialize(Key(self.out))?;
        self.out.push(b':');
        value.serialize(Json(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

/// A map's key, which is a string in JSON.
struct Key<'a>(&'a mut Vec<u8>);

impl Key<'_> {
    /// Writes the key as `serde_json` does in a map, or returns the error of `serde_json`.
    fn other<T: Serialize>(self, key: &T) -> Result<(), Error> {
        let mut map = Vec::new();
        ser::SerializeMap::serialize_key(&mut serde_json::Serializer::new(&mut map).serialize_map(None)?, key)?;
        self.0.extend_from_slice(map.strip_prefix(b"{").unwrap_or(&map));
        Ok(())
    }
}

macro_rules! other_keys {
    ($($method:ident: $key:ty),+) => {$(
        fn $method(self, key: $key) -> Result<(), Error> {
            self.other(&key)
        }
    )+};
}

fn no_key<T>() -> Result<T, Error> {
    Err(Error::custom("key must be a string"))
}

impl Serializer for Key<'_> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    other_keys!(
        serialize_bool: bool, serialize_char: char, serialize_f32: f32, serialize_f64: f64,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    );

    #[inline(always)]
    fn serialize_str(self, key: &str) -> Result<(), Error> {
        put_name(self.0, key)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        put_text(self.0, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, key: &T) -> Result<(), Error> {
        key.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<(), Error> {
        key.serialize(self)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        no_key()
    }

    fn serialize_none(self) -> Result<(), Error> {
        no_key()
    }

    fn serialize_unit(self) -> Result<(), Error> {
        no_key()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        no_key()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        no_key()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Error> {
        no_key()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        no_key()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        no_key()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        no_key()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        no_key()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Error> {
        no_key()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        no_key()
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
