//! Reads partitions' logs, and appends single batches, over connections of its own.
//!
//! Rules:
//! - Only leaders are asked, and only up to the high watermark: what is read is on every in-sync replica.
//! - Whatever may pass is tried again until the caller's deadline; an error names the step, the partition and the cause.
//! - A batch that is appended is the same bytes at each try: a leader tells them apart from a second record by their stamp.
//! - It never makes a topic by asking for it.

mod error;
mod leaders;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;

use self::leaders::{Leader, Leaders, Missed};
use super::DriverConfig;
use crate::core::{Backoff, ErrorCode, PartAnswer, PartitionId, ProducePart, TopicId, TopicUuid, Treatment, classify};
use crate::wire::fetch::{FetchRequest, FetchedPart};
use crate::wire::list_offsets::{EARLIEST, LATEST, ListOffsetsRequest};
use crate::wire::messenger;
use crate::wire::produce::PartKey;

pub use self::error::{LogError, LogErrorKind, Step};

/// The most that one Fetch asks for: an answer's first batch comes whole, however large, and has to fit beside it.
const MAX_FETCH: i32 = 4 << 20;

/// Reads partitions' logs, and appends single batches. One request at a time for each broker.
#[derive(Debug)]
pub struct LogClient {
    leaders: Leaders,
    backoff: Backoff,
    request_timeout: Duration,
}

/// A topic as the cluster knows it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// Its id; all zero where the brokers give none (before Kafka 2.8).
    pub uuid: TopicUuid,
    /// How many partitions it has, numbered from 0.
    pub partitions: usize,
}

/// A topic's settings that decide which records vanish from its log, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cleanup {
    /// `cleanup.policy`: `delete`, `compact`, both with a comma between them, or nothing.
    pub policy: Box<str>,
    /// `retention.ms`, where the broker tells it; negative: no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of a partition, where the broker tells it; negative: no limit.
    pub retention_bytes: Option<i64>,
}

impl Cleanup {
    /// Whether the newest record of a key removes those before it.
    pub fn is_compacted(&self) -> bool {
        self.policy.contains("compact")
    }

    /// Whether old records are deleted.
    pub fn deletes(&self) -> bool {
        self.policy.contains("delete")
    }
}

/// Where a partition's log begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that can still be read.
    pub log_start: i64,
    /// The offset behind the last record that is on every in-sync replica: consumers see no further.
    pub high_watermark: i64,
}

/// What one Fetch brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The offset behind the last record that is on every in-sync replica.
    pub high_watermark: i64,
    /// The first offset that can still be read.
    pub log_start: i64,
    /// Record batches as they stand in the log, for [`BatchView`](kafka_courier_batcher::BatchView). The first may begin
    /// before the offset that was asked for; the last may be cut off. Empty: nothing came within `max_wait`.
    pub bytes: Vec<u8>,
}

/// What to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadFrom {
    /// The first offset that is wanted.
    pub offset: i64,
    /// About how many bytes; at least one batch comes whole, whatever its size. At most 4 MiB are asked for.
    pub max_bytes: u32,
    /// How long the leader may wait for a first record.
    pub max_wait: Duration,
}

impl LogClient {
    /// A client for the cluster that `config` leads to. Connects when it is first asked something.
    pub fn new(config: &DriverConfig) -> Self {
        Self {
            leaders: Leaders::new(config),
            backoff: config.core.backoff,
            request_timeout: config.core.request_timeout,
        }
    }

    /// The topic's id and its number of partitions.
    ///
    /// Errors: [`LogErrorKind::Refused`] with `UNKNOWN_TOPIC_OR_PARTITION` if there is none, others as for all methods.
    /// Cancel safety: it only asks.
    pub async fn topic(&self, topic: &str, deadline: Instant) -> Result<TopicInfo, LogError> {
        let step = Step::of("asking for the topic", topic, None);
        self.retry(step, deadline, |_| async move {
            let found = self.leaders.describe(topic).await?;
            Ok(TopicInfo { uuid: found.uuid, partitions: found.partitions.len() })
        })
        .await
    }

