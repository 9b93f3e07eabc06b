//! Reads and fences for the proof: the shell around `check`.
//!
//! Rules:
//! - A partition is read from the least offset at which a doubt can be to its end, once; what a fence adds, after it.
//! - The topic's id is asked for before and after: what was read in between is then the topic's of that id.
//! - A letter that serves as a fence is written only where its own record is seen at the offset that was acknowledged.
//! - A partition that cannot be read costs its own doubts their proof, not the others'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_dlq::{Letter, Uuid};
use kafka_courier_idempotent_sender::core::ErrorCode;
use kafka_courier_idempotent_sender::driver::{DriverConfig, LogClient, LogError, LogErrorKind, ReadFrom};

use super::check::{PartitionCheck, There, Topic, young};
use super::scan::scan;
use super::{Doubt, Verdict, WhyNot};
use crate::shared::wall_clock_ms;

/// Bytes asked for at once.
const FETCH_BYTES: u32 = 4 << 20;
/// Letters that are tried as a fence of one producer id, as long as their records are rejected.
const CANDIDATES: usize = 5;
/// How long a leader may wait for records that it does not yet show.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// A doubt, and where its record was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The doubt.
    pub doubt: Doubt,
}

/// A letter's verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The letter.
    pub letter_id: String,
    /// What is known of it now.
    pub verdict: Verdict,
}

/// All that came of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// One for each question.
    pub answers: Vec<Answer>,
    /// One for each letter that served as a fence.
    pub fences: Vec<(String, FenceOutcome)>,
}

/// How far a check has come in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// Offsets read.
    pub read: u64,
    /// Offsets to read.
    pub total: u64,
}

/// Where a fence is wanted, and under which stamp it will go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FencePlace<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The stamp: the doubtful records' producer id, an epoch above all that are known, sequence number 0.
    pub stamp: Stamp,
}

/// A record that is certainly not in the log and is to be: it goes out as a fence.
#[derive(Clone, Debug)]
pub struct FenceLetter {
    /// The letter's id; the record has it in the header [`DLQ_ID`](crate::headers::DLQ_ID).
    pub letter_id: String,
    /// The record alone, as [`EncodedBatch::single`] makes it, with the present time as its timestamp. It is stamped here.
    pub batch: EncodedBatch,
}

/// What became of a letter that served as a fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FenceOutcome {
    /// It is in the log: delivered.
    Written {
        /// Its offset.
        offset: i64,
    },
    /// It is not in the log, and nothing of it is under way.
    NotWritten(NotFenced),
    /// It may be in the log, under the stamp that was named.
    Unknown(NotFenced),
}

/// Why a letter did not serve as a fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotFenced {
    /// In words.
    pub why: Arc<str>,
    /// Kafka's code, where a broker's refusal is the cause.
    pub code: Option<ErrorCode>,
    /// Whether the cluster is the cause, and not the letter.
    pub by_outage: bool,
}

/// Gives records that may serve as fences.
///
/// A fence ends the life of its producer id in its partition: whoever still sends under it is refused from then on. So
/// none may be given for the id of a producer that lives; what that producer itself publishes to the partition next, under
/// a higher epoch, is a fence as good.
pub trait Fences: Send {
    /// A letter for this place, or `None`. Before it is answered it has to be durable that the letter is in doubt from now
    /// on, under this stamp: a process that dies behind it knows then what to look for.
    fn letter_for(&mut self, place: &FencePlace<'_>) -> impl Future<Output = Option<FenceLetter>> + Send;
}

/// No fences: only what is in the log already proves absence.
#[derive(Clone, Copy, Debug)]
pub struct NoFences;

impl Fences for NoFences {
    async fn letter_for(&mut self, _place: &FencePlace<'_>) -> Option<FenceLetter> {
        None
    }
}

/// Looks doubtful records up in the log.
#[derive(Debug)]
pub struct Verifier {
    client: LogClient,
    patience: Duration,
}

/// One partition's check, under way.
struct Run<'a> {
    verifier: &'a Verifier,
    topic: &'a str,
    partition: i32,
    check: PartitionCheck,
}

/// A fence that was sent, or was to be.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) letter_id: String,
    pub(super) stamp: Stamp,
    /// The offset at which it was acknowledged.
    pub(super) result: Result<i64, NoFence>,
}

