//! A body whose bytes count for the rate of its client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::clients::Clients;
use crate::shapes::principal::Principal;

/// A body whose bytes count for the rate of its client as they arrive, compressed or not.
pub(super) struct Charged<'a, B> {
    body: B,
    clients: &'a Clients,
    client: Option<&'a Principal>,
}

impl<'a, B> Charged<'a, B> {
    pub(super) fn new(body: B, clients: &'a Clients, client: Option<&'a Principal>) -> Self {
        Self { body, clients, client }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Charged<'_, B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.clients.count_bytes(self.client, bytes.len());
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
