//! An in-process Kafka broker with injected faults, for tests, demos and benchmarks.
//!
//! A [`TestCluster`] has 1 to 100 brokers on real ports of the loopback address, so any Kafka client can connect. Tests
//! read the cluster's records without a client, and decide in advance which requests fail and how.
//!
//! ```
//! use kafka_courier_test_broker::{ApiKey, ErrorCode, TestCluster};
//!
//! # async fn example() -> Result<(), kafka_courier_test_broker::StartError> {
//! let cluster = TestCluster::builder().brokers(3).topic("orders", 6).start().await?;
//! cluster.fail_next(ApiKey::Produce, 2, ErrorCode::NotLeaderOrFollower);
//! let bootstrap = cluster.bootstrap(); // the producer's bootstrap servers
//! assert!(cluster.records("orders").is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Like a real broker
//!
//!  - A leader runs its checks in Kafka's order. Leader epochs, leader hints, per-record errors and size limits are
//!    Kafka's.
//!  - A leader remembers the last five batches of each producer id, and one batch after a restart.
//!  - The requests of a connection are served one at a time. A request that was read is applied, even if the client has
//!    disconnected.
//!
//! # Faults
//!
//! A [`Rule`] selects requests and their number, and names the [`Fault`] that they meet.
//!
//! # Limits
//!
//! The cluster has no durability, replication (all replicas of a partition share one log, and tests pause its high watermark), transactions or consumer
//! groups. TLS needs a [`Layer`]. The SASL mechanisms are PLAIN and OAUTHBEARER. Batches must be uncompressed or
//! snappy. Memory is bounded for logs ([`Builder::max_log_bytes`]), requests, connections and partitions, whatever
//! clients send.
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
