//! The pace of `courier publish`: reading follows the speed of the brokers, and no topic delays another.

use std::time::{Duration, Instant};

use crate::support::{CourierProcess, LOGIN, ORDER, ids, receipts, wait_for_records};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster, TopicSpec};

fn login(number: usize) -> String {
    format!("{{\"id\":\"login-{number}\",\"type\":\"user.logged_in\",\"data\":{{\"user_id\":\"u-{}\"}}}}\n", number % 7)
}

#[tokio::test]
async fn throttled_input_is_delivered() {
    let cluster = TestCluster::builder().topic("user-events", 3).start().await.unwrap();
    // Each request takes 150 ms, so all requests together exceed the delivery timeout of one event.
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Throttle(Duration::from_millis(150))));
    let settings = [("KAFKA_DELIVERY_TIMEOUT", "3s"), ("KAFKA_REQUEST_TIMEOUT", "3s"), ("KAFKA_FLUSH_MESSAGES", "50")];
    let courier = CourierProcess::publish(&cluster, &[], &settings);
    let input: String = (0..4000).map(login).collect();
    courier.output_with_input(&input).await.expect(0, &["4,000 read, 4,000 delivered"]);
    assert_eq!(cluster.records("user-events").len(), 4000);
}

#[tokio::test]
async fn failure_under_throttling_names_quota() {
    let cluster = TestCluster::builder().topic("user-events", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Throttle(Duration::from_secs(60))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    let settings = [("KAFKA_DELIVERY_TIMEOUT", "1s"), ("KAFKA_REQUEST_TIMEOUT", "1s"), ("KAFKA_FLUSH_MESSAGES", "1")];
    let courier = CourierProcess::publish(&cluster, &["--receipts", file.to_str().unwrap()], &settings);
    let output = courier.output_with_input(&(0..3).map(login).collect::<String>()).await;
    output.expect(1, &["throttles this client, most recently for 60s"]);
    let receipts = receipts(&std::fs::read_to_string(file).unwrap());
    assert!(receipts[2]["error"].as_str().unwrap().contains("raise its quota"), "{}", receipts[2]);
}

/// Types `good` and `miss0` to `miss5` with one topic each. Only the topic of `good` exists.
const MISSING: (&str, &str) = (
    "KAFKA_TOPIC_MAPPING",
    "good=t,miss0=missing-0,miss1=missing-1,miss2=missing-2,miss3=missing-3,miss4=missing-4,miss5=missing-5",
);

fn six_missing_topics() -> String {
    let types = (0..60).map(|n| if n % 2 == 0 { "good".to_owned() } else { format!("miss{}", n / 2 % 6) });
    types.enumerate().map(|(n, name)| format!("{{\"id\":\"y{n}\",\"type\":\"{name}\",\"data\":{{}}}}\n")).collect()
}

#[tokio::test]
async fn missing_topics_delay_no_other() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    let arguments = ["--grace", "600", "--receipts", file.to_str().unwrap()];
    let mut courier = CourierProcess::publish(&cluster, &arguments, &[MISSING, ("KAFKA_METADATA_TIMEOUT", "10m")]);
    courier.write(&six_missing_topics()).await;
    courier.end_input();
    // All six topics are still pending.
    wait_for_records(&cluster, "t", 30).await;
    for topic in 0..6 {
        cluster.create_topic(&TopicSpec::new(&format!("missing-{topic}"), 1)).unwrap();
    }
    courier.output().await.expect(0, &["60 read, 60 delivered"]);
    assert_eq!(ids(&cluster.records("missing-2")), ["y5", "y17", "y29", "y41", "y53"]);
    let places: Vec<_> = receipts(&std::fs::read_to_string(file).unwrap()).iter().map(|r| r["id"].clone()).collect();
    assert_eq!(places, (0..60).map(|n| format!("y{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn missing_topics_are_awaited_together() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let begun = Instant::now();
    let courier = CourierProcess::publish(&cluster, &[], &[MISSING, ("KAFKA_METADATA_TIMEOUT", "3s")]);
    let output = courier.output_with_input(&six_missing_topics()).await;
    output.expect(1, &["60 read, 30 delivered", "30 failed and not written", "  5 times: topic \"missing-4\": "]);
    // Waits in sequence would take 18 s.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn events_for_missing_topic_are_bounded() {
    let cluster = TestCluster::builder().topic("user-events", 1).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let arguments = ["--dlq-file", letters.to_str().unwrap()];
    let courier = CourierProcess::publish(&cluster, &arguments, &[("KAFKA_METADATA_TIMEOUT", "1s")]);
    let input = format!("{}{LOGIN}\n", format!("{ORDER}\n").repeat(30_000));
    let output = courier.output_with_input(&input).await;
    output.expect(1, &["30,001 read, 1 delivered", "30,000 failed and not written", "  30,000 times: "]);
}

#[tokio::test]
async fn missing_topic_fails_before_reading() {
    let cluster = TestCluster::builder().topic("orders", 1).start().await.unwrap();
    let courier = CourierProcess::publish(&cluster, &["--topic", "ordrs"], &[("KAFKA_METADATA_TIMEOUT", "500ms")]);
    let output = courier.output().await; // the input stays open
    output.expect(78, &["topic \"ordrs\" does not exist on the cluster: create it, or fix --topic"]);
    cluster.deny_writes("orders", true);
    let courier = CourierProcess::publish(&cluster, &["--topic", "orders"], &[("KAFKA_METADATA_TIMEOUT", "500ms")]);
    courier.output_with_input(LOGIN).await.expect(77, &["TOPIC_AUTHORIZATION_FAILED"]);
}

#[tokio::test]
async fn auto_created_topic_is_awaited() {
    let cluster = TestCluster::builder().auto_create_topics(1).start().await.unwrap();
    let courier = CourierProcess::publish(&cluster, &["--topic", "anything"], &[]);
    courier.output_with_input(LOGIN).await.expect(0, &["1 read, 1 delivered"]);
}

#[tokio::test]
async fn events_without_a_mapping_are_counted() {
    let cluster = TestCluster::builder().topic("default-events", 1).topic("user-events", 1).start().await.unwrap();
    let input = format!("{LOGIN}\n{ORDER}\n{ORDER}\n");
    let output = CourierProcess::publish(&cluster, &[], &[]).output_with_input(&input).await;
    output.expect(0, &["2 events of types without a topic in topic_mapping went to default-events: order.placed"]);
    let named = CourierProcess::publish(&cluster, &["--topic", "user-events"], &[]).output_with_input(&input).await;
    let mapped = CourierProcess::publish(&cluster, &[], &[("KAFKA_TOPIC_MAPPING", "order.placed=default-events")]);
    for output in [named, mapped.output_with_input(&input).await] {
        output.expect(0, &["3 delivered"]);
        assert!(!output.err.contains("without a topic"), "{}", output.err);
    }
}

#[tokio::test]
async fn late_topic_unblocks_full_tally() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mapping = ("KAFKA_TOPIC_MAPPING", "good=t,late=late");
    let mut courier =
        CourierProcess::publish(&cluster, &["--no-dlq-file"], &[mapping, ("KAFKA_METADATA_TIMEOUT", "10m")]);
    let mut input = String::from("{\"id\":\"late\",\"type\":\"late\",\"data\":{}}\n");
    input.extend((0..60_000).map(|number| format!("{{\"id\":\"{number}\",\"type\":\"good\",\"data\":{{}}}}\n")));
    // The tally is full: the receipts of all events wait for the first one, which waits for its topic.
    let creator = async {
        wait_for_records(&cluster, "t", 49_999).await;
        cluster.create_topic(&TopicSpec::new("late", 1)).unwrap();
    };
    let writer = async {
        courier.write(&input).await;
        courier.end_input();
    };
    tokio::join!(writer, creator);
    courier.output().await.expect(0, &["60,001 delivered"]);
}
