//! The history of all accepted records, and the invariants that hold at every moment.
//!
//! Rules: a record has a number, which the record's value carries through the cluster. Verdicts are noted as the sender
//! returns them, and a second verdict of a record is an error immediately.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_courier_batcher::{Accumulator, BatchView, Compression, DecodedRecord, Limits, Record};
use kafka_courier_client::{ProduceAnswer, ProducePart};
use kafka_courier_idempotent_sender::core::{
    ConnId, FailedOutcome, RecordSet, RequestId, Settlement, Submission, Verdict,
};

use crate::causes::{TOO_LARGE, WRITE_ERRORS};
use crate::cluster::{BROKERS, MS, Micros, PARTITIONS, TOPICS, topic_of};
use crate::known_leaders::{KnownLeaders, KnownTopic};
use crate::lookups::Looks;
use crate::plan::{BatchPlan, RecordPlan};
use crate::record::RecordHistory;
use crate::sending::{DENIALS, Pace};
use crate::world::{Event, World, core_partition, model_partition};

/// The verdict of one record: an offset if delivered, the code if failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordVerdict {
    Delivered(Option<i64>),
    NotWritten(Option<i16>),
    Unknown(Option<i16>),
    /// A durable log holds the record for a later process.
    Stored,
}

#[derive(Clone, Debug)]
struct BatchHistory {
    first: u32,
    count: u32,
    published_at: Micros,
    charge: usize,
    returned: usize,
}

/// The partition and the record numbers of each batch in a request.
pub(crate) type PartRecords = Vec<(usize, Vec<u32>)>;

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    pub(crate) id: RequestId,
    /// The socket took the request's last byte.
    pub(crate) written: bool,
    pub(crate) parts: PartRecords,
    /// The `moves` of each partition's leader when the request was sent.
    pub(crate) moves: Vec<u32>,
}

/// The first use of a stamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StampUse {
    pub(crate) record: u32,
    /// The topic's incarnation that the sender knew at that time.
    pub(crate) incarnation: u32,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) records: Vec<RecordHistory>,
    batches: Vec<BatchHistory>,
    /// The ordinal of each partition's next batch, and the time at which its last batch was opened.
    opened: [(u64, Micros); PARTITIONS],
    /// The record of each stamp, by partition, producer id, epoch and sequence. A stamp must never mean another record.
    stamps: HashMap<(usize, i64, i16, i32), StampUse>,
    /// The unanswered requests on each open connection.
    pub(crate) in_flight: BTreeMap<ConnId, Vec<InFlightRequest>>,
    pub(crate) known_topics: [KnownTopic; TOPICS],
    pub(crate) known_leaders: [KnownLeaders; PARTITIONS],
    pub(crate) looks: Looks,
    pub(crate) pace: Pace,
    /// The end of each broker's throttle.
    pub(crate) throttled_until: [Micros; BROKERS],
    /// The denials of each partition's topic id since the cluster last named the id, for batches without a verdict.
    pub(crate) denials: [u32; PARTITIONS],
    /// The records of each partition's last answer.
    pub(crate) last_answered: [Vec<u32>; PARTITIONS],
    /// The number of leader hints with an epoch older than the newest named one.
    pub(crate) older_hints: u64,
    /// The time of the last refusal of credentials for a metadata request.
    pub(crate) metadata_refused_at: Option<Micros>,
    /// The time of the last refusal of credentials for a producer id request.
    pub(crate) producer_id_refused_at: Option<Micros>,
    /// The number of refusals of credentials for both.
    pub(crate) control_refusals: u64,
    /// The number of idle connections that brokers have closed.
    pub(crate) idle_closed: u64,
    /// The number of looks that a follower answered.
    pub(crate) follower_looks: u64,
    /// The time at which the producer was closed.
    pub(crate) closed_at: Option<Micros>,
    /// The number of faults with an effect, by name.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The faults without an effect until now: name and broker, partition or topic.
    pub(crate) pending_faults: Vec<(&'static str, usize)>,
    /// The number of failures, by cause.
    pub(crate) causes: BTreeMap<&'static str, u64>,
    /// The maximum number of simultaneous connections to one broker.
    pub(crate) parallel_connections: u64,
    /// The number of connections that were open at the end of their session with the broker.
    pub(crate) sessions_outlived: u64,
}

