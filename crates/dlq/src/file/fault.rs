//! What can go wrong beneath a store's file.
//!
//! - redb checks what it reads, yet trusts some of it: where altered bytes make it panic, that is a damaged file, and no
//!   reason to end the process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kind::FileKind;

/// What went wrong.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system said so.
    Io(io::Error),
    /// The bytes are not what was written.
    Damaged(String),
    /// Written by a version with another format.
    Version(u64),
    /// redb's own format is one that needs an upgrade.
    Redb(u8),
    /// Another handle has the file.
    Held,
    /// Not a file of ours.
    Foreign,
    /// A folder, a device, a pipe or a socket.
    NotRegular(FileKind),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Damaged(reason) => write!(f, "it is damaged: {reason}"),
            Self::Version(found) => write!(f, "its format is {found}"),
            Self::Redb(found) => write!(f, "its database format is {found}"),
            Self::Held => f.write_str("it is open elsewhere"),
            Self::Foreign => f.write_str("it is not a file of dead letters"),
            Self::NotRegular(kind) => write!(f, "it is {kind}, not a regular file"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::Backend(error) => Self::Io(io::Error::other(error)),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier failure to read or write")),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Held,
            redb::Error::UpgradeRequired(found) => Self::Redb(found),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, CompactionError);

/// Does `work`; a panic is a damaged file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            Err(Fault::Damaged(format!("the database gave up: {text}")))
        }
    }
}
