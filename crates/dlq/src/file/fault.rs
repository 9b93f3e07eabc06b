//! Failures of a store's file.
//!
//! Rule: a panic of redb is a damaged file, because redb trusts some of the bytes that it reads. The process does not end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kind::FileKind;

/// A failure of the file.
#[derive(Debug)]
pub(super) enum FileFault {
    /// The operating system returned an error.
    Io(io::Error),
    /// The bytes were altered.
    Damaged(String),
    /// A version with another format wrote the file.
    Version(u64),
    /// The database's own format needs an upgrade.
    Redb(u8),
    /// Another handle has the file open.
    Held,
    /// The file is not a file of dead letters.
    Foreign,
    /// The path leads to a folder, a device, a pipe or a socket.
    NotRegular(FileKind),
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Damaged(reason) => write!(f, "its content is invalid: {reason}"),
            Self::Version(found) => write!(f, "the file has format {found}"),
            Self::Redb(found) => write!(f, "the file has database format {found}"),
            Self::Held => f.write_str("the file is open elsewhere"),
            Self::Foreign => f.write_str("the file is not a file of dead letters"),
            Self::NotRegular(kind) => write!(f, "the path leads to {kind}, not to a regular file"),
        }
    }
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<redb::Error> for FileFault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::Backend(error) => Self::Io(io::Error::other(error)),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier read or write failed")),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Held,
            redb::Error::UpgradeRequired(found) => Self::Redb(found),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for FileFault {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, CompactionError);

/// Runs `work`, and returns a panic as a damaged file.
pub(super) fn catch_panics<T>(work: impl FnOnce() -> Result<T, FileFault>) -> Result<T, FileFault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            Err(FileFault::Damaged(format!("the database panicked: {text}")))
        }
    }
}
