//! The byte stream below a Messenger. It joins a frame's length with its body, and counts frames.
//!
//! Rules:
//! - A frame counts as written once the stream below has taken its last byte. Only then can a broker act on the
//!   frame. A frame that was written in part was never sent.
//! - A stream that is cut fails immediately in both directions. Each pending read and write ends, even a write that
//!   the broker does not accept, and the socket is closed.
//! - The four bytes of a length are held back until the body arrives. A request then is one packet, not two.
//! - A short answer is one read: the bytes that arrive with a length are buffered for the read of the body.
//! - A request's batches are written in their places without a copy. The length on the wire includes them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::wire::splice::{PendingBatches, SplicedFrame, correlation_id};

/// Bytes that are read ahead: the answers to Produce for some hundred partitions. Longer answers bypass the buffer.
const READ_AHEAD: usize = 4096;

/// Any byte stream to a broker.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The number of frames that were written completely, and when the last one was.
#[derive(Clone, Copy, Debug)]
pub struct FramesWritten {
    /// Frames since the connection opened.
    pub frames: u64,
    /// The time at which the last frame was complete.
    pub last: Instant,
}

/// Controls a stream from outside, and reports its state.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    written: Mutex<FramesWritten>,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl StreamHandle {
    pub(crate) fn written(&self) -> FramesWritten {
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

/// A stream that counts the frames that it wrote.
pub(crate) struct FrameStream {
    inner: BufReader<Box<dyn ByteStream>>,
    prefix: [u8; 4],
    /// Bytes of the length that the Messenger wrote.
    prefix_taken: usize,
    /// Bytes of the length that the stream below took.
    prefix_sent: usize,
    body_left: usize,
    /// Batches of encoded requests.
    pending: Arc<PendingBatches>,
    /// The frame with batches that is being written.
    spliced: Option<SplicedFrame>,
    handle: Arc<StreamHandle>,
}

impl FrameStream {
    pub(crate) fn new(inner: Box<dyn ByteStream>, pending: Arc<PendingBatches>) -> (Self, Arc<StreamHandle>) {
        let handle = Arc::new(StreamHandle {
            written: Mutex::new(FramesWritten { frames: 0, last: Instant::now() }),
            cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let stream = Self {
            inner: BufReader::with_capacity(READ_AHEAD, inner),
            prefix: [0; 4],
            prefix_taken: 0,
            prefix_sent: 0,
            body_left: 0,
            pending,
            spliced: None,
            handle: handle.clone(),
        };
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

    /// Counts `n` bytes that the stream below took: first the rest of the length, then the body. Returns how many
    /// were the body's.
    fn advance(&mut self, n: usize) -> usize {
        let of_prefix = n.min(4 - self.prefix_sent);
        self.prefix_sent += of_prefix;
        let of_body = n - of_prefix;
        self.body_left = self.body_left.saturating_sub(of_body);
        if self.body_left == 0 && self.prefix_sent == 4 {
            self.frame_ended();
        }
        of_body
    }

    fn frame_ended(&mut self) {
        (self.prefix_taken, self.prefix_sent) = (0, 0);
        let mut written = self.handle.written.lock();
        written.frames += 1;
        written.last = Instant::now();
    }

    /// Writes a body together with its batches. No byte of the body counts as taken until all bytes are written.
    fn poll_spliced(
        &mut self,
        cx: &mut Context<'_>,
        body: &[u8],
        mut spliced: SplicedFrame,
    ) -> Poll<io::Result<usize>> {
        loop {
            match Pin::new(&mut self.inner).poll_write_vectored(cx, &spliced.slices(body)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) if spliced.advance(n, body) => {
                    self.frame_ended();
                    return Poll::Ready(Ok(body.len()));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.spliced = Some(spliced);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Returns the frame that begins with this body, if its request has batches.
    fn splice(&self, body: &[u8]) -> Option<SplicedFrame> {
        if self.prefix_sent > 0 || body.len() < self.body_left {
            // The frame has begun, or does not come from the Messenger, which writes whole bodies.
            return None;
        }
        let slots = self.pending.take(correlation_id(body)?);
        (!slots.is_empty()).then(|| SplicedFrame::new(body.len(), slots))
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
        if let Some(spliced) = this.spliced.take().or_else(|| this.splice(body)) {
            return this.poll_spliced(cx, body, spliced);
        }
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
    use crate::wire::splice::BatchSlot;
    use crate::wire::splice::tests::batch;

    #[tokio::test]
    async fn frame_counts_after_its_last_byte() {
        let (ours, mut theirs) = tokio::io::duplex(6);
        let (mut stream, handle) = FrameStream::new(Box::new(ours), Arc::default());
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
    async fn batches_are_written_in_their_frame() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let pending = Arc::new(PendingBatches::default());
        let (mut stream, handle) = FrameStream::new(Box::new(ours), pending.clone());
        let batch = batch(&[b'v'; 100]);
        pending.put([0, 0, 0, 2], vec![BatchSlot { at: 10, batch: batch.clone() }]);
        let writer = tokio::spawn(async move {
            for body in [b"\0\0\0\x09\0\0\0\x01first.", b"\0\0\0\x09\0\0\0\x02second"] {
                stream.write_all(&14u32.to_be_bytes()).await.unwrap();
                stream.write_all(body).await.unwrap();
            }
            stream
        });
        let mut first = [0; 18];
        theirs.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"\0\0\0\x0e\0\0\0\x09\0\0\0\x01first.");
        let expected = [b"\0\0\0\x09\0\0\0\x02se", batch.as_bytes(), b"cond"].concat();
        assert_eq!(theirs.read_u32().await.unwrap() as usize, expected.len());
        let mut second = vec![0; expected.len() - 11];
        theirs.read_exact(&mut second).await.unwrap();
        assert_eq!(handle.written().frames, 1, "eleven bytes are missing, and the pipe holds ten");
        let mut rest = [0; 11];
        theirs.read_exact(&mut rest).await.unwrap();
        assert_eq!([&second[..], &rest].concat(), expected);
        writer.await.unwrap();
        assert_eq!(handle.written().frames, 2);
        assert_eq!(Arc::strong_count(&batch), 1, "the stream dropped the batch");
    }

    #[tokio::test]
    async fn cut_ends_pending_reads_and_writes() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let (stream, handle) = FrameStream::new(Box::new(ours), Arc::default());
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move { write.write_all(b"\0\0\0\x08abcdefgh").await });
        let reading = tokio::spawn(async move { read.read_u8().await });
        tokio::task::yield_now().await;
        handle.cut();
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn length_waits_for_its_body() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut stream, handle) = FrameStream::new(Box::new(ours), Arc::default());
        stream.write_all(&3u32.to_be_bytes()).await.unwrap();
        drop(stream);
        let mut theirs = theirs;
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert!(all.is_empty());
        assert_eq!(handle.written().frames, 0);
    }
}
