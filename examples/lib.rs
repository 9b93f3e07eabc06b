//! The Kafka cluster of the examples in `examples/`. Run one with
//! `cargo run -p kafka-courier-examples --example quickstart`.
//!
//! Rule: the examples use the cluster at `KAFKA_BROKERS`, which must have the topics. They start a cluster inside the
//! process if the variable is not set.

use kafka_courier::KafkaConfig;
use kafka_courier_test_broker::TestCluster;

/// The error of an example.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A cluster for an example. A cluster inside the process ends when this is dropped.
pub struct Kafka {
    config: KafkaConfig,
    cluster: Option<TestCluster>,
}

/// Returns the cluster at `KAFKA_BROKERS`, or starts three brokers inside the process. These have the built-in events'
/// topics and create other topics on demand.
pub async fn kafka() -> Result<Kafka, Failure> {
    if std::env::var_os("KAFKA_BROKERS").is_some() {
        let config = KafkaConfig::from_env()?;
        return Ok(Kafka { config, cluster: None });
    }
    inside().await
}

/// Starts a cluster inside the process, whatever `KAFKA_BROKERS` says, for examples that inject faults.
pub async fn inside() -> Result<Kafka, Failure> {
    let mut cluster = TestCluster::builder().brokers(3).auto_create_topics(6);
    for topic in ["user-events", "auth-events", "api-events", "error-events", "system-events"] {
        cluster = cluster.topic(topic, 6);
    }
    let cluster = cluster.start().await?;
    let mut config = KafkaConfig::default();
    config.brokers = cluster.bootstrap().split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Kafka { config, cluster: Some(cluster) })
}

impl Kafka {
    /// Returns the settings for this cluster.
    pub fn config(&self) -> KafkaConfig {
        self.config.clone()
    }

    /// Returns the cluster if it is inside the process.
    pub fn cluster(&self) -> Option<&TestCluster> {
        self.cluster.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_example_asserts_and_runs() -> Result<(), super::Failure> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let mut found = 0;
        for entry in std::fs::read_dir(folder.join("examples"))? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a file name is not UTF-8")?.to_owned();
            let text = std::fs::read_to_string(&path)?;
            let (main, tests) = text.split_once("#[test]").ok_or(format!("{name} has no test"))?;
            assert!(main.contains("assert"), "{name} asserts nothing");
            assert!(tests.contains("main().unwrap()"), "{name} is not run");
            let entry = format!("name = \"{name}\"\ntest = true");
            assert!(manifest.contains(&entry), "{name} is not tested: Cargo.toml lacks {entry:?}");
            found += 1;
        }
        assert_eq!(found, manifest.matches("[[example]]").count());
        Ok(())
    }
}
