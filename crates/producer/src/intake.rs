//! The way of a record from its publisher into an open batch.
//!
//! Rules:
//! - One lock per partition, held for the copy only; a full batch is compressed outside it.
//! - A record is accepted whole or not at all; until it is, its publisher has its bytes.
//! - The sender's task is woken when a batch is opened, when one is full, and when somebody begins to wait for one; never
//!   for each record.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use kafka_courier_batcher::{Filled, PushError, Pushed, Record, partition_for_key};
use kafka_courier_dlq::Letter;
use kafka_courier_idempotent_sender::driver::Command;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::error::SendError;

use crate::dead_letters::writer::Work;
use crate::delivery::{BatchState, Delivery, Hurry, Token};
use crate::error::PublishError;
use crate::memory::Asker;
use crate::shared::Shared;
use crate::sync::Ordering;
use crate::topics::{Partitions, Slot, Topic};

/// Bytes of a record that are neither key nor value: about what a choice of partition has to know.
const RECORD_OVERHEAD: usize = 16;

/// While memory is short at least this part of it is to be on its way: less keeps neither brokers nor publishers busy,
/// more makes batches small.
const ON_ITS_WAY: usize = 4;

#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: UnboundedSender<Command<Token>>,
    /// Who keeps dead letters.
    pub(crate) letters: Option<Sender<Work>>,
    /// Whether the sender is told of batches that somebody waits for.
    pub(crate) expedite: bool,
}

/// What became of a record at a partition.
enum Offered {
    Taken(Pushed<Token, Arc<BatchState>>),
    /// It does not fit into this batch, which has left, and goes elsewhere.
    Full(Filled<Token>),
}

/// Why a record was not taken now.
pub(crate) enum Refused {
    /// The topic's partitions are not known yet.
    NoTopic,
    /// There is no memory for it now.
    NoMemory { needed: usize, asker: Asker },
    /// It will never be taken.
    Error(PublishError),
}

impl Intake {
    /// Takes a record, if it can be taken now.
    pub(crate) fn offer(
        &self,
        topic: &Topic,
        partition: Option<i32>,
        record: &Record<'_>,
    ) -> Result<Delivery, Refused> {
        self.offer_letter(topic, partition, record, None)
    }

    /// As [`offer`](Self::offer); the record is that of a dead letter, whose identity goes with it.
    pub(crate) fn offer_letter(
        &self,
        topic: &Topic,
        partition: Option<i32>,
        record: &Record<'_>,
        letter: Option<&Arc<Letter>>,
    ) -> Result<Delivery, Refused> {
        let Some(partitions) = &topic.partitions else { return Err(Refused::NoTopic) };
        let spread = record.key.is_none() && partition.is_none();
        let mut may_move = spread && partitions.slots.len() > 1;
        loop {
            let index = self.choose(topic, partitions, partition, record)?;
            let slot = usize::try_from(index).ok().and_then(|index| partitions.slots.get(index));
            let Some(slot) = slot else { return Err(Refused::NoTopic) };
            let pushed = match self.push(topic, slot, record, letter, may_move)? {
                Offered::Taken(pushed) => pushed,
                Offered::Full(filled) => {
                    topic.lasting.spread.with(|sticky| sticky.batch_sealed(index));
                    self.submit(slot, filled);
                    may_move = false;
                    continue;
                }
            };
            if spread && pushed.sealed.iter().any(Option::is_some) {
                topic.lasting.spread.with(|sticky| sticky.batch_sealed(index));
            }
            for filled in pushed.sealed.into_iter().flatten() {
                self.submit(slot, *filled);
            }
            return Ok(Delivery::new(pushed.token, pushed.index, record.timestamp));
        }
    }

    fn submit(&self, slot: &Slot, filled: Filled<Token>) {
        self.tell(Command::Sealed(self.shared.submission(slot, filled)));
    }

