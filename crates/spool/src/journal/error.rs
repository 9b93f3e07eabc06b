//! Why a spool can't be opened, written or read.

use std::io;

use super::ROUND_BYTES_MAX;
use crate::core::recover::RecoverError;
use crate::core::segment::HeaderError;

/// Why a spool can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{name}: {source}")]
    Io {
        /// The file, or `.` for the folder.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file has a header that this version can't read.
    #[error("{name}: {source}")]
    Header {
        /// The file.
        name: String,
        /// Why.
        source: HeaderError,
    },
    /// A batch that may not be durable was read, and can't be read again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A later version wrote an entry of a frame.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The folder holds files of two spools.
    #[error("{name} belongs to another spool than the other files of the folder: move it away")]
    OtherSpool {
        /// The file.
        name: String,
    },
}

/// Why a round is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The batches do not fit. Nothing was written, and a smaller round may fit.
    #[error("the spool is full: the round needs {needed} bytes")]
    Full {
        /// The bytes that the round needs.
        needed: u64,
    },
    /// The file for a new segment can't be created. Nothing was written, and a later round may succeed.
    #[error("no new segment can be created: {0}")]
    NoSegment(io::Error),
    /// Writing failed, and a new segment could not be written either. The round may be durable. Nothing more is committed
    /// until the spool is opened again.
    #[error("the journal can't be written: {0}")]
    Failed(io::Error),
    /// The round is too large. Nothing was written.
    #[error("a round of {bytes} bytes is over the limit of {ROUND_BYTES_MAX}: commit fewer records at a time")]
    TooLarge {
        /// The size of the round.
        bytes: usize,
    },
    /// A batch is empty. Nothing was written.
    #[error("a batch of no records")]
    EmptyBatch,
    /// An earlier round failed.
    #[error("the journal could not be written before, and is closed to further rounds")]
    Latched,
}

/// Why a batch can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The journal holds no unsettled batch that begins at the ordinal.
    #[error("the spool holds no batch of this ordinal")]
    NotHeld,
    /// The file can't be read.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes are not the ones that were written.
    #[error("{name}: the batch at byte {offset} is damaged")]
    Damaged {
        /// The file.
        name: String,
        /// The first byte of the batch's entry.
        offset: u64,
    },
}