/// Returns a record's number, which is in the first four bytes of the record's value.
pub(crate) fn record_number(record: &DecodedRecord<'_>) -> Result<u32, String> {
    let value = record.value.and_then(|value| value.first_chunk::<4>()).ok_or("a record has no value")?;
    Ok(u32::from_be_bytes(*value))
}

impl World {
    pub(crate) fn submit_from_plan(&mut self, index: usize) -> Result<(), String> {
        if self.wait_for_life(index) {
            return Ok(());
        }
        let planned = self.plan.batches[index].clone();
        let submission = self.open_batch(&planned)?;
        if self.lives.is_some() || !self.rng.percent(self.plan.rules.sealed_late) {
            return self.submit_sealed(submission);
        }
        // The sealing of a batch takes longer on some threads than on others.
        self.unsubmitted += 1;
        let wait = self.rng.range(0..10 * MS);
        self.schedule_after(wait, Event::SubmitSealed(Box::new(submission)));
        Ok(())
    }

    /// Submits a batch to the sender.
    pub(crate) fn submit(&mut self, planned: &BatchPlan) -> Result<(), String> {
        let submission = self.open_batch(planned)?;
        self.submit_sealed(submission)
    }

    pub(crate) fn submit_sealed(&mut self, submission: Submission<usize>) -> Result<(), String> {
        if self.lives.is_some() { self.store(submission) } else { self.submit_to_sender(submission) }
    }

    pub(crate) fn submit_to_sender(&mut self, submission: Submission<usize>) -> Result<(), String> {
        let now = self.instant();
        match self.sender.on_sealed(now, submission) {
            Ok(()) => Ok(()),
            // Metadata can be older than that of an earlier process, and lack a partition of a grown topic.
            Err(submission) if self.lives.is_some() => {
                self.unsubmitted += 1;
                self.schedule_after(50 * MS, Event::SubmitAgain(Box::new(submission)));
                Ok(())
            }
            Err(_) => Err("the sender refused a batch for a known partition".to_owned()),
        }
    }

    fn open_batch(&mut self, planned: &BatchPlan) -> Result<Submission<usize>, String> {
        let token = self.history.batches.len();
        let first = self.history.records.len() as u32;
        let opened_at = self.now.saturating_sub(planned.lingered);
        let planned =
            &BatchPlan { partition: self.partition_by_count(planned.partition, opened_at), ..planned.clone() };
        let batch = self.encode(planned, first)?;
        // A partition opens its batches one after the other.
        let (ordinal, opened_before) = self.history.opened[planned.partition];
        let published_at = opened_at.max(opened_before);
        self.history.opened[planned.partition] = (ordinal + 1, published_at);
        let submission = Submission {
            partition: core_partition(planned.partition),
            token,
            ordinal,
            published_at: self.instant() - std::time::Duration::from_micros(self.now - published_at),
            aged: planned.age_ms > 0,
            stored: None,
            batch,
        };
        let count = planned.records.len() as u32;
        let charge = submission.batch.capacity();
        self.history.batches.push(BatchHistory { first, count, published_at, charge, returned: 0 });
        self.trace(|| format!("submit {token}: p{} records {first}+{count}", planned.partition));
        Ok(submission)
    }

