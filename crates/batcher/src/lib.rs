//! Kafka record batches: encoding, decoding, partitioners, accumulation, snappy. No IO, no clock, no async.
//!
//! The rules of this crate:
//!  - Time and randomness are arguments. The crate reads no clock, draws no random numbers and never waits.
//!  - A record is encoded once, directly into its batch's buffer. A push allocates only to grow that buffer.
//!  - Sizes equal the bytes on the wire, and charged memory equals held memory, to the byte.
//!  - Decoding untrusted bytes is strict. It never panics, and no length in the input reserves memory.
//!
//! ```
//! use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record, Stamp};
//! use std::time::{Duration, Instant};
//!
//! let limits = Limits { max_records: 1000, max_bytes: 1 << 20, linger: Duration::from_millis(5) };
//! let pool = BufferPool::new(8 << 20);
//! let mut accumulator = Accumulator::new(limits, Compression::Snappy);
//! let record = Record { key: Some(b"k"), value: Some(b"v"), headers: &[], timestamp: 1_700_000_000_000 };
//! let pushed = accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || "token")?;
//! assert_eq!((pushed.token, pushed.index), ("token", 0));
//!
//! let mut sealed = accumulator.seal().expect("one record is open").encode(&pool);
//! sealed.batch.stamp(Stamp { producer_id: 7, epoch: 0, base_sequence: 0 });
//! assert_eq!(sealed.batch.record_count(), 1);
//! # Ok::<(), kafka_courier_batcher::PushError>(())
//! ```
#![deny(missing_docs)]

mod accumulator;
mod buffer_pool;
mod decode;
mod decode_error;
mod encoded;
mod header;
mod limits;
mod linger;
mod partitioner;
mod raw;
mod record;
mod records;
mod rewrite;
mod seal;
mod sealed;
mod sequence;
mod snappy;
mod stamp;
mod varint;

pub use accumulator::{Accumulator, PushError, Pushed};
pub use buffer_pool::BufferPool;
pub use decode::BatchView;
pub use decode_error::DecodeError;
pub use encoded::EncodedBatch;
pub use header::HEADER_LEN;
pub use limits::{Compression, Limits};
pub use linger::LingerQueue;
pub use partitioner::{Sticky, murmur2, partition_for_key};
pub use record::{Header, Record};
pub use records::{DecodedRecord, RecordIter, Records};
pub use seal::{Fill, SealEvent, SealReason, seal_reason};
pub use sealed::{CompressedBatch, SealedBatch};
pub use sequence::Sequence;
pub use stamp::Stamp;
