//! Verification of doubtful records on a cluster inside the process.

use std::time::Duration;

use crate::support::{self, Producer, config, now_ms, producer, record};
use kafka_courier::dlq::{Letter, Outcome, Selection};
use kafka_courier::verify::{
    FenceLetter, FenceOutcome, FencePlace, Fences, Findings, NoFences, Progress, Question, Verdict, Verifier, WhyNot,
};
use kafka_courier::{Header, KafkaProducer, headers};
use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster, TopicSpec};

async fn cluster_with_topic() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

/// Returns a producer that fails records after one attempt.
fn producer_without_retries(cluster: &TestCluster) -> Producer {
    let mut config = config(cluster);
    config.retry_max = 0;
    config.request_timeout = Duration::from_millis(300);
    config.expedite = true;
    Producer::build(config).unwrap()
}

/// Returns a verifier with short timeouts.
fn verifier(cluster: &TestCluster) -> Verifier {
    let mut config = config(cluster);
    config.delivery_timeout = Duration::from_secs(5);
    config.request_timeout = Duration::from_secs(1);
    Producer::build(config).unwrap().verifier()
}

/// Publishes a record whose delivery fails, and returns the dead letter.
async fn fail_record(producer: &KafkaProducer, value: &str) -> Letter {
    let id = [Header { key: headers::EVENT_ID, value: Some(value.as_bytes()) }];
    let record = kafka_courier::ProducerRecord { headers: &id, ..record("t", "k", value) };
    producer.send(&record).await.unwrap().await.unwrap_err();
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).find(|letter| letter.event_id.as_deref() == Some(value)).unwrap()
}

/// Returns a new letter for every fence, and records the requested stamps.
#[derive(Default)]
struct NewFences {
    wanted: Vec<Stamp>,
    age_ms: i64,
}

impl Fences for NewFences {
    async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
        assert_eq!((place.topic, place.partition), ("t", 0));
        self.wanted.push(place.stamp);
        let letter_id = format!("fence-{}", place.stamp.epoch);
        let id = [Header { key: headers::DLQ_ID, value: Some(letter_id.as_bytes()) }];
        let record = Record { key: None, value: Some(b"fence"), headers: &id, timestamp: now_ms() - self.age_ms };
        Some(FenceLetter { letter_id: letter_id.clone(), batch: EncodedBatch::single(&record).unwrap() })
    }
}

fn questions(letters: &[&Letter]) -> Vec<Question> {
    letters.iter().map(|letter| Question::of(letter).unwrap()).collect()
}

fn verdicts(findings: &Findings) -> Vec<Verdict> {
    findings.answers.iter().map(|answer| answer.verdict.clone()).collect()
}

async fn verify(cluster: &TestCluster, letters: &[&Letter], fences: &mut impl Fences) -> Findings {
    verifier(cluster).verify(questions(letters), fences, |_| ()).await
}

#[tokio::test]
async fn written_record_is_found() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    producer.send(&record("t", "k", "before")).await.unwrap().await.unwrap();
    cluster.apply_then_disconnect(1);
    let letter = fail_record(&producer, "a").await;
    assert_eq!(letter.outcome, Outcome::Unknown);
    let findings = verify(&cluster, &[&letter], &mut NewFences::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Landed { offset: 1 }]);
    assert_eq!(findings.answers[0].letter_id, letter.id.to_string());
    assert_eq!(findings.fences, []);
}

#[tokio::test]
async fn fence_proves_absence() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    producer.send(&record("t", "k", "before")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    assert_eq!(letter.outcome, Outcome::Unknown);
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
    let mut fences = NewFences::default();
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert_eq!(fences.wanted.len(), 1);
    assert_eq!(Some(fences.wanted[0].producer_id), letter.producer_id);
    let fence = format!("fence-{}", fences.wanted[0].epoch);
    assert_eq!(findings.fences, [(fence, FenceOutcome::Written { offset: 1 })]);
    // The next check uses the fence in the log.
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
}

