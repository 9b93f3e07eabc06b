//! [`SpoolStatus`]: the part of the spool's state that publishers, statistics and health checks read.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kafka_courier_client::{PartitionId, Reason};
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::core::inputs::{InputNumber, Inputs};

use super::fault::SpoolFault;
use super::input::{InputId, SpooledInput, spooled_inputs};
use super::space::SpoolSpace;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};

/// The state of a spool. Its thread writes it.
#[derive(Debug)]
pub(crate) struct SpoolStatus {
    /// The bytes that the spool may still take.
    pub(crate) space: SpoolSpace,
    /// The first fault. The spool accepts no event from then on.
    fault: OnceLock<SpoolFault>,
    /// Unsettled records.
    pub(crate) records: AtomicU64,
    /// Bytes of the batches with unsettled records.
    pub(crate) bytes: AtomicU64,
    /// Bytes of durable batches in memory.
    pub(crate) resident_bytes: AtomicU64,
    /// Records of earlier processes that this one took over.
    pub(crate) recovered: AtomicU64,
    /// Events that were damaged on the disk.
    pub(crate) lost: AtomicU64,
    /// Partitions that wait for a durable dead letter.
    pub(crate) held_partitions: AtomicU64,
    /// Whether batches wait for room.
    pub(crate) is_full: AtomicBool,
    /// The partitions that wait, because a broker refuses their events.
    pub(crate) waits: PartitionWaits,
    /// The spool's id, and the inputs at the opening.
    inputs: OnceLock<(SpoolId, Inputs)>,
    /// The number for the next input.
    next_input: AtomicU32,
}

/// The partitions whose stored events a broker refuses until a right, a setting or a clock is corrected.
#[derive(Debug, Default)]
pub(crate) struct PartitionWaits {
    /// Whether there is one. Verdicts read it instead of the list.
    is_any: AtomicBool,
    /// The text for each.
    list: Mutex<BTreeMap<PartitionId, Arc<str>>>,
}

impl PartitionWaits {
    /// Notes a refusal.
    pub(crate) fn note(&self, partition: PartitionId, topic: &str, reason: &Reason) {
        let text: Arc<str> = format!("{topic}-{} waits: {reason}", partition.index).into();
        self.is_any.store(true, Ordering::Relaxed);
        let before = self.list.lock().insert(partition, text.clone());
        if before.as_ref() != Some(&text) {
            tracing::warn!(topic, partition = partition.index, %reason, "stored events of a partition wait");
        }
    }

    /// Notes a verdict in a partition.
    pub(crate) fn end(&self, partition: PartitionId) {
        if self.is_any.load(Ordering::Relaxed) {
            let mut list = self.list.lock();
            list.remove(&partition);
            self.is_any.store(!list.is_empty(), Ordering::Relaxed);
        }
    }

    /// Returns the text for the first partition that waits.
    fn complaint(&self) -> Option<Arc<str>> {
        self.list.lock().values().next().cloned()
    }
}

impl SpoolStatus {
    /// Creates the state of a spool. Publishers wait for room in it if `blocks`.
    pub(crate) fn new(blocks: bool) -> Self {
        Self {
            space: SpoolSpace::new(blocks),
            fault: OnceLock::new(),
            records: 0.into(),
            bytes: 0.into(),
            resident_bytes: 0.into(),
            recovered: 0.into(),
            lost: 0.into(),
            held_partitions: 0.into(),
            is_full: false.into(),
            waits: PartitionWaits::default(),
            inputs: OnceLock::new(),
            next_input: 1.into(),
        }
    }

    /// Stores the spool's id and the inputs of the opening, once.
    pub(crate) fn set_inputs(&self, spool: SpoolId, inputs: Inputs) {
        self.next_input.store(inputs.next().0, Ordering::Relaxed);
        // There is one opening.
        let _ = self.inputs.set((spool, inputs));
    }

    /// Returns the id for another input. `None` before the opening.
    pub(crate) fn next_input(&self) -> Option<InputId> {
        let (spool, _) = self.inputs.get()?;
        let number = InputNumber(self.next_input.fetch_add(1, Ordering::Relaxed));
        Some(InputId { number, spool: spool.0 })
    }

    /// Returns the inputs at the opening.
    pub(crate) fn inputs(&self) -> Vec<SpooledInput> {
        self.inputs.get().map(|(spool, inputs)| spooled_inputs(spool.0, inputs)).unwrap_or_default()
    }

    /// Returns why the spool accepts no events, if it accepts none.
    pub(crate) fn fault(&self) -> Option<&SpoolFault> {
        self.fault.get()
    }

    /// Stores a fault. The first one stays.
    pub(crate) fn set_fault(&self, fault: SpoolFault) {
        // A later fault adds nothing: the spool is closed to events already.
        let _ = self.fault.set(fault);
    }

    /// Returns why the spool needs attention, if it does.
    pub(crate) fn complaint(&self) -> Option<Arc<str>> {
        if let Some(fault) = self.fault() {
            return Some(fault.to_string().into());
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Some("batches wait for room: raise spool_max_bytes, or free the disk".into());
        }
        match self.held_partitions.load(Ordering::Relaxed) {
            0 => self.waits.complaint(),
            held => Some(
                format!(
                    "{held} partitions wait, because no durable store takes their dead letters: check dlq_file and dlq_topic"
                )
                .into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_client::{ErrorCode, TopicId};

    use super::*;

    #[test]
    fn refused_partition_is_named() {
        let status = SpoolStatus::new(false);
        let partition = PartitionId { topic: TopicId(0), index: 3 };
        let reason = Reason::Broker { code: ErrorCode::INVALID_TIMESTAMP, message: None };
        status.waits.note(partition, "orders", &reason);
        let complaint = status.complaint().unwrap();
        assert!(complaint.contains("orders-3") && complaint.contains("INVALID_TIMESTAMP"), "{complaint}");
        status.waits.end(PartitionId { index: 2, ..partition });
        assert!(status.complaint().is_some());
        status.waits.end(partition);
        assert_eq!(status.complaint(), None);
    }
}
