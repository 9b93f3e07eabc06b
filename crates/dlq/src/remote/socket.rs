//! The path of the socket: beside the file, or in the folder for temporary files if the path is too long for a socket.
//!
//! Rule: the socket is bound in a private folder and then moved, so that another user can never connect.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::file::lock::beside;

/// A listener and its path. Dropping it removes the path.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// The folder of a socket that is not beside the file.
    folder: Option<PathBuf>,
}

impl Socket {
    /// Binds `<file>.sock`, or a socket in the folder for temporary files if that path is too long.
    pub(super) fn for_file(file: &Path) -> io::Result<Self> {
        match Self::beside(file) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Self::in_temporary_folder(),
            bound => bound,
        }
    }

    fn beside(file: &Path) -> io::Result<Self> {
        let (folder, path) = (beside(file, ".s"), beside(file, ".sock"));
        // A former holder may have been killed before it removed this folder.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => private_folder(&folder)?,
        }
        let bound = bind(&folder.join("s")).and_then(|listener| {
            fs::rename(folder.join("s"), &path)?;
            Ok(listener)
        });
        fs::remove_dir_all(&folder)?;
        Ok(Self { listener: bound?, path, folder: None })
    }

    fn in_temporary_folder() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("courier-{}", Uuid::now_v7().simple()));
        private_folder(&folder)?;
        let path = folder.join("s");
        match bind(&path) {
            Ok(listener) => Ok(Self { listener, path, folder: Some(folder) }),
            Err(error) => {
                fs::remove_dir_all(&folder)?;
                Err(error)
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If this fails, the path of a closed socket remains.
        let _ = fs::remove_file(&self.path);
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
