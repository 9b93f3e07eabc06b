//! [`FailureSink`], the engine's way out for records that failed, and [`Undelivered`], those records.
//!
//! The rules of this module:
//!  - Failed records keep their batch and memory until the sink settles or drops them. Their deliveries are ready then.
//!  - Records that are dropped without a call of [`Undelivered::settle`] fail as unknown.
//!  - The spool keeps failed records until the sink says that their dead letters survive the process.
//!  - The engine does not read the tags and notes that a sink leaves at a batch.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::{PartitionId, Reason};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet, Submission, Verdict};

use crate::delivery::{StoredIdentity, Tag, Token};
use crate::shared::{Charge, Shared};
use crate::spool::{SettledNotice, SpoolCommand, StoredRecord};

/// Takes the records that failed for good, for instance to keep them as dead letters.
pub trait FailureSink: Debug + Send + Sync {
    /// Takes failed records. The sender's task calls this method, which must not block.
    fn undelivered(&self, undelivered: Undelivered);

    /// Notes that records which failed as unknown are in the log.
    fn landed(&self, landed: Landed);

    /// Returns a future that is ready once all records taken before are settled.
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Failed records, with the batch and memory that they hold.
pub struct Undelivered {
    shared: Arc<Shared>,
    token: Token,
    partition: PartitionId,
    records: RecordSet,
    failure: Arc<Failure>,
    /// The batch, until the records are settled.
    batch: Option<Arc<EncodedBatch>>,
    charge: Charge,
    /// The identity of the records in the spool, if the spool has them.
    stored: Option<StoredIdentity>,
}

impl Undelivered {
    pub(crate) fn new(shared: &Arc<Shared>, failed: FailedPart, failure: Arc<Failure>, charge: Charge) -> Self {
        let FailedPart { token, partition, records, batch, .. } = failed;
        let stored = shared.spool.as_ref().and_then(|_| token.state().stored());
        Self { shared: shared.clone(), token, partition, records, failure, batch: Some(batch), charge, stored }
    }

    /// Returns the identity of the record at `index` in the spool. `None` if no spool has it.
    pub fn stored_record(&self, index: u32) -> Option<StoredRecord> {
        let StoredIdentity { place, spool, nonce } = self.stored.as_ref()?;
        let partition = place.partition;
        Some(StoredRecord {
            spool: *spool,
            nonce: nonce.clone(),
            topic: partition.topic.0,
            partition: partition.index,
            ordinal: place.ordinal(index).0,
        })
    }

    /// Returns the records' topic.
    pub fn topic(&self) -> &str {
        self.token.state().topic()
    }

    /// Returns the records' partition.
    pub fn partition(&self) -> i32 {
        self.partition.index
    }

    /// Returns the failed records, by index in the batch as it was accepted.
    pub fn records(&self) -> &RecordSet {
        &self.records
    }

    /// Returns why the records failed.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Returns the encoded batch of exactly these records.
    pub fn batch(&self) -> &[u8] {
        self.batch.as_deref().map_or(&[], EncodedBatch::as_bytes)
    }

    /// Returns by how many milliseconds the sender moved the records' timestamps.
    pub fn moved_ms(&self) -> i64 {
        self.batch.as_deref().map_or(0, EncodedBatch::moved_ms)
    }

    /// Returns the size of the batch before compression, in bytes.
    pub fn uncompressed_len(&self) -> usize {
        self.batch.as_deref().map_or(0, EncodedBatch::uncompressed_len)
    }

    /// Returns the tags of the batch's records, each with the record's index.
    pub fn tags(&self) -> Vec<(u32, Tag)> {
        self.token.state().tags()
    }

    /// Leaves notes at the batch, each for a record by its index. [`Landed::take_notes`] returns them if the record is
    /// found in the log later.
    pub fn leave_notes(&self, notes: impl IntoIterator<Item = (u32, Tag)>) {
        self.token.state().leave_notes(notes);
    }

