//! A Kafka for the examples, which stand in `examples/`: run one with
//! `cargo run -p kafka-courier-examples --example quickstart`.
//!
//! Rule: with `KAFKA_BROKERS` set they use that Kafka, whose topics have to be there; without, a cluster inside the process.

use kafka_courier::KafkaConfig;
use kafka_courier_test_broker::TestCluster;

/// What an example fails with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The Kafka that an example uses, for as long as this lives.
pub struct Kafka {
    config: KafkaConfig,
    cluster: Option<TestCluster>,
}

/// The Kafka at `KAFKA_BROKERS`, or one of three brokers inside the process that has the built-in events' topics, and creates others on demand.
pub async fn kafka() -> Result<Kafka, Failure> {
    if std::env::var_os("KAFKA_BROKERS").is_some() {
        let (config, _warnings) = KafkaConfig::from_env()?;
        return Ok(Kafka { config, cluster: None });
    }
    inside().await
}

/// A Kafka inside the process, whatever the environment says: for examples of what happens when one goes away.
pub async fn inside() -> Result<Kafka, Failure> {
    let mut cluster = TestCluster::builder().brokers(3).auto_create_topics(6);
    for topic in ["user-events", "auth-events", "api-events", "error-events", "system-events"] {
        cluster = cluster.topic(topic, 6);
    }
    let cluster = cluster.start().await?;
    let mut config = KafkaConfig::default();
    config.brokers = cluster.bootstrap().split(',').map(str::parse).collect::<Result<_, String>>()?;
    Ok(Kafka { config, cluster: Some(cluster) })
}

impl Kafka {
    /// Settings for this Kafka.
    pub fn config(&self) -> KafkaConfig {
        self.config.clone()
    }

    /// The cluster, if it is inside the process.
    pub fn cluster(&self) -> Option<&TestCluster> {
        self.cluster.as_ref()
    }
}