    /// A producer id that nobody had before, for batches that are stamped by hand.
    ///
    /// Errors: as for all methods. Cancel safety: an id that nobody uses costs nothing.
    pub async fn producer_id(&self, deadline: Instant) -> Result<i64, LogError> {
        let step = Step::of("asking for a producer id", "", None);
        self.retry(step, deadline, |_| async move { self.leaders.producer_id().await }).await
    }

    /// What the topic's settings say of records that vanish from its log.
    ///
    /// Errors: [`LogErrorKind::Refused`] if we may not know (`DescribeConfigs` on the topic), others as for all methods.
    /// Cancel safety: it only asks.
    pub async fn cleanup(&self, topic: &str, deadline: Instant) -> Result<Cleanup, LogError> {
        let step = Step::of("asking for the cleanup policy of the topic", topic, None);
        self.retry(step, deadline, |_| async move { self.leaders.cleanup(topic).await }).await
    }

    /// Whether the topic's `cleanup.policy` lets records vanish from the middle of its log.
    ///
    /// Errors: as for [`cleanup`](Self::cleanup). Cancel safety: it only asks.
    pub async fn is_compacted(&self, topic: &str, deadline: Instant) -> Result<bool, LogError> {
        Ok(self.cleanup(topic, deadline).await?.is_compacted())
    }

    /// Where the partition's log begins and ends.
    ///
    /// Errors: as for all methods. Cancel safety: it only asks.
    pub async fn offsets(&self, topic: &str, partition: i32, deadline: Instant) -> Result<Offsets, LogError> {
        // The start first: an end that was asked for before it could lie below it.
        let log_start = self.offset(topic, partition, EARLIEST, deadline).await?;
        let high_watermark = self.offset(topic, partition, LATEST, deadline).await?;
        Ok(Offsets { log_start, high_watermark })
    }

    async fn offset(&self, topic: &str, partition: i32, timestamp: i64, deadline: Instant) -> Result<i64, LogError> {
        let step = Step::of("asking for the offsets of", topic, Some(partition));
        self.retry(step, deadline, |patience| async move {
            let leader = self.leaders.leader(topic, partition).await?;
            let request =
                ListOffsetsRequest { topic: leader.topic.clone(), partition, leader_epoch: leader.epoch, timestamp };
            let messenger::ListedOffsets(answer) = leader.ask(request, self.patience(patience)).await?;
            let part = answer.iter().find(|part| *part.topic == *topic && part.partition == partition);
            match part.ok_or(Missed::LeftOut)? {
                part if part.code != 0 => Err(Missed::code(part.code)),
                part => Ok(part.offset),
            }
        })
        .await
    }

