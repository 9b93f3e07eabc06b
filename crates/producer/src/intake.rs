//! The path of a record from its publisher into an open batch.
//!
//! The rules of this module:
//!  - Each partition has one lock, held only to copy a record. A full batch is compressed outside the lock.
//!  - A record is accepted completely or not at all. A record that is not accepted stays with its publisher.
//!  - The sender's task is woken for an opened batch, a full batch and the first awaited delivery of a batch, never for
//!    each record.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{PushError, Pushed, Record, SealedBatch, partition_for_key};
use kafka_courier_client::Reason;
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::error::SendError;

use crate::delivery::{BatchState, Delivery, ExpediteRequest, StoreRequest, Tag, Token};
use crate::error::PublishError;
use crate::failure_sink::{FailureSink, fail_unsent, fail_unstored};
use crate::memory::MemoryShare;
use crate::shared::Shared;
use crate::spool::{InputItem, RequestKey, SpoolCommand};
use crate::sync::Ordering;
use crate::topics::{PartitionSlot, Partitions, TopicEntry};

/// Approximate bytes of a record beyond key and value, for the choice of a partition.
const RECORD_OVERHEAD: usize = 16;

/// The divisor of the part of all memory that must be in flight while memory is short. A smaller part leaves brokers
/// and publishers idle, a larger part makes batches small.
const IN_FLIGHT_DIVISOR: usize = 4;

#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: UnboundedSender<DriverCommand<Token>>,
    /// The sink of failed records.
    pub(crate) sink: Option<Arc<dyn FailureSink>>,
    /// Whether awaited batches are expedited.
    pub(crate) expedite: bool,
}

/// The result of pushing a record to a partition.
enum PushOutcome {
    /// The record is in the open batch.
    Appended(Pushed<Token, Arc<BatchState>>),
    /// The record does not fit into the open batch. The batch is sealed, and the record needs another partition.
    Sealed(SealedBatch<Token>),
}

/// Values that the batch keeps beside a record.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attached<'a> {
    /// The failure sink gets it if the record fails.
    pub(crate) tag: Option<&'a Tag>,
    /// The spool stores it with the record.
    pub(crate) item: Option<&'a InputItem>,
    /// The spool stores it with the record, too.
    pub(crate) key: Option<&'a RequestKey>,
}

/// Why a record was not accepted now.
pub(crate) enum Refused {
    /// The topic's partitions are not known yet.
    NoTopic,
    /// There is no memory for the record now.
    NoMemory { needed: usize, share: MemoryShare },
    /// There is no room for the record in the spool now.
    NoRoom { needed: usize },
    /// The record can't be accepted.
    Error(PublishError),
}

impl Intake {
    /// Accepts a record, if no wait is needed.
    pub(crate) fn offer(
        &self,
        topic: &TopicEntry,
        partition: Option<i32>,
        record: &Record<'_>,
    ) -> Result<Delivery, Refused> {
        self.offer_with(topic, partition, record, Attached::default())
    }

    /// Accepts a record, if no wait is needed.
    pub(crate) fn offer_with(
        &self,
        topic: &TopicEntry,
        partition: Option<i32>,
        record: &Record<'_>,
        attached: Attached<'_>,
    ) -> Result<Delivery, Refused> {
        let Some(partitions) = &topic.partitions else { return Err(Refused::NoTopic) };
        let is_keyless = record.key.is_none() && partition.is_none();
        let mut may_move = is_keyless && partitions.slots.len() > 1;
        loop {
            let index = self.choose_partition(topic, partitions, partition, record)?;
            let slot = usize::try_from(index).ok().and_then(|index| partitions.slots.get(index));
            let Some(slot) = slot else { return Err(Refused::NoTopic) };
            let pushed = match self.push(topic, slot, record, attached, may_move)? {
                PushOutcome::Appended(pushed) => pushed,
                PushOutcome::Sealed(filled) => {
                    topic.state.keyless.with(|sticky| sticky.batch_sealed(index));
                    self.submit(slot, filled);
                    may_move = false;
                    continue;
                }
            };
            if is_keyless && pushed.sealed.iter().any(Option::is_some) {
                topic.state.keyless.with(|sticky| sticky.batch_sealed(index));
            }
            for filled in pushed.sealed.into_iter().flatten() {
                self.submit(slot, *filled);
            }
            return Ok(Delivery::new(pushed.token, pushed.index, record.timestamp));
        }
    }

    fn submit(&self, slot: &PartitionSlot, filled: SealedBatch<Token>) {
        let submission = self.shared.submission(slot, filled);
        let Some(spool) = &self.shared.spool else { return self.send_command(DriverCommand::Sealed(submission)) };
        if let Some(unsent) = spool.send(SpoolCommand::Sealed(submission)) {
            let failure = Failure::untried(FailedOutcome::NotWritten, Reason::Closed);
            fail_unstored(&self.shared, self.sink.as_ref(), unsent, failure);
        }
    }

