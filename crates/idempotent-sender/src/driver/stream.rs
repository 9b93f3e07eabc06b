//! The byte stream beneath a Messenger: joins a frame's length with its body, and counts frames.
//!
//! Rules:
//! - A frame counts as written once the stream below has taken its last byte; only then can a broker act
//!   on it. What has not left whole was never sent.
//! - A stream that is cut fails at once in both directions, so that whatever waits on it, even a write that
//!   the other side does not take, ends and the socket is closed.
//! - The four bytes of a length are held back until the body comes, so that a request is one packet's start
//!   and not two packets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any byte stream to a broker.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// Frames that have left whole, and when the last of them did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) frames: u64,
    pub(crate) last: Instant,
}

/// What is known of a stream, and done to it, from outside.
#[derive(Debug)]
pub(crate) struct Handle {
    written: Mutex<Written>,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Handle {
    pub(crate) fn written(&self) -> Written {
        *self.written.lock()
    }

    /// Ends the stream.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.cut.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// A stream that counts the frames it has taken.
pub(crate) struct FrameStream {
    inner: Box<dyn Io>,
    prefix: [u8; 4],
    /// Bytes of the length that were taken from above.
    prefix_taken: usize,
    /// Bytes of the length that were written below.
    prefix_sent: usize,
    body_left: usize,
    handle: Arc<Handle>,
}

impl FrameStream {
    pub(crate) fn new(inner: Box<dyn Io>) -> (Self, Arc<Handle>) {
        let handle = Arc::new(Handle {
            written: Mutex::new(Written { frames: 0, last: Instant::now() }),
            cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let stream =
            Self { inner, prefix: [0; 4], prefix_taken: 0, prefix_sent: 0, body_left: 0, handle: handle.clone() };
        (stream, handle)
    }

    fn take_prefix(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(4 - self.prefix_taken);
        self.prefix[self.prefix_taken..self.prefix_taken + n].copy_from_slice(&bytes[..n]);
        self.prefix_taken += n;
        if self.prefix_taken == 4 {
            self.body_left = usize::try_from(u32::from_be_bytes(self.prefix)).unwrap_or(usize::MAX);
        }
        n
    }

    /// Notes that the stream below took `n` bytes of what is left of the length and then of the body.
    /// Returns how many of them were the body's.
    fn advance(&mut self, n: usize) -> usize {
        let of_prefix = n.min(4 - self.prefix_sent);
        self.prefix_sent += of_prefix;
        let of_body = n - of_prefix;
        self.body_left = self.body_left.saturating_sub(of_body);
        if self.body_left == 0 && self.prefix_sent == 4 {
            (self.prefix_taken, self.prefix_sent) = (0, 0);
            let mut written = self.handle.written.lock();
            written.frames += 1;
            written.last = Instant::now();
        }
        of_body
    }
}

impl AsyncWrite for FrameStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.handle.check(&this.handle.writer, cx)?;
        if this.prefix_taken < 4 {
            return Poll::Ready(Ok(this.take_prefix(bytes)));
        }
        let body = &bytes[..bytes.len().min(this.body_left)];
        loop {
            let slices = [IoSlice::new(&this.prefix[this.prefix_sent..]), IoSlice::new(body)];
            let n = if this.prefix_sent == 4 {
                ready!(Pin::new(&mut this.inner).poll_write(cx, body))?
            } else {
                ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &slices))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_body = this.advance(n);
            if of_body > 0 {
                return Poll::Ready(Ok(of_body));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for FrameStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.handle.check(&self.handle.reader, cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_frame_counts_only_when_its_last_byte_was_taken() {
        let (ours, mut theirs) = tokio::io::duplex(6);
        let (mut stream, handle) = FrameStream::new(Box::new(ours));
        let writer = tokio::spawn(async move {
            stream.write_all(&8u32.to_be_bytes()).await.unwrap();
            stream.write_all(b"12345678").await.unwrap();
            stream
        });
        let mut first = [0; 6];
        theirs.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"\0\0\0\x0812");
        assert_eq!(handle.written().frames, 0);
        let mut rest = [0; 6];
        theirs.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"345678");
        writer.await.unwrap();
        assert_eq!(handle.written().frames, 1);
    }

    #[tokio::test]
    async fn a_cut_ends_a_write_that_the_other_side_does_not_take_and_a_read() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let (stream, handle) = FrameStream::new(Box::new(ours));
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move { write.write_all(b"\0\0\0\x08abcdefgh").await });
        let reading = tokio::spawn(async move { read.read_u8().await });
        tokio::task::yield_now().await;
        handle.cut();
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_length_alone_is_held_back() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut stream, handle) = FrameStream::new(Box::new(ours));
        stream.write_all(&3u32.to_be_bytes()).await.unwrap();
        drop(stream);
        let mut theirs = theirs;
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert!(all.is_empty());
        assert_eq!(handle.written().frames, 0);
    }
}
