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

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_example_asserts_something_and_is_run_by_the_tests() -> Result<(), super::Failure> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let mut found = 0;
        for entry in std::fs::read_dir(folder.join("examples"))? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a name that is no text")?.to_owned();
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
