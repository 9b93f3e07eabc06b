//! The errors of dead-letter stores.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::letter::LetterId;

/// Why letters were refused. No letter was taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store is full, and its policy is to refuse letters.
    #[error(
        "the dead-letter store {store} is full with {letters} dead letters of {bytes} bytes: replay or purge some, or raise its limits"
    )]
    Full {
        /// The store.
        store: String,
        /// Letters in the store.
        letters: u64,
        /// Bytes of the letters.
        bytes: u64,
    },
    /// One letter alone exceeds the limit of bytes. The store may take the others without it.
    #[error(
        "dead letter {id} takes {bytes} bytes, over the limit of {limit} of the dead-letter store {store}: raise the limit"
    )]
    TooLarge {
        /// The store.
        store: String,
        /// The letter.
        id: LetterId,
        /// The letter's bytes.
        bytes: u64,
        /// The store's limit, in bytes.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation of a store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: Arc<std::io::Error>,
    },
    /// An earlier attempt failed, and the store pauses before the next one.
    #[error("{}: {reason} (since {since}): the store tries again after a pause", path.display())]
    Latched {
        /// The file.
        path: PathBuf,
        /// The failure.
        reason: Arc<str>,
        /// Time of the first failure.
        since: Timestamp,
    },
    /// The file's content was altered.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// A letter cannot be encoded as JSON.
    #[error("dead letter {id}: {reason}")]
    Letter {
        /// The letter.
        id: LetterId,
        /// The reason.
        reason: String,
    },
    /// The service that holds the store failed, or did not answer.
    #[error("the service that holds {store}: {reason}")]
    Service {
        /// The store.
        store: String,
        /// The service's error, or the connection's.
        reason: String,
    },
}
