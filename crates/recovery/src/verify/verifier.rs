//! Reads the log and sends fences for the proof: the IO around `check`.
//!
//! Rules:
//! - A partition is read once, from the first possible offset of a doubt to its end. The records up to a fence are read
//!   after the fence.
//! - The topic's id is requested before and after the read. Equal ids prove that the read was of that topic.
//! - A letter that serves as a fence counts as written only if its own record is at the acknowledged offset.
//! - An unreadable partition leaves its own doubts without a proof, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_client::ErrorCode;
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::log_client::{LogClient, LogError, LogErrorKind, ReadFrom};
use kafka_courier_dlq::{Letter, Uuid};
use kafka_courier_idempotent_sender::append_batch;
use kafka_courier_producer::wall_clock_ms;

use super::check::{ObservedTopic, OffsetContent, PartitionCheck, oldest_remembered_ms};
use super::scan::scan;
use super::{Doubt, Verdict, WhyNot};

/// The bytes of one Fetch.
const FETCH_BYTES: u32 = 4 << 20;
/// The maximum number of letters that are tried as a fence of one producer id. A rejected letter is followed by the
/// next.
const CANDIDATES: usize = 5;
/// How long a leader may wait for records that consumers cannot read yet.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// A doubt, and the partition to which the record was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The doubt.
    pub doubt: Doubt,
}

/// The verdict on a dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The dead letter's id.
    pub letter_id: String,
    /// The result of the search.
    pub verdict: Verdict,
}

/// The results of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// One answer for each question.
    pub answers: Vec<Answer>,
    /// The id and outcome of each dead letter that served as a fence.
    pub fences: Vec<(String, FenceOutcome)>,
}

/// The progress of a check in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The number of offsets read.
    pub read: u64,
    /// The number of offsets to read in total.
    pub total: u64,
}

/// The partition that needs a fence, and the fence's stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FencePlace<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The stamp: the producer id of the doubts, an epoch above all known ones, and sequence number 0.
    pub stamp: Stamp,
}

/// A dead letter that is certainly not in the log, and is sent as a fence.
#[derive(Clone, Debug)]
pub struct FenceLetter {
    /// The dead letter's id. The record has the id in the header [`DLQ_ID`](crate::headers::DLQ_ID).
    pub letter_id: String,
    /// A batch of the one record, as [`EncodedBatch::single`] returns it, with the present time as its timestamp. The
    /// verifier stamps the batch.
    pub batch: EncodedBatch,
}

/// The outcome of a dead letter that served as a fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FenceOutcome {
    /// The dead letter is in the log, and therefore delivered.
    Written {
        /// The record's offset.
        offset: i64,
    },
    /// The dead letter is not in the log, and no request with it is in flight.
    NotWritten(NotFenced),
    /// The dead letter may be in the log, with the stamp of its [`FencePlace`].
    Unknown(NotFenced),
}

/// The reason why a dead letter did not serve as a fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotFenced {
    /// The reason as text.
    pub why: Arc<str>,
    /// Kafka's error code, if a broker refused the fence.
    pub code: Option<ErrorCode>,
    /// Whether the cluster is the cause, and not the dead letter.
    pub by_outage: bool,
}

/// A source of dead letters that may serve as fences.
///
/// A fence ends the use of its producer id in its partition: the leader refuses all further batches of a process that
/// still uses the id. A source must therefore return no fence for the producer id of a living producer. The next batch
/// of that producer with a higher epoch is a fence itself.
pub trait Fences: Send {
    /// Returns a dead letter for this place, or `None`.
    ///
    /// A durable mark must state before the return that the dead letter has the outcome unknown under this stamp. A
    /// process that crashes later can then search for the record.
    fn letter_for(&mut self, place: &FencePlace<'_>) -> impl Future<Output = Option<FenceLetter>> + Send;
}

/// A source without fences. Only fences that are already in the log prove absence.
#[derive(Clone, Copy, Debug)]
pub struct NoFences;

impl Fences for NoFences {
    async fn letter_for(&mut self, _place: &FencePlace<'_>) -> Option<FenceLetter> {
        None
    }
}

/// Searches the log for records with the outcome unknown.
#[derive(Debug)]
pub struct Verifier {
    client: LogClient,
    timeout: Duration,
}

/// The check of one partition.
struct PartitionRun<'a> {
    verifier: &'a Verifier,
    topic: &'a str,
    partition: i32,
    check: PartitionCheck,
}