    /// Adds a record to a partition's open batch. One that `may_move` does not begin a batch where it does not fit any
    /// more: it would be left behind alone there while those after it go elsewhere (KIP-480).
    fn push(
        &self,
        topic: &Topic,
        slot: &Slot,
        record: &Record<'_>,
        letter: Option<&Arc<Letter>>,
        may_move: bool,
    ) -> Result<Offered, Refused> {
        let shared = &*self.shared;
        let mut accumulator = slot.accumulator.lock();
        // Looked at under the lock: whoever closes takes each lock once after setting it.
        if shared.closed.load(Ordering::SeqCst) {
            return Err(Refused::Error(PublishError::Closed));
        }
        if may_move && !accumulator.fits(record) {
            return accumulator.seal().map(Offered::Full).ok_or(Refused::NoTopic);
        }
        let token = || Token::new(&topic.name, slot.id.index, &shared.ledger, &shared.origin);
        let reserve = &mut |bytes| slot.reserve(&shared.memory, bytes);
        let pushed = accumulator
            .push_at(Instant::now, record, reserve, &shared.pool, token, |token| token.state().clone())
            .map_err(|error| self.refusal(slot, error))?;
        // Under the lock: nobody gives the batch up before it knows whose record that is.
        if let Some(letter) = letter {
            pushed.token.note_replay(pushed.index, letter.clone());
        }
        if let (Some(deadline), None) = (pushed.opened, &pushed.sealed[1]) {
            if self.expedite {
                let (commands, partition) = (self.commands.downgrade(), slot.id);
                pushed.token.opened(Hurry { commands, partition, ordinal: pushed.ordinal });
            }
            self.tell(Command::Opened { partition: slot.id, ordinal: pushed.ordinal, deadline });
        }
        Ok(Offered::Taken(pushed))
    }

    /// Memory is short: sends the fullest open batches, until there is room or a quarter of all memory is on its way, so
    /// that what the others hold is worth waiting for.
    pub(crate) fn relieve(&self, needed: usize, asker: Asker) {
        let (shared, mut open) = (&*self.shared, Vec::new());
        for slot in shared.topics.all_slots() {
            let (gathered, held) = slot.accumulator.lock().gathered_and_held();
            if held > 0 {
                open.push((gathered, held, slot));
            }
        }
        let mut gathering: usize = open.iter().map(|(_, held, _)| held).sum();
        open.sort_unstable_by_key(|(gathered, ..)| std::cmp::Reverse(*gathered));
        for (_, held, slot) in open {
            let on_its_way = shared.memory.used().saturating_sub(gathering);
            if on_its_way >= shared.memory.limit() / ON_ITS_WAY || shared.memory.has_room(needed, asker) {
                return;
            }
            let filled = slot.accumulator.lock().seal();
            filled.into_iter().for_each(|filled| self.submit(&slot, filled));
            gathering = gathering.saturating_sub(held);
        }
    }

    fn refusal(&self, slot: &Slot, error: PushError) -> Refused {
        let limit = self.shared.memory.limit();
        match error {
            PushError::NoMemory { needed } if needed <= limit => {
                let held = slot.held.load(Ordering::Relaxed);
                Refused::NoMemory { needed, asker: self.shared.memory.asker(held, needed) }
            }
            PushError::NoMemory { needed } => {
                Refused::Error(PublishError::TooLarge { size: needed, limit, what: "buffer_memory" })
            }
            PushError::TooLarge { size, limit } => {
                Refused::Error(PublishError::TooLarge { size, limit, what: "the topic (max.message.bytes)" })
            }
        }
    }

