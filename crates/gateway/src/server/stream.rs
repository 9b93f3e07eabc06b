//! Results of NDJSON while its lines arrive (`stream=true`).
//!
//! Rules:
//! - The results are in the order of the lines. Each is sent once it and all earlier ones are known.
//! - At most `max_events` events have no result. The body is read no further then.
//! - Once the client has left, or is cut off, the events without a verdict are left to the dead letters.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Body;
use kafka_courier::events::SystemStamper;
use tokio::time::Sleep;

use super::answer_body::ResultWriter;
use super::body::discard;
use super::gateway::Gateway;
use super::head::Head;
use super::line_body::LineBody;
use super::publisher::PublishedEvent;
use crate::shapes::answer;
use crate::shapes::event;
use crate::shapes::failure::Failure;
use crate::shapes::principal::Principal;
use crate::shapes::record::Reading;
use crate::shapes::verdict::Verdict;

/// Why a stream ends without its last line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ClientLeft;

/// The end of the reading of a body: all of it, or the reason why the rest is not read.
type Stopped = Option<Failure>;

impl Gateway {
    /// Publishes the lines of a body while it arrives, and writes their results. Returns the numbers of events that succeeded and
    /// that failed.
    pub(super) async fn stream_lines<B: Body<Data = Bytes> + Unpin>(
        &self,
        head: &Head,
        client: Option<&Principal>,
        mut body: B,
        writer: ResultWriter,
    ) -> (usize, usize)
    where
        B::Error: Display,
    {
        let mut results = Results::new(writer, self.0.rules.has_spool);
        let published = self.publish_stream(head, client, &mut body, &mut results).await;
        let ended = match published {
            Ok(stopped) => results.all_settled().await.map(|()| stopped),
            Err(left) => Err(left),
        };
        let counts = results.counts;
        match ended {
            Ok(stopped) => {
                results.writer.write(&answer::last_line(counts, stopped.as_ref()));
                discard(&mut body).await;
                results.writer.end();
            }
            Err(ClientLeft) => {
                tracing::debug!(waiting = results.waiting.len(), "client left the results of its stream");
                results.leave_to_dead_letters();
            }
        }
        counts
    }

    async fn publish_stream<B: Body<Data = Bytes> + Unpin>(
        &self,
        head: &Head,
        client: Option<&Principal>,
        body: &mut B,
        results: &mut Results,
    ) -> Result<Stopped, ClientLeft>
    where
        B::Error: Display,
    {
        let mut body = LineBody::new(self, head, client, body);
        let mut is_blocked = false;
        loop {
            results.advance().await?;
            let part = match results.while_waiting(body.read()).await? {
                Ok(part) => part,
                Err(failure) => return Ok(Some(failure)),
            };
            if let Err(failure) = body.add(part.as_ref(), results.bytes()) {
                return Ok(Some(failure));
            }
            let began = Instant::now();
            let published = self.publish_parts(head, client, &mut body, results, &mut is_blocked);
            if let Some(failure) = published.await? {
                return Ok(Some(failure));
            }
            body.paused(began.elapsed());
            if part.is_none() {
                return Ok(None);
            }
        }
    }

    /// Publishes the lines that are whole.
    async fn publish_parts<B: Body<Data = Bytes> + Unpin>(
        &self,
        head: &Head,
        client: Option<&Principal>,
        body: &mut LineBody<'_, B>,
        results: &mut Results,
        is_blocked: &mut bool,
    ) -> Result<Stopped, ClientLeft>
    where
        B::Error: Display,
    {
        let topic_of = |event_type: &str| self.0.producer.topic_for(event_type);
        let (max_depth, max_events) = (self.0.config.max_json_depth, self.0.config.max_events);
        let (context, stamper, needs_source) = (&head.context, &SystemStamper, false);
        let reading = Reading { topic_of: &topic_of, context, max_depth, max_events, stamper, needs_source };
        let mut publisher = self.publisher(client, head.query.ack);
        publisher.is_blocked = *is_blocked;
        loop {
            results.fewer_than(max_events).await?;
            if let Err(failure) = body.reserve(results.bytes()) {
                return Ok(Some(failure));
            }
            let line = match body.lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(failure) => return Ok(Some(failure)),
            };
            let read = event::read_one(line, reading);
            let number = body.lines.number();
            let until = Instant::now() + head.timeout;
            let event = match read {
                Ok(record) => results.while_waiting(publisher.attempt(record, until, None)).await?,
                Err(failure) => PublishedEvent::failed(failure.at_line(number)),
            };
            results.push(WaitingResult { event, line: number, until: Instant::now() + head.timeout });
        }
        *is_blocked = publisher.is_blocked;
        Ok(None)
    }
}

