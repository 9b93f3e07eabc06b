//! Looks at producer states: what was asked for, and what the answers say of each record.
//!
//! Rules: a look is made for the batch whose answer has just come. What it finds counts while the leader is the same and of
//! the same epoch, for all batches up to it; that it was answered counts for that batch alone.

use std::collections::BTreeMap;

use kafka_courier_batcher::sequence_add;
use kafka_courier_idempotent_sender::core::{LookAnswer, LookId, PartitionId};

use crate::history::History;
use crate::world::model_partition;

/// What looks have said of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookedFor {
    /// It was found when metadata had named this leader epoch.
    pub(crate) found_in: Option<i32>,
    /// A look that was made for it was answered.
    pub(crate) answered: bool,
}

#[derive(Debug)]
struct Asked {
    numbers: Vec<u32>,
    known: i32,
    producer_id: i64,
}

/// Looks under way.
#[derive(Debug, Default)]
pub(crate) struct Looks(BTreeMap<u64, Asked>);

impl History {
    pub(crate) fn look_asked(&mut self, asked: PartitionId, look: LookId, producer_id: i64) {
        let partition = model_partition(asked);
        let (numbers, known) = (self.last_answered[partition].clone(), self.told_leaders[partition].known);
        self.looks.0.insert(look.0, Asked { numbers, known, producer_id });
    }

    pub(crate) fn looked(&mut self, asked: PartitionId, look: LookId, answer: LookAnswer) {
        let Some(Asked { numbers, known, producer_id }) = self.looks.0.remove(&look.0) else { return };
        let partition = model_partition(asked);
        let last = match answer {
            LookAnswer::Unavailable => return,
            LookAnswer::Nothing => None,
            LookAnswer::Producer { epoch, last_sequence } => {
                i16::try_from(epoch).ok().map(|epoch| (epoch, last_sequence))
            }
        };
        // Everything at or before the last sequence number of that epoch, as far back as a window and its halves reach.
        let reach = if last.is_some() { 0..200 } else { 0..0 };
        for back in reach {
            let Some((epoch, last)) = last else { break };
            let sequence = sequence_add(last, (1_u64 << 31) as u32 - back);
            if let Some(stamped) = self.stamped(partition, producer_id, epoch, sequence) {
                self.records[stamped.record as usize].looked_for.found_in = Some(known);
            }
        }
        for number in numbers {
            self.records[number as usize].looked_for.answered = true;
        }
    }

    /// Whether a look has found the record, and its leader is still the same and of the same epoch.
    pub(crate) fn is_found(&self, number: u32) -> bool {
        let record = &self.records[number as usize];
        record.looked_for.found_in.is_some_and(|known| known >= self.told_leaders[record.partition].known)
    }
}
