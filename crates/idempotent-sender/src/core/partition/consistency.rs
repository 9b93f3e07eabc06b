//! The check of a partition's states against the table of the legal combinations.
//!
//! Rule: a simulation calls the check. The driver never does.

use super::PartitionSender;
use super::unknown::lies_before;

impl<T: Clone> PartitionSender<T> {
    /// Returns the first row of the table of legal combinations that this partition breaks.
    pub(crate) fn inconsistency(&self) -> Option<&'static str> {
        self.inconsistent_leader().or_else(|| self.inconsistent_topic()).or_else(|| self.inconsistent_stamps())
    }

    /// Returns the producer id and epoch of the inherited stamps, if every sent batch has one.
    fn inherited_run(&self) -> Option<(i64, i16)> {
        let mut sent = self.unconfirmed.iter().chain(&self.window);
        let stamp = self.unconfirmed.front().or(self.window.front())?.stamp()?;
        sent.all(|flight| flight.is_inherited).then_some((stamp.producer_id, stamp.epoch))
    }

    fn has_outstanding(&self) -> bool {
        self.window.iter().chain(&self.unconfirmed).any(|flight| flight.outstanding.is_some())
    }

    fn inconsistent_leader(&self) -> Option<&'static str> {
        let is_pipelining = self.leader.is_pipelining_at_all();
        if self.leader().is_none() && (is_pipelining || self.has_outstanding() || self.retry.is_looking_up()) {
            return Some("a partition without a leader waits for an answer of a leader");
        }
        if is_pipelining && !self.stamps.is_assigned() && !self.has_resumed {
            return Some("the leader is trusted with stamps that are not assigned");
        }
        None
    }

    fn inconsistent_topic(&self) -> Option<&'static str> {
        let is_trusted = self.leader.is_trusted();
        if self.topic.is_switching() && (is_trusted || !self.has_outstanding()) {
            return Some(
                "a switch to a recreated topic is pending, but nothing is outstanding, or an answer is trusted",
            );
        }
        let has_queued = !self.queue.is_empty() && !self.queues_stored();
        let has_batches = !self.window.is_empty() || !self.unconfirmed.is_empty() || has_queued;
        let waits = self.topic.lacks_id() || self.retry.is_looking_up();
        if self.topic.missing().is_some() && (is_trusted || has_batches || waits) {
            return Some("the topic does not have the partition, but the partition has batches or waits");
        }
        None
    }

    fn inconsistent_stamps(&self) -> Option<&'static str> {
        if self.queue.iter().chain(self.early.values()).any(|flight| flight.may_be_written()) {
            return Some("a batch without a stamp may be written");
        }
        if self.unconfirmed.iter().any(|flight| flight.outstanding.is_some()) {
            return Some("an unconfirmed batch is outstanding");
        }
        let mut before = None;
        for flight in self.unconfirmed.iter().chain(&self.window) {
            let Some(stamp) = flight.stamp() else {
                // The valid records of a rejected batch keep their place until the switch.
                if self.is_switching() && !flight.may_be_written() {
                    continue;
                }
                return Some("a batch in the window has no stamp");
            };
            let run = if flight.is_inherited { self.inherited_run() } else { self.stamps.id_and_epoch() };
            if run != Some((stamp.producer_id, stamp.epoch)) {
                return Some("a batch in the window has another producer id or epoch than the next stamp");
            }
            if before.is_some_and(|before| !lies_before(before, stamp)) {
                return Some("the window is not in the order of the sequence numbers");
            }
            before = Some(stamp);
        }
        if before.is_none() && self.retry.is_looking_up() && !self.stamps.is_assigned() {
            return Some("a lookup is in progress without a stamp");
        }
        None
    }
}
