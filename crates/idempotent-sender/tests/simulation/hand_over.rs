//! The hand-over of stored batches from the log to the sender.
//!
//! Rule: the sender has a bounded number of records of a partition, in some lives. It gets more when it asks, and with each
//! verdict.

use kafka_courier_idempotent_sender::core::Submission;

use crate::world::World;

/// The records of a partition that the sender may have, for the lives in turn.
const LEASHES: [u64; 4] = [u64::MAX, 1, 4, 12];

impl World {
    /// Hands the batches to the sender that it may have.
    pub(crate) fn send_held(&mut self, partition: usize) -> Result<(), String> {
        loop {
            let Some(lives) = &mut self.lives else { return Ok(()) };
            let stored = &mut lives.partitions[partition];
            let place = stored.held.front().and_then(|next| next.stored.as_deref().copied());
            let leash = LEASHES[(self.plan.seed.wrapping_add(lives.life) % LEASHES.len() as u64) as usize];
            if place.is_none_or(|place| !stored.may_send(&place)) || stored.with_sender >= leash.max(stored.granted) {
                return Ok(());
            }
            let Some(next) = stored.held.pop_front() else { return Ok(()) };
            stored.with_sender += u64::from(next.batch.record_count());
            let ordinal = stored.submitted;
            stored.submitted += 1;
            self.submit_to_sender(Submission { ordinal, ..next })?;
        }
    }

    /// Hands more batches to the sender, which can't decide without them.
    pub(crate) fn give_more(&mut self, partition: usize) -> Result<(), String> {
        if let Some(lives) = &mut self.lives {
            let stored = &mut lives.partitions[partition];
            stored.granted = 2 * stored.with_sender + 1;
        }
        self.send_held(partition)
    }
}
