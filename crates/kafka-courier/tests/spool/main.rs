//! Producers with a spool: events on disk, and the processes that follow each other on one folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backlog;
mod copies;
mod doubt;
mod faults;
mod letters;
mod old_timestamps;
mod replay;
mod restarts;
mod room;
mod spool_folder;
mod storing;
#[path = "../support/mod.rs"]
mod support;
