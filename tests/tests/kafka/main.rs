//! Tests on a real Apache Kafka. `tests/kafka/run-suite` runs them one by one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod batches;
mod broker_faults;
mod dead_letter_order;
mod dead_letter_topics;
mod dead_letters;
mod faults;
mod harness;
mod input;
mod log_end;
mod publish_kills;
mod restarts;
mod security;
mod spool;
mod spool_kills;
mod verify;
