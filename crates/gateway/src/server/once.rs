//! Publishes requests with a key once.
//!
//! Rules:
//! - A request with a key is published in a task: a client that hangs up and repeats the request finds the first answer. An
//!   event that fails after the client has left has a dead letter.
//! - The spool stores the key of a request with each of its events. A later process publishes the events that are not stored.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::gateway::Gateway;
use super::head::Head;
use super::ingest::Work;
use super::keyed::{Keyed, KeyedRequest, Waiter, millis, now_ms};
use crate::limits::dedupe::{Begun, DedupeKey, PayloadDigest, is_remembered};
use crate::options::Dedupe;
use crate::shapes::answer::Answer;
use crate::shapes::content::Shape;
use crate::shapes::failure::Failure;
use crate::shapes::problem::Problem;

impl Gateway {
    /// Returns whether a request may have a key, of its head or of its event.
    pub(super) fn may_have_key(&self, head: &Head) -> bool {
        let has_event_key = || matches!(head.shape, Shape::Json | Shape::CloudEvent | Shape::CloudEventData);
        head.key.is_some() || (self.0.config.deduped() == Dedupe::EventId && has_event_key())
    }

    /// Returns a request with its time: now, or that of the attempt which an earlier process stored.
    pub(super) fn keyed(&self, key: DedupeKey, payload: PayloadDigest) -> Keyed {
        let stored = self.0.dedupe.lock().stored(&key).map(|stored| stored.at_ms);
        Keyed { key, payload, at_ms: stored.unwrap_or_else(now_ms) }
    }

    /// Returns the time before which keys are of no use to a request.
    fn forget_keys_before(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(millis(self.0.config.dedupe_window))
    }

    /// Publishes the events of a request with a key, unless another request with the key has published them.
    pub(super) async fn publish_once(&self, keyed: Keyed, work: Work) -> Result<Answer, Failure> {
        let Keyed { key, payload, .. } = keyed;
        let (sender, waiter) = watch::channel(None);
        let begun = self.0.dedupe.lock().begin(&key, payload, Instant::now(), waiter);
        match begun {
            Begun::New(stored) => {
                if let Some(failure) = self.refusal() {
                    self.0.dedupe.lock().finish(&key, None, Instant::now());
                    return Err(failure);
                }
                let request_id = work.request_id.clone();
                let begun = BegunKey { gateway: self.clone(), key, answer: sender, request_id, is_finished: false };
                let gateway = self.clone();
                // Dropped with this future, when the client leaves.
                let (client, client_left) = oneshot::channel::<()>();
                let request = KeyedRequest { keyed, forget_before_ms: self.forget_keys_before(keyed.at_ms), stored };
                let task = tokio::spawn(async move {
                    let answer = Arc::new(gateway.run(work, Some(request), client_left.map(drop)).await);
                    begun.finish(&answer);
                    Arc::unwrap_or_clone(answer)
                });
                // The task ends without an answer if its runtime ends.
                let answer = task.await.map_err(|error| Failure::new(Problem::Unknown, error.to_string()));
                drop(client);
                answer
            }
            Begun::Answered(first) => Ok(Arc::unwrap_or_clone(first).repeated()),
            Begun::UnderWay(waiter) => joined(waiter, work.until).await,
            Begun::OtherPayload => {
                let why = "another request had this idempotency-key or this event's id, and another payload: use a new one for each";
                Err(Failure::new(Problem::KeyReused, why))
            }
        }
    }
}

/// A key whose request is under way. The events of a key that is dropped without an answer may be written.
struct BegunKey {
    gateway: Gateway,
    key: DedupeKey,
    answer: watch::Sender<Option<Arc<Answer>>>,
    request_id: String,
    is_finished: bool,
}

impl BegunKey {
    fn finish(mut self, answer: &Arc<Answer>) {
        self.is_finished = true;
        self.settle(answer);
    }

    fn settle(&self, answer: &Arc<Answer>) {
        let remembered = Some(answer.clone()).filter(|answer| is_remembered(answer));
        self.gateway.0.dedupe.lock().finish(&self.key, remembered, Instant::now());
        self.answer.send_replace(Some(answer.clone()));
    }
}

impl Drop for BegunKey {
    fn drop(&mut self) {
        if !self.is_finished {
            self.settle(&Arc::new(Answer::problem(&Failure::no_verdict(), &self.request_id)));
        }
    }
}

/// Waits for the answer to the first request with a key.
async fn joined(mut waiter: Waiter, until: Instant) -> Result<Answer, Failure> {
    let first = timeout_at(until.into(), waiter.wait_for(Option::is_some)).await;
    match first {
        Ok(Ok(first)) => match &*first {
            Some(first) => Ok((**first).clone().repeated()),
            None => Err(under_way()),
        },
        _ => Err(under_way()),
    }
}

fn under_way() -> Failure {
    let why = "the first request with this key has no answer yet: repeat the request later";
    Failure::new(Problem::KeyUnderWay, why).undecided()
}

#[cfg(test)]
mod tests {
    use kafka_courier::{KafkaConfig, KafkaProducer};

    use super::*;
    use crate::options::GatewayConfig;

    #[tokio::test]
    async fn dropped_key_stays_in_doubt() {
        let kafka = KafkaConfig::default();
        let producer = KafkaProducer::build(kafka.clone()).unwrap();
        let gateway = Gateway::new(producer, &kafka, GatewayConfig::default()).unwrap();
        let key = DedupeKey::of_header(None, "k-1");
        let begin = |waiter| gateway.0.dedupe.lock().begin(&key, [1; 16], Instant::now(), waiter);
        let (answer, waiter) = watch::channel(None);
        assert!(matches!(begin(waiter.clone()), Begun::New(None)));
        let (gateway, key, request_id) = (gateway.clone(), key, "r-1".to_owned());
        drop(BegunKey { gateway, key, answer, request_id, is_finished: false });
        assert!(matches!(begin(waiter), Begun::Answered(first) if first.status == 504));
    }
}