/// An event whose result was not sent.
struct WaitingResult {
    event: PublishedEvent,
    line: usize,
    /// The end of the wait for the verdict.
    until: Instant,
}

/// The results of a stream.
struct Results {
    writer: ResultWriter,
    waiting: VecDeque<WaitingResult>,
    /// The bytes of the waiting events, as an estimate.
    waiting_bytes: usize,
    /// The number of events at the end of the queue that were not polled. A batch leaves once one of its events is polled.
    fresh: usize,
    /// The end of the wait for the first event.
    overdue: Option<Pin<Box<Sleep>>>,
    /// Events that succeeded, and that failed.
    counts: (usize, usize),
    has_spool: bool,
}

impl Results {
    fn new(writer: ResultWriter, has_spool: bool) -> Self {
        let (waiting, counts) = (VecDeque::new(), (0, 0));
        Self { writer, waiting, waiting_bytes: 0, fresh: 0, overdue: None, counts, has_spool }
    }

    /// Returns the bytes in memory for results.
    fn bytes(&self) -> usize {
        self.waiting_bytes + self.writer.waiting()
    }

    fn push(&mut self, result: WaitingResult) {
        self.waiting_bytes += result.event.bytes();
        self.fresh += 1;
        self.waiting.push_back(result);
    }

    /// Sends the results that are known.
    fn poll_known(&mut self, cx: &mut Context<'_>) -> Result<(), ClientLeft> {
        if self.writer.poll_left(cx).is_ready() {
            return Err(ClientLeft);
        }
        let fresh = self.waiting.iter_mut().rev().take(std::mem::take(&mut self.fresh));
        fresh.for_each(|result| result.event.poll_verdict(cx));
        while let Some(first) = self.waiting.front_mut() {
            first.event.poll_verdict(cx);
            if !first.event.is_decided() && self.poll_overdue(cx).is_pending() {
                return Ok(());
            }
            self.send_first()?;
        }
        Ok(())
    }

    /// Waits until the time of the first event is over.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(first) = self.waiting.front() else { return Poll::Pending };
        let until = first.until.into();
        let sleep = self.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(cx)
    }

    fn send_first(&mut self) -> Result<(), ClientLeft> {
        let Some(WaitingResult { event, line, .. }) = self.waiting.pop_front() else { return Ok(()) };
        self.waiting_bytes = self.waiting_bytes.saturating_sub(event.bytes());
        let (result, returned) = event.into_parts(self.has_spool);
        match &result.verdict {
            Verdict::Failed(_) => self.counts.1 += 1,
            _ => self.counts.0 += 1,
        }
        if !self.writer.write(&answer::result_line(&result, line)) {
            return Err(ClientLeft);
        }
        returned.answered();
        Ok(())
    }

    /// Waits for `work`, and sends results meanwhile.
    async fn while_waiting<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ClientLeft> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => match self.poll_known(cx) {
                Ok(()) => Poll::Pending,
                Err(left) => Poll::Ready(Err(left)),
            },
        })
        .await
    }

    /// Sends the results that are known, and waits until fewer than `limit` events wait.
    async fn fewer_than(&mut self, limit: usize) -> Result<(), ClientLeft> {
        if self.waiting.len() < limit {
            return Ok(());
        }
        poll_fn(|cx| match self.poll_known(cx) {
            Ok(()) if self.waiting.len() < limit => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
            Err(left) => Poll::Ready(Err(left)),
        })
        .await
    }

    /// Sends the results that are known.
    async fn advance(&mut self) -> Result<(), ClientLeft> {
        poll_fn(|cx| Poll::Ready(self.poll_known(cx))).await
    }

    async fn all_settled(&mut self) -> Result<(), ClientLeft> {
        self.fewer_than(1).await
    }

    fn leave_to_dead_letters(&mut self) {
        self.waiting.iter_mut().for_each(|result| result.event.leave_to_dead_letters());
    }
}
