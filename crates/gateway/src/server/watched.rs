//! A stream that reports arriving bytes to the clock of its connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::connection_clock::ConnectionClock;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4). No method of HTTP/1.1 begins with them.
const HTTP2: &[u8] = b"PRI";

/// The clock of a connection, shared by its stream, its requests and its task.
pub(crate) type SharedClock = Arc<Mutex<ConnectionClock>>;

/// A stream that reports arriving bytes.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    clock: SharedClock,
    has_read: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, clock: SharedClock) -> Self {
        Self { stream, clock, has_read: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            let now = Instant::now();
            let mut clock = this.clock.lock();
            match !this.has_read && new.starts_with(HTTP2) {
                true => clock.multiplexed(now),
                false => clock.bytes(now),
            }
            this.has_read = true;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