/// A fence that was sent, or was refused before it was sent.
#[derive(Debug)]
pub(super) struct SentFence {
    pub(super) letter_id: String,
    pub(super) stamp: Stamp,
    /// The acknowledged offset.
    pub(super) result: Result<Option<i64>, FenceFailure>,
}

/// The failure of a fence without an acknowledgement.
#[derive(Debug)]
pub(super) struct FenceFailure {
    /// Whether the fence may be in the log.
    open: bool,
    /// Whether the record was rejected, so that another letter may serve.
    rejected: bool,
    cause: NotFenced,
}

impl FenceFailure {
    fn of(error: &LogError) -> Self {
        Self {
            open: error.is_open(),
            cause: NotFenced { why: error.to_string().into(), code: error.code(), by_outage: error.is_outage() },
            rejected: !error.is_open() && error.code().is_some_and(ErrorCode::is_rejection),
        }
    }
}

impl Question {
    /// Returns the question about a dead letter. Returns `None` if the dead letter has no partition, because then it
    /// was never sent.
    pub fn of(letter: &Letter) -> Option<Self> {
        let doubt = Doubt {
            letter_id: letter.id.to_string(),
            event_id: letter.event_id.clone(),
            topic_id: letter.topic_id.map(Uuid::into_bytes),
            producer_id: letter.producer_id,
            producer_epoch: letter.producer_epoch,
            sequence: letter.sequence,
            search_from: letter.search_from,
        };
        Some(Self { topic: letter.topic.as_str().into(), partition: letter.partition?, doubt })
    }
}

impl Verifier {
    /// Creates a verifier with separate connections to the cluster in `config`. Each request, including its retries,
    /// may take `timeout`.
    #[doc(hidden)]
    pub fn new(config: &ClientConfig, timeout: Duration) -> Self {
        Self { client: LogClient::new(config), timeout }
    }

