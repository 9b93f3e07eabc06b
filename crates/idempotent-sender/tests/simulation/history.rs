//! What was accepted, what became of it, and what must hold at every moment.
//!
//! Rules: a record has a number, which its value carries through the cluster; verdicts are noted as they
//! come, and a second one for a record is an error at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_courier_batcher::{Accumulator, BatchView, Compression, DecodedRecord, Limits, Record};
use kafka_courier_idempotent_sender::core::{
    ConnId, FailedOutcome, ProduceAnswer, ProducePart, RecordSet, RequestId, Settlement, Submission, Verdict,
};

use crate::causes::{TOO_LARGE, WRITE_ERRORS};
use crate::cluster::{BROKERS, MS, Micros, PARTITIONS, TOPICS, topic_of};
use crate::looks::Looks;
use crate::plan::{BatchPlan, RecordPlan};
use crate::record::RecordHistory;
use crate::sending::{DENIALS, Pace};
use crate::told::{ToldLeaders, ToldTopic};
use crate::world::{Event, World, core_partition, model_partition};

/// The verdict on one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Delivered(Option<i64>),
    NotWritten(Option<i16>),
    Unknown(Option<i16>),
}

#[derive(Clone, Debug)]
struct BatchHistory {
    first: u32,
    count: u32,
    published_at: Micros,
    charge: usize,
    returned: usize,
}

/// The partition and the records of each batch of a request.
pub(crate) type Parts = Vec<(usize, Vec<u32>)>;

/// A request that is unanswered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) id: RequestId,
    /// The socket took its last byte.
    pub(crate) written: bool,
    pub(crate) parts: Parts,
    /// How often the sender had been told of each of the partitions' leaders when it left.
    pub(crate) moves: Vec<u32>,
}

/// What a stamp stood for at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) record: u32,
    /// The life of its topic of which the sender had been told then.
    pub(crate) life: u32,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) records: Vec<RecordHistory>,
    batches: Vec<BatchHistory>,
    /// For each partition: its next batch's ordinal, and when its last one was opened.
    opened: [(u64, Micros); PARTITIONS],
    /// Which record a stamp stood for at first: it must stand for no other.
    stamps: HashMap<(usize, i64, i16, i32), Stamped>,
    /// What is unanswered on each open connection.
    pub(crate) in_flight: BTreeMap<ConnId, Vec<Unanswered>>,
    pub(crate) told: [ToldTopic; TOPICS],
    pub(crate) told_leaders: [ToldLeaders; PARTITIONS],
    pub(crate) looks: Looks,
    pub(crate) pace: Pace,
    /// Until when each broker asked to be sent nothing.
    pub(crate) throttled_until: [Micros; BROKERS],
    /// How often each partition's topic id was denied since the cluster last named it, for batches without a verdict.
    pub(crate) denials: [u32; PARTITIONS],
    /// The records of each partition's last answer.
    pub(crate) last_answered: [Vec<u32>; PARTITIONS],
    /// Hints with an older epoch than the newest that was told.
    pub(crate) older_hints: u64,
    /// When our credentials were last refused as metadata, or a producer id, were asked for, and how often.
    pub(crate) metadata_refused_at: Option<Micros>,
    pub(crate) producer_id_refused_at: Option<Micros>,
    pub(crate) control_refusals: u64,
    /// Connections that brokers have closed because nobody used them.
    pub(crate) idle_closed: u64,
    /// Looks that a follower answered.
    pub(crate) follower_looks: u64,
    /// When everything was given up.
    pub(crate) closed_at: Option<Micros>,
    /// Faults of which something has come.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Faults of which nothing has come yet, with where they lie.
    pub(crate) waiting_faults: Vec<(&'static str, usize)>,
    /// Why records failed.
    pub(crate) causes: BTreeMap<&'static str, u64>,
    /// The most connections to one broker at once.
    pub(crate) parallel_connections: u64,
    /// Connections that were open when their session with the broker was over.
    pub(crate) sessions_outlived: u64,
}

