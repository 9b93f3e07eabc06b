//! The first event: built, published, and acknowledged. Needs a Kafka at `KAFKA_BROKERS` (default localhost:9092).

use std::time::Duration;

use kafka_courier::events::{EventBuilder, Timestamp, UserLoggedIn};
use kafka_courier::{KafkaConfig, KafkaProducer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (config, _warnings) = KafkaConfig::from_env()?;
    let producer = KafkaProducer::build(config)?;
    let builder = EventBuilder::new("auth-service", "1.0").with_correlation_id("req-7");

    let event = builder.user_logged_in(UserLoggedIn {
        user_id: "u-42".into(),
        login_time: Timestamp::now(),
        ..Default::default()
    });
    let placed = producer.publish(&event).await?.await?;
    println!("{} partition {} offset {:?}", placed.topic, placed.partition, placed.offset);

    let report = producer.close(Duration::from_secs(10)).await;
    assert_eq!((report.delivered, report.failed), (1, 0));
    Ok(())
}
