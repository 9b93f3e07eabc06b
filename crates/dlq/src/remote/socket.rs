//! The socket's place: beside the file, or where paths are short enough.
//!
//! - It is bound in a folder that is the owner's alone and moved from there, so that at no moment anybody else can connect.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::file::lock::beside;

/// A listener, and its path, which goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// Only where there was no room beside the file.
    folder: Option<PathBuf>,
}

impl Socket {
    /// `<file>.sock`, or where that path is too long for a socket, one in the folder for temporary files.
    pub(super) fn for_file(file: &Path) -> io::Result<Self> {
        match Self::beside(file) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Self::in_temporary_folder(),
            bound => bound,
        }
    }

    fn beside(file: &Path) -> io::Result<Self> {
        let (folder, path) = (beside(file, ".s"), beside(file, ".sock"));
        // Whoever held the file before may have been killed here.
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
        // What stays is a name that nobody answers at.
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