    fn encode(&mut self, planned: &BatchPlan, first: u32) -> Result<kafka_courier_batcher::EncodedBatch, String> {
        let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Default::default() };
        let compression = if first.is_multiple_of(5) { Compression::Snappy } else { Compression::None };
        let mut accumulator = Accumulator::new(limits, compression);
        for (number, RecordPlan { has_key, padding }) in (first..).zip(&planned.records) {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(4 + usize::from(*padding), b'.');
            let key = has_key.then_some(&b"key"[..]);
            // The records were published one after the other while the batch was open.
            let share = u64::from(first) + planned.records.len() as u64 - 1 - u64::from(number);
            let open_for = planned.lingered * share / planned.records.len() as u64;
            let timestamp = self.clock_ms() - planned.age_ms - (open_for / MS) as i64;
            let record = Record { key, value: Some(&value), headers: &[], timestamp };
            accumulator
                .push(self.instant(), &record, &mut |_| true, &self.pool, || ())
                .map_err(|error| error.to_string())?;
            let partition = planned.partition;
            let model = &self.partitions[partition];
            self.history.records.push(RecordHistory::new(partition, *has_key, planned.age_ms > 0, model));
        }
        let filled = accumulator.seal().ok_or("a batch without records")?;
        Ok(filled.encode(&self.pool).batch)
    }

    pub(crate) fn note_settlement(&mut self, settlement: Settlement<usize>) -> Result<(), String> {
        let numbers = numbers_in(settlement.batch.as_bytes())?;
        self.note_stored(&settlement, &numbers)?;
        let Settlement { token, partition, records, verdict, batch, charge, .. } = settlement;
        let settled_in = self.forgets_and_incarnation(model_partition(partition));
        let history = &mut self.history;
        let batch_history = history.batches.get_mut(token).ok_or("a verdict for a batch that was never submitted")?;
        batch_history.returned += charge;
        let published_at = batch_history.published_at;
        let late = self.now.saturating_sub(batch_history.published_at);
        let is_stored = self.lives.is_some();
        if !is_stored && late > self.plan.config.delivery_timeout.as_micros() as Micros + MS {
            return Err(format!("batch {token} has its verdict {} ms after its publication", late / MS));
        }
        let (first, count) = (batch_history.first, batch_history.count);
        let mut numbers = Vec::new();
        for (position, index) in (0..).zip(records.iter()) {
            if index >= count {
                return Err(format!("batch {token} has no record {index}"));
            }
            numbers.push(first + index);
            let record_verdict = RecordVerdict::of(&verdict, position);
            match &verdict {
                Verdict::Failed(failure) if is_stored => self.check_stored_failure(first + index, failure)?,
                Verdict::Failed(failure) => {
                    self.note_cause(first + index, published_at, failure)?;
                    self.note_failure(first + index, position, failure)?;
                }
                Verdict::Delivered { .. } | Verdict::Stored => {}
            }
            let record = &mut self.history.records[(first + index) as usize];
            record.settled_in = settled_in;
            record.in_doubt |= matches!(record_verdict, RecordVerdict::Unknown(_));
            let is_other = |offset: &i64| record_verdict != RecordVerdict::Delivered(Some(*offset));
            if let Some(offset) = record.acknowledged.filter(is_other) {
                return Err(format!(
                    "record {} was acknowledged at {offset}, but is {record_verdict:?}",
                    first + index
                ));
            }
            if let Verdict::Delivered { log_append_time, .. } = verdict {
                record.append_time = log_append_time;
            }
            if let Some(before) = record.verdict.replace(record_verdict) {
                return Err(format!("record {} has two verdicts: {before:?} and {record_verdict:?}", first + index));
            }
            if record.partition != model_partition(partition) {
                return Err(format!("record {} has a verdict in another partition", first + index));
            }
        }
        let held = numbers_in(batch.as_bytes())?;
        if held != numbers {
            return Err(format!("a settlement of {numbers:?} has the bytes of {held:?}"));
        }
        Ok(())
    }

    fn forgets_and_incarnation(&self, partition: usize) -> (u32, u32) {
        let model = &self.partitions[partition];
        (model.forgets, model.truth.incarnation)
    }

    pub(crate) fn note_correction(&mut self, token: usize, set: &RecordSet, base: Option<i64>) -> Result<(), String> {
        let batch = self.history.batches.get(token).ok_or("a correction of a batch that was never submitted")?;
        for (position, index) in (0..).zip(set.iter()) {
            let number = (batch.first + index) as usize;
            let settled_in = self.forgets_and_incarnation(self.history.records[number].partition);
            let record = &mut self.history.records[number];
            if !matches!(record.verdict, Some(RecordVerdict::Unknown(_))) || record.corrected.is_some() {
                return Err(format!("a record that is not unknown was corrected: {record:?}"));
            }
            let offset = base.map(|base| base + position);
            if record.acknowledged.is_some() && offset != record.acknowledged {
                return Err(format!("record {number} was acknowledged, but corrected to another offset: {record:?}"));
            }
            record.corrected = Some(offset);
            record.settled_in = settled_in;
        }
        Ok(())
    }
}

