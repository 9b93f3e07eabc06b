//! Publishes many events in one call and awaits a verdict for each, then publishes many without awaiting them.

use std::time::Duration;

use kafka_courier::KafkaProducer;
use kafka_courier::events::{ApiRequest, Event, EventBuilder, UserLoggedIn};
use kafka_courier_examples::Failure;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::build(kafka.config())?;
    let builder = EventBuilder::new("gateway", "1.0");

    // Boxes hold events of several types. A slice of events serves for a single type.
    let events: Vec<Box<dyn Event>> = vec![
        Box::new(builder.user_logged_in(UserLoggedIn { user_id: "u-1".into(), ..Default::default() })),
        Box::new(builder.user_logged_in(UserLoggedIn { user_id: "u-1".into(), ..Default::default() })),
        Box::new(builder.api_request(ApiRequest { path: "/login".into(), ..Default::default() })),
    ];
    let verdicts = producer.publish_batch(&events).await.await;
    for (event, verdict) in events.iter().zip(&verdicts) {
        match verdict {
            Ok(placed) => println!("{}: {} offset {:?}", event.event_type(), placed.topic, placed.offset),
            Err(error) => println!("{}: {error} ({:?})", event.event_type(), error.outcome()),
        }
    }
    assert!(verdicts.len() == 3 && verdicts.iter().all(Result::is_ok));

    // These deliveries are detached. The events share large batches, and a failed event becomes a dead letter.
    for number in 0..10_000 {
        let path = format!("/items/{number}");
        producer.publish(&builder.api_request(ApiRequest { path, ..Default::default() })).await?.detach();
    }
    assert!(producer.flush(Duration::from_secs(30)).await, "some events have no verdict");
    assert_eq!(producer.stats().sent, 10_003);
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}

#[test]
fn the_batches_run() {
    main().unwrap();
}
