//! Zigzag varints as in record batch v2 (KIP-98, Protocol Buffers' `sint32` and `sint64`).
//!
//! Rules: writing goes through a small array on the stack; reading refuses what does not fit the type.

/// Room for the varints in front of a record's key: length, attributes, two deltas, key length.
const HEAD_MAX: usize = 5 + 1 + 10 + 5 + 5;

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Bytes that `value` takes; the same for a 32-bit and a 64-bit varint.
pub(crate) const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A run of varints, made on the stack and copied into the batch at once.
pub(crate) struct Run {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Run {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; HEAD_MAX],
            len: 0,
        }
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    pub(crate) fn varint(&mut self, value: i64) {
        let mut rest = zigzag(value);
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    /// A length as Kafka writes it: -1 stands for null.
    pub(crate) fn length(&mut self, bytes: Option<&[u8]>) {
        self.varint(bytes.map_or(-1, |bytes| bytes.len() as i64));
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Reads a varint of at most `bits` bits (32 or 64) and what follows it.
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
        let mut run = Run::new();
        run.varint(value);
        run.as_slice().to_vec()
    }

    #[test]
    fn every_width_is_written_as_protocol_buffers_does() {
        assert_eq!(written(0), [0]);
        assert_eq!(written(-1), [1]);
        assert_eq!(written(63), [0x7e]);
        assert_eq!(written(64), [0x80, 0x01]);
        assert_eq!(written(i64::from(i32::MAX)), [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(
            written(i64::MIN),
            [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]
        );
    }

    #[test]
    fn the_predicted_length_is_the_written_one_at_every_bit() {
        for shift in 0..63 {
            for value in [
                (1_i64 << shift) - 1,
                1 << shift,
                -(1 << shift),
                -(1 << shift) - 1,
            ] {
                assert_eq!(written(value).len(), len(value), "{value}");
                assert_eq!(read(&written(value), 64), Ok((value, &[][..])));
            }
        }
    }

    #[test]
    fn a_value_beyond_its_type_or_the_end_is_refused() {
        assert_eq!(
            read(&written(i64::from(i32::MIN)), 32),
            Ok((i64::from(i32::MIN), &[][..]))
        );
        assert_eq!(
            read(&written(i64::from(i32::MAX) + 1), 32),
            Err(VarintError::TooBig)
        );
        assert_eq!(read(&[0x80; 11], 64), Err(VarintError::TooBig));
        assert_eq!(read(&[0x80, 0x80], 32), Err(VarintError::Truncated));
        assert_eq!(read(&[], 32), Err(VarintError::Truncated));
    }
}
