//! The brokers' handling of Produce requests: the checks in a real broker's order, the append, and the wait.
//!
//! Rules (Apache Kafka's `KafkaApis`, `ReplicaManager`, `UnifiedLog`, `DelayedProduce`):
//! - The order of checks is topic, rights, leader, disk, min ISR, size, CRC, records, segment size, duplicate, epoch,
//!   sequence. A duplicate of a written batch must pass all earlier checks too.
//! - acks=all waits for the high watermark, also for a duplicate. An error that ends the wait keeps the offset.
//! - The answer to an append has a time only under LogAppendTime. The answer to a duplicate always has the newest
//!   timestamp of the batch.

use std::rc::Rc;

use kafka_courier_batcher::BatchView;
use kafka_courier_client::{BrokerAddress, BrokerId, PartAnswer, ProduceAnswer, ProducePart};
use kafka_courier_idempotent_sender::core::{ConnId, RequestId};

use crate::cluster::{MS, partitions_of, topic_of, uuid};
use crate::history::record_number;
use crate::log::{Admission, FOREIGN, LogEntry};
use crate::world::{Event, STARTED_MS, World, model_partition};

/// A request whose parts may wait for in-sync replicas.
#[derive(Debug)]
pub(crate) struct DelayedProduce {
    pub(crate) conn: ConnId,
    pub(crate) request: RequestId,
    pub(crate) broker: usize,
    pub(crate) parts: Vec<PartState>,
}

#[derive(Debug)]
pub(crate) enum PartState {
    Answered(PartAnswer),
    Waiting { partition: usize, base_offset: i64, required: i64, time: i64 },
}

pub(crate) fn error(code: i16) -> PartAnswer {
    PartAnswer { code, ..PartAnswer::default() }
}

pub(crate) fn appended(code: i16, base_offset: i64, time: i64) -> PartAnswer {
    let log_append_time = Some(time).filter(|time| code == 0 && *time >= 0);
    PartAnswer { base_offset: Some(base_offset), log_append_time, ..error(code) }
}

