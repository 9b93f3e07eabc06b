//! Why a spool can't be opened, written or read.

use std::io;

use super::{ROUND_BYTES_MAX, files};
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
    /// The system returned an error for a file. The file may hold events, so nothing is opened without it.
    #[error("{name} can't be read: {source}: {}", remedy(name, source))]
    Unreadable {
        /// The file.
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

/// Returns what to do about a file that can't be read.
fn remedy(name: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "start the process as the user that owns the file, or change its owner".into()
        }
        _ if name == files::SPARE => "start again, or remove the file: it holds no event".into(),
        _ => format!(
            "start again. If the disk never returns the file, rename it to {}: events in it are then lost, and events that \
             it names as delivered may be published twice",
            files::quarantined(name)
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_file_has_a_remedy() {
        let text = |name: &str, kind: io::ErrorKind| {
            OpenError::Unreadable { name: name.to_owned(), source: kind.into() }.to_string()
        };
        assert_eq!(
            text("journal-0000000000000003", io::ErrorKind::PermissionDenied),
            "journal-0000000000000003 can't be read: permission denied: start the process as the user that owns the file, or \
             change its owner"
        );
        let lost = text("journal-0000000000000003", io::ErrorKind::Other);
        assert!(lost.contains("rename it to damaged-0000000000000003: events in it are then lost"), "{lost}");
        let spare = text("spare", io::ErrorKind::Other);
        assert!(spare.contains("remove the file: it holds no event"), "{spare}");
    }
}
