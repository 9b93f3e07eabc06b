//! What an application needs of a producer, so that its tests can put another in its place.
//!
//! Rules: dyn-compatible; each method means what the method of the same name of [`KafkaProducer`] means.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_event_model::{Event, TopicMappingError};

use crate::deliveries::Deliveries;
use crate::delivery::{Delivery, RecordMetadata};
use crate::error::{Error, PublishError};
use crate::health::HealthError;
use crate::producer::{CloseReport, KafkaProducer};
use crate::record::ProducerRecord;
use crate::stats::Stats;

/// A future that a method of [`EventPublisher`] returns.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Publishes events: a [`KafkaProducer`], or what stands in for it in a test
/// (`MockProducer`, with the feature `mock`). For an application to hold as `Arc<dyn EventPublisher>`.
///
/// Each future may be dropped as that of [`KafkaProducer`]'s method of the same name.
pub trait EventPublisher: Debug + Send + Sync {
    /// Publishes an event to its type's topic: [`KafkaProducer::publish`].
    fn publish<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes an event if that takes no waiting: [`KafkaProducer::try_publish`].
    fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError>;

    /// Publishes an event to `topic`, whatever its type: [`KafkaProducer::publish_to`].
    fn publish_to<'a>(&'a self, topic: &'a str, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes an event to `topic` if that takes no waiting: [`KafkaProducer::try_publish_to`].
    fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError>;

    /// Publishes events in their order, one verdict for each: [`KafkaProducer::publish_batch`].
    fn publish_batch<'a>(&'a self, events: &'a [&'a dyn Event]) -> Answer<'a, Deliveries>;

    /// Publishes an event and waits for its verdict: [`KafkaProducer::publish_and_wait`].
    fn publish_and_wait<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<RecordMetadata, Error>> {
        Box::pin(async move { Ok(self.publish(event).await?.await?) })
    }

    /// Publishes a record as it is: [`KafkaProducer::send`].
    fn send<'a>(&'a self, record: &'a ProducerRecord<'a>) -> Answer<'a, Result<Delivery, PublishError>>;

    /// Publishes a record as it is, if that takes no waiting: [`KafkaProducer::try_send`].
    fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError>;

    /// Sends events of this type to `topic` from now on: [`KafkaProducer::set_topic_mapping`].
    fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError>;

    /// The topic that events of this type go to now: [`KafkaProducer::topic_for`].
    fn topic_for(&self, event_type: &str) -> Arc<str>;

    /// Waits until everything accepted before has its verdict; whether it all had: [`KafkaProducer::flush`].
    fn flush(&self, timeout: Duration) -> Answer<'_, bool>;

    /// Proves a round trip to the cluster: [`KafkaProducer::health_check`].
    fn health_check(&self, timeout: Duration) -> Answer<'_, Result<(), HealthError>>;

    /// What was done so far: [`KafkaProducer::stats`].
    fn stats(&self) -> Stats;

    /// Accepts nothing more, and waits for the verdicts on what was accepted: [`KafkaProducer::close`].
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
