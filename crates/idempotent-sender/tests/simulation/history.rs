//! What was accepted, what became of it, and what must hold at every moment.
//!
//! Rules: a record has a number, which its value carries through the cluster; verdicts are noted as they
//! come, and a second one for a record is an error at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_courier_batcher::{Accumulator, BatchView, Compression, DecodedRecord, Limits, Record};
use kafka_courier_idempotent_sender::core::{
    ConnId, FailedOutcome, ProduceAnswer, ProducePart, RecordSet, RequestId, Settlement, Submission, TopicUuid, Verdict,
};

use crate::causes::{TOO_LARGE, WRITE_ERRORS};
use crate::cluster::{MS, Micros, PARTITIONS, TOPICS, topic_of};
use crate::plan::{BatchPlan, RecordPlan};
use crate::world::{STARTED_MS, World, core_partition, model_partition};

#[derive(Clone, Debug)]
pub(crate) struct RecordHistory {
    pub(crate) partition: usize,
    pub(crate) has_key: bool,
    pub(crate) verdict: Option<Told>,
    pub(crate) corrected: Option<Option<i64>>,
    /// How often producers had been forgotten on its partition when it was published.
    pub(crate) forgets: u32,
    /// The life of its topic of which the sender had been told when it first left under its present stamp.
    pub(crate) sent_in: Option<u32>,
    /// When its verdict came, or its correction: how often producers had been forgotten there, and the topic's life.
    pub(crate) when_told: (u32, u32),
    /// The codes that it was answered.
    pub(crate) codes: Vec<i16>,
    /// It was alone in a batch that was answered to be too large.
    pub(crate) too_large_alone: bool,
    /// Its attempts that were answered with an error of the write, or left and were never answered.
    pub(crate) write_errors: u32,
}

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
type Parts = Vec<(usize, Vec<u32>)>;

/// A request that is unanswered.
#[derive(Debug)]
struct Unanswered {
    id: RequestId,
    /// The socket took its last byte.
    written: bool,
    parts: Parts,
}

/// So many answers in a row must name a life that was left before it is gone back to.
const BACK_AFTER: u32 = 4;

impl ToldTopic {
    /// Whether the sender has to know that this is the topic's life.
    pub(crate) fn knows(&self, life: u32) -> bool {
        // The first is the one it began with; after a second change it may be one that was left.
        self.life == life && (self.changes <= 2 || self.in_a_row >= BACK_AFTER)
    }
}

/// What the sender was told of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToldTopic {
    /// Its life, by the last answer that named one.
    pub(crate) life: u32,
    /// How often that was another than before.
    pub(crate) changes: u32,
    /// How many answers in a row have named it.
    pub(crate) in_a_row: u32,
    /// The fewest partitions that it was told to have.
    pub(crate) fewest: usize,
}

/// What a stamp stood for at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) record: u32,
    /// The life of its topic of which the sender had been told then.
    pub(crate) life: u32,
}

/// Whom the sender may take for a partition's leader.
#[derive(Clone, Debug)]
struct ToldLeaders {
    /// The newest leader epoch that it was told, -1 if none yet in this life of the topic.
    epoch: i32,
    /// The leaders that it was told since then.
    leaders: BTreeSet<usize>,
}

impl Default for ToldLeaders {
    fn default() -> Self {
        Self { epoch: -1, leaders: BTreeSet::new() }
    }
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
    in_flight: BTreeMap<ConnId, Vec<Unanswered>>,
    pub(crate) told: [ToldTopic; TOPICS],
    told_leaders: [ToldLeaders; PARTITIONS],
    /// Hints with an older epoch than the newest that was told.
    pub(crate) older_hints: u64,
    /// When our credentials were last refused as metadata, or a producer id, were asked for, and how often.
    pub(crate) metadata_refused_at: Option<Micros>,
    pub(crate) producer_id_refused_at: Option<Micros>,
    pub(crate) control_refusals: u64,
    /// Connections that brokers have closed because nobody used them.
    pub(crate) idle_closed: u64,
    /// How often a leader said that it had batches of ours, by partition.
    pub(crate) found: [u64; PARTITIONS],
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

fn timestamp(now: Micros, age_ms: i64) -> i64 {
    STARTED_MS + (now / MS) as i64 - age_ms
}

impl World {
    pub(crate) fn submit_planned(&mut self, index: usize) -> Result<(), String> {
        let planned = self.plan.batches[index].clone();
        self.submit(&planned)
    }

    /// Hands a batch to the sender, as the accumulator would.
    pub(crate) fn submit(&mut self, planned: &BatchPlan) -> Result<(), String> {
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
        let now = self.instant();
        self.sender.on_sealed(now, submission).map_err(|_| "a batch for a known partition came back".to_owned())
    }

    fn encode(&mut self, planned: &BatchPlan, first: u32) -> Result<kafka_courier_batcher::EncodedBatch, String> {
        let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Default::default() };
        let compression = if first.is_multiple_of(5) { Compression::Snappy } else { Compression::None };
        let mut accumulator = Accumulator::new(limits, compression);
        for (number, RecordPlan { has_key, padding }) in (first..).zip(&planned.records) {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(4 + usize::from(*padding), b'.');
            let key = has_key.then_some(&b"key"[..]);
            let timestamp = timestamp(self.now, planned.age_ms);
            let record = Record { key, value: Some(&value), headers: &[], timestamp };
            accumulator
                .push(self.instant(), &record, &mut |_| true, &self.pool, || ())
                .map_err(|error| error.to_string())?;
            let partition = planned.partition;
            self.history.records.push(RecordHistory {
                partition,
                has_key: *has_key,
                verdict: None,
                corrected: None,
                forgets: self.partitions[partition].forgets,
                sent_in: None,
                when_told: (0, 0),
                codes: Vec::new(),
                too_large_alone: false,
                write_errors: 0,
            });
        }
        let filled = accumulator.seal().ok_or("a batch without records")?;
        Ok(filled.encode(&self.pool).batch)
    }

