//! What a broker makes of a Produce request: its checks in a real broker's order, the append, the wait.
//!
//! Rules (Apache Kafka's `KafkaApis`, `ReplicaManager`, `UnifiedLog`, `DelayedProduce`):
//! - Topic, rights, leader, disk, min ISR, size, CRC, records, segment size; then the duplicate; then epoch
//!   and sequence. A repeat of a written batch meets every check before the duplicate's, too.
//! - acks=all waits for the high watermark, a duplicate too. An error that ends the wait keeps the offset.
//! - An append's answer has a time only where the topic has LogAppendTime; a duplicate's has its batch's newest time always.

use std::rc::Rc;

use kafka_courier_batcher::{BatchView, sequence_add};
use kafka_courier_idempotent_sender::core::{
    BrokerAddress, BrokerId, ConnId, PartAnswer, ProduceAnswer, ProducePart, RequestId,
};

use crate::cluster::{MS, partitions_of, topic_of, uuid};
use crate::history::record_number;
use crate::log::{Admission, Entry, FOREIGN};
use crate::world::{Event, STARTED_MS, World, model_partition};

/// A request that waits for in-sync replicas.
#[derive(Debug)]
pub(crate) struct Delayed {
    pub(crate) conn: ConnId,
    pub(crate) request: RequestId,
    pub(crate) broker: usize,
    pub(crate) parts: Vec<Waiting>,
}

#[derive(Debug)]
pub(crate) enum Waiting {
    Done(PartAnswer),
    For { partition: usize, base_offset: i64, required: i64, time: i64 },
}

pub(crate) fn error(code: i16) -> PartAnswer {
    PartAnswer { code, base_offset: -1, log_append_time: -1, ..PartAnswer::default() }
}

pub(crate) fn appended(code: i16, base_offset: i64, time: i64) -> PartAnswer {
    PartAnswer { base_offset, log_append_time: if code == 0 { time } else { -1 }, ..error(code) }
}

