//! An event producer for Apache Kafka in pure Rust: idempotent, self-healing, with an acknowledgement that tells the truth.
#![deny(missing_docs)]
