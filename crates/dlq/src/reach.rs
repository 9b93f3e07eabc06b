//! The letters at a path, whoever holds them.

use std::path::Path;
use std::sync::Arc;

use crate::file::{FileStore, FileStoreOptions, OpenError};
use crate::store::DeadLetterStore;

/// Opens the file at `path`, or, where a service has it open, goes through that.
///
/// An error if the file can't be opened and its holder, if there is one, serves nobody.
pub fn open_or_reach(path: impl AsRef<Path>, options: FileStoreOptions) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    let path = path.as_ref();
    match FileStore::open_with(path, options.clone()) {
        Ok(store) => Ok(Arc::new(store)),
        Err(held @ OpenError::Held { .. }) => match reach(&held) {
            Some(store) => Ok(store),
            // The holder may have ended meanwhile.
            None => Ok(Arc::new(FileStore::open_with(path, options)?)),
        },
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn reach(held: &OpenError) -> Option<Arc<dyn DeadLetterStore>> {
    let OpenError::Held { service: Some(socket), .. } = held else { return None };
    match crate::remote::RemoteStore::connect(socket) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            tracing::warn!(socket = %socket.display(), %error, "the service that holds the dead letters can't be reached");
            None
        }
    }
}

#[cfg(not(unix))]
fn reach(_: &OpenError) -> Option<Arc<dyn DeadLetterStore>> {
    None
}
