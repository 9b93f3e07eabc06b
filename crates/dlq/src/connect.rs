//! Opens a file of dead letters, or connects to the service of the process that holds the file.
//!
//! Rule: a refusal is final only after a short time, because a holder starts to serve shortly after it opens the file, and
//! stops shortly before it closes the file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::file::{FileStore, FileStoreOptions, OpenError};
use crate::store::DeadLetterStore;

/// Timeout for a holder to serve other processes, or to close the file.
const HOLDER_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens the file at `path`, or connects to the service that has the file open. Blocks its thread for up to half a second if
/// another process has the file and does not serve it.
///
/// # Errors
/// Returns an error if the file cannot be opened, and no process serves it.
pub fn open_or_reach(path: impl AsRef<Path>, options: FileStoreOptions) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    open_with(|| FileStore::open_with(path.as_ref(), options.clone()))
}

/// Opens an existing file for reading, or connects to its service, as [`open_or_reach`] does. Works on a disk that is full
/// or read-only. Changes to the store may fail.
///
/// # Errors
/// See [`open_or_reach`].
pub fn read_or_reach(path: impl AsRef<Path>) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    open_with(|| FileStore::open_read_only(path.as_ref()))
}

fn open_with(open: impl Fn() -> Result<FileStore, OpenError>) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    let begun = Instant::now();
    let attempt = || match open() {
        Ok(store) => Ok(Arc::new(store) as Arc<dyn DeadLetterStore>),
        Err(error) => reach(error),
    };
    let pause = || {
        std::thread::sleep(PAUSE);
        begun.elapsed() < HOLDER_TIMEOUT
    };
    retry_while_held(attempt, pause)
}

/// Retries while the file is held by another process and `pause` returns true.
fn retry_while_held<S>(
    mut attempt: impl FnMut() -> Result<S, OpenError>,
    mut pause: impl FnMut() -> bool,
) -> Result<S, OpenError> {
    loop {
        match attempt() {
            Err(OpenError::Held { .. }) if pause() => {}
            ended => return ended,
        }
    }
}

/// Connects once to the service of the process that holds a file. The function is for callers with their own way to wait
/// for the file, or to take it over.
///
/// # Errors
/// Returns the error `held` if there is no service, or it is unavailable.
#[cfg(unix)]
pub fn reach(held: OpenError) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    let OpenError::Held { service: Some(socket), .. } = &held else { return Err(held) };
    match crate::remote::RemoteStore::connect(socket) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => {
            tracing::debug!(socket = %socket.display(), %error, "service of the dead-letter file is unavailable");
            Err(held)
        }
    }
}

/// Returns the error `held`: this system has no services.
///
/// # Errors
/// Returns `held` in every case.
#[cfg(not(unix))]
pub fn reach(held: OpenError) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    Err(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> OpenError {
        OpenError::Held { path: "letters".into(), pid: Some(7), service: None }
    }

    #[test]
    fn starting_service_is_awaited() {
        let mut attempts = 0;
        let store = retry_while_held(
            || {
                attempts += 1;
                if attempts < 4 { Err(held()) } else { Ok("served") }
            },
            || true,
        );
        assert_eq!((store.ok(), attempts), (Some("served"), 4));
    }

    #[test]
    fn silent_holder_is_reported() {
        let mut pauses = 0;
        let refused = retry_while_held(
            || Err::<(), _>(held()),
            || {
                pauses += 1;
                pauses < 3
            },
        );
        assert!(matches!(refused, Err(OpenError::Held { pid: Some(7), .. })));
        assert_eq!(pauses, 3);
    }

    #[test]
    fn released_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let held = FileStore::open(&path).unwrap();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3); // the holder does not serve meanwhile
            drop(held);
        });
        assert!(open_or_reach(&path, FileStoreOptions::default()).is_ok());
        holder.join().unwrap();
    }
}
