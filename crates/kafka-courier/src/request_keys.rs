//! Requests with keys: the spool stores a request's key together with its events.
//!
//! Rule: a repeated request finds the events that a former process stored, or none of them is stored.

use std::sync::Arc;

use kafka_courier_producer::{Delivery, ProducerRecord, PublishError, RequestKey, Tag};
use kafka_courier_recovery::AwaitedRecord;

use crate::awaited::AwaitedDelivery;
use crate::producer::KafkaProducer;

/// An event of a request that an earlier process stored in the spool.
#[derive(Clone, Debug)]
pub struct StoredRequestEvent {
    /// The digest of the request's key and its client.
    pub digest: [u8; 16],
    /// The digest of the request's payload.
    pub payload: [u8; 16],
    /// The time of the request, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The place of the event in the request, from 0.
    pub index: u32,
    /// The number of events in the request.
    pub count: u32,
    delivery: Option<(Delivery, Arc<AwaitedRecord>)>,
}

impl StoredRequestEvent {
    /// Returns a delivery of the event. `None` if an earlier process settled the event: it is delivered, or a dead letter.
    pub fn delivery(&self) -> Option<AwaitedDelivery> {
        let (delivery, awaited) = self.delivery.clone()?;
        Some(AwaitedDelivery::new(delivery, awaited))
    }
}

impl KafkaProducer {
    /// Takes the events of requests with keys that the spool had when the producer was built. A second call returns none.
    pub fn take_stored_requests(&self) -> Vec<StoredRequestEvent> {
        let tagged = |delivery: Delivery| {
            let awaited = Arc::new(AwaitedRecord::new(true));
            let tag: Tag = awaited.clone();
            delivery.set_tag(&tag);
            (delivery, awaited)
        };
        let keys = self.inner.engine().take_recovered_keys().into_iter();
        let event = |key: kafka_courier_producer::RecoveredKey| StoredRequestEvent {
            digest: key.digest,
            payload: key.payload,
            at_ms: key.at_ms,
            index: key.index,
            count: key.count,
            delivery: key.delivery.map(tagged),
        };
        keys.map(event).collect()
    }

    /// Makes the spool forget the keys of requests from before a time, in milliseconds since 1970-01-01 UTC.
    pub fn forget_request_keys(&self, before_ms: u64) {
        self.inner.engine().forget_keys(before_ms);
    }

    /// Publishes a record of a request as [`send`](Self::send) does. The spool stores the key with the record.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_keyed(
        &self,
        record: &ProducerRecord<'_>,
        key: Option<&RequestKey>,
    ) -> Result<Delivery, PublishError> {
        self.inner.engine().send_keyed(record, None, key).await
    }

    /// Publishes a record of a request as [`send_awaited`](Self::send_awaited) does. The spool stores the key with the record.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_awaited_keyed(
        &self,
        record: &ProducerRecord<'_>,
        key: Option<&RequestKey>,
    ) -> Result<AwaitedDelivery, PublishError> {
        let engine = self.inner.engine();
        let awaited = Arc::new(AwaitedRecord::new(engine.has_spool()));
        let tag: Tag = awaited.clone();
        let delivery = engine.send_keyed(record, Some(&tag), key).await?;
        Ok(AwaitedDelivery::new(delivery, awaited))
    }
}