    /// Logs one warning for the batch, with some correlation ids of its events.
    pub fn log_failure(&self, correlation_ids: &[&str]) {
        tracing::warn!(
            topic = self.topic(),
            partition = self.partition.index,
            events = self.records.len(),
            outcome = self.failure.outcome.as_str(),
            attempts = self.failure.attempts,
            reason = %self.failure.reason,
            ?correlation_ids,
            "events failed"
        );
    }

    /// Gives the records their verdict, and returns their memory. The records are kept elsewhere: their dead letters
    /// survive the process.
    ///
    /// `settled` is called once no later process sends the records again, and not before. A spool's thread calls it, so it
    /// must not block. It is not called if the spool can't note that.
    pub fn settle(mut self, settled: impl FnOnce() + Send + 'static) {
        let failure = self.failure.clone();
        self.finish(failure, Some(SettledNotice::new(settled)));
    }

    /// Gives the records their verdict, as [`settle`](Self::settle) does. Some of their dead letters do not survive the
    /// process, so a spool keeps the records.
    pub fn settle_not_durable(mut self) {
        let failure = self.failure.clone();
        self.finish(failure, None);
    }

    fn finish(&mut self, failure: Arc<Failure>, settled: Option<SettledNotice>) {
        if let Some(batch) = self.batch.take() {
            let records = std::mem::replace(&mut self.records, RecordSet::Range(0..0));
            match (&self.shared.spool, self.stored.take(), settled) {
                (Some(spool), Some(StoredIdentity { place, .. }), Some(notice)) => {
                    spool.send(SpoolCommand::Kept { place, records: records.clone(), notice });
                }
                (Some(spool), Some(StoredIdentity { place, .. }), None) => {
                    spool.send(SpoolCommand::NotKept { place, records: records.clone() });
                }
                (_, _, Some(notice)) => notice.call(),
                (_, _, None) => {}
            }
            self.shared.recycle(batch);
            self.shared.settle_failed(&self.token, self.partition, records, self.charge, Verdict::Failed(failure));
        }
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        self.finish(Arc::new(Failure::untried(FailedOutcome::Unknown, Reason::Closed)), None);
    }
}

impl Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, records, failure, .. } = self;
        f.debug_struct("Undelivered")
            .field("partition", partition)
            .field("records", records)
            .field("failure", failure)
            .finish_non_exhaustive()
    }
}

/// Records that failed as unknown, and that an answer proved to be in the log later.
#[derive(Debug)]
pub struct Landed {
    pub(crate) token: Token,
    pub(crate) records: RecordSet,
    pub(crate) base_offset: Option<i64>,
}

impl Landed {
    /// Returns the offset of the first record, if known.
    pub fn base_offset(&self) -> Option<i64> {
        self.base_offset
    }

    /// Takes the notes that the sink left for these records, each with the record's index.
    pub fn take_notes(&self) -> Vec<(u32, Tag)> {
        self.token.state().take_notes(&self.records)
    }
}

/// The part of a batch that failed, with the memory that it is charged for.
#[derive(Debug)]
pub(crate) struct FailedPart {
    pub(crate) token: Token,
    pub(crate) partition: PartitionId,
    pub(crate) records: RecordSet,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: usize,
}

/// Hands failed records to the sink, which gives them their verdict. The verdict follows immediately if there is no
/// sink.
pub(crate) fn fail_records(
    shared: &Arc<Shared>,
    sink: Option<&Arc<dyn FailureSink>>,
    failed: FailedPart,
    failure: Arc<Failure>,
) {
    if failed.token.state().decide(failed.records.len()) {
        shared.ledger.decide();
    }
    let charge = shared.charge_failed(failed.partition, failed.charge);
    let undelivered = Undelivered::new(shared, failed, failure, charge);
    if let (Some(spool), Some(StoredIdentity { place, .. })) = (&shared.spool, &undelivered.stored) {
        spool.send(SpoolCommand::Failed { place: *place, records: undelivered.records.clone() });
    }
    match sink {
        Some(sink) => sink.undelivered(undelivered),
        None => {
            undelivered.log_failure(&[]);
            undelivered.settle_not_durable();
        }
    }
}

