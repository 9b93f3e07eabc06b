//! The publishing methods of [`KafkaProducer`]. The engine does the work.

use kafka_courier_event_model::Event;
use kafka_courier_producer::{Deliveries, Delivery, Error, ProducerRecord, PublishError, RecordMetadata};

use crate::producer::KafkaProducer;
use crate::spool::{InputId, InputItem, SpooledInput};

impl KafkaProducer {
    /// Publishes an event to the topic of its type.
    ///
    /// Waits only while the topic is unknown (up to `metadata_timeout`) or memory is full (up to `max_block`). The
    /// returned [`Delivery`] is the future of the event's verdict.
    ///
    /// The producer requests an unavailable topic again after a second, and then waits for it for at most a second.
    /// Calls in between return the last error without waiting.
    ///
    /// # Errors
    ///
    /// A [`PublishError`] means that the event was not accepted. The producer keeps nothing of it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the event was not accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # use kafka_courier::events::{EventBuilder, UserLoggedIn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// # let builder = EventBuilder::new("auth-service", "1.0");
    /// let event = builder.user_logged_in(UserLoggedIn { user_id: "u-42".into(), ..Default::default() });
    /// let delivery = producer.publish(&event).await?; // accepted
    /// let written = delivery.await?; // in the log of every in-sync replica
    /// println!("partition {} offset {:?}", written.partition, written.offset);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub async fn publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.engine().publish(event).await
    }

    /// Publishes an event to `topic`, independent of its type.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    #[inline]
    pub async fn publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.engine().publish_to(topic, event).await
    }

    /// Publishes an event and waits for its verdict: [`publish`](Self::publish), then the [`Delivery`].
    ///
    /// # Errors
    ///
    /// [`Error::NotAccepted`] if the event was not accepted, [`Error::Failed`] if it was accepted and failed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may have been accepted. An accepted event is still delivered.
    pub async fn publish_and_wait(&self, event: &dyn Event) -> Result<RecordMetadata, Error> {
        self.inner.engine().publish_and_wait(event).await
    }

    /// Publishes an event, and waits until it is in the spool, on disk. The event is then delivered once, by this process or
    /// by a later one with the same `spool_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAccepted`] if the event was not accepted. [`Error::NotStored`] if the producer has no spool, and nothing
    /// was published then, or if the spool could not be written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may have been accepted. An accepted event is still stored and delivered.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # use kafka_courier::events::{EventBuilder, UserLoggedIn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("user-events", 6).start().await?;
    /// # let folder = tempfile::tempdir_in(".")?;
    /// # let spool = folder.path().join("spool").display().to_string();
    /// let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).spool_dir(spool).build()?;
    /// # let builder = EventBuilder::new("auth-service", "1.0");
    /// let event = builder.user_logged_in(UserLoggedIn { user_id: "u-42".into(), ..Default::default() });
    /// let delivery = producer.publish_stored(&event).await?; // on disk
    /// delivery.await?; // in Kafka
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_stored(&self, event: &dyn Event) -> Result<Delivery, Error> {
        self.inner.engine().publish_stored(event).await
    }

    /// Publishes an event to the topic of its type without waiting.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and:
    ///  - [`PublishError::BufferFull`] if there is no memory now.
    ///  - [`PublishError::TopicPending`] while the topic's partitions are unknown. The call requests them, and a later
    ///    call succeeds once they are known.
    #[inline]
    pub fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.engine().try_publish(event)
    }

    /// Publishes an event to `topic`, independent of its type, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    #[inline]
    pub fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.engine().try_publish_to(topic, event)
    }

    /// Publishes a record as given: key, value, headers.
    ///
    /// # Errors
    ///
    /// The errors of [`publish`](Self::publish), and [`PublishError::Partition`] if the topic has no such partition.
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::{Header, KafkaProducer, ProducerRecord};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// let headers = [Header { key: "tenant", value: Some(b"acme") }];
    /// let record = ProducerRecord {
    ///     topic: "orders",
    ///     key: Some(b"order-7"),
    ///     value: Some(b"{}"),
    ///     headers: &headers,
    ///     ..ProducerRecord::default()
    /// };
    /// let written = producer.send(&record).await?.await?;
    /// println!("{}-{} at {}", written.topic, written.partition, written.offset.unwrap_or(-1));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.inner.engine().send(record).await
    }

    /// Publishes a record as given, without waiting.
    ///
    /// # Errors
    ///
    /// The errors of [`try_publish`](Self::try_publish), and [`PublishError::Partition`] if the topic has no such
    /// partition.
    #[inline]
    pub fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.inner.engine().try_send(record)
    }

    /// Returns the inputs that the spool had when the producer was built, the oldest first. Empty without a spool.
    pub fn spool_inputs(&self) -> Vec<SpooledInput> {
        self.inner.engine().spool_inputs()
    }

    /// Begins an input, such as a file. The spool forgets an earlier one of the same name. Returns `None` without a spool.
    pub fn begin_input(&self, name: &str) -> Option<InputId> {
        self.inner.engine().begin_input(name)
    }

    /// Publishes the event of an item of an input. The spool stores the item with the event: a later process finds both in
    /// [`spool_inputs`](Self::spool_inputs), or neither.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # use kafka_courier::events::AnyEvent;
    /// # use kafka_courier::spool::InputItem;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("user-events", 6).start().await?;
    /// # let folder = tempfile::tempdir()?;
    /// # let spool = folder.path().join("spool").display().to_string();
    /// let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).spool_dir(spool).build()?;
    /// let lines = [r#"{"type":"user.logged_in","data":{"user_id":"u-42"}}"#];
    /// let known = producer.spool_inputs().into_iter().find(|input| &**input.name() == "logins");
    /// let Some(input) = known.as_ref().map(|known| known.id()).or_else(|| producer.begin_input("logins")) else { return Ok(()) };
    /// for (number, line) in (1..).zip(lines) {
    ///     if known.as_ref().is_some_and(|known| known.has(number)) {
    ///         continue; // an earlier process has stored the line
    ///     }
    ///     let event = AnyEvent::from_json(line.as_bytes())?;
    ///     producer.publish_item("user-events", &event, &InputItem { input, number, check: 0 }).await?.detach();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_item(
        &self,
        topic: &str,
        event: &dyn Event,
        item: &InputItem,
    ) -> Result<Delivery, PublishError> {
        self.inner.engine().publish_item(topic, event, item).await
    }

    /// Publishes the event of an item as [`publish_item`](Self::publish_item) does, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_item(&self, topic: &str, event: &dyn Event, item: &InputItem) -> Result<Delivery, PublishError> {
        self.inner.engine().try_publish_item(topic, event, item)
    }

    /// Notes items of an input that have no event to publish. The spool has them as dealt with soon, and at the latest when
    /// the producer is closed.
    pub fn skip_items(&self, items: &[InputItem]) {
        self.inner.engine().skip_items(items);
    }

    /// Waits until a topic's partitions are known, so that later events need not wait for them.
    ///
    /// # Errors
    ///
    /// [`PublishError::Topic`] if the topic is unavailable for `metadata_timeout`, as in [`publish`](Self::publish).
    /// [`PublishError::TopicName`] if the name is invalid. [`PublishError::Closed`] if the producer is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the wait. The producer still learns the topic.
    pub async fn learn_topic(&self, topic: &str) -> Result<(), PublishError> {
        self.inner.engine().partition_count(topic).await.map(drop)
    }

    /// Publishes events, each to the topic of its type, and returns one verdict for each.
    ///
    /// The [`Deliveries`] have the order of `events`. They include the events that were not accepted.
    ///
    /// Events of one topic are accepted in their order. The call waits for each event as [`publish`](Self::publish)
    /// does. It waits for all unknown topics concurrently, while events of known topics are accepted. The call no
    /// longer waits for memory after one event found none within `max_block`: each later event is accepted only if
    /// there is room for it now.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, events accepted until then are still delivered. The others were not accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # use kafka_courier::events::{Event, EventBuilder, UserLoggedIn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// # let builder = EventBuilder::new("s", "1.0");
    /// # let events = [builder.user_logged_in(UserLoggedIn { user_id: "u-42".into(), ..Default::default() })];
    /// let verdicts = producer.publish_batch(&events).await.await;
    /// for (event, verdict) in events.iter().zip(&verdicts) {
    ///     if let Err(error) = verdict {
    ///         eprintln!("{}: {error}", event.event_type());
    ///     }
    /// }
    /// # assert!(verdicts.len() == 1 && verdicts[0].is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_batch<E: Event>(&self, events: &[E]) -> Deliveries {
        self.inner.engine().publish_batch(events).await
    }
}