    /// Searches for the record of each question. Returns an answer to every question, in the order of topic and
    /// partition.
    ///
    /// If a proof of absence lacks only a fence, the verifier requests a dead letter from `fences` and sends it as the
    /// fence.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing. A dead letter that `fences` returned may then be in the log under its stamp.
    pub async fn verify(
        &self,
        questions: Vec<Question>,
        fences: &mut impl Fences,
        mut progress: impl FnMut(Progress<'_>) + Send,
    ) -> Findings {
        let mut places: BTreeMap<(Arc<str>, i32), Vec<Doubt>> = BTreeMap::new();
        for question in questions {
            places.entry((question.topic, question.partition)).or_default().push(question.doubt);
        }
        let mut findings = Findings::default();
        for ((topic, partition), doubts) in places {
            self.verify_partition(&topic, partition, doubts, fences, &mut progress, &mut findings).await;
        }
        findings
    }

    async fn verify_partition(
        &self,
        topic: &str,
        partition: i32,
        doubts: Vec<Doubt>,
        fences: &mut impl Fences,
        progress: &mut (impl FnMut(Progress<'_>) + Send),
        findings: &mut Findings,
    ) {
        let now = match self.describe(topic).await {
            Ok(now) => now,
            Err(why) => return findings.all_not_found(doubts, &why),
        };
        let check = PartitionCheck::new(doubts.clone(), now);
        let mut run = PartitionRun { verifier: self, topic, partition, check };
        let mut sent = Vec::new();
        let read = run.read_and_fence(fences, progress, &mut sent).await;
        findings.fences.extend(sent.into_iter().map(|sent| outcome_of(sent, &run.check)));
        let failed = match read {
            Ok(()) => self.changed_topic(topic, now).await,
            Err(why) => Some(why),
        };
        findings.conclude(run.check, failed);
    }

    /// Requests the topic's id and cleanup policy.
    async fn describe(&self, topic: &str) -> Result<ObservedTopic, WhyNot> {
        let info = self.client.topic(topic, self.deadline()).await.map_err(|error| not_read(&error))?;
        let compacted = match self.client.is_compacted(topic, self.deadline()).await {
            Ok(compacted) => Some(compacted),
            Err(error) => {
                tracing::warn!(%error, "cleanup policy is unknown, absence cannot be proved");
                None
            }
        };
        Ok(ObservedTopic { uuid: info.uuid, compacted })
    }

    /// Returns the reason why the read may not be of the described topic.
    async fn changed_topic(&self, topic: &str, described: ObservedTopic) -> Option<WhyNot> {
        match self.client.topic(topic, self.deadline()).await {
            Ok(info) if info.uuid == described.uuid => None,
            Ok(_) => Some(WhyNot::TopicRecreated),
            Err(error) => Some(not_read(&error)),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

fn not_read(error: &LogError) -> WhyNot {
    match error.code() {
        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => WhyNot::TopicRecreated,
        _ => WhyNot::NotRead(error.to_string().into()),
    }
}

impl PartitionRun<'_> {
    /// Reads to the end, sends the missing fences, and reads up to the fences.
    async fn read_and_fence(
        &mut self,
        fences: &mut impl Fences,
        progress: &mut (impl FnMut(Progress<'_>) + Send),
        sent: &mut Vec<SentFence>,
    ) -> Result<(), WhyNot> {
        let client = &self.verifier.client;
        let offsets = client.offsets(self.topic, self.partition, self.verifier.deadline()).await;
        let offsets = offsets.map_err(|error| not_read(&error))?;
        self.check.begin_at(self.check.from().max(offsets.log_start));
        self.read_to(offsets.high_watermark, progress).await?;
        for stamp in self.check.wanted_fences(wall_clock_ms()) {
            self.fence_with(stamp, fences, sent).await;
        }
        if sent.iter().any(|sent| sent.result.is_err()) {
            // A leader may refuse a fence because of another fence that is not read yet.
            let end = client.offsets(self.topic, self.partition, self.verifier.deadline()).await;
            self.read_to(end.map_err(|error| not_read(&error))?.high_watermark, progress).await?;
        }
        match self.check.unread_fence() {
            Some(end) => self.read_to(end, progress).await,
            None => Ok(()),
        }
    }

    /// Sends a letter as a fence. If the record is rejected, sends another letter under the next epoch.
    async fn fence_with(&mut self, mut stamp: Stamp, fences: &mut impl Fences, sent: &mut Vec<SentFence>) {
        for _ in 0..CANDIDATES {
            let place = FencePlace { topic: self.topic, partition: self.partition, stamp };
            let Some(letter) = fences.letter_for(&place).await else { return };
            let fence = self.fence(stamp, letter).await;
            let rejected = fence.result.as_ref().is_err_and(|error| error.rejected);
            sent.push(fence);
            let Some(epoch) = stamp.epoch.checked_add(1).filter(|_| rejected) else { return };
            stamp.epoch = epoch;
        }
    }

    async fn fence(&mut self, stamp: Stamp, letter: FenceLetter) -> SentFence {
        let FenceLetter { letter_id, mut batch } = letter;
        if batch.max_timestamp() < oldest_remembered_ms(wall_clock_ms()) {
            let why = "its timestamp is so old that the leader would forget the fence immediately".into();
            let cause = NotFenced { why, code: None, by_outage: false };
            return SentFence { letter_id, stamp, result: Err(FenceFailure { open: false, rejected: false, cause }) };
        }
        batch.stamp(stamp);
        self.check.watch(&letter_id);
        let verifier = self.verifier;
        let appended = append_batch(&verifier.client, self.topic, self.partition, Arc::new(batch), verifier.deadline());
        let result = appended.await.map_err(|error| FenceFailure::of(&error));
        if let Ok(Some(offset)) = &result {
            self.check.on_fenced(stamp, *offset);
        }
        SentFence { letter_id, stamp, result }
    }

    /// Reads up to `end`, or until every record is found. The verifier's timeout applies to each read with records, not
    /// to the total.
    async fn read_to(&mut self, end: i64, progress: &mut (impl FnMut(Progress<'_>) + Send)) -> Result<(), WhyNot> {
        let start = self.check.next();
        let offsets = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let mut deadline = self.verifier.deadline();
        while self.check.next() < end && !self.check.is_settled() {
            if self.read_once(deadline).await? {
                deadline = self.verifier.deadline();
                let read = offsets(start, self.check.next().min(end));
                let total = offsets(start, end);
                progress(Progress { topic: self.topic, partition: self.partition, read, total });
            } else if Instant::now() >= deadline {
                // The high watermark lags, and the proof accounts for the missing records.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends one Fetch. Returns whether it returned a batch.
    async fn read_once(&mut self, deadline: Instant) -> Result<bool, WhyNot> {
        let from = ReadFrom { offset: self.check.next(), max_bytes: FETCH_BYTES, max_wait: FETCH_WAIT };
        match self.verifier.client.fetch(self.topic, self.partition, from, deadline).await {
            Ok(fetched) => {
                let scanned = scan(&fetched.bytes, &mut self.check);
                scanned.map_err(|error| WhyNot::NotRead(error.to_string().into()))
            }
            Err(error) if *error.kind() == LogErrorKind::OutOfRange => self.skip(deadline, &error).await,
            Err(error) => Err(not_read(&error)),
        }
    }

    /// Continues at the log start, if it has moved past the next offset.
    async fn skip(&mut self, deadline: Instant, error: &LogError) -> Result<bool, WhyNot> {
        let offsets = self.verifier.client.offsets(self.topic, self.partition, deadline).await;
        let start = offsets.map_err(|error| not_read(&error))?.log_start;
        if start <= self.check.next() {
            return Err(not_read(error)); // the log was truncated before the next offset
        }
        self.check.begin_at(start);
        Ok(true)
    }
}

/// Returns the letter id and the outcome of a fence, from its acknowledgement and the records that were read.
pub(super) fn outcome_of(sent: SentFence, check: &PartitionCheck) -> (String, FenceOutcome) {
    let outcome = match (check.watched(&sent.letter_id), sent.result) {
        (Some(offset), _) => FenceOutcome::Written { offset },
        (None, Ok(None)) => FenceOutcome::Unknown(not_fenced("acknowledged without an offset".to_owned())),
        (None, Ok(Some(offset))) => acknowledged(offset, check.content_at(sent.stamp, offset)),
        (None, Err(FenceFailure { open: true, cause, .. })) => FenceOutcome::Unknown(cause),
        (None, Err(FenceFailure { cause, .. })) => FenceOutcome::NotWritten(cause),
    };
    (sent.letter_id, outcome)
}

fn not_fenced(why: String) -> NotFenced {
    NotFenced { why: why.into(), code: None, by_outage: false }
}

/// Returns the outcome of a fence that was acknowledged and whose record was not read.
fn acknowledged(offset: i64, content: OffsetContent) -> FenceOutcome {
    match content {
        // The topic recompresses batches with an unsupported codec.
        OffsetContent::FenceStamp => FenceOutcome::Written { offset },
        // The leader already had another record with this stamp, and treated the fence as a duplicate of it.
        OffsetContent::Readable => {
            FenceOutcome::NotWritten(not_fenced(format!("another record has its stamp, at offset {offset}")))
        }
        OffsetContent::Unreadable => {
            FenceOutcome::Unknown(not_fenced(format!("acknowledged at offset {offset}, which cannot be decoded")))
        }
        OffsetContent::Unread => {
            FenceOutcome::Unknown(not_fenced(format!("acknowledged at offset {offset}, which cannot be read")))
        }
    }
}

impl Findings {
    /// Adds the same answer for all doubts.
    fn all_not_found(&mut self, doubts: Vec<Doubt>, why: &WhyNot) {
        let answer =
            |doubt: Doubt| Answer { letter_id: doubt.letter_id, verdict: Verdict::NotFound { why: why.clone() } };
        self.answers.extend(doubts.into_iter().map(answer));
    }

    /// Adds the verdicts of the check. If the read failed, no record is absent.
    fn conclude(&mut self, check: PartitionCheck, failed: Option<WhyNot>) {
        for (letter_id, verdict) in check.verdicts(wall_clock_ms()) {
            let verdict = match (verdict, &failed) {
                (proof @ Verdict::Landed { .. }, _) | (proof, None) => proof,
                (_, Some(why)) => Verdict::NotFound { why: why.clone() },
            };
            self.answers.push(Answer { letter_id, verdict });
        }
    }
}
