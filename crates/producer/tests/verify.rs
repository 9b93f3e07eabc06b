//! Whether what is in doubt is in the log, on a cluster inside the process.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::time::Duration;

use kafka_courier::dlq::{Letter, Outcome, Selection};
use kafka_courier::verify::{
    FenceLetter, FenceOutcome, FencePlace, Fences, Findings, NoFences, Progress, Question, Verdict, Verifier, WhyNot,
};
use kafka_courier::{Header, KafkaProducer, headers};
use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster, TopicSpec};
use support::{Producer, config, now_ms, producer, record};

async fn one() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

/// A producer that gives up after one try.
fn hasty(cluster: &TestCluster) -> Producer {
    let mut config = config(cluster);
    config.retry_max = 0;
    config.request_timeout = Duration::from_millis(300);
    config.expedite = true;
    Producer::build(config).unwrap()
}

/// A verifier that is not patient.
fn quick(cluster: &TestCluster) -> Verifier {
    let mut config = config(cluster);
    config.delivery_timeout = Duration::from_secs(5);
    config.request_timeout = Duration::from_secs(1);
    Producer::build(config).unwrap().verifier()
}

/// Publishes a record whose delivery ends in doubt, or fails.
async fn lost(producer: &KafkaProducer, value: &str) -> Letter {
    let id = [Header { key: headers::EVENT_ID, value: Some(value.as_bytes()) }];
    let record = kafka_courier::ProducerRecord { headers: &id, ..record("t", "k", value) };
    producer.send(&record).await.unwrap().await.unwrap_err();
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).find(|letter| letter.event_id.as_deref() == Some(value)).unwrap()
}

/// Gives a fresh letter for every fence, and remembers which were wanted.
#[derive(Default)]
struct Fresh {
    wanted: Vec<Stamp>,
    age_ms: i64,
}

impl Fences for Fresh {
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
    quick(cluster).verify(questions(letters), fences, |_| ()).await
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_found_where_it_is() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    producer.send(&record("t", "k", "before")).await.unwrap().await.unwrap();
    cluster.apply_then_disconnect(1);
    let letter = lost(&producer, "a").await;
    assert_eq!(letter.outcome, Outcome::Unknown);
    let findings = verify(&cluster, &[&letter], &mut Fresh::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Landed { offset: 1 }]);
    assert_eq!(findings.answers[0].letter_id, letter.id.to_string());
    assert_eq!(findings.fences, []);
}

#[tokio::test]
async fn a_record_that_never_arrived_is_absent_once_its_producers_id_is_fenced() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    producer.send(&record("t", "k", "before")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    assert_eq!(letter.outcome, Outcome::Unknown);
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
    let mut fences = Fresh::default();
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert_eq!(fences.wanted.len(), 1);
    assert_eq!(Some(fences.wanted[0].producer_id), letter.producer_id);
    let fence = format!("fence-{}", fences.wanted[0].epoch);
    assert_eq!(findings.fences, [(fence, FenceOutcome::Written { offset: 1 })]);
    // Now that a fence is in the log it serves the next check too.
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
}

#[tokio::test]
async fn a_request_that_is_written_after_the_check_began_is_found_by_it() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let letter = lost(&producer, "a").await;
    assert_eq!((letter.outcome, cluster.record_count("t")), (Outcome::Unknown, 0));
    /// Lets the late request go just before the fence.
    struct Late<'a>(Fresh, Gate, &'a TestCluster);
    impl Fences for Late<'_> {
        async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
            self.1.open();
            self.2.wait_for_records("t", 1).await;
            self.0.letter_for(place).await
        }
    }
    let findings = verify(&cluster, &[&letter], &mut Late(Fresh::default(), gate, &cluster)).await;
    assert_eq!(verdicts(&findings), [Verdict::Landed { offset: 0 }]);
    assert_eq!(cluster.record_count("t"), 2);
}

#[tokio::test]
async fn a_request_that_comes_after_the_fence_is_refused() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let letter = lost(&producer, "a").await;
    let findings = verify(&cluster, &[&letter], &mut Fresh::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    let taken = cluster.requests(ApiKey::Produce);
    gate.open();
    // The late request has been judged when one behind it has.
    producer.close(Duration::ZERO).await;
    let other = support::producer(&cluster);
    other.send(&record("t", "k", "behind")).await.unwrap().await.unwrap();
    assert!(cluster.requests(ApiKey::Produce) > taken);
    let values: Vec<_> = cluster.records("t").iter().map(|record| record.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["fence", "behind"]);
}

#[tokio::test]
async fn what_the_producer_itself_publishes_next_is_a_fence() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    producer.send(&record("t", "k", "next")).await.unwrap().await.unwrap();
    let findings = verify(&cluster, &[&letter], &mut NoFences).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
}

#[tokio::test]
async fn a_topic_made_anew_proves_nothing() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    assert!(cluster.delete_topic("t"));
    let gone = verify(&cluster, &[&letter], &mut Fresh::default()).await;
    assert_eq!(verdicts(&gone), [Verdict::NotFound { why: WhyNot::TopicMadeAnew }]);
    cluster.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let mut fences = Fresh::default();
    let anew = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&anew), [Verdict::NotFound { why: WhyNot::TopicMadeAnew }]);
    assert_eq!(fences.wanted, []);
}

