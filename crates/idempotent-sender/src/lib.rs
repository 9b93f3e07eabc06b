//! The idempotent delivery of record batches to Kafka: a pure core that decides, and a thin tokio driver on rskafka.
#![deny(missing_docs)]
