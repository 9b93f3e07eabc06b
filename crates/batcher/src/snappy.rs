//! Snappy with snappy-java's framing ("xerial"), which Kafka's Java clients read and write.
//!
//! Rules:
//!  - A block holds 32 KiB of input, as in Java.
//!  - Input that compression does not shrink stays uncompressed.
//!  - Raw snappy without framing is decoded too, because librdkafka writes it.
//!  - A length in the input is checked before it sizes a buffer.

use std::cell::RefCell;

use crate::buffer_pool::BufferPool;
use crate::decode_error::DecodeError;
use crate::header::HEADER_LEN;

/// Magic, then version 1 and lowest compatible version 1.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const FRAME_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const BLOCK: usize = 32 * 1024;
/// Upper bound of the expansion: a snappy element of three bytes decodes to at most 64 bytes.
const MAX_EXPANSION: usize = 22;

/// Compresses the records of a batch and leaves room for a header. Returns `None` if the result would not be smaller.
pub(crate) fn compress_batch(batch: &[u8], pool: &BufferPool) -> Option<Vec<u8>> {
    let mut out = pool.get(batch.len());
    out.extend_from_slice(&[0; HEADER_LEN]);
    out.extend_from_slice(&FRAME_HEADER);
    let records = batch.get(HEADER_LEN..).unwrap_or_default();
    if compress_blocks(records, batch.len(), &mut out).is_none() {
        pool.put(out);
        return None;
    }
    Some(out)
}

thread_local! {
    /// The encoder's table and a block buffer. Small batches share these 70 KiB per thread.
    static WORK: RefCell<(snap::raw::Encoder, Vec<u8>)> = RefCell::new((snap::raw::Encoder::new(), Vec::new()));
}

/// Appends framed blocks to `out`. Returns `None` once `out` reaches `limit` bytes.
fn compress_blocks(records: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<()> {
    WORK.with_borrow_mut(|(encoder, scratch)| {
        scratch.resize(snap::raw::max_compress_len(BLOCK), 0);
        for block in records.chunks(BLOCK) {
            let written = encoder.compress(block, scratch).ok()?;
            if out.len() + 4 + written >= limit {
                return None;
            }
            out.extend_from_slice(&(written as u32).to_be_bytes());
            out.extend_from_slice(scratch.get(..written)?);
        }
        Some(())
    })
}

/// Decompresses framed or raw snappy to at most `max` bytes.
pub(crate) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = snap::raw::Decoder::new();
    let mut out = Vec::new();
    let Some(framed) = input.strip_prefix(&MAGIC) else {
        append_block(&mut decoder, input, max, &mut out)?;
        return Ok(out);
    };
    // Version and lowest compatible version. All writers write 1, and readers ignore both.
    let mut rest = framed.get(8..).ok_or(DecodeError::Snappy)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(DecodeError::Snappy)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| DecodeError::Snappy)?;
        let (block, after) = after.split_at_checked(length).ok_or(DecodeError::Snappy)?;
        append_block(&mut decoder, block, max, &mut out)?;
        rest = after;
    }
    Ok(out)
}

/// Returns the length of framed snappy that this crate wrote, decompressed.
pub(crate) fn decompressed_len(input: &[u8]) -> Result<usize, DecodeError> {
    let mut rest = input.get(FRAME_HEADER.len()..).ok_or(DecodeError::Snappy)?;
    let mut length = 0_usize;
    while !rest.is_empty() {
        let (block_len, after) = rest.split_first_chunk::<4>().ok_or(DecodeError::Snappy)?;
        let block_len = usize::try_from(u32::from_be_bytes(*block_len)).map_err(|_| DecodeError::Snappy)?;
        let (block, after) = after.split_at_checked(block_len).ok_or(DecodeError::Snappy)?;
        length = length.saturating_add(snap::raw::decompress_len(block).map_err(|_| DecodeError::Snappy)?);
        rest = after;
    }
    Ok(length)
}

fn append_block(
    decoder: &mut snap::raw::Decoder,
    block: &[u8],
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let claimed = snap::raw::decompress_len(block).map_err(|_| DecodeError::Snappy)?;
    if claimed > block.len().saturating_mul(MAX_EXPANSION) {
        return Err(DecodeError::Snappy);
    }
    let start = out.len();
    if claimed > max.saturating_sub(start) {
        return Err(DecodeError::TooLarge { max });
    }
    out.resize(start + claimed, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = decoder.decompress(block, room).map_err(|_| DecodeError::Snappy)?;
    out.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(records: &[u8]) -> Vec<u8> {
        let mut batch = vec![0; HEADER_LEN];
        batch.extend_from_slice(records);
        let out = compress_batch(&batch, &BufferPool::new(0)).unwrap();
        out[HEADER_LEN..].to_vec()
    }

    #[test]
    fn framing_equals_snappy_javas() {
        let records = b"abcdefgh".repeat(10_000);
        let bytes = framed(&records);
        assert_eq!(&bytes[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        let first = u32::from_be_bytes(bytes[16..20].try_into().unwrap()) as usize;
        assert_eq!(snap::raw::decompress_len(&bytes[20..20 + first]), Ok(BLOCK));
        assert_eq!(decompress(&bytes, records.len()), Ok(records));
    }

    #[test]
    fn incompressible_input_stays_uncompressed() {
        let pool = BufferPool::new(1 << 20);
        let mut state = 1_u32;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let noise: Vec<u8> = (0..4096).map(|_| noise()).collect();
        assert!(compress_batch(&noise, &pool).is_none());
        assert_eq!(pool.retained(), 4096);
    }

    #[test]
    fn raw_snappy_is_decoded() {
        let plain = b"the same again and again ".repeat(40);
        let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(decompress(&raw, plain.len()), Ok(plain));
    }

    #[test]
    fn bound_is_checked_before_decoding() {
        let bytes = framed(&[5; 100_000]);
        assert_eq!(decompress(&bytes, 99_999), Err(DecodeError::TooLarge { max: 99_999 }));
        assert_eq!(decompress(&bytes, 100_000).map(|out| out.len()), Ok(100_000));
    }

    #[test]
    fn impossible_length_is_refused() {
        // Raw snappy with a length of 2^31 bytes and no data.
        assert_eq!(decompress(&[0x80, 0x80, 0x80, 0x80, 0x08], usize::MAX), Err(DecodeError::Snappy));
    }

    #[test]
    fn truncated_frame_never_panics() {
        let records = b"abcdefgh".repeat(10_000);
        let bytes = framed(&records);
        for end in 0..bytes.len() {
            let cut = decompress(&bytes[..end], records.len());
            assert!(cut.is_err() || cut.is_ok_and(|out| out.len() < records.len()), "{end}");
        }
    }
}
