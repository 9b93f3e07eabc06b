//! Why a record batch cannot be decoded.

/// Why bytes cannot be decoded as a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends within the batch.
    #[error("the input ends within a record batch")]
    Truncated,
    /// The batch's length is smaller than its header.
    #[error("the record batch's length is smaller than its header")]
    BadLength,
    /// The batch has another format than v2.
    #[error("record batch format {0} is not supported: only format 2 is")]
    UnsupportedMagic(i8),
    /// The batch is compressed with another codec than snappy.
    #[error("compression codec {0} is not supported: only none (0) and snappy (2) are")]
    UnsupportedCodec(u8),
    /// The record count is negative or exceeds the batch's range of offsets.
    #[error("the record batch's record count is negative or exceeds its range of offsets")]
    BadCount,
    /// The uncompressed records exceed the caller's bound.
    #[error("the records exceed {max} bytes uncompressed")]
    TooLarge {
        /// The caller's bound, in bytes.
        max: usize,
    },
    /// The compressed bytes are neither framed nor raw snappy.
    #[error("the records are neither framed nor raw snappy")]
    Snappy,
    /// A varint exceeds its type.
    #[error("a varint in a record exceeds its type")]
    BadVarint,
    /// A length or count within a record is negative or exceeds the record.
    #[error("a length or count within a record is negative or exceeds the record")]
    BadRecord,
    /// Extra bytes follow a record's last field or the last record.
    #[error("extra bytes follow a record")]
    TrailingBytes,
    /// Offsets within the batch do not rise, or exceed the last offset.
    #[error("the offsets within the record batch do not rise, or exceed its last offset")]
    BadOffset,
    /// A record header's key is not UTF-8.
    #[error("a record header's key is not UTF-8")]
    BadHeaderKey,
}
