//! Publishes the application's own event type to its own topic.

use std::time::Duration;

use kafka_courier::KafkaProducer;
use kafka_courier::events::{EventBuilder, event_data};
use kafka_courier_examples::Failure;

#[derive(serde::Serialize)]
struct OrderPlaced {
    order_id: String,
    total_cents: u64,
}
event_data!(OrderPlaced, "order.placed", key = order_id);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::build(kafka.config())?;
    producer.set_topic_mapping("order.placed", "orders")?;

    let builder = EventBuilder::new("shop", "1.0");
    let mut deliveries = Vec::new();
    for total_cents in [1250, 399, 80_000] {
        let event = builder.custom(OrderPlaced { order_id: "o-1".into(), total_cents });
        deliveries.push(producer.publish(&event).await?);
    }
    let mut last = None;
    for delivery in deliveries {
        let placed = delivery.await?;
        assert_eq!(&*placed.topic, "orders");
        assert!(placed.offset > last, "events of one key must be in the log in publish order");
        last = placed.offset;
    }
    println!("three orders in topic orders, the last at offset {last:?}");
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}

#[test]
fn the_custom_event_runs() {
    main().unwrap();
}
