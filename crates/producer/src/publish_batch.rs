//! Publishing many events in one call.
//!
//! The rules of this module:
//!  - Events of one topic are accepted in their order.
//!  - An unknown topic delays only its own events. All unknown topics are requested and awaited concurrently.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use kafka_courier_event_model::Event;

use crate::deliveries::Deliveries;
use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::error::PublishError;
use crate::intake::Refused;
use crate::publish::RefusedOffer;

type PublishResult = Result<Delivery, PublishError>;

impl Engine {
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
    pub async fn publish_batch<E: Event>(&self, events: &[E]) -> Deliveries {
        let batch = PublishBatch { producer: self, events, is_full: AtomicBool::new(false) };
        let (mut outcomes, mut unknown) = (Vec::with_capacity(events.len()), Vec::new());
        for (index, event) in events.iter().enumerate() {
            outcomes.push(batch.offer(index, event, &mut unknown).await);
        }
        let waits = unknown.into_iter().map(|topic| batch.wait_for(topic));
        for (index, outcome) in join_all(waits).await.into_iter().flatten() {
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        }
        // Every deferred event has its result now.
        Deliveries::new(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(PublishError::Closed))).collect())
    }
}

/// The events of a topic that is not known yet, with their indexes, in their order.
struct UnknownTopic {
    topic: Arc<str>,
    events: Vec<(usize, Box<RefusedOffer>)>,
}

struct PublishBatch<'a, E> {
    producer: &'a Engine,
    events: &'a [E],
    /// Whether an event found no memory within `max_block`.
    is_full: AtomicBool,
}

impl<E: Event> PublishBatch<'_, E> {
    /// Publishes an event. An event whose topic is unknown is deferred to `unknown`, and the topic is requested.
    async fn offer(&self, index: usize, event: &E, unknown: &mut Vec<UnknownTopic>) -> Option<PublishResult> {
        let (producer, mapping) = (self.producer, &self.producer.mapping);
        let refused_offer = mapping.with_topic(event.event_type(), |topic| {
            let deferred = unknown.iter_mut().find(|unknown| unknown.topic == *topic);
            match deferred {
                Some(unknown) => {
                    let event_trace = producer.tracer.trace_event(topic, event);
                    unknown.events.push((index, Box::new(RefusedOffer { event_trace, refused: Refused::NoTopic })));
                    None
                }
                None => Some(producer.offer_once(topic, event).map_err(|refused_offer| (topic.clone(), refused_offer))),
            }
        })?;
        let (topic, refused_offer) = match refused_offer {
            Ok(delivery) => return Some(Ok(delivery)),
            Err(refused_offer) => refused_offer,
        };
        if !matches!(refused_offer.refused, Refused::NoTopic) {
            return Some(self.publish_after_wait(&topic, index, refused_offer).await);
        }
        match producer.topic(&topic).and_then(|known| producer.request_topic(&known)) {
            Ok(_) => unknown.push(UnknownTopic { topic, events: vec![(index, refused_offer)] }),
            Err(error) => return Some(Err(producer.refused(error))),
        }
        None
    }

    /// Waits for a topic, and publishes its events.
    async fn wait_for(&self, unknown: UnknownTopic) -> Vec<(usize, PublishResult)> {
        let mut outcomes = Vec::with_capacity(unknown.events.len());
        for (index, refused_offer) in unknown.events {
            outcomes.push((index, self.publish_after_wait(&unknown.topic, index, refused_offer).await));
        }
        outcomes
    }

    /// Waits until the cause of a refusal is gone, and publishes the event.
    async fn publish_after_wait(&self, topic: &str, index: usize, refused_offer: Box<RefusedOffer>) -> PublishResult {
        let Some(event) = self.events.get(index) else { return Err(PublishError::Closed) };
        let full = self.is_full.load(Ordering::Relaxed);
        let max_block = if full { Duration::ZERO } else { self.producer.max_block };
        let outcome = self.producer.publish_after_wait(topic, event, refused_offer, max_block).await;
        if matches!(outcome, Err(PublishError::BufferFull { .. })) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        outcome.map_err(|error| self.producer.refused(error))
    }
}

/// Polls all futures concurrently. Returns their results in the order of completion.
async fn join_all<R>(waits: impl Iterator<Item = impl Future<Output = R> + Send>) -> Vec<R> {
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