impl RecordVerdict {
    fn of(verdict: &Verdict, position: i64) -> Self {
        match verdict {
            Verdict::Delivered { base_offset, .. } => Self::Delivered(base_offset.map(|base| base + position)),
            Verdict::Failed(failure) => {
                let code = failure.reason.code().map(|code| code.0);
                match failure.outcome {
                    FailedOutcome::NotWritten => Self::NotWritten(code),
                    FailedOutcome::Unknown => Self::Unknown(code),
                }
            }
            Verdict::Stored => Self::Stored,
        }
    }
}

impl History {
    pub(crate) fn note_written(&mut self, conn: ConnId, request: RequestId) {
        let sent = self.in_flight.get_mut(&conn).into_iter().flatten();
        sent.filter(|sent| sent.id == request).for_each(|sent| sent.written = true);
    }

    pub(crate) fn note_answer(&mut self, conn: ConnId, request: RequestId, answer: &ProduceAnswer) {
        let Some(sent) = self.in_flight.get_mut(&conn) else { return };
        let Some(position) = sent.iter().position(|sent| sent.id == request) else { return };
        let sent = sent.remove(position);
        for (((partition, numbers), moves), answer) in sent.parts.iter().zip(&sent.moves).zip(&answer.parts) {
            let Some(answer) = answer else {
                self.note_lost(numbers);
                continue;
            };
            // REQUEST_TIMED_OUT with an offset means that replicas are missing, and the sender waits for them.
            let waits = answer.code == 7 && answer.base_offset.is_some();
            if WRITE_ERRORS.contains(&answer.code) && !waits {
                self.count_write_error(numbers);
            }
            for (position, number) in (0..).zip(numbers) {
                let record = &mut self.records[*number as usize];
                record.too_large_alone |= TOO_LARGE.contains(&answer.code) && numbers.len() == 1;
                record.note_answer(answer, position);
            }
            self.last_answered[*partition] = numbers.clone();
            // The answer to a batch for a former incarnation says nothing about the present one.
            let incarnation = self.known_topics[topic_of(*partition)].incarnation;
            let is_former =
                |number: &u32| self.records[*number as usize].sent_in.is_some_and(|sent| sent < incarnation);
            let is_former = numbers.iter().any(is_former);
            let waits = numbers.iter().any(|number| self.records[*number as usize].verdict.is_none());
            self.denials[*partition] += u32::from(waits && !is_former && DENIALS.contains(&answer.code));
            let known = &mut self.known_leaders[*partition];
            known.note_answer(answer);
            // The sender has abandoned attempts that it sent to a former leader or to a former incarnation of the topic.
            let is_abandoned = is_former || known.moves != *moves;
            if let Some((leader, epoch)) = answer.leader {
                self.older_hints += u64::from(epoch < known.epoch);
                match is_abandoned {
                    true => known.hint_of_abandoned(leader.0 as usize - 1, epoch),
                    false => known.hint(leader.0 as usize - 1, epoch),
                }
            }
        }
    }

    /// Notes that an attempt was sent and will not be answered.
    fn note_lost(&mut self, numbers: &[u32]) {
        self.count_write_error(numbers);
        numbers.iter().for_each(|number| self.records[*number as usize].in_doubt = true);
    }

