//! Verification of unknown records on real brokers. A record reported as `landed` is in the log at the reported offset,
//! and an absent record is not in the log and is never written later.
//!
//! Rules: A Java consumer reads the log after the check. Producers have short timeouts, so that records become unknown.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::dlq::{Letter, Outcome, Selection};
use kafka_courier::verify::{
    FenceLetter, FenceOutcome, FencePlace, Fences, Findings, NoFences, Question, Verdict, WhyNot,
};
use kafka_courier::{Header, KafkaConfig, KafkaProducer, ProducerRecord, headers};
use kafka_courier_batcher::{EncodedBatch, Record};
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::cluster::Cluster;

const TOPIC: &str = "doubts";

fn producer(cluster: &Cluster, change: impl FnOnce(&mut KafkaConfig)) -> Result<Producer> {
    let mut config = cluster.config()?;
    change(&mut config);
    Ok(Producer::build(config)?)
}

/// Builds a producer whose records fail after one attempt of two seconds.
fn impatient_producer(cluster: &Cluster) -> Result<Producer> {
    producer(cluster, |config| {
        config.retry_max = 0;
        config.request_timeout = Duration::from_secs(2);
        config.delivery_timeout = Duration::from_secs(6);
    })
}

/// Publishes events `e-N`, waits for all verdicts, and returns the number of delivered events.
async fn publish(producer: &KafkaProducer, numbers: std::ops::Range<u32>) -> Result<usize> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let (key, id) = (format!("k-{}", number % 50), format!("e-{number}"));
        let headers = [Header { key: headers::EVENT_ID, value: Some(id.as_bytes()) }];
        let record =
            ProducerRecord { topic: TOPIC, key: Some(key.as_bytes()), headers: &headers, ..Default::default() };
        deliveries.push(producer.send(&record).await?);
    }
    let mut delivered = 0;
    let mut failed = None;
    for delivery in deliveries {
        match delivery.await {
            Ok(_) => delivered += 1,
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        println!("the last failure: {error}");
    }
    Ok(delivered)
}

/// Writes one record to each partition with long timeouts, because the first write on new brokers may take seconds.
async fn write_once(cluster: &Cluster, partitions: i32) -> Result<()> {
    let patient = producer(cluster, |_| ())?;
    for partition in 0..partitions {
        let record = ProducerRecord { topic: TOPIC, partition: Some(partition), ..Default::default() };
        patient.send(&record).await?.await?;
    }
    patient.close(Duration::from_secs(10)).await;
    Ok(())
}

/// Returns the dead letters with the outcome unknown.
async fn unknown_letters(producer: &KafkaProducer) -> Result<Vec<Letter>> {
    let held = producer.dead_letters().list(&Selection::all(), usize::MAX).await?;
    Ok(held.into_iter().map(|held| held.letter).filter(|letter| letter.outcome == Outcome::Unknown).collect())
}

/// Makes a new record for each fence, and counts the fences.
#[derive(Default)]
struct NumberedFences(usize);

impl Fences for NumberedFences {
    async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
        self.0 += 1;
        let letter_id = format!("fence-{}-{}", place.partition, place.stamp.producer_id);
        let headers = [headers::DLQ_ID, headers::EVENT_ID].map(|key| Header { key, value: Some(letter_id.as_bytes()) });
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let timestamp = i64::try_from(now).unwrap();
        let record = Record { key: None, value: Some(b"fence"), headers: &headers, timestamp };
        let batch = EncodedBatch::single(&record).unwrap();
        Some(FenceLetter { letter_id, batch })
    }
}

/// Returns the positions (partition and offset) of each event in the log.
fn positions_in_log(cluster: &Cluster) -> Result<BTreeMap<String, Vec<(i32, i64)>>> {
    let mut log: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
    cluster.dump(TOPIC, |record| {
        let id = record.header(headers::EVENT_ID).unwrap_or_default();
        log.entry(id.to_owned()).or_default().push((record.partition, record.offset));
        Ok(())
    })?;
    Ok(log)
}