    /// Reads record batches.
    ///
    /// Errors: [`LogErrorKind::OutOfRange`] if the offset is not, or no more, in the log; others as for all methods.
    /// Cancel safety: it only reads.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        from: ReadFrom,
        deadline: Instant,
    ) -> Result<Fetched, LogError> {
        let step = Step::of("reading", topic, Some(partition)).at(from.offset);
        self.retry(step, deadline, |patience| async move {
            let leader = self.leaders.leader(topic, partition).await?;
            let max_wait = from.max_wait.min(patience);
            let request = FetchRequest {
                topic: leader.topic.clone(),
                topic_uuid: leader.topic_uuid,
                partition,
                leader_epoch: leader.epoch,
                offset: from.offset,
                max_bytes: i32::try_from(from.max_bytes).unwrap_or(MAX_FETCH).min(MAX_FETCH),
                max_wait,
            };
            let answered = leader.ask(request, self.patience(patience).saturating_add(max_wait)).await?;
            let messenger::Fetched((code, parts)) = answered;
            fetched(code, parts, partition)
        })
        .await
    }

    /// Appends a batch that carries its stamp already, and answers the first record's offset once every in-sync replica
    /// has it. The same bytes go out again after each lost answer and each error that may pass, until `deadline`.
    ///
    /// Appending the same batch again, later or in another process, is safe as long as the leader remembers the stamp.
    ///
    /// Errors: [`LogError::is_open`] tells whether it may be in the log all the same.
    /// Cancel safety: none. If this future is dropped the batch may or may not be in the log.
    pub async fn append(
        &self,
        topic: &str,
        partition: i32,
        batch: Arc<EncodedBatch>,
        deadline: Instant,
    ) -> Result<i64, LogError> {
        let step = Step::of("appending to", topic, Some(partition));
        let (open, batch) = (&AtomicBool::new(false), &batch);
        let result = self
            .retry(step, deadline, |patience| async move {
                let leader = self.leaders.leader(topic, partition).await?;
                let part = ProducePart {
                    partition: PartitionId { topic: TopicId(0), index: partition },
                    topic: leader.topic.clone(),
                    topic_uuid: leader.topic_uuid,
                    batch: batch.clone(),
                };
                // From here on it may be in the log, unless it turns out that it is certainly not.
                let was_open = open.swap(true, Ordering::Relaxed);
                let judged = self.produce(&leader, part, patience).await;
                let refused = matches!(&judged, Err((_, refused)) if *refused);
                open.store(was_open || !refused, Ordering::Relaxed);
                judged.map_err(|(missed, _)| missed)
            })
            .await;
        result.map_err(|error| LogError { open: open.load(Ordering::Relaxed), ..error })
    }

    /// One attempt; the error says whether it was certainly refused.
    async fn produce(&self, leader: &Leader, part: ProducePart, patience: Duration) -> Result<i64, (Missed, bool)> {
        let keys = [PartKey::of(&part)];
        let patience = self.patience(patience);
        let answered = leader.produce(part, patience).await.map_err(|missed| (missed, false))?;
        let answer = answered.0.into_answer(&keys).parts.into_iter().next().flatten();
        appended(&answer.ok_or((Missed::LeftOut, false))?)
    }

    /// How long one answer may take.
    fn patience(&self, left: Duration) -> Duration {
        self.request_timeout.min(left)
    }

    /// Does it again until it is done, will never be, or time is up. `attempt` is told how much time is left.
    async fn retry<A, F>(
        &self,
        step: Step,
        deadline: Instant,
        mut attempt: impl FnMut(Duration) -> F,
    ) -> Result<A, LogError>
    where
        F: Future<Output = Result<A, Missed>>,
    {
        let mut failures = 0_u32;
        let mut before = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let missed = match tokio::time::timeout(left, attempt(left)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(missed)) => missed,
                Err(_) => Missed::Late,
            };
            // What failed before says more than that time was up.
            let cut_off = matches!(missed, Missed::Late | Missed::Lost(_)) && Instant::now() >= deadline;
            let missed = if cut_off { before.take().unwrap_or(missed) } else { missed };
            if let Some(kind) = missed.as_final() {
                return Err(LogError { step, kind, open: false });
            }
            failures = failures.saturating_add(1);
            let wait = self.pause(failures);
            if Instant::now() + wait >= deadline {
                return Err(LogError { step, kind: missed.in_the_end(), open: false });
            }
            tracing::debug!(%step, why = %missed.in_the_end(), "to be tried again");
            before = Some(missed);
            self.leaders.doubt(step.topic()).await;
            tokio::time::sleep(wait).await;
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.backoff.base.saturating_mul(1 << doublings).min(self.backoff.cap);
        step / 2 + (step / 2).mul_f64(fastrand::f64())
    }
}

/// What a Fetch answer says of the partition that was asked for.
fn fetched(code: i16, parts: Vec<FetchedPart>, partition: i32) -> Result<Fetched, Missed> {
    if code != 0 {
        return Err(Missed::code(code));
    }
    let part = parts.into_iter().find(|part| part.index == partition).ok_or(Missed::LeftOut)?;
    match part.code {
        0 => Ok(Fetched { high_watermark: part.high_watermark, log_start: part.log_start, bytes: part.records }),
        code => Err(Missed::code(code)),
    }
}

/// What a Produce answer says of the batch; an error also says whether this attempt was certainly refused.
fn appended(answer: &PartAnswer) -> Result<i64, (Missed, bool)> {
    let outcome = classify(answer);
    let code = ErrorCode(answer.code);
    match outcome.treatment {
        Treatment::Delivered => Ok(answer.base_offset),
        Treatment::Wait | Treatment::WaitForLeader | Treatment::Retry => Err((Missed::Passing(code), outcome.refused)),
        Treatment::Duplicate | Treatment::Split | Treatment::Sequence | Treatment::NewTopicId | Treatment::Reject => {
            Err((Missed::Final(code), outcome.refused))
        }
    }
}
