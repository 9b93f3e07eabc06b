//! A body whose bytes count for the rate of its client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::clients::Clients;
use crate::shapes::principal::Principal;

/// A body whose bytes count for the rate of its client as they arrive, compressed or not.
pub(super) struct Charged<B> {
    body: B,
    clients: Arc<Clients>,
    client: Option<Principal>,
    /// Notified of the first read. hyper answers `expect: 100-continue` then.
    first_read: Option<oneshot::Sender<()>>,
}

impl<B> Charged<B> {
    pub(super) fn new(body: B, clients: &Arc<Clients>, client: Option<&Principal>) -> Self {
        Self { body, clients: clients.clone(), client: client.cloned(), first_read: None }
    }

    /// Notifies `first_read` of the first read.
    pub(super) fn notifying(self, first_read: oneshot::Sender<()>) -> Self {
        Self { first_read: Some(first_read), ..self }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Charged<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Without a receiver nothing waits.
        self.first_read.take().into_iter().for_each(|first_read| _ = first_read.send(()));
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.clients.count_bytes(self.client.as_ref(), bytes.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
