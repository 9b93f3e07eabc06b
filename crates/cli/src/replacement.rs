//! Output files that replace existing ones.
//!
//! Rules: an existing file is unchanged until the new one is complete and on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::files::resolve;

/// A file that replaces another one once it is complete. Dropping it earlier removes it.
pub(crate) struct Replacement {
    pub(crate) writer: BufWriter<File>,
    /// The temporary file beside the target. `None` if the target is a device or a pipe, which is written directly.
    beside: Option<PathBuf>,
    /// The target, after all links.
    to: PathBuf,
}

impl Replacement {
    /// Creates the temporary file. An existing target keeps its permissions. A new one is readable by its owner only,
    /// because dead letters are business data.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let to = resolve(path)?;
        let there = to.metadata().ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(&to)?;
            return Ok(Self { writer: BufWriter::new(file), beside: None, to });
        }
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let beside = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&beside)?;
        let made = Self { writer: BufWriter::new(file), beside: Some(beside), to };
        if let Some(there) = there {
            made.writer.get_ref().set_permissions(there.permissions())?;
        }
        Ok(made)
    }

    /// Whether the target exists.
    pub(crate) fn replaces(&self) -> bool {
        self.beside.is_some() && self.to.exists()
    }

    /// Renames the temporary file to the target, and syncs both file and folder.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some(beside) = &self.beside else { return Ok(()) };
        self.writer.get_ref().sync_all()?;
        fs::rename(beside, &self.to)?;
        self.beside = None;
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // A failure leaves an incomplete file that no command reads.
            let _ = fs::remove_file(beside);
        }
    }
}
