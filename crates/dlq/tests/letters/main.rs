//! Letters and their files: formats, JSON, and a process that is killed while it writes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod formats;
mod json;
#[cfg(unix)]
mod kill;
