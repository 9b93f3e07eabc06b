//! The one loop behind every publishing method: offer a record, find out what a refusal waits for, and wait or refuse.
//!
//! The rules of this module:
//!  - A first offer takes no lock and increments no reference count that threads share.
//!  - A repeated offer looks the topic up again: its entry may have been replaced.
//!  - Nothing is accepted after the error of an offer was returned.

use std::time::Duration;

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::error::PublishError;
use crate::intake::Refused;
use crate::sync::Ordering;
use crate::topics::TopicEntry;

type Offered = Result<Delivery, Refused>;

impl Engine {
    /// Offers a record to a topic for the first time.
    #[inline]
    pub(crate) fn offer_first(&self, topic: &str, offer: impl FnOnce(&TopicEntry) -> Offered) -> Offered {
        self.intake.shared.topics.with(topic, offer).unwrap_or(Err(Refused::NoTopic))
    }

    /// Waits until the cause of a refusal is gone, and offers the record again, until it is accepted or a wait ends.
    pub(crate) async fn offer_until(
        &self,
        topic: &str,
        mut refused: Refused,
        max_block: Duration,
        mut offer: impl FnMut(&TopicEntry) -> Offered,
    ) -> Result<Delivery, PublishError> {
        let mut deadline = None;
        loop {
            self.wait_after_refusal(&*self.topic(topic)?, refused, max_block, &mut deadline).await?;
            match offer(&*self.topic(topic)?) {
                Ok(delivery) => return Ok(delivery),
                Err(again) => refused = again,
            }
        }
    }

    /// Offers a refused record again where no wait is needed: the topic has become known meanwhile, or sealing full
    /// batches has made room.
    #[cold]
    pub(crate) fn offer_now(
        &self,
        topic: &str,
        refused: Refused,
        offer: &impl Fn(&TopicEntry) -> Offered,
    ) -> Result<Delivery, PublishError> {
        let entry = self.topic(topic)?;
        let refused = match refused {
            // A topic that is still unknown refuses an event that can't be encoded too.
            Refused::NoTopic => match offer(&entry) {
                Ok(delivery) => return Ok(delivery),
                Err(again) => again,
            },
            refused => refused,
        };
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => self.pending_topic(&entry),
            Refused::NoRoom { needed } => Err(PublishError::SpoolFull { needed, waited: Duration::ZERO }),
            Refused::NoMemory { needed, share } => {
                self.intake.seal_fullest(needed, share);
                offer(&entry).map_err(|refused| match refused {
                    Refused::Error(error) => error,
                    Refused::NoRoom { needed } => PublishError::SpoolFull { needed, waited: Duration::ZERO },
                    _ => PublishError::BufferFull { needed, waited: Duration::ZERO },
                })
            }
        }
    }

    /// Requests a topic that is not known, and returns that it is pending.
    fn pending_topic(&self, topic: &TopicEntry) -> Result<Delivery, PublishError> {
        if self.intake.shared.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Closed);
        }
        self.request_topic(topic)?;
        Err(PublishError::TopicPending { topic: topic.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::tests::unconnected;
    use crate::memory::MemoryShare;

    fn offer_with(offers: &[fn() -> Refused]) -> PublishError {
        let (engine, _unconnected) = unconnected();
        let next = Cell::new(1);
        let offer = |_: &TopicEntry| {
            let refused = offers[next.replace(next.get() + 1)];
            Err(refused())
        };
        engine.offer_now("t", offers[0](), &offer).map(Delivery::detach).unwrap_err()
    }

    #[test]
    fn second_refusal_is_the_error() {
        let full: fn() -> Refused = || Refused::NoMemory { needed: 1, share: MemoryShare::Within };
        let closed: fn() -> Refused = || Refused::Error(PublishError::Closed);
        assert!(matches!(offer_with(&[full, closed]), PublishError::Closed));
        let error = offer_with(&[full, full]);
        assert!(matches!(error, PublishError::BufferFull { needed: 1, .. }), "{error}");
    }

    #[test]
    fn topic_known_meanwhile_is_offered() {
        let (engine, mut unconnected) = unconnected();
        let record = crate::ProducerRecord { topic: "t", value: Some(b"v"), ..Default::default() };
        let pending = engine.try_send(&record).map(Delivery::detach).unwrap_err();
        assert!(matches!(pending, PublishError::TopicPending { .. }), "{pending}");
        unconnected.announce_topic("t", 1);
        let raw = kafka_courier_batcher::Record { key: None, value: Some(b"v"), headers: &[], timestamp: 0 };
        let offer = |topic: &TopicEntry| engine.intake.offer(topic, None, &raw);
        engine.offer_now("t", Refused::NoTopic, &offer).map(Delivery::detach).unwrap();
    }
}
