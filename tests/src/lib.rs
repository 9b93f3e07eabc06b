//! Shared set-up of the end-to-end tests: a real Kafka cluster, the `courier` binary, and the checks of its results.
//!
//! Rules:
//! - No test is skipped. A missing tool is an error that names the package to install.
//! - Dropping a value stops the processes that it started.
//! - Records are streamed, never collected.
#![deny(missing_docs)]

#[path = "../../crates/kafka-courier/tests/support/audited.rs"]
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
pub mod settings;
pub mod spool_lives;
pub mod traffic;