/// Fails a batch that is not stored. Its records that are items of an input have no dead letter, because the input still has
/// them.
pub(crate) fn fail_unstored(
    shared: &Arc<Shared>,
    sink: Option<&Arc<dyn FailureSink>>,
    submission: Submission<Token>,
    failure: Failure,
) {
    let Submission { token, partition, batch, .. } = submission;
    let failure = Arc::new(failure);
    let (count, charge) = (batch.record_count(), batch.capacity());
    shared.counts.count_verdict(token.state().topic(), count, &Verdict::Failed(failure.clone()));
    let batch = Arc::new(batch);
    let (items, others) = token.state().split_items(count);
    // The batch is charged once, for whichever part has records.
    let item_charge = if others.is_empty() { charge } else { 0 };
    for (records, sink, charge) in [(items, None, item_charge), (others, sink, charge)] {
        if !records.is_empty() {
            let failed = FailedPart { token: token.clone(), partition, records, batch: batch.clone(), charge };
            fail_records(shared, sink, failed, failure.clone());
        }
    }
}

/// Fails a batch that the sender's task did not take because the task has ended. The batch was never sent.
pub(crate) fn fail_unsent(shared: &Arc<Shared>, sink: Option<&Arc<dyn FailureSink>>, submission: Submission<Token>) {
    fail_batch(shared, sink, submission, Failure::untried(FailedOutcome::NotWritten, Reason::Closed));
}

/// Fails all records of a batch.
pub(crate) fn fail_batch(
    shared: &Arc<Shared>,
    sink: Option<&Arc<dyn FailureSink>>,
    submission: Submission<Token>,
    failure: Failure,
) {
    let Submission { token, partition, batch, .. } = submission;
    let failure = Arc::new(failure);
    let (records, charge) = (RecordSet::Range(0..batch.record_count()), batch.capacity());
    shared.counts.count_verdict(token.state().topic(), records.len(), &Verdict::Failed(failure.clone()));
    let failed = FailedPart { token, partition, records, batch: Arc::new(batch), charge };
    fail_records(shared, sink, failed, failure);
}

#[cfg(test)]
mod tests {
    use kafka_courier_batcher::{Compression, Limits, Record};
    use kafka_courier_client::TopicId;
    use kafka_courier_idempotent_sender::driver::DriverCommand;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::intake::Intake;

    /// Drops failed records without settling them, as a sink that panics does.
    #[derive(Debug)]
    struct DroppingSink;

    impl FailureSink for DroppingSink {
        fn undelivered(&self, undelivered: Undelivered) {
            drop(undelivered);
        }

        fn landed(&self, _: Landed) {}

        fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(async {})
        }
    }

    #[test]
    fn dropped_records_fail_as_unknown() {
        let limits = Limits { max_records: 2, max_bytes: 1 << 20, linger: std::time::Duration::from_secs(600) };
        let shared = Arc::new(Shared::new(limits, Compression::None, 1 << 20));
        shared.topics.on_ready(TopicId(0), "t", &[true]);
        let (commands, received) = unbounded_channel::<DriverCommand<Token>>();
        drop(received); // the sender's task has ended, so a full batch fails at once
        let sink: Arc<dyn FailureSink> = Arc::new(DroppingSink);
        let intake = Intake { shared: shared.clone(), commands, sink: Some(sink), expedite: false };
        let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: 0 };
        let offer = || intake.offer(&shared.topics.get_or_add("t"), None, &record).ok().unwrap();
        let deliveries = [offer(), offer()];
        for delivery in &deliveries {
            assert_eq!(delivery.now().unwrap().unwrap_err().outcome(), FailedOutcome::Unknown);
        }
        assert_eq!((shared.memory.used(), shared.failed_memory.used()), (0, 0), "all memory is returned");
        assert!(shared.ledger.is_decided());
    }
}
