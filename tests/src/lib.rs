//! Shared set-up of the end-to-end tests: a real Kafka cluster, the `courier` binary, and the checks of what it did.
//!
//! Rules: everything fails with the reason and what to install, nothing is skipped; whatever was started is stopped when
//! its value is dropped; records are streamed, never collected.
#![deny(missing_docs)]

#[path = "../../crates/producer/tests/support/audited.rs"]
pub mod audited;
pub mod batches;
pub mod cluster;
pub mod courier;
pub mod dump;
pub mod faults;
pub mod java_traffic;
pub mod ledger;
pub mod publish;
pub mod raw;
pub mod receipts;
pub mod traffic;