/// Why a fence was not acknowledged.
#[derive(Debug)]
pub(super) struct NoFence {
    /// Whether it may be in the log all the same.
    open: bool,
    /// Whether its record was rejected, so that another letter may serve.
    rejected: bool,
    cause: NotFenced,
}

impl NoFence {
    fn of(error: &LogError) -> Self {
        Self {
            open: error.is_open(),
            cause: NotFenced { why: error.to_string().into(), code: error.code(), by_outage: error.is_outage() },
            rejected: !error.is_open() && error.code().is_some_and(ErrorCode::is_rejection),
        }
    }
}

impl Question {
    /// What a letter leaves in doubt. `None` if it has no partition yet: then it was never sent.
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
    /// A verifier with connections of its own to the cluster that `config` leads to. Each request, tries again included,
    /// may take `patience`.
    pub fn new(config: &DriverConfig, patience: Duration) -> Self {
        Self { client: LogClient::new(config), patience }
    }

    /// Looks for each question's record, and answers all of them, in the order of topic and partition.
    ///
    /// Where a proof of absence lacks only a fence, `fences` is asked for a letter to serve as one.
    ///
    /// Cancel safety: nothing is lost, but a letter that was given as a fence is then in doubt under its stamp.
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
            Err(why) => return findings.all(doubts, &why),
        };
        let check = PartitionCheck::new(doubts.clone(), now);
        let mut run = Run { verifier: self, topic, partition, check };
        let mut sent = Vec::new();
        let read = run.read_and_fence(fences, progress, &mut sent).await;
        findings.fences.extend(sent.into_iter().map(|sent| outcome_of(sent, &run.check)));
        let failed = match read {
            Ok(()) => self.still(topic, now).await,
            Err(why) => Some(why),
        };
        findings.conclude(run.check, failed);
    }

    /// What is known of the topic.
    async fn describe(&self, topic: &str) -> Result<Topic, WhyNot> {
        let info = self.client.topic(topic, self.deadline()).await.map_err(|error| not_read(&error))?;
        let compacted = match self.client.is_compacted(topic, self.deadline()).await {
            Ok(compacted) => Some(compacted),
            Err(error) => {
                tracing::warn!(%error, "the cleanup policy is unknown, so nothing can be proved absent");
                None
            }
        };
        Ok(Topic { uuid: info.uuid, compacted })
    }

    /// Why what was read is not the topic's that was described.
    async fn still(&self, topic: &str, described: Topic) -> Option<WhyNot> {
        match self.client.topic(topic, self.deadline()).await {
            Ok(info) if info.uuid == described.uuid => None,
            Ok(_) => Some(WhyNot::TopicMadeAnew),
            Err(error) => Some(not_read(&error)),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }
}

fn not_read(error: &LogError) -> WhyNot {
    match error.code() {
        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => WhyNot::TopicMadeAnew,
        _ => WhyNot::NotRead(error.to_string().into()),
    }
}

