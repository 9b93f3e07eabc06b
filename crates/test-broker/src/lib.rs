//! A Kafka broker inside the process, with faults on demand, for tests, demos and benchmarks.
#![deny(missing_docs)]
