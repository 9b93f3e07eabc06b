//! The letters at a path, whoever holds them.
//!
//! Rules: a holder serves others soon after it has the file, and until shortly before it gives it up, so that being
//! refused is believed only after a moment.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::file::{FileStore, FileStoreOptions, OpenError};
use crate::store::DeadLetterStore;

/// So long a holder may take until it serves others, or has given the file up.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// Opens the file at `path`, or, where a service has it open, goes through that. Blocks its thread, for half a second where
/// somebody has the file and serves nobody.
///
/// An error if the file can't be opened and its holder, if there is one, serves nobody.
pub fn open_or_reach(path: impl AsRef<Path>, options: FileStoreOptions) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    open_with(|| FileStore::open_with(path.as_ref(), options.clone()))
}

/// As [`open_or_reach`], for reading alone: of a file that is there, also on a disk that is full or can't be written.
/// Changing a store that was opened so may be an error.
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
        begun.elapsed() < PATIENCE
    };
    patiently(attempt, pause)
}

/// Tries until it is something else than held, or until `pause` says that it was long enough.
fn patiently<S>(
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

/// Goes through the service of whoever holds a file, once; where there is none, or it can't be reached, the error is as it
/// came. For those who wait, or take the file over, in their own way.
#[cfg(unix)]
pub fn reach(held: OpenError) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    let OpenError::Held { service: Some(socket), .. } = &held else { return Err(held) };
    match crate::remote::RemoteStore::connect(socket) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => {
            tracing::debug!(socket = %socket.display(), %error, "the service that holds the dead letters can't be reached");
            Err(held)
        }
    }
}

/// Goes through the service of whoever holds a file: on this system there is none.
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
    fn who_has_the_file_and_does_not_serve_yet_is_asked_again() {
        let mut attempts = 0;
        let store = patiently(
            || {
                attempts += 1;
                if attempts < 4 { Err(held()) } else { Ok("served") }
            },
            || true,
        );
        assert_eq!((store.ok(), attempts), (Some("served"), 4));
    }

    #[test]
    fn who_never_serves_is_named_after_a_while() {
        let mut pauses = 0;
        let refused = patiently(
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
    fn a_file_that_is_given_up_meanwhile_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let held = FileStore::open(&path).unwrap();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3); // so long it keeps the file, serving nobody
            drop(held);
        });
        assert!(open_or_reach(&path, FileStoreOptions::default()).is_ok());
        holder.join().unwrap();
    }
}
