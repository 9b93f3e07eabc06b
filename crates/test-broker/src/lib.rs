//! A Kafka broker inside the process, with faults on demand, for tests, demos and benchmarks.
//!
//! One to a hundred brokers as one cluster, on real ports of the loopback address: any client can talk to it. What it
//! holds can be read without one, and what it does wrong is said in advance.
//!
//! ```
//! use kafka_courier_test_broker::{ApiKey, ErrorCode, TestCluster};
//!
//! # async fn example() -> Result<(), kafka_courier_test_broker::StartError> {
//! let cluster = TestCluster::builder().brokers(3).topic("orders", 6).start().await?;
//! cluster.fail_next(ApiKey::Produce, 2, ErrorCode::NotLeaderOrFollower);
//! let brokers = cluster.bootstrap(); // give it to a producer, and publish
//! assert!(cluster.records("orders").is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! What it is like: a leader's checks in a real broker's order, with its memory of producers (five batches of an id, one
//! after a restart), leader epochs and hints, per-record errors, size limits; requests of a connection are served one at a
//! time, and what was read is applied even if the client is gone. Faults are [rules](Rule): which requests, how many, and
//! [what befalls them](Fault).
//!
//! What it is not: durable, replicated (all replicas of a partition are one log), transactional; it has no consumer groups,
//! no TLS but what a [`Layer`] brings, SASL/PLAIN only, and reads uncompressed and snappy batches only.
//!
//! Memory is bounded whatever is sent: logs ([`Builder::max_log_bytes`]), requests, connections, partitions.
#![deny(missing_docs)]

mod api;
mod builder;
mod cluster;
mod fault;
mod layer;
mod model;
mod records;
mod server;
mod shared;
mod wire;

pub use builder::{Builder, TopicSpec};
pub use cluster::{StartError, TestCluster};
pub use fault::{Fault, Gate, Rule, RuleBuilder};
pub use kafka_protocol::ResponseError as ErrorCode;
pub use kafka_protocol::messages::ApiKey;
pub use layer::Layer;
pub use records::{Batch, Record};
