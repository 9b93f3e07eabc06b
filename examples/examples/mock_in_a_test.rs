//! Tests an application without Kafka: the application uses an [`EventPublisher`], and its tests pass a mock.
//!
//! Cargo.toml needs `[dev-dependencies] kafka-courier = { path = "..", features = ["mock"] }`.

use std::time::Duration;

use kafka_courier::events::{EventBuilder, UserRegistered};
use kafka_courier::{EventPublisher, KafkaProducer};
use kafka_courier_examples::Failure;

/// The application: it registers a user only if the event is acknowledged.
async fn register(publisher: &dyn EventPublisher, user_id: &str) -> Result<String, String> {
    let builder = EventBuilder::new("accounts", "1.0");
    let event = builder.user_registered(UserRegistered { user_id: user_id.into(), ..Default::default() });
    match publisher.publish_and_wait(&event).await {
        Ok(_) => Ok(format!("welcome, {user_id}")),
        Err(error) if error.is_retriable() => Err("please try again later".to_owned()),
        Err(error) => Err(format!("registration failed: {error}")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::build(kafka.config())?;
    assert_eq!(register(&producer, "u-1").await?, "welcome, u-1");
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_courier::{FailedOutcome, MockFailure, MockProducer, Reason};

    use super::*;

    #[test]
    fn the_application_runs() {
        main().unwrap();
    }

    #[tokio::test]
    async fn user_is_welcome_after_acknowledgement() {
        let mock = MockProducer::new();
        assert_eq!(register(&mock, "u-1").await.unwrap(), "welcome, u-1");
        let published = mock.published();
        assert_eq!((published.len(), published[0].event_type.as_str()), (1, "user.registered"));
        assert!(published[0].json.contains("\"user_id\":\"u-1\""));
    }

    #[tokio::test]
    async fn unavailable_kafka_asks_to_retry() {
        let mock = MockProducer::new();
        let away = Reason::NotAvailable("kafka-1:9092: connection refused".into());
        mock.fail_next(MockFailure::GiveUp(FailedOutcome::NotWritten, away));
        assert_eq!(register(&mock, "u-1").await.unwrap_err(), "please try again later");
        assert!(register(&mock, "u-1").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_kafka_is_awaited() {
        let mock = MockProducer::new();
        mock.set_delay(Duration::from_secs(3600));
        assert!(register(&mock, "u-1").await.is_ok(), "an hour of paused time must pass");
    }
}
