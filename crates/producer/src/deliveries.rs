//! The verdicts to come on many events.
//!
//! Rules: one for each event, in the order in which they were handed over, those that were not accepted included; waiting
//! looks at each verdict once, however often it is woken.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::delivery::{Delivery, RecordMetadata};
use crate::error::{Error, PublishError};

/// What [`publish_batch`](crate::KafkaProducer::publish_batch) returns: for each event its [`Delivery`], or why it was not
/// accepted.
///
/// Await it for all verdicts, in the events' order. Iterate over it (`into_iter`) to have each on its own.
///
/// Cancel safety: dropping it, at any time, loses only the answers.
#[derive(Debug)]
#[must_use = "deliveries tell what became of the events; `.detach()` says that nobody wants to know"]
pub struct Deliveries {
    outcomes: Vec<Result<Delivery, PublishError>>,
    /// The verdicts so far; as many places as there are outcomes once it was polled.
    verdicts: Vec<Option<Result<RecordMetadata, Error>>>,
    /// All before this one have their verdict.
    first_open: usize,
}

impl Deliveries {
    pub(crate) fn new(outcomes: Vec<Result<Delivery, PublishError>>) -> Self {
        Self { outcomes, verdicts: Vec::new(), first_open: 0 }
    }

    /// Lets them go: what was accepted is delivered, or given up, all the same. An event that was not accepted is lost
    /// with its error.
    pub fn detach(self) {}

    /// How many events there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Each event's delivery, or why it was not accepted, in the events' order.
    pub fn iter(&self) -> std::slice::Iter<'_, Result<Delivery, PublishError>> {
        self.outcomes.iter()
    }

    /// Polls every delivery once, so that each batch knows that it is waited for.
    fn begin(&mut self, cx: &mut Context<'_>) {
        let verdicts = self.outcomes.iter_mut().map(|outcome| match outcome {
            Ok(delivery) => ready(delivery, cx),
            Err(error) => Some(Err(Error::NotAccepted(error.clone()))),
        });
        self.verdicts = verdicts.collect();
    }
}

fn ready(delivery: &mut Delivery, cx: &mut Context<'_>) -> Option<Result<RecordMetadata, Error>> {
    match Pin::new(delivery).poll(cx) {
        Poll::Ready(verdict) => Some(verdict.map_err(Error::from)),
        Poll::Pending => None,
    }
}

impl Future for Deliveries {
    type Output = Vec<Result<RecordMetadata, Error>>;

    /// Polled again after it was ready, it is ready with nothing.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.verdicts.len() < this.outcomes.len() {
            this.begin(cx);
        }
        let open = this.outcomes.iter_mut().zip(&mut this.verdicts).skip(this.first_open);
        for (outcome, verdict) in open {
            if let (None, Ok(delivery)) = (&verdict, outcome) {
                *verdict = ready(delivery, cx);
                if verdict.is_none() {
                    return Poll::Pending;
                }
            }
            this.first_open += 1;
        }
        this.outcomes.clear();
        this.first_open = 0;
        Poll::Ready(std::mem::take(&mut this.verdicts).into_iter().flatten().collect())
    }
}

impl IntoIterator for Deliveries {
    type Item = Result<Delivery, PublishError>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.outcomes.into_iter()
    }
}

impl<'a> IntoIterator for &'a Deliveries {
    type Item = &'a Result<Delivery, PublishError>;
    type IntoIter = std::slice::Iter<'a, Result<Delivery, PublishError>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
