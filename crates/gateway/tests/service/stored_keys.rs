//! Requests with a key survive the process: the next one has their events, and their keys.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier::KafkaConfig;
use kafka_courier::dlq::Selection;
use kafka_courier_test_broker::{TestCluster, TopicSpec};

use crate::support::{JSON, LOGIN, LONG, Service, kafka};

const LOGIN_WITHOUT_ID: &str = r#"{"type":"user.logged_in","data":{"user_id":"u-1"}}"#;

fn keyed(key: &str) -> String {
    format!("{JSON}idempotency-key: {key}\r\n")
}

/// A cluster, and the settings of producers with one spool.
async fn spooled(folder: &tempfile::TempDir) -> (TestCluster, KafkaConfig) {
    let builder = TestCluster::builder().topic("user-events", 1).topic("default-events", 1);
    let cluster = builder.start().await.unwrap();
    let mut kafka = kafka(&cluster);
    kafka.spool_dir = folder.path().join("spool").display().to_string();
    (cluster, kafka)
}

/// Runs a service on its own runtime, with which its last task ends. Events without a verdict stay in the spool.
async fn life<T, F>(kafka: &KafkaConfig, window: Duration, work: impl FnOnce(Arc<Service>) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let kafka = kafka.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let service = Arc::new(Service::with(kafka, |config| config.dedupe_window = window).await);
            let result = work(service.clone()).await;
            service.producer.close(Duration::from_millis(300)).await;
            result
        })
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_request_is_not_published_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, kafka) = spooled(&folder).await;
    let cluster = Arc::new(cluster);
    let paused = cluster.clone();
    let first = life(&kafka, LONG, async move |service| {
        service.producer.learn_topic("user-events").await.unwrap();
        paused.pause(1);
        service.post("/v1/events?ack=disk", &keyed("k-1"), LOGIN_WITHOUT_ID).await.expect(202)
    });
    let (first, resumed) = (first.await, cluster.clone());
    life(&kafka, LONG, async move |service| {
        let again = service.post("/v1/events?ack=disk", &keyed("k-1"), LOGIN_WITHOUT_ID).await;
        assert_eq!(again.expect(202), first, "the event keeps its id");
        assert!(again.head.contains("idempotent-replayed: true"), "{again:?}");
        service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(422, "key-reused");
        let late = service.post("/v1/events?timeout=50ms", &keyed("k-1"), LOGIN_WITHOUT_ID).await.expect(202);
        assert_eq!(late, first);
        resumed.resume(1);
        let written = service.post("/v1/events", &keyed("k-1"), LOGIN_WITHOUT_ID).await.expect(200);
        assert_eq!((&written["offset"], &written["id"]), (&0.into(), &first["id"]));
    })
    .await;
    assert_eq!(cluster.records("user-events").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivered_request_is_not_published_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, kafka) = spooled(&folder).await;
    let request = async |service: Arc<Service>, status| {
        service.post("/v1/events", &keyed("k-1"), LOGIN_WITHOUT_ID).await.expect(status)
    };
    let first = life(&kafka, LONG, move |service| request(service, 200)).await;
    let again = life(&kafka, LONG, move |service| request(service, 202)).await;
    assert_eq!((&again["ack"], &again["id"]), (&"disk".into(), &first["id"]));
    assert_eq!(cluster.records("user-events").len(), 1);
}

/// The second event has no topic in the life of the first process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_events_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut kafka) = spooled(&folder).await;
    kafka.metadata_timeout = Duration::from_millis(100);
    let events = format!(r#"[{LOGIN_WITHOUT_ID},{{"type":"api.error","data":{{"request_id":"r-1"}}}}]"#);
    let request = async |service: Arc<Service>, events: String, status| {
        let answer = service.post("/v1/events", &keyed("k-1"), &events).await.expect(status);
        assert_eq!(service.post("/v1/events", &keyed("k-1"), &events).await.expect(status), answer);
        answer
    };
    let same_events = events.clone();
    let first = life(&kafka, LONG, move |service| request(service, same_events, 207)).await;
    cluster.create_topic(&TopicSpec::new("error-events", 1)).unwrap();
    let again = life(&kafka, LONG, move |service| request(service, events, 202)).await;
    assert_eq!(again["events"][0]["id"], first["events"][0]["id"]);
    assert_eq!((&again["events"][0]["status"], &again["events"][1]["status"]), (&202.into(), &200.into()));
    assert_eq!((cluster.records("user-events").len(), cluster.records("error-events").len()), (1, 1));
}

/// A window of a millisecond is over before the next process listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_keys_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, kafka) = spooled(&folder).await;
    for (published, window) in [(1, LONG), (2, Duration::from_millis(1)), (2, LONG)] {
        life(&kafka, window, async |service: Arc<Service>| {
            service.post("/v1/events", &keyed("k-1"), LOGIN).await;
        })
        .await;
        assert_eq!(cluster.records("user-events").len(), published);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_stored_event_names_its_letter() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, kafka) = spooled(&folder).await;
    let cluster = Arc::new(cluster);
    let (paused, resumed) = (cluster.clone(), cluster.clone());
    life(&kafka, LONG, async move |service| {
        service.producer.learn_topic("user-events").await.unwrap();
        paused.pause(1);
        service.post("/v1/events?ack=disk", &keyed("k-1"), LOGIN).await.expect(202);
    })
    .await;
    cluster.reject_records(|_| Some("rejected".to_owned()));
    life(&kafka, LONG, async move |service| {
        resumed.resume(1);
        let first = service.post("/v1/events", &keyed("k-1"), LOGIN).await;
        // A request of the first process can arrive later, unless it never left.
        assert!(matches!(first.status, 422 | 504), "{first:?}");
        let [letter] = &service.producer.dead_letters().list(&Selection::all(), 10).await.unwrap()[..] else {
            panic!("expected one dead letter")
        };
        assert_eq!(first.json()["dead_letter"], letter.letter.id.to_string());
        let again = service.post("/v1/events", &keyed("k-1"), LOGIN).await;
        assert_eq!((again.status, again.json()), (first.status, first.json()));
    })
    .await;
    assert_eq!(cluster.records("user-events").len(), 0);
}