impl World {
    /// Serves the connection's next request, if the broker runs and is done with the one before.
    pub(crate) fn serve(&mut self, conn: ConnId) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let broker = link.broker;
        if link.busy || link.muted_until > self.now || !self.brokers[broker].runs() {
            return Ok(());
        }
        let Some((request, parts)) = link.inbox.pop_front() else { return Ok(()) };
        let bytes: usize = parts.iter().map(|part| part.batch.len()).sum();
        if bytes > self.plan.rules.request_max_bytes {
            link.inbox.clear();
            self.cut(conn);
            return Ok(());
        }
        link.busy = true;
        let parts = parts.iter().map(|part| self.append(broker, part)).collect::<Result<_, _>>()?;
        self.next_delayed += 1;
        let id = self.next_delayed;
        self.delayed.insert(id, Delayed { conn, request, broker, parts });
        if !self.answer_if_done(id) {
            self.after(self.plan.rules.produce_timeout, Event::ProduceTimeout(id));
        }
        Ok(())
    }

    pub(crate) fn answer_if_done(&mut self, id: u64) -> bool {
        let Some(delayed) = self.delayed.get(&id) else { return false };
        if delayed.parts.iter().any(|part| matches!(part, Waiting::For { .. })) {
            return false;
        }
        let Some(Delayed { conn, request, parts, .. }) = self.delayed.remove(&id) else { return false };
        let parts: Vec<Option<PartAnswer>> = parts
            .into_iter()
            .map(|part| match part {
                Waiting::Done(answer) => Some(answer),
                Waiting::For { .. } => None,
            })
            .collect();
        let leaders = parts.iter().flatten().filter_map(|part| part.leader);
        let brokers = leaders.map(|(id, _)| address(id.0 as usize - 1)).collect();
        self.answer(conn, request, ProduceAnswer { parts, brokers, ..ProduceAnswer::default() });
        true
    }

    pub(crate) fn produce_timed_out(&mut self, id: u64) {
        let Some(delayed) = self.delayed.get_mut(&id) else { return };
        for part in &mut delayed.parts {
            if let Waiting::For { base_offset, time, .. } = part {
                *part = Waiting::Done(appended(7, *base_offset, *time));
            }
        }
        self.answer_if_done(id);
    }

    fn append(&mut self, broker: usize, part: &ProducePart) -> Result<Waiting, String> {
        let partition = model_partition(part.partition);
        let (entry, times) = self.read(partition, part)?;
        let forced = self.partitions[partition].forced.pop_front();
        if forced.is_some() {
            self.felt("forced_error", partition);
        }
        if let Some(forced) = forced.filter(|forced| forced.appended.is_none()) {
            return Ok(Waiting::Done(error(forced.code)));
        }
        if let Some(refusal) = self.refusal(broker, partition, part, &entry, &times) {
            self.trace(|| format!("broker {broker} refuses p{partition} {}: {}", show(&entry), refusal.code));
            self.refusal_felt(partition, refusal.code);
            return Ok(Waiting::Done(refusal));
        }
        let waiting = self.append_if_in_sequence(broker, partition, entry);
        let Some(forced) = forced else { return Ok(waiting) };
        Ok(match waiting {
            Waiting::For { base_offset, time, .. } => {
                let offset = if forced.appended == Some(true) { base_offset } else { -1 };
                Waiting::Done(appended(forced.code, offset, time))
            }
            done @ Waiting::Done(_) => done,
        })
    }

    fn refusal_felt(&mut self, partition: usize, code: i16) {
        let model = &self.partitions[partition];
        match code {
            _ if model.refused == Some(code) => self.felt("refusal", partition),
            10 => self.felt("message_limit", partition),
            18 => self.felt("segment_limit", partition),
            32 => self.felt("age_limit", partition),
            87 => self.felt("compaction", partition),
            _ => {}
        }
    }

    /// What a broker reads of the bytes, and the records' times; what it can't read, or a wrong CRC, would be the sender's
    /// fault.
    fn read(&mut self, partition: usize, part: &ProducePart) -> Result<(Entry, Vec<i64>), String> {
        let (view, rest) =
            BatchView::parse(part.batch.as_bytes()).map_err(|e| format!("a batch can't be read: {e}"))?;
        if !rest.is_empty() || !view.check_crc() {
            return Err(format!("p{partition}: a batch with a wrong CRC, or more bytes than it says"));
        }
        let stamp = view.stamp().ok_or("a batch without a stamp was sent")?;
        let records = view.records(1 << 20).map_err(|e| format!("records can't be read: {e}"))?;
        let mut numbers = Vec::with_capacity(view.record_count as usize);
        let mut times = Vec::with_capacity(numbers.capacity());
        for record in &records {
            let record = record.map_err(|e| format!("a record can't be read: {e}"))?;
            numbers.push(record_number(&record)?);
            times.push(record.timestamp);
        }
        self.next_append += 1;
        let model = &self.partitions[partition];
        let entry = Entry {
            base_offset: -1,
            append: self.next_append,
            producer_id: stamp.producer_id,
            epoch: stamp.epoch,
            first: stamp.base_sequence,
            last: sequence_add(stamp.base_sequence, view.record_count - 1),
            max_timestamp: view.max_timestamp,
            records: Rc::from(numbers),
            forgets: model.forgets,
            expiries: model.expiries,
        };
        Ok((entry, times))
    }

    /// Everything that is checked before the producer's state is looked at.
    fn refusal(
        &self,
        broker: usize,
        partition: usize,
        part: &ProducePart,
        entry: &Entry,
        times: &[i64],
    ) -> Option<PartAnswer> {
        let views = &self.brokers[broker].views;
        let view = views[partition];
        let model = &self.partitions[partition];
        let replica = &model.replicas[broker];
        let topic = topic_of(partition);
        let life = partitions_of(topic).find(|p| views[*p].exists).map(|p| views[p].incarnation);
        if self.plan.rules.by_id && life.is_none_or(|life| part.topic_uuid != uuid(topic, life)) {
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
            && let Some(refusal) = self.guilty(partition, entry)
        {
            return Some(refusal);
        }
        if let Some(refusal) = self.outdated(partition, times) {
            return Some(refusal);
        }
        (part.batch.len() > model.segment_bytes).then(|| error(18))
    }

    /// Records that are too old when they arrive are refused, each by its index.
    fn outdated(&self, partition: usize, times: &[i64]) -> Option<PartAnswer> {
        let oldest = self.clock_ms().saturating_sub(self.partitions[partition].max_age_ms);
        let outdated = (0_u32..).zip(times).filter(|(_, time)| **time < oldest);
        let record_errors: Vec<_> = outdated.map(|(index, _)| (index, Some("too old".into()))).collect();
        let message = Some("a record is too old".into());
        (!record_errors.is_empty()).then(|| PartAnswer { record_errors, message, ..error(32) })
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn clock_ms(&self) -> i64 {
        STARTED_MS + (self.now / MS) as i64
    }

    /// A compacted topic refuses records without a key, each by its index (KIP-467).
    fn guilty(&self, partition: usize, entry: &Entry) -> Option<PartAnswer> {
        let keyless = |number: &u32| !self.history.records[*number as usize].has_key;
        let guilty: Vec<u32> =
            (0_u32..).zip(entry.records.iter()).filter(|(_, n)| keyless(n)).map(|(i, _)| i).collect();
        if guilty.is_empty() {
            return None;
        }
        let named = if self.partitions[partition].names_guilty { guilty } else { Vec::new() };
        let record_errors = named.into_iter().map(|index| (index, Some("no key".into()))).collect();
        Some(PartAnswer { record_errors, message: Some("a record has no key".into()), ..error(87) })
    }

    fn append_if_in_sequence(&mut self, broker: usize, partition: usize, mut entry: Entry) -> Waiting {
        let rules = self.plan.rules.sequence;
        let replica = &mut self.partitions[partition].replicas[broker];
        let never_written = replica.log.is_empty();
        let (base_offset, count, time) = match replica.producers.admit(&entry, never_written, rules) {
            Admission::Refuse(code) => {
                self.trace(|| format!("broker {broker} refuses p{partition} {}: {code}", show(&entry)));
                return Waiting::Done(error(code));
            }
            Admission::Duplicate(base_offset, count, time) => (base_offset, count, time),
            Admission::Append => {
                entry.base_offset = replica.end();
                let clock = self.clock_ms();
                let time = if self.plan.rules.log_append_time { clock } else { -1 };
                if time >= 0 {
                    entry.max_timestamp = time;
                }
                let placed = (entry.base_offset, entry.records.len(), time);
                self.trace(|| {
                    format!("broker {broker} appends p{partition} {} at {}", show(&entry), entry.base_offset)
                });
                let replica = &mut self.partitions[partition].replicas[broker];
                replica.producers.learn(&entry);
                self.check_ids_after(entry.max_timestamp);
                self.partitions[partition].replicas[broker].log.push(entry);
                self.fetch_soon(partition);
                placed
            }
        };
        let required = base_offset + count as i64;
        self.advance(broker, partition);
        if self.partitions[partition].replicas[broker].high_watermark >= required {
            return Waiting::Done(appended(0, base_offset, time));
        }
        Waiting::For { partition, base_offset, required, time }
    }

    /// Somebody who looks for lost records fences the sender's newest id there, a thousand epochs above all that are
    /// known. Returns whether the leader took it.
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
        let (forgets, expiries) = (model.forgets, model.expiries);
        self.next_append += 1;
        let fence = Entry {
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
        };
        self.append_if_in_sequence(broker, partition, fence);
        true
    }
}

pub(crate) fn address(broker: usize) -> BrokerAddress {
    BrokerAddress { id: BrokerId(broker as i32 + 1), host: "broker".into(), port: 9092 + broker as u16 }
}

pub(crate) fn show(entry: &Entry) -> String {
    let Entry { producer_id, epoch, first, last, records, .. } = entry;
    format!("{producer_id}/{epoch} {first}..={last} {records:?}")
}
