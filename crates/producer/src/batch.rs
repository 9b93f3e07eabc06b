//! How many events are handed over together.
//!
//! Rules: events of one topic are accepted in their order; a topic that is not known yet holds up the events of no other, and
//! all such topics are asked for together and waited for side by side.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use kafka_courier_event_model::Event;

use crate::deliveries::Deliveries;
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::intake::Refused;
use crate::producer::KafkaProducer;
use crate::publish::Begun;

type Outcome = Result<Delivery, PublishError>;

impl KafkaProducer {
    /// Publishes events, each to its type's topic. One verdict for each, in the same order, comes of the [`Deliveries`],
    /// also for those that were not accepted.
    ///
    /// Events of one topic are accepted in their order. Waits for each as [`publish`](Self::publish), but for all topics
    /// that are not known yet side by side, while the events of the others are accepted. Once there was no memory for one
    /// within `max_block`, the others are not waited for again: each is accepted if there is room for it at once.
    ///
    /// Cancel safety: what was accepted until then is delivered all the same, the rest was not accepted.
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
        let batch = Batch { producer: self, events, is_full: AtomicBool::new(false) };
        let (mut outcomes, mut unknown) = (Vec::with_capacity(events.len()), Vec::new());
        for (index, event) in events.iter().enumerate() {
            outcomes.push(batch.offer(index, event, &mut unknown).await);
        }
        let waits = unknown.into_iter().map(|topic| batch.wait_for(topic));
        for (index, outcome) in side_by_side(waits).await.into_iter().flatten() {
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        }
        // Each that was put off has its outcome by now.
        Deliveries::new(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(PublishError::Closed))).collect())
    }
}

/// The events for a topic that is not known yet, by their index, in their order.
struct Unknown {
    topic: Arc<str>,
    events: Vec<(usize, Box<Begun>)>,
}

struct Batch<'a, E> {
    producer: &'a KafkaProducer,
    events: &'a [E],
    /// There was no memory for an event within `max_block`.
    is_full: AtomicBool,
}

impl<E: Event> Batch<'_, E> {
    /// Publishes an event, unless its topic is unknown: then it is put off, and the topic is asked for.
    async fn offer(&self, index: usize, event: &E, unknown: &mut Vec<Unknown>) -> Option<Outcome> {
        let (producer, mapping) = (self.producer, &self.producer.inner.mapping);
        let begun = mapping.with_topic(event.event_type(), |topic| {
            let put_off = unknown.iter_mut().find(|unknown| unknown.topic == *topic);
            match put_off {
                Some(unknown) => {
                    let created = producer.inner.tracer.event(topic, event);
                    unknown.events.push((index, Box::new(Begun { created, refused: Refused::NoTopic })));
                    None
                }
                None => Some(producer.begin(topic, event).map_err(|begun| (topic.clone(), begun))),
            }
        })?;
        let (topic, begun) = match begun {
            Ok(delivery) => return Some(Ok(delivery)),
            Err(begun) => begun,
        };
        if !matches!(begun.refused, Refused::NoTopic) {
            return Some(self.go_on(&topic, index, begun).await);
        }
        match producer.topic(&topic).and_then(|known| producer.ask_for(&known)) {
            Ok(_) => unknown.push(Unknown { topic, events: vec![(index, begun)] }),
            Err(error) => return Some(Err(producer.refused(error))),
        }
        None
    }

    /// Waits for a topic, and publishes its events.
    async fn wait_for(&self, unknown: Unknown) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::with_capacity(unknown.events.len());
        for (index, begun) in unknown.events {
            outcomes.push((index, self.go_on(&unknown.topic, index, begun).await));
        }
        outcomes
    }

    async fn go_on(&self, topic: &str, index: usize, begun: Box<Begun>) -> Outcome {
        let Some(event) = self.events.get(index) else { return Err(PublishError::Closed) };
        let full = self.is_full.load(Ordering::Relaxed);
        let patience = if full { Duration::ZERO } else { self.producer.inner.max_block };
        let outcome = self.producer.go_on(topic, event, begun, patience).await;
        if matches!(outcome, Err(PublishError::BufferFull { .. })) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        outcome.map_err(|error| self.producer.refused(error))
    }
}

/// Waits for all of them at the same time.
async fn side_by_side<R>(waits: impl Iterator<Item = impl Future<Output = R> + Send>) -> Vec<R> {
    let mut waits: Vec<Pin<Box<_>>> = waits.map(Box::pin).collect();
    let mut done = Vec::with_capacity(waits.len());
    let mut poll = |cx: &mut Context<'_>| {
        waits.retain_mut(|wait| match wait.as_mut().poll(cx) {
            Poll::Ready(result) => {
                done.push(result);
                false
            }
            Poll::Pending => true,
        });
        if waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    };
    poll_fn(&mut poll).await;
    done
}
