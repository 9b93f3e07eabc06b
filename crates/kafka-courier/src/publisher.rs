//! [`EventPublisher`], the interface of a producer. An application's tests replace the producer through it.
//!
//! The rules of this module:
//!  - The trait is dyn-compatible.
//!  - Each method has the meaning of the [`KafkaProducer`] method with the same name.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_event_model::{Event, TopicMappingError};

use kafka_courier_producer::{
    Deliveries, Delivery, Error, HealthError, ProducerRecord, PublishError, RecordMetadata, Stats,
};

use crate::producer::{CloseReport, KafkaProducer};

/// The future that a method of [`EventPublisher`] returns.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Publishes events: a [`KafkaProducer`], or its replacement in a test (`MockProducer`, with the feature `mock`).
///
/// Applications hold it as `Arc<dyn EventPublisher>`.
///
/// # Errors
///
/// Each method fails as the [`KafkaProducer`] method with the same name.
///
/// # Cancel safety
///
/// Each future may be dropped as that of the [`KafkaProducer`] method with the same name.
pub trait EventPublisher: Debug + Send + Sync {
    /// Publishes an event to the topic of its type: [`KafkaProducer::publish`].
    fn publish<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes an event to the topic of its type without waiting: [`KafkaProducer::try_publish`].
    fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError>;

    /// Publishes an event to `topic`, independent of its type: [`KafkaProducer::publish_to`].
    fn publish_to<'a>(&'a self, topic: &'a str, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes an event to `topic` without waiting: [`KafkaProducer::try_publish_to`].
    fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError>;

    /// Publishes events in their order, and returns one verdict for each: [`KafkaProducer::publish_batch`].
    fn publish_batch<'a>(&'a self, events: &'a [&'a dyn Event]) -> Answer<'a, Deliveries>;

    /// Publishes an event and waits for its verdict: [`KafkaProducer::publish_and_wait`].
    fn publish_and_wait<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<RecordMetadata, Error>> {
        Box::pin(async move { Ok(self.publish(event).await?.await?) })
    }

    /// Publishes an event and waits until it is in the spool: [`KafkaProducer::publish_stored`].
    fn publish_stored<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, Error>> {
        Box::pin(async move {
            let delivery = self.publish(event).await?;
            delivery.stored().await?;
            Ok(delivery)
        })
    }

    /// Publishes a record as given: [`KafkaProducer::send`].
    fn send<'a>(&'a self, record: &'a ProducerRecord<'a>) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes a record as given, without waiting: [`KafkaProducer::try_send`].
    fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError>;

    /// Maps an event type to `topic` for all later events: [`KafkaProducer::set_topic_mapping`].
    fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError>;

    /// Returns the topic of events of this type: [`KafkaProducer::topic_for`].
    fn topic_for(&self, event_type: &str) -> Arc<str>;

    /// Waits until every event accepted before the call has its verdict, and returns whether all have it:
    /// [`KafkaProducer::flush`].
    fn flush(&self, timeout: Duration) -> Answer<'_, bool>;

    /// Checks that the cluster is reachable and writable: [`KafkaProducer::health_check`].
    fn health_check(&self, timeout: Duration) -> Answer<'_, Result<(), HealthError>>;

    /// Returns the producer's counts: [`KafkaProducer::stats`].
    fn stats(&self) -> Stats;

    /// Refuses new events, and waits for the verdicts of accepted ones: [`KafkaProducer::close`].
    fn close(&self, timeout: Duration) -> Answer<'_, CloseReport>;
}

impl EventPublisher for KafkaProducer {
    fn publish<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(self.publish(event))
    }

    fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.try_publish(event)
    }

    fn publish_to<'a>(&'a self, topic: &'a str, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(self.publish_to(topic, event))
    }

    fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.try_publish_to(topic, event)
    }

    fn publish_batch<'a>(&'a self, events: &'a [&'a dyn Event]) -> Answer<'a, Deliveries> {
        Box::pin(self.publish_batch(events))
    }

    fn publish_stored<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, Error>> {
        Box::pin(self.publish_stored(event))
    }

    fn send<'a>(&'a self, record: &'a ProducerRecord<'a>) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(self.send(record))
    }

    fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.try_send(record)
    }

    fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.set_topic_mapping(event_type, topic)
    }

    fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.topic_for(event_type)
    }

    fn flush(&self, timeout: Duration) -> Answer<'_, bool> {
        Box::pin(self.flush(timeout))
    }

    fn health_check(&self, timeout: Duration) -> Answer<'_, Result<(), HealthError>> {
        Box::pin(self.health_check(timeout))
    }

    fn stats(&self) -> Stats {
        self.stats()
    }

    fn close(&self, timeout: Duration) -> Answer<'_, CloseReport> {
        Box::pin(self.close(timeout))
    }
}
