//! The way of a record from its publisher into an open batch.
//!
//! Rules:
//! - One lock per partition, held for the copy only; a full batch is compressed outside it.
//! - A record is accepted whole or not at all; until it is, its publisher has its bytes.
//! - The sender's task is woken when a batch is opened, when one is full, and when somebody begins to wait for one; never
//!   for each record.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{PushError, Pushed, Record, partition_for_key};
use kafka_courier_idempotent_sender::driver::Command;
use tokio::sync::mpsc::UnboundedSender;

use crate::delivery::{Delivery, Hurry, Token};
use crate::error::PublishError;
use crate::memory::Asker;
use crate::shared::Shared;
use crate::sync::Ordering;
use crate::topics::{Partitions, Slot, Topic};

/// Bytes of a record that are neither key nor value: about what a choice of partition has to know.
const RECORD_OVERHEAD: usize = 16;

#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: UnboundedSender<Command<Token>>,
    /// Whether the sender is told of batches that somebody waits for.
    pub(crate) expedite: bool,
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
        let partitions = topic.partitions.load();
        let Some(partitions) = &*partitions else { return Err(Refused::NoTopic) };
        let index = self.choose(topic, partitions, partition, record)?;
        let slot = usize::try_from(index).ok().and_then(|index| partitions.slots.get(index));
        let Some(slot) = slot else { return Err(Refused::NoTopic) };
        let pushed = self.push(topic, slot, record)?;
        if record.key.is_none() && partition.is_none() && pushed.sealed.iter().any(Option::is_some) {
            topic.sticky.lock().batch_sealed(index);
        }
        for filled in pushed.sealed.into_iter().flatten() {
            self.tell(Command::Sealed(self.shared.submission(slot, *filled)));
        }
        Ok(Delivery::new(pushed.token.state().clone(), pushed.index, record.timestamp))
    }

    fn push(&self, topic: &Topic, slot: &Slot, record: &Record<'_>) -> Result<Pushed<Token>, Refused> {
        let shared = &*self.shared;
        let mut accumulator = slot.accumulator.lock();
        // Looked at under the lock: whoever closes takes each lock once after setting it.
        if shared.closed.load(Ordering::SeqCst) {
            return Err(Refused::Error(PublishError::Closed));
        }
        let token = || Token::new(topic.name.clone(), slot.id.index, &shared.ledger);
        let reserve = &mut |bytes| slot.reserve(&shared.memory, bytes);
        let pushed = accumulator
            .push_at(Instant::now, record, reserve, &shared.pool, token)
            .map_err(|error| self.refusal(slot, error))?;
        if let (Some(deadline), None) = (pushed.opened, &pushed.sealed[1]) {
            if self.expedite {
                let (commands, partition) = (self.commands.downgrade(), slot.id);
                pushed.token.state().opened(Hurry { commands, partition, ordinal: pushed.ordinal });
            }
            self.tell(Command::Opened { partition: slot.id, ordinal: pushed.ordinal, deadline });
        }
        Ok(pushed)
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
                let picked = topic.sticky.lock().pick(bytes, count, &known.available, || fastrand::u64(..));
                picked.ok_or(Refused::NoTopic)
            }
        }
    }

    /// Tells the sender's task. If it is gone, the command's batch settles by being dropped.
    pub(crate) fn tell(&self, command: Command<Token>) {
        let _ = self.commands.send(command);
    }
}