impl World {
    /// Serves the connection's next request, if the broker runs and has answered the previous request.
    pub(crate) fn serve(&mut self, conn: ConnId) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let broker = link.broker;
        if link.busy || link.muted_until > self.now || !self.brokers[broker].runs() {
            return Ok(());
        }
        let Some((request, parts, sent_at)) = link.inbox.pop_front() else { return Ok(()) };
        let bytes: usize = parts.iter().map(|part| part.batch.len()).sum();
        if bytes > self.plan.rules.request_max_bytes {
            link.inbox.clear();
            self.cut(conn);
            return Ok(());
        }
        link.busy = true;
        self.served_since = sent_at;
        let parts = parts.iter().map(|part| self.append(broker, part)).collect::<Result<_, _>>()?;
        self.next_delayed += 1;
        let id = self.next_delayed;
        self.delayed.insert(id, DelayedProduce { conn, request, broker, parts });
        if !self.answer_if_done(id) {
            self.schedule_after(self.plan.rules.produce_timeout, Event::ProduceTimeout(id));
        }
        Ok(())
    }

    pub(crate) fn answer_if_done(&mut self, id: u64) -> bool {
        let Some(delayed) = self.delayed.get(&id) else { return false };
        if delayed.parts.iter().any(|part| matches!(part, PartState::Waiting { .. })) {
            return false;
        }
        let Some(DelayedProduce { conn, request, parts, .. }) = self.delayed.remove(&id) else { return false };
        let parts: Vec<Option<PartAnswer>> = parts
            .into_iter()
            .map(|part| match part {
                PartState::Answered(answer) => Some(answer),
                PartState::Waiting { .. } => None,
            })
            .collect();
        let leaders = parts.iter().flatten().filter_map(|part| part.leader);
        let brokers = leaders.map(|(id, _)| address(id.0 as usize - 1)).collect();
        self.answer(conn, request, ProduceAnswer { parts, brokers, ..ProduceAnswer::default() });
        true
    }

    pub(crate) fn time_out_produce(&mut self, id: u64) {
        let Some(delayed) = self.delayed.get_mut(&id) else { return };
        for part in &mut delayed.parts {
            if let PartState::Waiting { base_offset, time, .. } = part {
                *part = PartState::Answered(appended(7, *base_offset, *time));
            }
        }
        self.answer_if_done(id);
    }

    fn append(&mut self, broker: usize, part: &ProducePart) -> Result<PartState, String> {
        let partition = model_partition(part.partition);
        let (entry, times) = self.read(partition, part)?;
        let forced = self.partitions[partition].forced.pop_front();
        if forced.is_some() {
            self.note_effect("forced_error", partition);
        }
        if let Some(forced) = forced.filter(|forced| forced.appended.is_none()) {
            return Ok(PartState::Answered(error(forced.code)));
        }
        if let Some(refusal) = self.check_before_append(broker, partition, part, &entry, &times) {
            self.trace(|| format!("broker {broker} refuses p{partition} {}: {}", format_entry(&entry), refusal.code));
            self.note_refusal_effect(partition, refusal.code);
            return Ok(PartState::Answered(refusal));
        }
        let waiting = self.append_if_in_sequence(broker, partition, entry);
        let Some(forced) = forced else { return Ok(waiting) };
        Ok(match waiting {
            PartState::Waiting { base_offset, time, .. } => {
                let offset = if forced.appended == Some(true) { base_offset } else { -1 };
                PartState::Answered(appended(forced.code, offset, time))
            }
            done @ PartState::Answered(_) => done,
        })
    }

    fn note_refusal_effect(&mut self, partition: usize, code: i16) {
        let model = &self.partitions[partition];
        match code {
            _ if model.refused == Some(code) => self.note_effect("refusal", partition),
            10 => self.note_effect("message_limit", partition),
            18 => self.note_effect("segment_limit", partition),
            32 => self.note_effect("age_limit", partition),
            87 => self.note_effect("compaction", partition),
            _ => {}
        }
    }

    /// Decodes a batch, and returns its log entry and the records' timestamps. An unreadable batch or a wrong CRC is a
    /// violation by the sender.
    fn read(&mut self, partition: usize, part: &ProducePart) -> Result<(LogEntry, Vec<i64>), String> {
        let (view, rest) =
            BatchView::parse(part.batch.as_bytes()).map_err(|e| format!("p{partition}: a batch is unreadable: {e}"))?;
        if !rest.is_empty() || !view.check_crc() {
            return Err(format!("p{partition}: a batch has a wrong CRC, or trailing bytes"));
        }
        let stamp = view.stamp().ok_or("a batch without a stamp was sent")?;
        let records = view.records(1 << 20).map_err(|e| format!("p{partition}: records are unreadable: {e}"))?;
        let mut numbers = Vec::with_capacity(view.record_count as usize);
        let mut times = Vec::with_capacity(numbers.capacity());
        for record in &records {
            let record = record.map_err(|e| format!("p{partition}: a record is unreadable: {e}"))?;
            numbers.push(record_number(&record)?);
            times.push(record.timestamp);
        }
        self.next_append += 1;
        for number in &numbers {
            let longest = self.delays.entry(*number).or_default();
            *longest = self.now.saturating_sub(self.served_since).max(*longest);
        }
        let model = &self.partitions[partition];
        let entry = LogEntry {
            base_offset: -1,
            append: self.next_append,
            producer_id: stamp.producer_id,
            epoch: stamp.epoch,
            first: stamp.base_sequence,
            last: stamp.advance(view.record_count - 1).base_sequence,
            max_timestamp: view.max_timestamp,
            records: Rc::from(numbers),
            forgets: model.forgets,
            expiries: model.expiries,
            purges: model.purges,
            is_old: false,
        };
        Ok((entry, times))
    }

    /// Runs the checks that precede the check of the producer's state.
    fn check_before_append(
        &self,
        broker: usize,
        partition: usize,
        part: &ProducePart,
        entry: &LogEntry,
        times: &[i64],
    ) -> Option<PartAnswer> {
        let views = &self.brokers[broker].views;
        let view = views[partition];
        let model = &self.partitions[partition];
        let replica = &model.replicas[broker];
        let topic = topic_of(partition);
        let incarnation = partitions_of(topic).find(|p| views[*p].exists).map(|p| views[p].incarnation);
        if self.plan.rules.by_id
            && incarnation.is_none_or(|incarnation| part.topic_uuid != Some(uuid(topic, incarnation)))
        {
            return Some(error(100));
        }
        if !view.exists {
            return Some(error(3));
        }
        if let Some(code) = model.refused.filter(|code| matches!(code, 17 | 29 | 31)) {
            return Some(error(code));
        }
        if view.leader != Some(broker) {
            let leader = view.leader.map(|leader| (BrokerId(leader as i32 + 1), view.epoch));
            return Some(PartAnswer { leader, ..error(6) });
        }
        if replica.offline {
            return Some(error(56));
        }
        if view.isr_len() < model.min_isr {
            return Some(error(19));
        }
        if part.batch.len() > model.max_bytes {
            return Some(error(10));
        }
        if let Some(code) = model.refused {
            return Some(error(code));
        }
        if model.compacted
            && let Some(refusal) = self.refuse_keyless(partition, entry)
        {
            return Some(refusal);
        }
        if let Some(refusal) = self.refuse_old(partition, times) {
            return Some(refusal);
        }
        (part.batch.len() > model.segment_bytes).then(|| error(18))
    }

    /// Refuses records that are too old at their arrival, and names their indexes.
    fn refuse_old(&self, partition: usize, times: &[i64]) -> Option<PartAnswer> {
        let oldest = self.clock_ms().saturating_sub(self.partitions[partition].max_age_ms);
        let outdated = (0_u32..).zip(times).filter(|(_, time)| **time < oldest);
        let record_errors: Vec<_> = outdated.map(|(index, _)| (index, Some("too old".into()))).collect();
        let message = Some("a record is too old".into());
        (!record_errors.is_empty()).then(|| PartAnswer { record_errors, message, ..error(32) })
    }

    /// Returns the wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn clock_ms(&self) -> i64 {
        STARTED_MS + (self.now / MS) as i64
    }

    /// Refuses records without a key in a compacted topic, and names their indexes (KIP-467).
    fn refuse_keyless(&self, partition: usize, entry: &LogEntry) -> Option<PartAnswer> {
        let is_keyless = |number: &u32| !self.history.records[*number as usize].has_key;
        let rejected: Vec<u32> =
            (0_u32..).zip(entry.records.iter()).filter(|(_, n)| is_keyless(n)).map(|(i, _)| i).collect();
        if rejected.is_empty() {
            return None;
        }
        let named = if self.partitions[partition].names_rejected { rejected } else { Vec::new() };
        let record_errors = named.into_iter().map(|index| (index, Some("no key".into()))).collect();
        Some(PartAnswer { record_errors, message: Some("a record has no key".into()), ..error(87) })
    }

    fn append_if_in_sequence(&mut self, broker: usize, partition: usize, mut entry: LogEntry) -> PartState {
        let rules = self.plan.rules.sequence;
        let replica = &mut self.partitions[partition].replicas[broker];
        let never_written = replica.log.is_empty();
        let (base_offset, count, time) = match replica.producers.admit(&entry, never_written, rules) {
            Admission::Refuse(code) => {
                self.trace(|| format!("broker {broker} refuses p{partition} {}: {code}", format_entry(&entry)));
                return PartState::Answered(error(code));
            }
            Admission::Duplicate(base_offset, count, time) => (base_offset, count, time),
            Admission::Append => {
                entry.base_offset = replica.end();
                let clock = self.clock_ms();
                let time = if self.plan.rules.log_append_time { clock } else { -1 };
                if time >= 0 {
                    entry.max_timestamp = time;
                }
                let half = self.plan.rules.id_expiration_ms.map(|ms| ms / 2);
                entry.is_old = half.is_some_and(|ms| entry.max_timestamp <= clock - ms);
                let placed = (entry.base_offset, entry.records.len(), time);
                self.trace(|| {
                    format!("broker {broker} appends p{partition} {} at {}", format_entry(&entry), entry.base_offset)
                });
                let replica = &mut self.partitions[partition].replicas[broker];
                replica.producers.learn(&entry);
                self.check_ids_after(entry.max_timestamp);
                self.partitions[partition].replicas[broker].log.push(entry);
                self.schedule_fetches(partition);
                placed
            }
        };
        let required = base_offset + count as i64;
        self.advance_high_watermark(broker, partition);
        if self.partitions[partition].replicas[broker].high_watermark >= required {
            return PartState::Answered(appended(0, base_offset, time));
        }
        PartState::Waiting { partition, base_offset, required, time }
    }

    /// Fences the sender's newest producer id, as a later check by another process does. The fence's epoch is a
    /// thousand above the known one. Returns whether the leader accepted the fence.
    pub(crate) fn fence_id(&mut self, partition: usize) -> bool {
        let Some(broker) = self.partitions[partition].truth.leader else { return false };
        let leads = self.brokers[broker].views[partition].leader == Some(broker);
        let model = &self.partitions[partition];
        let producer_id = self.history.newest_id_of(partition);
        let known = model.replicas[broker].producers.get(producer_id);
        let Some(epoch) = known.and_then(|known| known.epoch.checked_add(1000)) else { return false };
        if !leads || !self.brokers[broker].runs() || model.replicas[broker].offline {
            return false;
        }
        let (forgets, expiries, purges) = (model.forgets, model.expiries, model.purges);
        self.next_append += 1;
        let fence = LogEntry {
            base_offset: -1,
            append: self.next_append,
            producer_id,
            epoch,
            first: 0,
            last: 0,
            max_timestamp: self.clock_ms(),
            records: Rc::from([FOREIGN]),
            forgets,
            expiries,
            purges,
            is_old: false,
        };
        self.append_if_in_sequence(broker, partition, fence);
        true
    }
}

pub(crate) fn address(broker: usize) -> BrokerAddress {
    BrokerAddress { id: BrokerId(broker as i32 + 1), host: "broker".into(), port: 9092 + broker as u16 }
}

pub(crate) fn format_entry(entry: &LogEntry) -> String {
    let LogEntry { producer_id, epoch, first, last, records, .. } = entry;
    format!("{producer_id}/{epoch} {first}..={last} {records:?}")
}
