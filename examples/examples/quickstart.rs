//! Builds, publishes and awaits the first event.

use std::time::Duration;

use kafka_courier::KafkaProducer;
use kafka_courier::events::{EventBuilder, Timestamp, UserLoggedIn};
use kafka_courier_examples::Failure;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::connect(kafka.config()).await?;
    let builder = EventBuilder::new("auth-service", "1.0").with_correlation_id("req-7");

    let event = builder.user_logged_in(UserLoggedIn {
        user_id: "u-42".into(),
        login_time: Timestamp::now(),
        ..Default::default()
    });
    let placed = producer.publish_and_wait(&event).await?;
    println!("{} partition {} offset {:?}", placed.topic, placed.partition, placed.offset);

    let report = producer.close(Duration::from_secs(10)).await;
    assert_eq!((report.delivered, report.failed), (1, 0));
    Ok(())
}

#[test]
fn the_quickstart_runs() {
    main().unwrap();
}
