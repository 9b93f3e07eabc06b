//! Keeps failed events as dead letters with their reasons, and replays them after the cause has passed.

use std::ops::ControlFlow;
use std::time::Duration;

use kafka_courier::dlq::Selection;
use kafka_courier::events::{EventBuilder, SystemAlert};
use kafka_courier::{FailedOutcome, KafkaProducer, Replay};
use kafka_courier_examples::Failure;
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::inside().await?;
    let cluster = kafka.cluster().ok_or("the cluster is outside this process")?;
    let file = std::env::temp_dir().join(format!("dead-letters-{}.redb", std::process::id()));
    let mut config = kafka.config();
    config.delivery_timeout = Duration::from_secs(2); // the longest outage before events fail
    config.dlq_file = file.display().to_string(); // dead letters survive the process
    let producer = KafkaProducer::connect(config).await?;
    let builder = EventBuilder::new("monitor", "1.0");
    let alert = |id: &str| builder.system_alert(SystemAlert { alert_id: id.into(), ..Default::default() });
    producer.publish_and_wait(&alert("a-1")).await?;

    // Too few replicas: the brokers refuse every event for longer than its delivery timeout.
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::NotEnoughReplicas)));
    let deliveries = producer.publish_batch(&[alert("a-2"), alert("a-3")]).await;
    for verdict in deliveries.await {
        let error = verdict.err().ok_or("the event must fail")?;
        println!("failed: {error}");
        assert_eq!((error.outcome(), error.is_retriable()), (FailedOutcome::NotWritten, true));
    }
    assert_eq!(producer.stats().dead_letter_queue_size, 2);
    for held in producer.dead_letters().list(&Selection::all(), 10).await? {
        println!("dead letter {}: {}", held.letter.id, held.letter.failure_reason);
    }

    cluster.clear_faults();
    let report = producer.replay(&Replay::default(), |_so_far| ControlFlow::Continue(())).await?;
    assert_eq!((report.selected, report.delivered, producer.stats().dead_letter_queue_size), (2, 2, 0));
    assert_eq!(cluster.record_count("system-events"), 3);
    println!("{} sent again and delivered", report.delivered);
    producer.close(Duration::from_secs(10)).await;
    drop(producer);
    std::fs::remove_file(file)?;
    Ok(())
}

#[test]
fn the_dead_letters_run() {
    main().unwrap();
}
