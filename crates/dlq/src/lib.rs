//! Dead letters: records that failed, kept durably with their reasons and outcomes, and ready to be sent again.
//!
//! A [`Letter`] is a failed record with its reason. Its JSON is one line and keeps every byte. A [`DeadLetterStore`] keeps
//! letters: [`MemoryStore`] in a bounded ring, [`FileStore`] on disk. [`open_or_reach`] opens a file, or connects to the
//! service that holds it. A [`Selection`] selects letters.
//!
//! All calls block. The crate knows neither Kafka nor async: a producer calls it from a separate thread.
//!
//! ```
//! use kafka_courier_dlq::{Bytes, DeadLetterStore, Letter, MemoryStore, Outcome};
//!
//! let store = MemoryStore::new(1000);
//! let now = "2024-01-15T10:00:00Z".parse()?;
//! let mut letter = Letter::new("orders", Bytes::from_static(br#"{"id":1}"#), "broker not available", now);
//! letter.outcome = Outcome::NotWritten;
//! store.append(&[letter.clone()])?;
//! let held = store.scan(None, 10)?;
//! assert_eq!(held[0].letter, letter);
//! store.remove(&[held[0].position])?;
//! assert_eq!(store.len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod connect;
mod file;
mod format_1;
mod held;
mod import;
mod json;
mod letter;
mod limits;
#[cfg(test)]
mod log_tests;
mod loss_log;
mod memory;
#[cfg(test)]
mod model_tests;
#[cfg(unix)]
mod remote;
mod replay_guard;
mod replay_state;
mod selection;
mod store;
mod store_error;

pub use connect::{open_or_reach, reach, read_or_reach};
pub use file::{FileKind, FileStore, FileStoreOptions, OpenError, Publishing};
pub use held::{Held, Position};
pub use import::{Compared, Digest, Edited, Imported, edited, runs};
pub use json::LetterError;
pub use letter::{Header, Letter, LetterId, NotALetterId, Outcome, UnknownOutcome};
pub use limits::{Limits, Overflow};
pub use memory::MemoryStore;
#[cfg(unix)]
pub use remote::{RemoteStore, Service};
pub use replay_guard::{BeginReplayError, ReplayGuard};
pub use replay_state::{LETTER_FORMAT, ReplayState};
pub use selection::{Selection, SelectionError};
pub use store::{Appended, DeadLetterStore, Letters, SCAN_BYTES, StoreStats, letters, letters_after, purge};
pub use store_error::{AppendError, StoreError};

/// The byte strings of letters.
pub use bytes::Bytes;
/// A time in UTC.
pub use jiff::Timestamp;
/// The id of a topic.
pub use uuid::Uuid;
