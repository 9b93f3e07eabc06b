//! [`Stored`], the future of an event's place in the spool, and that state of a batch.
//!
//! Rule: the first task that waits for a batch requests its storing, once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kafka_courier_client::PartitionId;

use super::{Delivery, Token};
use crate::error::StoreError;
use crate::spool::{SpoolCommand, SpoolSender, StoredPlace};

/// Whether a batch is in the producer's spool.
#[derive(Debug, Default)]
pub(super) enum StoreState {
    /// The producer has no spool.
    #[default]
    NoSpool,
    /// The batch is not stored yet. The request is present until a task waits for the batch.
    Pending(Option<StoreRequest>),
    Stored(StoredIdentity),
}

/// The identity of a batch's records among the records of all spools.
#[derive(Clone, Debug)]
pub(crate) struct StoredIdentity {
    pub(crate) place: StoredPlace,
    /// The id of the spool.
    pub(crate) spool: [u8; 16],
    /// The random bytes of the life that stored the batch. Copies of a spool have different ones.
    pub(crate) nonce: Arc<[u8]>,
}

/// A request to the spool's thread to store an open batch soon.
#[derive(Debug)]
pub(crate) struct StoreRequest {
    pub(crate) spool: SpoolSender<Token>,
    pub(crate) partition: PartitionId,
    pub(crate) ordinal: u64,
}

impl StoreRequest {
    pub(super) fn send(self) {
        let Self { spool, partition, ordinal } = self;
        // If the thread has ended, the batch's verdict ends the wait.
        spool.send(SpoolCommand::Awaited { partition, batch: ordinal });
    }
}

/// The future that an event is in the producer's spool: [`Delivery::stored`].
#[derive(Clone, Debug)]
#[must_use = "a future does nothing before it is awaited"]
pub struct Stored {
    delivery: Delivery,
}

impl Delivery {
    /// Returns a future that is ready once the event is in the producer's spool, on disk. A later process then delivers the
    /// event if this one does not.
    ///
    /// The batch of the event is stored without waiting for `flush_timeout`. Events that are published while the spool
    /// writes share the next write.
    ///
    /// # Errors
    ///
    /// The future returns [`StoreError::NoSpool`] if the producer has no spool (`spool_dir`), and
    /// [`StoreError::NotStored`] if the spool could not be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses only the news. The event is still stored and delivered.
    pub fn stored(&self) -> Stored {
        Stored { delivery: self.clone() }
    }

    /// Returns whether the event is in the producer's spool, on disk. Requests nothing, unlike [`stored`](Self::stored).
    pub fn is_stored(&self) -> bool {
        self.state.stored().is_some()
    }
}

impl Future for Stored {
    type Output = Result<(), StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Delivery { state, index, timestamp } = &self.delivery;
        let mut inner = state.inner.lock();
        let verdict = match &inner.store {
            StoreState::NoSpool => return Poll::Ready(Err(StoreError::NoSpool)),
            StoreState::Stored(_) => return Poll::Ready(Ok(())),
            StoreState::Pending(_) => state.result(&inner, *index, *timestamp),
        };
        if let Some(verdict) = verdict {
            return Poll::Ready(verdict.map(drop).map_err(StoreError::NotStored));
        }
        if !inner.store_wakers.last().is_some_and(|last| last.will_wake(cx.waker())) {
            inner.store_wakers.push(cx.waker().clone());
        }
        let request = match &mut inner.store {
            StoreState::Pending(request) => request.take(),
            _ => None,
        };
        drop(inner);
        request.into_iter().for_each(StoreRequest::send);
        Poll::Pending
    }
}
