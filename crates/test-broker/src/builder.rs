//! The description of a cluster before it starts.
//!
//! Rules: every default is Kafka's, unless a comment names the difference.

use std::time::Duration;

use crate::layer::Layer;
use crate::model::{ClusterLimits, TopicConfig, TopicConfigError, TopicCreation};
use crate::shared::{ClusterSecurity, WireLimits};

/// The description of a topic to create.
///
/// ```
/// use kafka_courier_test_broker::TopicSpec;
///
/// let topic = TopicSpec::new("orders", 6).replication(3).config("max.message.bytes", "2000");
/// ```
#[derive(Clone, Debug)]
pub struct TopicSpec {
    name: String,
    partitions: i32,
    replication: Option<i16>,
    configs: Vec<(String, String)>,
}

impl TopicSpec {
    /// Describes a topic with this number of partitions, each on up to three brokers.
    #[must_use]
    pub fn new(name: &str, partitions: i32) -> Self {
        Self { name: name.to_owned(), partitions, replication: None, configs: Vec::new() }
    }

    /// Sets the number of replicas of each partition.
    #[must_use]
    pub fn replication(mut self, factor: i16) -> Self {
        self.replication = Some(factor);
        self
    }

    /// Sets a topic setting by Kafka's name: `cleanup.policy`, `max.message.bytes`, `message.timestamp.after.max.ms`,
    /// `message.timestamp.before.max.ms`, `message.timestamp.type`, `min.insync.replicas`, `retention.bytes`,
    /// `retention.ms` or `segment.bytes`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.configs.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn to_creation(&self) -> Result<TopicCreation, TopicConfigError> {
        let mut config = TopicConfig::default();
        for (name, value) in &self.configs {
            config.set(name, value)?;
        }
        Ok(TopicCreation {
            name: self.name.clone(),
            partitions: Some(self.partitions),
            replication: self.replication,
            assignment: Vec::new(),
            config,
        })
    }
}

/// The description of a cluster that has not started. [`TestCluster::builder`](crate::TestCluster::builder) returns a builder.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) brokers: i32,
    pub(crate) topics: Vec<TopicSpec>,
    pub(crate) security: ClusterSecurity,
    pub(crate) model: ClusterLimits,
    pub(crate) wire: WireLimits,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            brokers: 1,
            topics: Vec::new(),
            security: ClusterSecurity::default(),
            model: ClusterLimits {
                max_partitions: 10_000,
                max_producers: 1_000,
                max_log_bytes: 1 << 30,
                strict_first_sequence: false,
                auto_create: false,
                default_partitions: 1,
                default_replication: 1,
            },
            // Smaller than Kafka's, which has 100 MiB and no limit on connections: tests run many clusters in a process.
            wire: WireLimits { max_request_bytes: 32 << 20, max_buffered_bytes: 128 << 20, max_connections: 256 },
        }
    }
}

impl Builder {
    /// Sets the number of brokers, 1 to 100. Broker ids count from 1. The default is 1 broker.
    #[must_use]
    pub fn brokers(mut self, count: i32) -> Self {
        self.brokers = count;
        self
    }

    /// Adds a topic with this number of partitions, each on up to three brokers.
    #[must_use]
    pub fn topic(self, name: &str, partitions: i32) -> Self {
        self.topic_spec(TopicSpec::new(name, partitions))
    }

    /// Adds a topic with settings.
    #[must_use]
    pub fn topic_spec(mut self, topic: TopicSpec) -> Self {
        self.topics.push(topic);
        self
    }

    /// Creates unknown topics on a client's request, with this number of partitions. The default is off, unlike
    /// Kafka's: a test with a wrong topic name fails.
    #[must_use]
    pub fn auto_create_topics(mut self, partitions: i32) -> Self {
        self.model.auto_create = true;
        self.model.default_partitions = partitions;
        self
    }

    /// Adds a user for SASL/PLAIN. Clients must authenticate as soon as there is a user or a token.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.security.users.insert(name.to_owned(), password.to_owned());
        self
    }

    /// Adds a token for SASL/OAUTHBEARER. Clients must authenticate as soon as there is a user or a token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.security.tokens.insert(token.to_owned());
        self
    }

    /// Limits the time that an authentication is valid. The next request after that time ends the connection (KIP-368).
    /// The default is no limit.
    #[must_use]
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.security.session_lifetime = Some(lifetime);
        self
    }

    /// Sets the layer between the brokers and their sockets, such as TLS.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.security.layer = Some(layer);
        self
    }

    /// Refuses every first sequence except 0 in a partition that was never written, as Kafka 4.5 and newer do
    /// (KAFKA-15591).
    #[must_use]
    pub fn strict_first_sequence(mut self) -> Self {
        self.model.strict_first_sequence = true;
        self
    }

    /// Limits the bytes of all logs together. A full cluster answers `KAFKA_STORAGE_ERROR (56)`. The default is 1 GiB.
    /// A cluster that runs indefinitely needs `retention.bytes` on its topics.
    #[must_use]
    pub fn max_log_bytes(mut self, bytes: usize) -> Self {
        self.model.max_log_bytes = bytes;
        self
    }

    /// Limits the bytes of one request (`socket.request.max.bytes`), at most 1 GiB. A larger request ends its
    /// connection. The default is 32 MiB.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.wire.max_request_bytes = bytes.min(1 << 30);
        self.wire.max_buffered_bytes = self.wire.max_buffered_bytes.max(4 * self.wire.max_request_bytes);
        self
    }

    /// Limits the connections to one broker. The broker closes a connection above the limit. The default is 256.
    #[must_use]
    pub fn max_connections(mut self, count: usize) -> Self {
        self.wire.max_connections = count;
        self
    }
}