#[tokio::test]
async fn a_compacted_topic_proves_nothing_and_is_not_fenced() {
    let spec = TopicSpec::new("t", 1).config("cleanup.policy", "compact");
    let cluster = TestCluster::builder().topic_spec(spec).start().await.unwrap();
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    let mut fences = Fresh::default();
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::Compacted }]);
    assert_eq!(fences.wanted, []);
}

#[tokio::test]
async fn without_the_right_to_see_the_cleanup_policy_nothing_is_absent() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    producer.send(&record("t", "k", "next")).await.unwrap().await.unwrap();
    let verifier = producer.verifier();
    cluster.fail_next(ApiKey::DescribeConfigs, 1, ErrorCode::TopicAuthorizationFailed);
    let findings = verifier.verify(questions(&[&letter]), &mut NoFences, |_| ()).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::CleanupPolicyUnknown }]);
}

#[tokio::test]
async fn a_log_that_was_cut_at_its_start_proves_nothing() {
    let spec = TopicSpec::new("t", 1).config("retention.bytes", "200").config("segment.bytes", "100");
    let cluster = TestCluster::builder().topic_spec(spec).start().await.unwrap();
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
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
async fn a_fence_whose_answers_are_lost_is_written_once_and_proves() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    cluster.apply_then_disconnect(2);
    let findings = verify(&cluster, &[&letter], &mut Fresh::default()).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert!(matches!(findings.fences[..], [(_, FenceOutcome::Written { offset: 0 })]), "{findings:?}");
    assert_eq!(cluster.record_count("t"), 1);
}

#[tokio::test]
async fn a_fence_that_is_refused_is_not_written_and_one_that_is_not_answered_is_unknown() {
    for (fault, open) in [(Fault::Refuse(ErrorCode::TopicAuthorizationFailed), false), (Fault::Swallow, true)] {
        let cluster = one().await;
        let producer = hasty(&cluster);
        cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
        let letter = lost(&producer, "a").await;
        cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
        let findings = verify(&cluster, &[&letter], &mut Fresh::default()).await;
        assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
        match &findings.fences[..] {
            [(_, FenceOutcome::Unknown(_))] if open => {}
            [(_, FenceOutcome::NotWritten(_))] if !open => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_letter_with_an_old_timestamp_is_no_fence_and_is_not_sent() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    let mut fences = Fresh { age_ms: 23 * 60 * 60 * 1000, ..Fresh::default() };
    let findings = verify(&cluster, &[&letter], &mut fences).await;
    assert_eq!(verdicts(&findings), [Verdict::NotFound { why: WhyNot::NoFence }]);
    assert!(matches!(&findings.fences[..], [(_, FenceOutcome::NotWritten(_))]), "{findings:?}");
    assert_eq!(cluster.record_count("t"), 0);
}

#[tokio::test]
async fn a_second_letter_under_a_stamp_that_is_taken_is_not_called_written() {
    let cluster = one().await;
    let producer = hasty(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Disconnect));
    let letter = lost(&producer, "a").await;
    /// Somebody else's check writes its fence first, under the same stamp.
    struct Second<'a>(&'a TestCluster, Letter);
    impl Fences for Second<'_> {
        async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
            let mut first = Fresh::default();
            let before = Box::pin(verify(self.0, &[&self.1], &mut first)).await;
            assert_eq!((verdicts(&before), &first.wanted[..]), (vec![Verdict::Absent], &[place.stamp][..]));
            let id = [Header { key: headers::DLQ_ID, value: Some(b"second") }];
            let record = Record { key: None, value: Some(b"second"), headers: &id, timestamp: now_ms() };
            Some(FenceLetter { letter_id: "second".into(), batch: EncodedBatch::single(&record).unwrap() })
        }
    }
    let findings = verify(&cluster, &[&letter], &mut Second(&cluster, letter.clone())).await;
    assert_eq!(verdicts(&findings), [Verdict::Absent]);
    assert!(matches!(&findings.fences[..], [(_, FenceOutcome::NotWritten(_))]), "{findings:?}");
    let values: Vec<_> = cluster.records("t").iter().map(|record| record.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["fence"]);
}

#[tokio::test]
async fn a_check_tells_how_far_it_has_come_and_one_partition_that_fails_costs_no_other() {
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
    let note = |progress: Progress<'_>| seen.push((progress.partition, progress.read, progress.total));
    let findings = quick(&cluster).verify(asked, &mut NoFences, note).await;
    let ids: Vec<_> = findings.answers.iter().map(|answer| answer.letter_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let no_stamp = Verdict::NotFound { why: WhyNot::NoStamp };
    assert_eq!(verdicts(&findings)[..2], [no_stamp.clone(), no_stamp]);
    assert_eq!(verdicts(&findings)[2], Verdict::NotFound { why: WhyNot::TopicMadeAnew });
    for partition in [0, 1] {
        let last = seen.iter().rfind(|(of, _, _)| *of == partition).unwrap();
        assert!(last.1 == last.2 && last.1 > 0, "{seen:?}");
    }
    assert_eq!(cluster.record_count("t"), 500);
}
