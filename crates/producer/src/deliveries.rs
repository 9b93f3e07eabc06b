//! [`Deliveries`], the future of many verdicts.
//!
//! The rules of this module:
//!  - There is one verdict for each event, in the order of publishing, refused events included.
//!  - A poll does not poll completed deliveries again.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::delivery::{Delivery, RecordMetadata};
use crate::error::{Error, PublishError};

/// The deliveries of a batch of events: for each event its [`Delivery`], or why the event was not accepted.
/// `publish_batch` returns it.
///
/// Await it for all verdicts in the order of the events, or iterate (`into_iter`) for single deliveries.
///
/// # Cancel safety
///
/// Dropping it loses only the verdicts. Accepted events are still delivered.
#[derive(Debug)]
#[must_use = "deliveries hold the verdicts of the events: await them, or call `.detach()`"]
pub struct Deliveries {
    outcomes: Vec<Result<Delivery, PublishError>>,
    /// The verdicts so far. The length equals that of `outcomes` after the first poll.
    verdicts: Vec<Option<Result<RecordMetadata, Error>>>,
    /// All deliveries before this index have their verdict.
    first_open: usize,
}

impl Deliveries {
    /// Creates the deliveries of a batch of events.
    #[doc(hidden)]
    pub fn new(outcomes: Vec<Result<Delivery, PublishError>>) -> Self {
        Self { outcomes, verdicts: Vec::new(), first_open: 0 }
    }

    /// Detaches the deliveries. Each accepted event is still delivered, or becomes a dead letter.
    ///
    /// The errors of events that were not accepted are lost.
    pub fn detach(self) {}

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Returns whether there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Returns an iterator over each event's delivery, or why the event was not accepted, in the order of the events.
    pub fn iter(&self) -> std::slice::Iter<'_, Result<Delivery, PublishError>> {
        self.outcomes.iter()
    }

    /// Polls every delivery once, so that each batch is expedited.
    fn poll_all(&mut self, cx: &mut Context<'_>) {
        let verdicts = self.outcomes.iter_mut().map(|outcome| match outcome {
            Ok(delivery) => poll_delivery(delivery, cx),
            Err(error) => Some(Err(Error::NotAccepted(error.clone()))),
        });
        self.verdicts = verdicts.collect();
    }
}

fn poll_delivery(delivery: &mut Delivery, cx: &mut Context<'_>) -> Option<Result<RecordMetadata, Error>> {
    match Pin::new(delivery).poll(cx) {
        Poll::Ready(verdict) => Some(verdict.map_err(Error::from)),
        Poll::Pending => None,
    }
}

impl Future for Deliveries {
    type Output = Vec<Result<RecordMetadata, Error>>;

    /// Returns an empty vector if the future is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.verdicts.len() < this.outcomes.len() {
            this.poll_all(cx);
        }
        let open = this.outcomes.iter_mut().zip(&mut this.verdicts).skip(this.first_open);
        for (outcome, verdict) in open {
            if let (None, Ok(delivery)) = (&verdict, outcome) {
                *verdict = poll_delivery(delivery, cx);
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