/// A record's number is in its value's first four bytes.
pub(crate) fn record_number(record: &DecodedRecord<'_>) -> Result<u32, String> {
    let value = record.value.and_then(|value| value.first_chunk::<4>()).ok_or("a record lost its value")?;
    Ok(u32::from_be_bytes(*value))
}

impl World {
    pub(crate) fn submit_planned(&mut self, index: usize) -> Result<(), String> {
        let planned = self.plan.batches[index].clone();
        let submission = self.open(&planned)?;
        if !self.rng.percent(self.plan.rules.sealed_late) {
            return self.hand_over(submission);
        }
        // Sealing takes longer on some threads than on others.
        self.held += 1;
        let wait = self.rng.range(0..10 * MS);
        self.after(wait, Event::HandOver(Box::new(submission)));
        Ok(())
    }

    /// Hands a batch to the sender, as the accumulator would.
    pub(crate) fn submit(&mut self, planned: &BatchPlan) -> Result<(), String> {
        let submission = self.open(planned)?;
        self.hand_over(submission)
    }

    pub(crate) fn hand_over(&mut self, submission: Submission<usize>) -> Result<(), String> {
        let now = self.instant();
        self.sender.on_sealed(now, submission).map_err(|_| "a batch for a known partition came back".to_owned())
    }

    fn open(&mut self, planned: &BatchPlan) -> Result<Submission<usize>, String> {
        let token = self.history.batches.len();
        let first = self.history.records.len() as u32;
        let opened_at = self.now.saturating_sub(planned.lingered);
        let planned =
            &BatchPlan { partition: self.partition_by_count(planned.partition, opened_at), ..planned.clone() };
        let batch = self.encode(planned, first)?;
        // A partition's batches are opened one after the other.
        let (ordinal, opened_before) = self.history.opened[planned.partition];
        let published_at = opened_at.max(opened_before);
        self.history.opened[planned.partition] = (ordinal + 1, published_at);
        let submission = Submission {
            partition: core_partition(planned.partition),
            token,
            ordinal,
            published_at: self.instant() - std::time::Duration::from_micros(self.now - published_at),
            aged: planned.age_ms > 0,
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
            // They were published one after the other while the batch was open.
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

    pub(crate) fn settled(&mut self, settlement: Settlement<usize>) -> Result<(), String> {
        let Settlement { token, partition, records, verdict, batch, charge, .. } = settlement;
        let when_told = self.moment(model_partition(partition));
        let history = &mut self.history;
        let told_of = history.batches.get_mut(token).ok_or("a verdict for a batch that was never handed in")?;
        told_of.returned += charge;
        let published_at = told_of.published_at;
        let late = self.now.saturating_sub(told_of.published_at);
        if late > self.plan.config.delivery_timeout.as_micros() as Micros + MS {
            return Err(format!("batch {token} has its verdict {} ms after it was published", late / MS));
        }
        let (first, count) = (told_of.first, told_of.count);
        let mut numbers = Vec::new();
        for (position, index) in (0..).zip(records.iter()) {
            if index >= count {
                return Err(format!("batch {token} has no record {index}"));
            }
            numbers.push(first + index);
            let told = Told::of(&verdict, position);
            if let Verdict::Failed(failure) = &verdict {
                self.note_cause(first + index, published_at, failure)?;
                self.note_failure(first + index, position, failure)?;
            }
            let record = &mut self.history.records[(first + index) as usize];
            record.when_told = when_told;
            record.in_doubt |= matches!(told, Told::Unknown(_));
            if let Some(offset) = record.acknowledged.filter(|offset| told != Told::Delivered(Some(*offset))) {
                return Err(format!("record {} was acknowledged at {offset}, and is {told:?}", first + index));
            }
            if let Verdict::Delivered { log_append_time, .. } = verdict {
                record.append_time = log_append_time;
            }
            if let Some(before) = record.verdict.replace(told) {
                return Err(format!("record {} has two verdicts: {before:?} and {told:?}", first + index));
            }
            if record.partition != model_partition(partition) {
                return Err(format!("record {} settled for another partition", first + index));
            }
        }
        let held = numbers_in(batch.as_bytes())?;
        if held != numbers {
            return Err(format!("a settlement of {numbers:?} came with the bytes of {held:?}"));
        }
        Ok(())
    }

    fn moment(&self, partition: usize) -> (u32, u32) {
        let model = &self.partitions[partition];
        (model.forgets, model.truth.incarnation)
    }

    pub(crate) fn corrected(&mut self, token: usize, set: &RecordSet, base: Option<i64>) -> Result<(), String> {
        let batch = self.history.batches.get(token).ok_or("a correction of a batch that was never handed in")?;
        for (position, index) in (0..).zip(set.iter()) {
            let number = (batch.first + index) as usize;
            let when_told = self.moment(self.history.records[number].partition);
            let record = &mut self.history.records[number];
            if !matches!(record.verdict, Some(Told::Unknown(_))) || record.corrected.is_some() {
                return Err(format!("{record:?} was corrected"));
            }
            let offset = base.map(|base| base + position);
            if record.acknowledged.is_some() && offset != record.acknowledged {
                return Err(format!("record {number} was acknowledged, and corrected otherwise: {record:?}"));
            }
            record.corrected = Some(offset);
            record.when_told = when_told;
        }
        Ok(())
    }
}

impl Told {
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
        }
    }
}

