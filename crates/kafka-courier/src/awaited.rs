//! [`AwaitedDelivery`], the delivery of a record whose caller publishes it again itself if it fails.
//!
//! Rule: a dropped or detached delivery leaves the record to the dead letters, as any other delivery does. This includes a record
//! whose failure was on the way to the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kafka_courier_dlq::LetterId;
use kafka_courier_producer::{
    Delivery, DeliveryError, ProducerRecord, PublishError, RecordMetadata, Stored, debug_as_display,
};
use kafka_courier_recovery::AwaitedRecord;

use crate::producer::KafkaProducer;

/// The future of the verdict of a record whose caller waits: [`KafkaProducer::send_awaited`].
///
/// A record that is certainly not written returns to the caller, who may publish it again. Such a record has no dead letter.
/// A record that is possibly written has one, and so has each record that the producer's spool has.
///
/// # Cancel safety
///
/// Dropping it ends the wait, as [`detach`](Self::detach) does. The record is still delivered, or becomes a dead letter.
#[derive(Debug)]
#[must_use = "a delivery is the record's verdict: await it, or call `.detach()`"]
pub struct AwaitedDelivery {
    delivery: Delivery,
    awaited: Arc<AwaitedRecord>,
    /// Whether the caller has the verdict.
    is_settled: bool,
}

/// Why an awaited record failed, and the dead letter that keeps the record.
#[derive(Clone, thiserror::Error)]
#[error("{error}")]
pub struct AwaitedError {
    /// Why the record failed.
    #[source]
    pub error: DeliveryError,
    /// The dead letter of the record. `None` if the record returned to the caller.
    pub dead_letter: Option<LetterId>,
    record: Arc<AwaitedRecord>,
}

debug_as_display!(AwaitedError);

impl AwaitedError {
    /// Leaves a record that has returned to the dead letters, because the caller no longer keeps it. Returns the id of the record's
    /// dead letter. An error that is only dropped leaves the record to the caller.
    pub fn leave_to_dead_letters(&self) -> Option<LetterId> {
        self.record.leave();
        self.record.letter()
    }
}

impl AwaitedDelivery {
    pub(crate) fn new(delivery: Delivery, awaited: Arc<AwaitedRecord>) -> Self {
        Self { delivery, awaited, is_settled: false }
    }

    /// Returns a future that is ready once the record is in the producer's spool: [`Delivery::stored`].
    pub fn stored(&self) -> Stored {
        self.delivery.stored()
    }

    /// Ends the wait. The record is still delivered, or becomes a dead letter. Returns the id of that dead letter, unless the
    /// producer has a spool, which chooses the id later.
    ///
    /// # Errors
    ///
    /// The delivery itself, if the record has failed and is returning to the caller. Its verdict is ready soon.
    pub fn detach(self) -> Result<Option<LetterId>, Self> {
        if self.awaited.detach() { Ok(self.awaited.letter()) } else { Err(self) }
    }

    /// Ends the wait of a caller that keeps the record: a record that is returning has no dead letter. Call it only for a delivery
    /// that [`detach`](Self::detach) has returned.
    pub fn return_to_caller(mut self) {
        self.is_settled = true;
    }

    /// Leaves the record to the dead letters, as a drop does, and keeps the wait for its verdict. A record that fails has a dead
    /// letter, which its error names.
    pub fn leave_to_dead_letters(&self) {
        self.awaited.leave();
    }
}

impl Drop for AwaitedDelivery {
    fn drop(&mut self) {
        if !self.is_settled {
            self.awaited.leave();
        }
    }
}

impl Future for AwaitedDelivery {
    type Output = Result<RecordMetadata, AwaitedError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let verdict = std::task::ready!(Pin::new(&mut self.delivery).poll(cx));
        self.is_settled = true;
        let (dead_letter, record) = (self.awaited.letter(), self.awaited.clone());
        Poll::Ready(verdict.map_err(|error| AwaitedError { error, dead_letter, record }))
    }
}

impl KafkaProducer {
    /// Publishes a record as [`send`](Self::send) does, for a caller that waits for the verdict and publishes the record again
    /// itself. A record that is certainly not written has no dead letter, because a replay of it and the caller's retry would
    /// write the record twice.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_awaited(&self, record: &ProducerRecord<'_>) -> Result<AwaitedDelivery, PublishError> {
        self.send_awaited_keyed(record, None).await
    }
}
