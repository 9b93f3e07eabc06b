//! The check of a spool's file system.
//!
//! Rules:
//!  - A folder in memory, or on another machine, is refused: a sync there does not promise what a stored event promises.
//!  - A layer of a container and a file system of a program are a warning. Their syncs may well reach a disk.

use std::fmt;
use std::path::Path;

use kafka_courier_spool::disk::FileSystem;

/// A file system on which a sync does not promise that stored events survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnfitFileSystem(FileSystem);

impl fmt::Display for UnfitFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FileSystem::Memory(name) => write!(f, "{name} is in memory, and stored events are lost with the machine"),
            FileSystem::Network(name) => {
                write!(f, "{name} is a network file system, whose syncs and locks may promise nothing")
            }
            FileSystem::Layer(name) => {
                write!(f, "{name} may be a container's layer, which is removed with the container")
            }
            FileSystem::Program(name) => write!(f, "{name} is a program, whose syncs may promise nothing"),
            FileSystem::Disk => f.write_str("a disk"),
        }
    }
}

/// Checks the file system of a folder, and logs a warning if its syncs may promise nothing.
///
/// # Errors
///
/// The file system, if it is unfit.
pub(crate) fn check_file_system(dir: &Path, found: FileSystem) -> Result<(), UnfitFileSystem> {
    let file_system = UnfitFileSystem(found);
    match found {
        FileSystem::Memory(_) | FileSystem::Network(_) => return Err(file_system),
        FileSystem::Layer(_) | FileSystem::Program(_) => {
            tracing::warn!(dir = %dir.display(), %file_system, "spool may not survive: use a folder on a disk or a volume");
        }
        FileSystem::Disk => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certain_losses_are_refused() {
        let check = |found| check_file_system(Path::new("spool"), found);
        for found in [FileSystem::Disk, FileSystem::Layer("overlay"), FileSystem::Program("fuse")] {
            assert_eq!(check(found), Ok(()), "{found:?}");
        }
        for (found, text) in
            [(FileSystem::Memory("tmpfs"), "tmpfs is in memory"), (FileSystem::Network("nfs"), "nfs is")]
        {
            let error = check(found).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