    fn count_write_error(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.records[*number as usize].write_errors += 1);
    }

    pub(crate) fn note_closed(&mut self, conn: ConnId) {
        for sent in self.in_flight.remove(&conn).into_iter().flatten() {
            for (_, numbers) in &sent.parts {
                if sent.written {
                    self.note_lost(numbers);
                } else {
                    numbers.iter().for_each(|number| self.records[*number as usize].unresolved -= 1);
                }
            }
        }
    }

    /// Adds a batch of an earlier process. Returns its token.
    pub(crate) fn add_batch(&mut self, first: u32, count: u32, published_at: Micros, charge: usize) -> usize {
        self.batches.push(BatchHistory { first, count, published_at, charge, returned: 0 });
        self.batches.len() - 1
    }

    /// Returns the epochs of all stamps that were sent to the partition.
    pub(crate) fn epochs_of(&self, partition: usize) -> BTreeSet<i16> {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).map(|stamp| stamp.2).collect()
    }

    /// Returns the newest producer id that was sent to the partition.
    pub(crate) fn newest_id_of(&self, partition: usize) -> i64 {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).map(|stamp| stamp.1).max().unwrap_or(-1)
    }

    /// Returns the first use of a stamp.
    pub(crate) fn first_use(&self, partition: usize, producer_id: i64, epoch: i16, sequence: i32) -> Option<StampUse> {
        self.stamps.get(&(partition, producer_id, epoch, sequence)).copied()
    }

    /// Returns the number of stamps that were sent to the partition.
    pub(crate) fn stamps_of(&self, partition: usize) -> usize {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).count()
    }

    /// Checks that a batch's stamp means the same records as before. Returns the numbers of the batch's records.
    pub(crate) fn check_stamp(&mut self, part: &ProducePart, now: Micros) -> Result<Vec<u32>, String> {
        let stamp = part.batch.current_stamp().ok_or("a batch without a stamp")?;
        let partition = model_partition(part.partition);
        let numbers = numbers_in(part.batch.as_bytes())?;
        let incarnation = self.known_topics[topic_of(partition)].incarnation;
        for (n, number) in (0_u32..).zip(&numbers) {
            let sequence = stamp.advance(n).base_sequence;
            let key = (partition, stamp.producer_id, stamp.epoch, sequence);
            let first_use = *self.stamps.entry(key).or_insert(StampUse { record: *number, incarnation });
            if first_use.record != *number {
                return Err(format!("{key:?} was the stamp of record {}, but is of {number}", first_use.record));
            }
            self.records[*number as usize].sent_in = Some(first_use.incarnation);
            self.records[*number as usize].note_attempt(now);
            self.records[*number as usize].newest = part.batch.max_timestamp();
        }
        let Some(first) = numbers.first() else { return Err("an empty batch was sent".to_owned()) };
        if self.records[*first as usize].aged {
            let waits = |record: &&mut RecordHistory| record.partition == partition && record.verdict.is_none();
            let before = self.records[..*first as usize].iter_mut().filter(waits);
            before.filter(|record| record.attempts.count > 0).for_each(|record| record.followed_by_old = true);
        }
        Ok(numbers)
    }

    /// Checks that every batch's charge was released exactly once.
    pub(crate) fn check_charges(&self) -> Result<(), String> {
        match self.batches.iter().find(|batch| batch.charge != batch.returned) {
            Some(batch) => Err(format!("{batch:?} has released other bytes than were charged")),
            None => Ok(()),
        }
    }
}

pub(crate) fn numbers_in(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (view, _) = BatchView::parse(bytes).map_err(|error| error.to_string())?;
    let records = view.records(1 << 20).map_err(|error| error.to_string())?;
    records.iter().map(|record| record_number(&record.map_err(|error| error.to_string())?)).collect()
}

pub(crate) fn format_parts(parts: &[ProducePart]) -> String {
    let format_entry = |part: &ProducePart| {
        let stamp = part.batch.current_stamp();
        let numbers = numbers_in(part.batch.as_bytes()).unwrap_or_default();
        let stamp = stamp.map(|s| format!("{}/{}/{}", s.producer_id, s.epoch, s.base_sequence)).unwrap_or_default();
        format!("[p{} {stamp} {numbers:?}]", model_partition(part.partition))
    };
    parts.iter().map(format_entry).collect()
}