    /// The partition: the one asked for, the key's (the same that Kafka's Java client picks), or the
    /// topic's present one.
    fn choose(
        &self,
        topic: &Topic,
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
                let picked = topic.lasting.spread.with(|sticky| sticky.pick(bytes, count, &known.available, random));
                picked.ok_or(Refused::NoTopic)
            }
        }
    }

    /// Tells the sender's task. If it is gone, the command's batch is given up here: it never left.
    pub(crate) fn tell(&self, command: Command<Token>) {
        if let Err(SendError(Command::Sealed(submission))) = self.commands.send(command) {
            self.shared.orphaned(self.letters.as_ref(), submission);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_courier_batcher::{Compression, Limits};
    use kafka_courier_idempotent_sender::core::TopicId;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::stats::Stats;

    const VALUE: [u8; 500] = [b'v'; 500];
    const LIMITS: Limits = Limits { max_records: 1000, max_bytes: 1 << 20, linger: Duration::from_secs(600) };
    const MEMORY: usize = 64 << 10;

    fn intake(partitions: usize, limits: Limits) -> (Intake, UnboundedReceiver<Command<Token>>) {
        let shared = Arc::new(Shared::new(limits, Compression::None, MEMORY));
        shared.topics.on_ready(TopicId(0), "t", &vec![true; partitions]);
        let (commands, received) = unbounded_channel();
        (Intake { shared, commands, letters: None, expedite: true }, received)
    }

    fn offer(intake: &Intake, partition: Option<i32>) -> bool {
        let record = Record { key: None, value: Some(&VALUE), headers: &[], timestamp: 0 };
        intake.offer(&intake.shared.topics.get_or_add("t"), partition, &record).map(Delivery::detach).is_ok()
    }

    /// Partition and records of each batch that was sealed.
    fn sealed(received: &mut UnboundedReceiver<Command<Token>>) -> Vec<(i32, u32)> {
        std::iter::from_fn(|| received.try_recv().ok())
            .filter_map(|command| match command {
                Command::Sealed(submission) => Some((submission.partition.index, submission.batch.record_count())),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn when_memory_is_short_the_fullest_leaves_and_the_others_go_on_filling() {
        let (intake, mut received) = intake(3, LIMITS);
        for (partition, count) in [(0, 3), (1, 30), (2, 10)] {
            (0..count).for_each(|_| assert!(offer(&intake, Some(partition))));
        }
        intake.relieve(1, Asker::Within);
        assert_eq!(sealed(&mut received), [], "there is room");
        intake.relieve(MEMORY, Asker::Within);
        assert_eq!(sealed(&mut received), [(1, 30)], "a quarter of all memory is on its way");
        intake.relieve(MEMORY, Asker::Within);
        assert_eq!(sealed(&mut received), [], "and still is");
    }

    #[test]
    fn when_memory_is_short_as_many_leave_as_make_a_quarter_of_it() {
        let (intake, mut received) = intake(16, LIMITS);
        (0..16).for_each(|partition| (0..=partition % 4).for_each(|_| assert!(offer(&intake, Some(partition)))));
        intake.relieve(MEMORY, Asker::Within);
        let left = sealed(&mut received);
        assert!(left.iter().all(|(_, records)| *records >= 3) && !left.is_empty(), "{left:?}");
    }

    #[test]
    fn orphaned_events_are_counted() {
        let (intake, received) = intake(1, Limits { max_records: 10, ..LIMITS });
        drop(received);
        (0..25).for_each(|_| assert!(offer(&intake, None)));
        let stats = Stats::of(&intake.shared, 0);
        assert_eq!((stats.accepted, stats.failed, stats.in_flight), (25, 20, 5), "{stats:?}");
    }

    #[test]
    fn without_key_no_record_is_left_behind_alone_where_it_did_not_fit() {
        let (intake, mut received) = intake(6, Limits { max_bytes: 4000, ..LIMITS });
        (0..60).for_each(|_| assert!(offer(&intake, None)));
        let left = sealed(&mut received);
        assert!(left.len() >= 7 && left.iter().all(|(_, records)| *records == 7), "{left:?}");
        let open = intake.shared.topics.all_slots().iter().filter(|slot| !slot.accumulator.lock().is_empty()).count();
        assert!(open <= 1, "{open} partitions were left with a batch begun");
    }
}
