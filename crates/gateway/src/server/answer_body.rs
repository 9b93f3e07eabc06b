//! [`AnswerBody`], the body of an answer: whole, or results that are sent while they become known.
//!
//! Rule: results that the client has not read are bounded. Beyond it the body ends in an error, which resets the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody(Content);

#[derive(Debug)]
enum Content {
    Whole(Full<Bytes>),
    Results(ResultReader),
}

/// The client reads its results too slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client reads its results too slowly (max_result_bytes)")]
pub struct ResultsUnread;

/// The results that wait for the client.
#[derive(Debug, Default)]
struct Shared {
    bytes: BytesMut,
    end: Option<End>,
    /// Whether the client has left.
    is_left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Complete,
    Cut,
}

/// Writes the results of a request.
#[derive(Debug)]
pub(super) struct ResultWriter {
    shared: Arc<Mutex<Shared>>,
    max_bytes: usize,
}

#[derive(Debug)]
struct ResultReader(Arc<Mutex<Shared>>);

impl AnswerBody {
    /// Creates a body of known bytes.
    pub(super) fn whole(body: Full<Bytes>) -> Self {
        Self(Content::Whole(body))
    }

    /// Creates a body of results, of which at most `max_bytes` wait for the client.
    pub(super) fn results(max_bytes: usize) -> (ResultWriter, Self) {
        let shared = Arc::new(Mutex::default());
        let writer = ResultWriter { shared: Arc::clone(&shared), max_bytes };
        (writer, Self(Content::Results(ResultReader(shared))))
    }
}

impl ResultWriter {
    /// Adds a line. Returns `false` once too many bytes wait, or the client has left. The body has ended then.
    pub(super) fn write(&self, line: &[u8]) -> bool {
        let mut shared = self.shared.lock();
        if shared.end.is_some() || shared.is_left {
            return false;
        }
        if shared.bytes.len() + line.len() > self.max_bytes {
            shared.end(End::Cut);
            return false;
        }
        shared.bytes.extend_from_slice(line);
        shared.wake_reader();
        true
    }

    /// Returns the bytes that wait for the client.
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().bytes.len()
    }

    /// Waits until the client has left.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.lock();
        if shared.is_left || shared.end == Some(End::Cut) {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the body after its last line.
    pub(super) fn end(self) {
        self.shared.lock().end(End::Complete);
    }
}

/// A writer that is dropped without an end has lost results.
impl Drop for ResultWriter {
    fn drop(&mut self) {
        self.shared.lock().end(End::Cut);
    }
}

impl Shared {
    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for ResultReader {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        shared.is_left = true;
        shared.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl ResultReader {
    fn poll_bytes(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResultsUnread>>> {
        let mut shared = self.0.lock();
        match shared.end {
            Some(End::Cut) => Poll::Ready(Some(Err(ResultsUnread))),
            _ if !shared.bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(shared.bytes.split().freeze())))),
            Some(End::Complete) => Poll::Ready(None),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ResultsUnread;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResultsUnread>>> {
        match &mut self.0 {
            Content::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Content::Results(results) => results.poll_bytes(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(body) => body.is_end_stream(),
            Content::Results(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(body) => body.size_hint(),
            Content::Results(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn results_are_sent_in_order() {
        let (writer, mut body) = AnswerBody::results(10);
        assert!(writer.write(b"one\n") && writer.write(b"two\n"));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&first[..], writer.waiting()), (&b"one\ntwo\n"[..], 0));
        assert!(writer.write(b"three\n"));
        writer.end();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "three\n");
    }

    #[tokio::test]
    async fn unread_results_reset_the_body() {
        let (writer, mut body) = AnswerBody::results(5);
        assert!(writer.write(b"one\n") && !writer.write(b"two\n") && !writer.write(b"3"));
        assert!(writer.poll_left(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(body.frame().await.unwrap().unwrap_err(), ResultsUnread);
    }

    #[tokio::test]
    async fn lost_writer_is_no_end() {
        let (writer, mut body) = AnswerBody::results(5);
        drop(writer);
        assert!(body.frame().await.unwrap().is_err());
        let (writer, body) = AnswerBody::results(5);
        drop(body);
        assert!(!writer.write(b"1") && writer.poll_left(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
