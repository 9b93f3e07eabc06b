//! The driver, and appends of single batches, on a cluster inside the process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod append;
mod connections;