    /// Checks what leaves: one batch of a partition in a request, the bound on what is unanswered, and that
    /// a stamp stands for the same record for ever.
    pub(crate) fn note_sent(&mut self, conn: ConnId, request: RequestId, parts: &[ProducePart]) -> Result<(), String> {
        self.trace(|| format!("send {request:?} on {conn:?}: {}", show_parts(parts)));
        let mut sent: Parts = Vec::with_capacity(parts.len());
        for part in parts {
            let partition = model_partition(part.partition);
            if sent.iter().any(|(other, _)| *other == partition) {
                return Err(format!("{request:?} holds two batches of p{partition}"));
            }
            sent.push((partition, self.history.check_stamp(part)?));
        }
        let partitions: Vec<usize> = sent.iter().map(|(partition, _)| *partition).collect();
        let unanswered = Unanswered { id: request, written: false, parts: sent };
        self.history.in_flight.entry(conn).or_default().push(unanswered);
        let broker = self.links.get(&conn).map(|link| link.broker).ok_or("sent on a connection that is not there")?;
        partitions.into_iter().try_for_each(|partition| self.check_window(broker, partition))
    }

    /// At most `max_in_flight` batches of a partition are unanswered at one broker, over all connections.
    fn check_window(&self, broker: usize, partition: usize) -> Result<(), String> {
        let history = &self.history;
        let there = |conn: &ConnId| self.links.get(conn).is_some_and(|link| link.broker == broker);
        let all = history.in_flight.iter().filter(|(conn, _)| there(conn)).flat_map(|(_, requests)| requests);
        let unsettled = |number: &u32| history.records[*number as usize].verdict.is_none();
        let sent = all.flat_map(|request| &request.parts).filter(|sent| sent.0 == partition);
        let mut firsts: Vec<u32> = sent.filter_map(|sent| sent.1.first().copied()).filter(unsettled).collect();
        firsts.sort_unstable();
        firsts.dedup();
        if firsts.len() > self.plan.config.max_in_flight as usize {
            return Err(format!("p{partition}: the batches that begin with {firsts:?} are all unanswered"));
        }
        Ok(())
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
            }
            let record = &mut self.history.records[(first + index) as usize];
            record.when_told = when_told;
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
            record.corrected = Some(base.map(|base| base + position));
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
        for ((partition, numbers), answer) in sent.parts.iter().zip(&answer.parts) {
            let Some(answer) = answer else {
                self.count_write_error(numbers);
                continue;
            };
            if WRITE_ERRORS.contains(&answer.code) {
                self.count_write_error(numbers);
            }
            for number in numbers {
                let record = &mut self.records[*number as usize];
                record.too_large_alone |= TOO_LARGE.contains(&answer.code) && numbers.len() == 1;
                if !record.codes.contains(&answer.code) {
                    record.codes.push(answer.code);
                }
            }
            if let Some((leader, epoch)) = answer.leader {
                self.older_hints += u64::from(epoch < self.told_leaders[*partition].epoch);
                self.told_leader(*partition, Some(leader.0 as usize - 1), epoch);
            }
        }
    }

    fn count_write_error(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.records[*number as usize].write_errors += 1);
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        for sent in self.in_flight.remove(&conn).into_iter().flatten().filter(|sent| sent.written) {
            sent.parts.iter().for_each(|(_, numbers)| self.count_write_error(numbers));
        }
    }

    pub(crate) fn told_leader(&mut self, partition: usize, leader: Option<usize>, epoch: i32) {
        let told = &mut self.told_leaders[partition];
        if epoch > told.epoch && told.epoch >= 0 {
            told.leaders.clear();
        }
        told.epoch = told.epoch.max(epoch);
        told.leaders.extend(leader);
    }

    /// Whether the sender may take the broker for the partition's leader.
    pub(crate) fn may_lead(&self, partition: usize, broker: usize) -> bool {
        self.told_leaders[partition].leaders.contains(&broker)
    }

    pub(crate) fn told_life(&mut self, topic: usize, uuid: TopicUuid, partitions: usize) {
        let told = &mut self.told[topic];
        let life = u32::from_be_bytes([uuid[1], uuid[2], uuid[3], uuid[4]]);
        if told.life != life {
            told.changes += 1;
            (told.life, told.in_a_row) = (life, 0);
            // A new life's epochs begin again; the sender may not believe in it yet.
            (0..PARTITIONS).filter(|p| topic_of(*p) == topic).for_each(|p| self.told_leaders[p].epoch = -1);
        }
        told.in_a_row += 1;
        told.fewest = if told.fewest == 0 { partitions } else { told.fewest.min(partitions) };
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
    fn check_stamp(&mut self, part: &ProducePart) -> Result<Vec<u32>, String> {
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
        }
        if numbers.is_empty() { Err("an empty batch was sent".to_owned()) } else { Ok(numbers) }
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

fn show_parts(parts: &[ProducePart]) -> String {
    let show = |part: &ProducePart| {
        let stamp = part.batch.current_stamp();
        let numbers = numbers_in(part.batch.as_bytes()).unwrap_or_default();
        let words = stamp.map(|s| format!("{}/{}/{}", s.producer_id, s.epoch, s.base_sequence)).unwrap_or_default();
        format!("[p{} {words} {numbers:?}]", model_partition(part.partition))
    };
    parts.iter().map(show).collect()
}