    /// Appends a record to a partition's open batch. A record that `may_move` and does not fit opens no new batch
    /// there: later records go to another partition, and the new batch would hold one record (KIP-480).
    fn push(
        &self,
        topic: &TopicEntry,
        slot: &PartitionSlot,
        record: &Record<'_>,
        attached: Attached<'_>,
        may_move: bool,
    ) -> Result<PushOutcome, Refused> {
        let shared = &*self.shared;
        let mut accumulator = slot.accumulator.lock();
        // The flag is read under the lock: `close` sets the flag, and then takes each lock once.
        if shared.closed.load(Ordering::SeqCst) {
            return Err(Refused::Error(PublishError::Closed));
        }
        if let Some(fault) = shared.spool.as_ref().and_then(|spool| spool.status.fault()) {
            return Err(Refused::Error(fault.clone().into()));
        }
        if may_move && !accumulator.fits(record) {
            return accumulator.seal().map(PushOutcome::Sealed).ok_or(Refused::NoTopic);
        }
        let token = || Token::new(&topic.name, slot.id.index, &shared.ledger, &shared.origin);
        let mut is_spool_full = false;
        let reserve = &mut |bytes| {
            let space = shared.spool.as_ref().map(|spool| &spool.status.space);
            if space.is_some_and(|space| !space.reserve(bytes)) {
                is_spool_full = true;
                return false;
            }
            let is_reserved = slot.reserve(&shared.memory, bytes);
            if let (false, Some(space)) = (is_reserved, space) {
                space.release(bytes);
            }
            is_reserved
        };
        let pushed = accumulator
            .push_at(Instant::now, record, reserve, &shared.pool, token, |token| token.state().clone())
            .map_err(|error| self.refusal(slot, error, is_spool_full))?;
        // The lock is still held, so the batch can neither fail nor be stored before the record has its tag, item and key.
        if let Some(tag) = attached.tag {
            pushed.token.tag_record(pushed.index, tag.clone());
        }
        if let Some(item) = attached.item {
            pushed.token.add_item(pushed.index, item);
        }
        if let Some(key) = attached.key.filter(|_| shared.spool.is_some()) {
            pushed.token.add_key(pushed.index, key);
        }
        if let (Some(spool), Some(_)) = (&shared.spool, pushed.opened) {
            let (spool, partition, ordinal) = (spool.clone(), slot.id, pushed.ordinal);
            pushed.token.set_store_request(StoreRequest { spool, partition, ordinal });
        }
        if let (Some(deadline), None) = (pushed.opened, &pushed.sealed[1]) {
            if self.expedite {
                let (commands, partition) = (self.commands.downgrade(), slot.id);
                pushed.token.set_expedite_request(ExpediteRequest { commands, partition, ordinal: pushed.ordinal });
            }
            self.send_command(DriverCommand::Opened { partition: slot.id, ordinal: pushed.ordinal, deadline });
        }
        Ok(PushOutcome::Appended(pushed))
    }

    /// Seals the fullest open batches, until there is room or a quarter of all memory is in flight. The other batches
    /// continue to fill while publishers wait for the batches in flight.
    pub(crate) fn seal_fullest(&self, needed: usize, share: MemoryShare) {
        let (shared, mut open) = (&*self.shared, Vec::new());
        for slot in shared.topics.all_slots() {
            let (filling, held) = slot.accumulator.lock().open_len_and_capacity();
            if held > 0 {
                open.push((filling, held, slot));
            }
        }
        let mut held_open: usize = open.iter().map(|(_, held, _)| held).sum();
        open.sort_unstable_by_key(|(filling, ..)| std::cmp::Reverse(*filling));
        for (_, held, slot) in open {
            let in_flight = shared.memory.used().saturating_sub(held_open);
            if in_flight >= shared.memory.limit() / IN_FLIGHT_DIVISOR || shared.memory.has_room(needed, share) {
                return;
            }
            let filled = slot.accumulator.lock().seal();
            filled.into_iter().for_each(|filled| self.submit(&slot, filled));
            held_open = held_open.saturating_sub(held);
        }
    }

    fn refusal(&self, slot: &PartitionSlot, error: PushError, is_spool_full: bool) -> Refused {
        let limit = self.shared.memory.limit();
        match error {
            PushError::NoMemory { needed } if is_spool_full && needed <= limit => Refused::NoRoom { needed },
            PushError::NoMemory { needed } if needed <= limit => {
                let held = slot.held.load(Ordering::Relaxed);
                Refused::NoMemory { needed, share: self.shared.memory.share(held, needed) }
            }
            PushError::NoMemory { needed } => {
                Refused::Error(PublishError::TooLarge { size: needed, limit, what: "buffer_memory" })
            }
            PushError::TooLarge { size, limit } => {
                Refused::Error(PublishError::TooLarge { size, limit, what: "the topic's max.message.bytes" })
            }
        }
    }