impl History {
    pub(crate) fn written(&mut self, conn: ConnId, request: RequestId) {
        let sent = self.in_flight.get_mut(&conn).into_iter().flatten();
        sent.filter(|sent| sent.id == request).for_each(|sent| sent.written = true);
    }

    pub(crate) fn answered(&mut self, conn: ConnId, request: RequestId, answer: &ProduceAnswer) {
        let Some(sent) = self.in_flight.get_mut(&conn) else { return };
        let Some(position) = sent.iter().position(|sent| sent.id == request) else { return };
        let sent = sent.remove(position);
        for (((partition, numbers), moves), answer) in sent.parts.iter().zip(&sent.moves).zip(&answer.parts) {
            let Some(answer) = answer else {
                self.lost(numbers);
                continue;
            };
            // With an offset REQUEST_TIMED_OUT says that replicas are missing, which is waited for.
            let waits = answer.code == 7 && answer.base_offset >= 0;
            if WRITE_ERRORS.contains(&answer.code) && !waits {
                self.count_write_error(numbers);
            }
            for (position, number) in (0..).zip(numbers) {
                let record = &mut self.records[*number as usize];
                record.too_large_alone |= TOO_LARGE.contains(&answer.code) && numbers.len() == 1;
                record.answered(answer, position);
            }
            self.last_answered[*partition] = numbers.clone();
            // What left for a former life of the topic says nothing of the present one.
            let life = self.told[topic_of(*partition)].life;
            let is_former = |number: &u32| self.records[*number as usize].sent_in.is_some_and(|sent| sent < life);
            let is_former = numbers.iter().any(is_former);
            let waits = numbers.iter().any(|number| self.records[*number as usize].verdict.is_none());
            self.denials[*partition] += u32::from(waits && !is_former && DENIALS.contains(&answer.code));
            self.told_leaders[*partition].answered(answer);
            let told = &mut self.told_leaders[*partition];
            // The sender has abandoned attempts that left for a former leader or a former life of the topic.
            let is_abandoned = is_former || told.moves != *moves;
            if let Some((leader, epoch)) = answer.leader {
                self.older_hints += u64::from(epoch < told.epoch);
                match is_abandoned {
                    true => told.hint_of_abandoned(leader.0 as usize - 1, epoch),
                    false => told.hint(leader.0 as usize - 1, epoch),
                }
            }
        }
    }

    /// An attempt left and will not be answered.
    fn lost(&mut self, numbers: &[u32]) {
        self.count_write_error(numbers);
        numbers.iter().for_each(|number| self.records[*number as usize].in_doubt = true);
    }

