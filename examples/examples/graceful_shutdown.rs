//! A service that ends in order: it stops its work, delivers the accepted events, and reports their verdicts.
//!
//! Rules:
//!  - `close` is the last call before the process ends.
//!  - The timeout of `close` is shorter than the platform's grace period (Kubernetes: 30 s).
//!  - An event without a verdict by then becomes a dead letter, which survives if `dlq_file` or `dlq_topic` is set.

use std::time::Duration;

use kafka_courier::events::{ApiRequest, EventBuilder};
use kafka_courier::{KafkaProducer, PublishError};
use kafka_courier_examples::Failure;
use tokio::signal;
use tokio::sync::watch;

/// Publishes events until `stop` is set. Returns the number of accepted events.
async fn work(producer: KafkaProducer, mut stop: watch::Receiver<bool>) -> Result<u64, PublishError> {
    let builder = EventBuilder::new("worker", "1.0");
    let mut accepted = 0;
    while !*stop.borrow_and_update() {
        let path = format!("/jobs/{accepted}");
        producer.publish(&builder.api_request(ApiRequest { path, ..Default::default() })).await?.detach();
        accepted += 1;
        tokio::task::yield_now().await;
    }
    Ok(accepted)
}

/// Completes when the process must end: at Ctrl-C, or after a thousand events so that the example ends by itself.
async fn end_of_work(producer: &KafkaProducer) {
    let enough = async {
        while producer.stats().sent < 1000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = signal::ctrl_c() => {}
        () = enough => {}
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::build(kafka.config())?;
    let (stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(work(producer.clone(), stopped));

    end_of_work(&producer).await;
    stop.send_replace(true);
    let accepted = worker.await??;
    let report = producer.close(Duration::from_secs(20)).await;
    println!("{accepted} accepted, {} delivered, {} dead letters", report.delivered, report.dead_lettered);
    assert_eq!((report.delivered, report.failed, report.in_memory), (accepted, 0, 0));
    Ok(())
}

#[test]
fn the_shutdown_runs() {
    main().unwrap();
}
