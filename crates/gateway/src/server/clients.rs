//! The clients of `tokens_file`.
//!
//! Rule: a file that becomes unreadable or invalid changes nothing. The clients of the last valid file stay, with a warning.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::shapes::failure::Failure;
use crate::shapes::principal::{Principal, Principals};

/// The clients of a file, or of none.
#[derive(Debug)]
pub(super) struct Clients {
    path: String,
    current: RwLock<FileContent>,
}

#[derive(Debug, Default)]
struct FileContent {
    /// The content that was read last, valid or not. It has digests of tokens only.
    text: String,
    principals: Arc<Principals>,
}

impl Clients {
    /// Reads the file. An empty path is no file: every client is accepted.
    ///
    /// # Errors
    ///
    /// The reason why the file is unreadable or invalid.
    pub(super) fn open(path: &str) -> Result<Self, String> {
        let clients = Self { path: path.to_owned(), current: RwLock::default() };
        if !path.is_empty() {
            clients.read()?;
        }
        Ok(clients)
    }

    /// Reads the file again, if there is one. Blocks.
    pub(super) fn reload(&self) {
        if self.path.is_empty() {
            return;
        }
        match self.read() {
            Ok(true) => tracing::info!(path = self.path, "clients changed"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(path = self.path, error, "tokens_file is invalid, and the former clients stay")
            }
        }
    }

    /// Reads the file. Returns whether it changed.
    fn read(&self) -> Result<bool, String> {
        let text = std::fs::read_to_string(&self.path).map_err(|error| format!("{}: {error}", self.path))?;
        if self.current.read().text == text {
            return Ok(false);
        }
        let principals = Principals::parse(&text).map_err(|error| format!("{}: {error}", self.path))?;
        *self.current.write() = FileContent { text, principals: Arc::new(principals) };
        Ok(true)
    }

    /// Returns the client of a request. `None` if no file names the clients.
    pub(super) fn find(&self, authorization: Option<&[u8]>) -> Result<Option<Principal>, Failure> {
        if self.path.is_empty() {
            return Ok(None);
        }
        let principals = self.current.read().principals.clone();
        principals.find(authorization).cloned().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn invalid_file_keeps_former_clients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("a zz");
        assert!(Clients::open(&path.display().to_string()).is_err());
        write(&format!("a {SECRET}"));
        let clients = Clients::open(&path.display().to_string()).unwrap();
        let name = || clients.find(Some(b"Bearer secret")).map(|client| client.unwrap().name);
        assert_eq!(name().as_deref(), Ok("a"));
        write("a zz");
        clients.reload();
        assert_eq!(name().as_deref(), Ok("a"));
        write(&format!("b {SECRET}"));
        clients.reload();
        assert_eq!(name().as_deref(), Ok("b"));
        std::fs::remove_file(&path).unwrap();
        clients.reload();
        assert_eq!(name().as_deref(), Ok("b"));
    }

    #[test]
    fn no_file_accepts_every_client() {
        assert_eq!(Clients::open("").unwrap().find(None), Ok(None));
    }
}