/// Checks every answer against the log, and returns the numbers of `landed`, absent and `not_found` records.
fn check_against_log(cluster: &Cluster, letters: &[Letter], findings: &Findings) -> Result<[usize; 3]> {
    let log = positions_in_log(cluster)?;
    let letters: BTreeMap<String, &Letter> = letters.iter().map(|letter| (letter.id.to_string(), letter)).collect();
    ensure!(findings.answers.len() == letters.len(), "{} answers", findings.answers.len());
    let mut counts = [0; 3];
    for answer in &findings.answers {
        let letter = letters[&answer.letter_id];
        let event = letter.event_id.as_deref().unwrap_or_default();
        let there = log.get(event).map_or(&[][..], Vec::as_slice);
        match &answer.verdict {
            Verdict::Landed { offset } => {
                counts[0] += 1;
                ensure!(
                    there == [(letter.partition.unwrap_or(-1), *offset)],
                    "{event}: reported at offset {offset}, but the log has {there:?}"
                );
            }
            Verdict::Absent => {
                counts[1] += 1;
                ensure!(there.is_empty(), "{event} is reported absent, but the log has {there:?}");
            }
            Verdict::NotFound { .. } => counts[2] += 1,
        }
    }
    for (letter, fence) in &findings.fences {
        let FenceOutcome::Written { offset } = fence else { anyhow::bail!("{letter}: {fence:?}") };
        ensure!(log.get(letter).is_some_and(|there| there.len() == 1 && there[0].1 == *offset), "{letter}: {offset}");
    }
    Ok(counts)
}

fn questions(letters: &[Letter]) -> Vec<Question> {
    letters.iter().filter_map(Question::of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_requests_differ() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start_with(3, &["--proxied"])?;
        cluster.create_topic(TOPIC, 6, 3, &[])?;
        write_once(&cluster, 6).await?;
        let lossy = impatient_producer(&cluster)?;
        ensure!(publish(&lossy, 0..300).await? == 300);
        cluster.fault(&["drop_response=1000", "api=0"])?;
        ensure!(publish(&lossy, 300..360).await? == 0);
        cluster.fault(&["clear"])?;
        cluster.fault(&["drop_request=1000", "api=0"])?;
        ensure!(publish(&lossy, 360..420).await? == 0);
        cluster.fault(&["clear"])?;
        let letters = unknown_letters(&lossy).await?;
        lossy.close(Duration::ZERO).await;
        let verifier = producer(&cluster, |_| ())?.verifier();
        let unfenced = verifier.verify(questions(&letters), &mut NoFences, |_| ()).await;
        let before = check_against_log(&cluster, &letters, &unfenced)?;
        let mut fences = NumberedFences::default();
        let fenced = verifier.verify(questions(&letters), &mut fences, |_| ()).await;
        let after = check_against_log(&cluster, &letters, &fenced)?;
        println!("in the log, absent, not found: {before:?}, with {} fences {after:?}", fences.0);
        ensure!(before[0] > 0 && before[2] > 0, "{unfenced:?}");
        let why = WhyNot::NoFence;
        ensure!(unfenced.answers.iter().all(|a| !matches!(&a.verdict, Verdict::NotFound { why: w } if *w != why)));
        ensure!(after[0] == before[0] && after[1] > 0 && after[2] == 0 && fences.0 > 0, "{fenced:?}");
        // The fences of one check are proofs for the next check.
        let again = verifier.verify(questions(&letters), &mut NoFences, |_| ()).await;
        ensure!(again.answers == fenced.answers);
        Ok(())
    }
    run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_writes_refute_no_verdict() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        cluster.create_topic(TOPIC, 3, 1, &[])?;
        let impatient = impatient_producer(&cluster)?;
        let verifier = producer(&cluster, |config| config.delivery_timeout = Duration::from_secs(60))?.verifier();
        ensure!(publish(&impatient, 0..100).await? == 100);
        cluster.pause(1)?;
        let published = publish(&impatient, 100..200).await;
        let letters = unknown_letters(&impatient).await?;
        let asked = questions(&letters);
        let check = tokio::spawn(async move {
            let mut fences = NumberedFences::default();
            verifier.verify(asked, &mut fences, |_| ()).await
        });
        tokio::time::sleep(Duration::from_secs(2)).await; // the requests of the check wait at the paused broker
        let waits = !check.is_finished();
        cluster.resume(1)?;
        let findings = check.await?;
        ensure!(waits && published? == 0 && !letters.is_empty(), "{} letters", letters.len());
        impatient.close(Duration::ZERO).await;
        // A later acknowledged write shows that the broker has processed all earlier requests.
        let later = producer(&cluster, |_| ())?;
        ensure!(publish(&later, 1000..1050).await? == 50);
        let counts = check_against_log(&cluster, &letters, &findings)?;
        println!("{} unknown records: in the log, absent, not found: {counts:?}", letters.len());
        ensure!(counts[2] == 0, "{findings:?}");
        Ok(())
    }
    run().await.unwrap();
}