#[tokio::test]
async fn late_write_before_fence_is_found() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let letter = fail_record(&producer, "a").await;
    assert_eq!((letter.outcome, cluster.record_count("t")), (Outcome::Unknown, 0));
    /// Releases the late request just before the fence is sent.
    struct ReleasingFences<'a>(NewFences, Gate, &'a TestCluster);
    impl Fences for ReleasingFences<'_> {
        async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
            self.1.open();
            self.2.wait_for_records("t", 1).await;
            self.0.letter_for(place).await
        }
    }
    let findings = verify(&cluster, &[&letter], &mut ReleasingFences(NewFences::default(), gate, &cluster)).await;
    assert_eq!(verdicts(&findings), [Verdict::Landed { offset: 0 }]);
    assert_eq!(cluster.record_count("t"), 2);
}

#[tokio::test]
async fn request_after_fence_is_refused() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let letter = fail_record(&producer, "a").await;
    let findings = verify(&cluster, &[&letter], &mut NewFences::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    let taken = cluster.requests(ApiKey::Produce);
    gate.open();
    // The leader has handled the late request once it has answered a later one.
    producer.close(Duration::ZERO).await;
    let other = support::producer(&cluster);
    other.send(&record("t", "k", "behind")).await.unwrap().await.unwrap();
    assert!(cluster.requests(ApiKey::Produce) > taken);
    let values: Vec<_> = cluster.records("t").iter().map(|record| record.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["fence", "behind"]);
}

#[tokio::test]
async fn later_record_serves_as_fence() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    producer.send(&record("t", "k", "next")).await.unwrap().await.unwrap();
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
}

#[tokio::test]
async fn recreated_topic_proves_nothing() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    assert!(cluster.delete_topic("t"));
    let deleted = verify(&cluster, &[&letter], &mut NewFences::default()).await;
    assert_eq!(verdicts(&deleted), [Verdict::NotFound { why: WhyNot::TopicRecreated }]);
    cluster.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let mut fences = NewFences::default();
    let recreated = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&recreated), [Verdict::NotFound { why: WhyNot::TopicRecreated }]);
    assert_eq!(fences.wanted, []);
}

#[tokio::test]
async fn compacted_topic_proves_nothing() {
    let spec = TopicSpec::new("t", 1).config("cleanup.policy", "compact");
    let cluster = TestCluster::builder().topic_spec(spec).start().await.unwrap();
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    let mut fences = NewFences::default();
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::Compacted }]);
    assert_eq!(fences.wanted, []);
}

/// The client has no right to read the topic's configuration.
#[tokio::test]
async fn unknown_cleanup_policy_proves_nothing() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    producer.send(&record("t", "k", "next")).await.unwrap().await.unwrap();
    let verifier = producer.verifier();
    cluster.fail_next(ApiKey::DescribeConfigs, 1, ErrorCode::TopicAuthorizationFailed);
    let findings = verifier.verify(questions(&[&letter]), &mut NoFences, |_| ()).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::CleanupPolicyUnknown }]);
}

#[tokio::test]
async fn truncated_log_start_proves_nothing() {
    let spec = TopicSpec::new("t", 1).config("retention.bytes", "200").config("segment.bytes", "100");
    let cluster = TestCluster::builder().topic_spec(spec).start().await.unwrap();
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    for _ in 0..20 {
        producer.send(&record("t", "k", "more and more of it")).await.unwrap().await.unwrap();
    }
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    let [Verdict::NotFound { why: WhyNot::LogStartPast { log_start } }] = verdicts(&findings)[..] else {
        panic!("{findings:?}")
    };
    assert!(log_start > 0);
}

#[tokio::test]
async fn retried_fence_is_written_once() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    cluster.apply_then_disconnect(2);
    let findings = verify(&cluster, &[&letter], &mut NewFences::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert!(matches!(findings.fences[..], [(_, FenceOutcome::Written { offset: 0 })]), "{findings:?}");
    assert_eq!(cluster.record_count("t"), 1);
}