    fn count_write_error(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.records[*number as usize].write_errors += 1);
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        for sent in self.in_flight.remove(&conn).into_iter().flatten() {
            for (_, numbers) in &sent.parts {
                if sent.written {
                    self.lost(numbers);
                } else {
                    numbers.iter().for_each(|number| self.records[*number as usize].unresolved -= 1);
                }
            }
        }
    }

    /// The epochs of the stamps that the partition's records went out under.
    pub(crate) fn epochs_of(&self, partition: usize) -> BTreeSet<i16> {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).map(|stamp| stamp.2).collect()
    }

    /// The producer id that the partition's records went out under last.
    pub(crate) fn newest_id_of(&self, partition: usize) -> i64 {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).map(|stamp| stamp.1).max().unwrap_or(-1)
    }

    /// What the stamp stood for when it was first sent.
    pub(crate) fn stamped(&self, partition: usize, producer_id: i64, epoch: i16, sequence: i32) -> Option<Stamped> {
        self.stamps.get(&(partition, producer_id, epoch, sequence)).copied()
    }

    /// How many stamps were given to the partition's records.
    pub(crate) fn stamps_of(&self, partition: usize) -> usize {
        self.stamps.keys().filter(|stamp| stamp.0 == partition).count()
    }

    /// Returns the numbers of the batch's records.
    pub(crate) fn check_stamp(&mut self, part: &ProducePart, now: Micros) -> Result<Vec<u32>, String> {
        let stamp = part.batch.current_stamp().ok_or("a batch without a stamp")?;
        let partition = model_partition(part.partition);
        let numbers = numbers_in(part.batch.as_bytes())?;
        let life = self.told[topic_of(partition)].life;
        for (n, number) in (0_u32..).zip(&numbers) {
            let sequence = kafka_courier_batcher::sequence_add(stamp.base_sequence, n);
            let key = (partition, stamp.producer_id, stamp.epoch, sequence);
            let stood_for = *self.stamps.entry(key).or_insert(Stamped { record: *number, life });
            if stood_for.record != *number {
                return Err(format!("{key:?} stood for record {}, and now for {number}", stood_for.record));
            }
            self.records[*number as usize].sent_in = Some(stood_for.life);
            self.records[*number as usize].sent(now);
            self.records[*number as usize].newest = part.batch.max_timestamp();
        }
        let Some(first) = numbers.first() else { return Err("an empty batch was sent".to_owned()) };
        if self.records[*first as usize].aged {
            let waits = |record: &&mut RecordHistory| record.partition == partition && record.verdict.is_none();
            let before = self.records[..*first as usize].iter_mut().filter(waits);
            before.filter(|record| record.sends.count > 0).for_each(|record| record.followed_by_old = true);
        }
        Ok(numbers)
    }

    /// Every charge was given back once.
    pub(crate) fn check_charges(&self) -> Result<(), String> {
        match self.batches.iter().find(|batch| batch.charge != batch.returned) {
            Some(batch) => Err(format!("{batch:?} was charged with other bytes than were given back")),
            None => Ok(()),
        }
    }
}

fn numbers_in(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (view, _) = BatchView::parse(bytes).map_err(|error| error.to_string())?;
    let records = view.records(1 << 20).map_err(|error| error.to_string())?;
    records.iter().map(|record| record_number(&record.map_err(|error| error.to_string())?)).collect()
}

pub(crate) fn show_parts(parts: &[ProducePart]) -> String {
    let show = |part: &ProducePart| {
        let stamp = part.batch.current_stamp();
        let numbers = numbers_in(part.batch.as_bytes()).unwrap_or_default();
        let words = stamp.map(|s| format!("{}/{}/{}", s.producer_id, s.epoch, s.base_sequence)).unwrap_or_default();
        format!("[p{} {words} {numbers:?}]", model_partition(part.partition))
    };
    parts.iter().map(show).collect()
}