impl Run<'_> {
    /// Reads to the end, fences what lacks only that, and reads to behind the fences.
    async fn read_and_fence(
        &mut self,
        fences: &mut impl Fences,
        progress: &mut (impl FnMut(Progress<'_>) + Send),
        sent: &mut Vec<Sent>,
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
            // A fence that was refused may have met one that we have not read yet.
            let end = client.offsets(self.topic, self.partition, self.verifier.deadline()).await;
            self.read_to(end.map_err(|error| not_read(&error))?.high_watermark, progress).await?;
        }
        match self.check.unread_fence() {
            Some(end) => self.read_to(end, progress).await,
            None => Ok(()),
        }
    }

    /// Sends a letter as a fence; another one under the next epoch while its record is rejected.
    async fn fence_with(&mut self, mut stamp: Stamp, fences: &mut impl Fences, sent: &mut Vec<Sent>) {
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

    async fn fence(&mut self, stamp: Stamp, letter: FenceLetter) -> Sent {
        let FenceLetter { letter_id, mut batch } = letter;
        if batch.max_timestamp() < young(wall_clock_ms()) {
            let why = "its timestamp is so old that its leader would forget the fence at once".into();
            let cause = NotFenced { why, code: None, by_outage: false };
            return Sent { letter_id, stamp, result: Err(NoFence { open: false, rejected: false, cause }) };
        }
        batch.stamp(stamp);
        self.check.watch(&letter_id);
        let verifier = self.verifier;
        let appended = verifier.client.append(self.topic, self.partition, Arc::new(batch), verifier.deadline());
        let result = appended.await.map_err(|error| NoFence::of(&error));
        if let Ok(offset) = &result {
            self.check.on_fenced(stamp, *offset);
        }
        Sent { letter_id, stamp, result }
    }

    /// Reads on to `end`, or until everything is found, however long that takes as long as something comes within the verifier's patience.
    async fn read_to(&mut self, end: i64, progress: &mut (impl FnMut(Progress<'_>) + Send)) -> Result<(), WhyNot> {
        let start = self.check.next();
        let offsets = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let mut deadline = self.verifier.deadline();
        while self.check.next() < end && !self.check.is_settled() {
            let came = self.read_once(deadline).await?;
            if came {
                deadline = self.verifier.deadline();
                let read = offsets(start, self.check.next().min(end));
                let total = offsets(start, end);
                progress(Progress { topic: self.topic, partition: self.partition, read, total });
            } else if Instant::now() >= deadline {
                // The watermark lags; the proof knows what to make of it.
                return Ok(());
            }
        }
        Ok(())
    }

    /// One Fetch; whether anything came.
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

    /// Goes on at the log's start, if that has moved past us.
    async fn skip(&mut self, deadline: Instant, error: &LogError) -> Result<bool, WhyNot> {
        let offsets = self.verifier.client.offsets(self.topic, self.partition, deadline).await;
        let start = offsets.map_err(|error| not_read(&error))?.log_start;
        if start <= self.check.next() {
            return Err(not_read(error)); // the log ends before what was read: it was cut
        }
        self.check.begin_at(start);
        Ok(true)
    }
}

/// What became of a fence, by what was answered and what was read.
pub(super) fn outcome_of(sent: Sent, check: &PartitionCheck) -> (String, FenceOutcome) {
    let outcome = match (check.watched(&sent.letter_id), sent.result) {
        (Some(offset), _) => FenceOutcome::Written { offset },
        (None, Ok(offset)) => acknowledged(offset, check.there(sent.stamp, offset)),
        (None, Err(NoFence { open: true, cause, .. })) => FenceOutcome::Unknown(cause),
        (None, Err(NoFence { cause, .. })) => FenceOutcome::NotWritten(cause),
    };
    (sent.letter_id, outcome)
}

/// What became of a fence that was acknowledged and not seen.
fn acknowledged(offset: i64, there: There) -> FenceOutcome {
    let not_fenced = |why: String| NotFenced { why: why.into(), code: None, by_outage: false };
    match there {
        // Its topic compresses with a codec that is not read here.
        There::ItsStamp => FenceOutcome::Written { offset },
        // The leader took it for one that it had, as it would take any under this stamp.
        There::Readable => {
            FenceOutcome::NotWritten(not_fenced(format!("another record has its stamp, at offset {offset}")))
        }
        There::Unreadable => {
            FenceOutcome::Unknown(not_fenced(format!("acknowledged at offset {offset}, which can't be looked into")))
        }
        There::Unread => {
            FenceOutcome::Unknown(not_fenced(format!("acknowledged at offset {offset}, which can't be read")))
        }
    }
}

impl Findings {
    /// The same for all of them.
    fn all(&mut self, doubts: Vec<Doubt>, why: &WhyNot) {
        let answer =
            |doubt: Doubt| Answer { letter_id: doubt.letter_id, verdict: Verdict::NotFound { why: why.clone() } };
        self.answers.extend(doubts.into_iter().map(answer));
    }

    /// What the proof says; nothing is absent if reading `failed`.
    fn conclude(&mut self, check: PartitionCheck, failed: Option<WhyNot>) {
        for (letter_id, verdict) in check.verdicts(wall_clock_ms()) {
            let verdict = match (verdict, &failed) {
                (landed @ Verdict::Landed { .. }, _) | (landed, None) => landed,
                (_, Some(why)) => Verdict::NotFound { why: why.clone() },
            };
            self.answers.push(Answer { letter_id, verdict });
        }
    }
}