/// A refused fence is not written. A fence without an answer is unknown.
#[tokio::test]
async fn failed_fence_reports_its_outcome() {
    for (fault, open) in [(Fault::Refuse(ErrorCode::TopicAuthorizationFailed), false), (Fault::Swallow, true)] {
        let cluster = cluster_with_topic().await;
        let producer = producer_without_retries(&cluster);
        cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
        let letter = fail_record(&producer, "a").await;
        cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
        let findings = verify(&cluster, &[&letter], &mut NewFences::default()).await;
        assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
        match &findings.fences[..] {
            [(_, FenceOutcome::Unknown(_))] if open => {}
            [(_, FenceOutcome::NotWritten(_))] if !open => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn old_timestamp_is_no_fence() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    let mut fences = NewFences { age_ms: 23 * 60 * 60 * 1000, ..NewFences::default() };
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
    assert!(matches!(&findings.fences[..], [(_, FenceOutcome::NotWritten(_))]), "{findings:?}");
    assert_eq!(cluster.record_count("t"), 0);
}

#[tokio::test]
async fn second_fence_is_not_written() {
    let cluster = cluster_with_topic().await;
    let producer = producer_without_retries(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = fail_record(&producer, "a").await;
    /// Runs a second check that writes its fence first, with the same stamp.
    struct CompetingFences<'a>(&'a TestCluster, Letter);
    impl Fences for CompetingFences<'_> {
        async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
            let mut first = NewFences::default();
            let before = Box::pin(verify(self.0, &[&self.1], &mut first)).await;
            assert_eq!((verdicts(&before), &first.wanted[..]), (vec![Verdict::Absent], &[place.stamp][..]));
            let id = [Header { key: headers::DLQ_ID, value: Some(b"second") }];
            let record = Record { key: None, value: Some(b"second"), headers: &id, timestamp: now_ms() };
            Some(FenceLetter { letter_id: "second".into(), batch: EncodedBatch::single(&record).unwrap() })
        }
    }
    let findings = verify(&cluster, &[&letter], &mut CompetingFences(&cluster, letter.clone())).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert!(matches!(&findings.fences[..], [(_, FenceOutcome::NotWritten(_))]), "{findings:?}");
    let values: Vec<_> = cluster.records("t").iter().map(|record| record.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["fence"]);
}

/// The check reports its progress in each partition.
#[tokio::test]
async fn failed_partition_stops_no_other() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    for number in 0..500 {
        let value = format!("{number}").repeat(100);
        producer.send(&record("t", &value, &value)).await.unwrap().detach();
    }
    assert!(producer.flush(support::LONG).await);
    let doubt = |partition, letter_id: &str| Question {
        topic: "t".into(),
        partition,
        doubt: kafka_courier::verify::Doubt { letter_id: letter_id.to_owned(), ..Default::default() },
    };
    let mut seen = Vec::new();
    let asked = vec![doubt(9, "c"), doubt(1, "b"), doubt(0, "a")];
    let record_progress = |progress: Progress<'_>| seen.push((progress.partition, progress.read, progress.total));
    let findings = verifier(&cluster).verify(asked, &mut NoFences, record_progress).await;
    let ids: Vec<_> = findings.answers.iter().map(|answer| answer.letter_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let no_stamp = Verdict::NotFound { why: WhyNot::NoStamp };
    assert_eq!(verdicts(&findings)[..2], [no_stamp.clone(), no_stamp]);
    assert_eq!(verdicts(&findings)[2], Verdict::NotFound { why: WhyNot::TopicRecreated });
    for partition in [0, 1] {
        let last = seen.iter().rfind(|(of, _, _)| *of == partition).unwrap();
        assert!(last.1 == last.2 && last.1 > 0, "{seen:?}");
    }
    assert_eq!(cluster.record_count("t"), 500);
}
