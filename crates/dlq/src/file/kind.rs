//! The kind of the file that a path leads to.

use std::fmt;
use std::fs::FileType;

/// A kind of file that cannot hold dead letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A device, such as a terminal or a disk.
    Device,
    /// A named pipe (FIFO).
    Pipe,
    /// A Unix socket.
    Socket,
    /// Another kind of this operating system.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::Device => "a device",
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Other => "a special file",
        })
    }
}

impl FileKind {
    /// Returns the kind. `None` for a regular file.
    pub(super) fn of(found: FileType) -> Option<Self> {
        match found {
            found if found.is_file() => None,
            found if found.is_dir() => Some(Self::Folder),
            found => Some(Self::of_special(found)),
        }
    }

    #[cfg(unix)]
    fn of_special(found: FileType) -> Self {
        use std::os::unix::fs::FileTypeExt;
        match found {
            found if found.is_fifo() => Self::Pipe,
            found if found.is_socket() => Self::Socket,
            found if found.is_char_device() || found.is_block_device() => Self::Device,
            _ => Self::Other,
        }
    }

    #[cfg(not(unix))]
    fn of_special(_: FileType) -> Self {
        Self::Other
    }
}
