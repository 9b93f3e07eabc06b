//! Zigzag varints of record batch v2 (KIP-98, Protocol Buffers' `sint32` and `sint64`).
//!
//! Rules:
//!  - A varint is written with the fewest bytes.
//!  - A value that exceeds its type is refused.

/// Length up to which bytes are copied word by word. Most keys and headers are shorter.
const FEW: usize = 40;

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Returns the bytes that `value` takes, the same for a 32-bit and a 64-bit varint.
pub(crate) const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value`.
pub(crate) fn put(value: i64, out: &mut Vec<u8>) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a length, of which -1 is null, and the bytes.
pub(crate) fn put_sized(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    put(bytes.map_or(-1, |bytes| bytes.len() as i64), out);
    let bytes = bytes.unwrap_or_default();
    // musl's memcpy is slow for short copies on many processors.
    if cfg!(target_env = "musl") && bytes.len() <= FEW {
        return put_few(bytes, out);
    }
    out.extend_from_slice(bytes);
}

#[inline(always)]
fn put_few(bytes: &[u8], out: &mut Vec<u8>) {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| out.extend_from_slice(word));
    let (words, rest) = rest.as_chunks::<4>();
    words.iter().for_each(|word| out.extend_from_slice(word));
    rest.iter().for_each(|byte| out.push(*byte));
}

/// Reads a varint of at most `bits` bits (32 or 64). Returns the value and the remaining bytes.
pub(crate) fn read(bytes: &[u8], bits: u32) -> Result<(i64, &[u8]), VarintError> {
    let mut value = 0_u64;
    let mut shift = 0;
    let mut rest = bytes;
    loop {
        let (&byte, after) = rest.split_first().ok_or(VarintError::Truncated)?;
        let group = u64::from(byte & 0x7f);
        if shift >= bits || (bits - shift < 7 && group >> (bits - shift) != 0) {
            return Err(VarintError::TooBig);
        }
        value |= group << shift;
        rest = after;
        if byte & 0x80 == 0 {
            return Ok((((value >> 1) as i64) ^ -((value & 1) as i64), rest));
        }
        shift += 7;
    }
}

/// Why a varint cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    Truncated,
    TooBig,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put(value, &mut out);
        out
    }

    #[test]
    fn encoding_equals_protocol_buffers() {
        assert_eq!(written(0), [0]);
        assert_eq!(written(-1), [1]);
        assert_eq!(written(63), [0x7e]);
        assert_eq!(written(64), [0x80, 0x01]);
        assert_eq!(written(i64::from(i32::MAX)), [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(written(i64::MIN), [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }

    #[test]
    fn short_bytes_are_copied() {
        let bytes: Vec<u8> = (0..=FEW as u8).collect();
        for len in 0..=FEW {
            let mut out = vec![255];
            put_few(&bytes[..len], &mut out);
            assert_eq!(out[1..], bytes[..len]);
        }
    }

    #[test]
    fn predicted_length_is_exact() {
        for shift in 0..63 {
            for value in [(1_i64 << shift) - 1, 1 << shift, -(1 << shift), -(1 << shift) - 1] {
                assert_eq!(written(value).len(), len(value), "{value}");
                assert_eq!(read(&written(value), 64), Ok((value, &[][..])));
            }
        }
    }

    #[test]
    fn overflow_and_truncation_are_refused() {
        assert_eq!(read(&written(i64::from(i32::MIN)), 32), Ok((i64::from(i32::MIN), &[][..])));
        assert_eq!(read(&written(i64::from(i32::MAX) + 1), 32), Err(VarintError::TooBig));
        assert_eq!(read(&[0x80; 11], 64), Err(VarintError::TooBig));
        assert_eq!(read(&[0x80, 0x80], 32), Err(VarintError::Truncated));
        assert_eq!(read(&[], 32), Err(VarintError::Truncated));
    }
}
