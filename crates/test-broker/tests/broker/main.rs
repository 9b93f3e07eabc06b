//! The broker inside the process, over its sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod hostile;
mod produce;
mod read;
mod support;
