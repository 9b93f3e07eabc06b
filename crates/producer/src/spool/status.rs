//! [`SpoolStatus`]: the part of the spool's state that publishers, statistics and health checks read.

use std::sync::{Arc, OnceLock};

use super::fault::SpoolFault;
use super::space::SpoolSpace;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

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
    /// Records of earlier processes that this one took over.
    pub(crate) recovered: AtomicU64,
    /// Partitions that wait for a durable dead letter.
    pub(crate) held_partitions: AtomicU64,
    /// Partitions that wait because nothing shows whether an event is written. The sender counts them.
    pub(crate) doubtful_partitions: AtomicU64,
    /// Whether batches wait for room.
    pub(crate) is_full: AtomicBool,
}

impl SpoolStatus {
    /// Creates the state of a spool. Publishers wait for room in it if `blocks`.
    pub(crate) fn new(blocks: bool) -> Self {
        Self {
            space: SpoolSpace::new(blocks),
            fault: OnceLock::new(),
            records: 0.into(),
            bytes: 0.into(),
            recovered: 0.into(),
            held_partitions: 0.into(),
            doubtful_partitions: 0.into(),
            is_full: false.into(),
        }
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
        let doubtful = self.doubtful_partitions.load(Ordering::Relaxed);
        if doubtful > 0 {
            let why = "nothing shows whether their events are written: grant Read on the topics, or change spool_doubt";
            return Some(format!("{doubtful} partitions wait, because {why}").into());
        }
        match self.held_partitions.load(Ordering::Relaxed) {
            0 => None,
            held => Some(
                format!(
                    "{held} partitions wait, because no durable store takes their dead letters: check dlq_file and dlq_topic"
                )
                .into(),
            ),
        }
    }
}
