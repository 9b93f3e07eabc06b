//! How a cluster is described before it starts.
//!
//! Rules: every default is Kafka's, but where a comment says so.

use std::time::Duration;

use crate::cluster::{StartError, TestCluster};
use crate::layer::Layer;
use crate::model::{Limits, NewTopic, TopicConfig};
use crate::shared::{Security, WireLimits};

/// A topic to be created.
///
/// ```
/// let topic = kafka_courier_test_broker::TopicSpec::new("orders", 6).replication(3).config("max.message.bytes", "2000");
/// ```
#[derive(Clone, Debug)]
pub struct TopicSpec {
    name: String,
    partitions: i32,
    replication: Option<i16>,
    configs: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic with so many partitions, each on up to three brokers.
    #[must_use]
    pub fn new(name: &str, partitions: i32) -> Self {
        Self { name: name.to_owned(), partitions, replication: None, configs: Vec::new() }
    }

    /// Replicas of each partition.
    #[must_use]
    pub fn replication(mut self, factor: i16) -> Self {
        self.replication = Some(factor);
        self
    }

    /// A setting, under Kafka's name: `cleanup.policy`, `max.message.bytes`, `message.timestamp.after.max.ms`,
    /// `message.timestamp.before.max.ms`, `message.timestamp.type`, `min.insync.replicas`, `retention.bytes`, `retention.ms` or
    /// `segment.bytes`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.configs.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn to_new(&self) -> Result<NewTopic, String> {
        let mut config = TopicConfig::default();
        for (name, value) in &self.configs {
            config.set(name, value)?;
        }
        Ok(NewTopic {
            name: self.name.clone(),
            partitions: Some(self.partitions),
            replication: self.replication,
            assignment: Vec::new(),
            config,
        })
    }
}

/// A cluster that has not started yet. Made by [`TestCluster::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) brokers: i32,
    pub(crate) topics: Vec<TopicSpec>,
    pub(crate) security: Security,
    pub(crate) model: Limits,
    pub(crate) wire: WireLimits,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            brokers: 1,
            topics: Vec::new(),
            security: Security::default(),
            model: Limits {
                max_partitions: 10_000,
                max_producers: 1_000,
                max_log_bytes: 1 << 30,
                strict_first_sequence: false,
                auto_create: false,
                default_partitions: 1,
                default_replication: 1,
            },
            wire: WireLimits { max_request_bytes: 32 << 20, max_buffered_bytes: 128 << 20, max_connections: 256 },
        }
    }
}

impl Builder {
    /// How many brokers, numbered from 1; 1 to 100. Default 1.
    #[must_use]
    pub fn brokers(mut self, count: i32) -> Self {
        self.brokers = count;
        self
    }

    /// A topic with so many partitions, each on up to three brokers.
    #[must_use]
    pub fn topic(self, name: &str, partitions: i32) -> Self {
        self.topic_spec(TopicSpec::new(name, partitions))
    }

    /// A topic with settings.
    #[must_use]
    pub fn topic_spec(mut self, topic: TopicSpec) -> Self {
        self.topics.push(topic);
        self
    }

    /// Creates topics that clients ask for, with so many partitions. Off by default, other than at Kafka, so that a
    /// test with a wrong name fails.
    #[must_use]
    pub fn auto_create_topics(mut self, partitions: i32) -> Self {
        self.model.auto_create = true;
        self.model.default_partitions = partitions;
        self
    }

    /// Clients must authenticate with SASL/PLAIN, as this user or another that was named.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.security.users.insert(name.to_owned(), password.to_owned());
        self
    }

    /// Clients must authenticate with SASL/OAUTHBEARER and this token or another that was named, or as a user.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.security.tokens.insert(token.to_owned());
        self
    }

    /// Who has authenticated may go on for so long; then the connection ends with its next request (KIP-368). Default: for
    /// ever.
    #[must_use]
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.security.session_lifetime = Some(lifetime);
        self
    }

    /// What lies between the brokers and their sockets.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.security.layer = Some(layer);
        self
    }

    /// A partition that was never written takes only sequence 0, as Kafka does from 4.5 on (KAFKA-15591).
    #[must_use]
    pub fn strict_first_sequence(mut self) -> Self {
        self.model.strict_first_sequence = true;
        self
    }

    /// Bytes that all logs may take together; a full cluster answers `KAFKA_STORAGE_ERROR`. Default 1 GiB. To run for
    /// ever, set `retention.bytes` at the topics.
    #[must_use]
    pub fn max_log_bytes(mut self, bytes: usize) -> Self {
        self.model.max_log_bytes = bytes;
        self
    }

    /// Bytes of one request; a bigger one ends its connection (`socket.request.max.bytes`). Default 32 MiB, at most
    /// 1 GiB.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.wire.max_request_bytes = bytes.min(1 << 30);
        self.wire.max_buffered_bytes = self.wire.max_buffered_bytes.max(4 * self.wire.max_request_bytes);
        self
    }

    /// Connections to one broker; one more is closed. Default 256.
    #[must_use]
    pub fn max_connections(mut self, count: usize) -> Self {
        self.wire.max_connections = count;
        self
    }

    /// Starts the brokers on ports of the loopback address, on the current tokio runtime.
    ///
    /// # Errors
    /// No free port, or a description that makes no cluster.
    pub async fn start(self) -> Result<TestCluster, StartError> {
        TestCluster::start(self).await
    }
}