    /// Chooses the partition: the requested one, the key's (as Kafka's Java client chooses it), or the sticky one of
    /// the topic.
    fn choose_partition(
        &self,
        topic: &TopicEntry,
        known: &Partitions,
        wanted: Option<i32>,
        record: &Record<'_>,
    ) -> Result<i32, Refused> {
        let count = known.count;
        match (wanted, record.key) {
            (Some(partition), _) if (0..count).contains(&partition) => Ok(partition),
            (Some(partition), _) => Err(Refused::Error(PublishError::Partition {
                topic: topic.name.clone(),
                partition,
                highest: count - 1,
            })),
            (None, Some(key)) => Ok(partition_for_key(key, count)),
            (None, None) => {
                let bytes = record.value.map_or(0, <[u8]>::len) + RECORD_OVERHEAD;
                let random = || fastrand::u64(..);
                let picked = topic.state.keyless.with(|sticky| sticky.pick(bytes, count, &known.available, random));
                picked.ok_or(Refused::NoTopic)
            }
        }
    }

    /// Sends a command to the sender's task. If the task has ended, the command's batch fails: it was never sent.
    pub(crate) fn send_command(&self, command: DriverCommand<Token>) {
        if let Err(SendError(DriverCommand::Sealed(submission))) = self.commands.send(command) {
            fail_unsent(&self.shared, self.sink.as_ref(), submission);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_courier_batcher::{Compression, Limits};
    use kafka_courier_client::TopicId;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::stats::Stats;

    const VALUE: [u8; 500] = [b'v'; 500];
    const LIMITS: Limits = Limits { max_records: 1000, max_bytes: 1 << 20, linger: Duration::from_secs(600) };
    const MEMORY: usize = 64 << 10;

    fn intake(partitions: usize, limits: Limits) -> (Intake, UnboundedReceiver<DriverCommand<Token>>) {
        let shared = Arc::new(Shared::new(limits, Compression::None, MEMORY));
        shared.topics.on_ready(TopicId(0), "t", &vec![true; partitions]);
        let (commands, received) = unbounded_channel();
        (Intake { shared, commands, sink: None, expedite: true }, received)
    }

    fn offer(intake: &Intake, partition: Option<i32>) -> bool {
        let record = Record { key: None, value: Some(&VALUE), headers: &[], timestamp: 0 };
        intake.offer(&intake.shared.topics.get_or_add("t"), partition, &record).map(Delivery::detach).is_ok()
    }

    /// Returns partition and record count of each sealed batch.
    fn sealed(received: &mut UnboundedReceiver<DriverCommand<Token>>) -> Vec<(i32, u32)> {
        std::iter::from_fn(|| received.try_recv().ok())
            .filter_map(|command| match command {
                DriverCommand::Sealed(submission) => {
                    Some((submission.partition.index, submission.batch.record_count()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn memory_shortage_seals_fullest_batch() {
        let (intake, mut received) = intake(3, LIMITS);
        for (partition, count) in [(0, 3), (1, 30), (2, 10)] {
            (0..count).for_each(|_| assert!(offer(&intake, Some(partition))));
        }
        intake.seal_fullest(1, MemoryShare::Within);
        assert_eq!(sealed(&mut received), [], "there is room");
        intake.seal_fullest(MEMORY, MemoryShare::Within);
        assert_eq!(sealed(&mut received), [(1, 30)], "a quarter of all memory is in flight");
        intake.seal_fullest(MEMORY, MemoryShare::Within);
        assert_eq!(sealed(&mut received), [], "a quarter is still in flight");
    }

    #[test]
    fn memory_shortage_seals_a_quarter() {
        let (intake, mut received) = intake(16, LIMITS);
        (0..16).for_each(|partition| (0..=partition % 4).for_each(|_| assert!(offer(&intake, Some(partition)))));
        intake.seal_fullest(MEMORY, MemoryShare::Within);
        let left = sealed(&mut received);
        assert!(left.iter().all(|(_, records)| *records >= 3) && !left.is_empty(), "{left:?}");
    }

    #[test]
    fn orphaned_events_are_counted() {
        let (intake, received) = intake(1, Limits { max_records: 10, ..LIMITS });
        drop(received);
        (0..25).for_each(|_| assert!(offer(&intake, None)));
        let stats = Stats::of(&intake.shared);
        assert_eq!((stats.accepted, stats.failed, stats.in_flight), (25, 20, 5), "{stats:?}");
    }

    #[test]
    fn keyless_batches_fill_before_moving() {
        let (intake, mut received) = intake(6, Limits { max_bytes: 4000, ..LIMITS });
        (0..60).for_each(|_| assert!(offer(&intake, None)));
        let left = sealed(&mut received);
        assert!(left.len() >= 7 && left.iter().all(|(_, records)| *records == 7), "{left:?}");
        let open = intake.shared.topics.all_slots().iter().filter(|slot| !slot.accumulator.lock().is_empty()).count();
        assert!(open <= 1, "{open} partitions have an open batch");
    }
}
