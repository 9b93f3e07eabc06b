//! From the head of a request to its answer: the body, the records, their verdicts.
//!
//! Rules:
//! - A request with a key is published in a task: a client that hangs up and repeats the request finds the first answer. An
//!   event that fails after the client has left has a dead letter.
//! - A body of NDJSON without a key is read as fast as its events are accepted.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::body::{BodyReader, bodies_full, read_whole};
use super::gateway::{Gateway, Waiter};
use super::head::{Head, text};
use super::publisher::Publisher;
use crate::limits::budget::Share;
use crate::limits::dedupe::{Begun, DedupeKey, PayloadDigest, is_remembered};
use crate::shapes::ack::Ack;
use crate::shapes::answer::Answer;
use crate::shapes::content::Shape;
use crate::shapes::event::{self, Events, too_many};
use crate::shapes::failure::Failure;
use crate::shapes::ndjson::Lines;
use crate::shapes::principal::Principal;
use crate::shapes::problem::Problem;
use crate::shapes::record::{OutRecord, Reading};
use crate::shapes::route::Route;
use crate::shapes::{cloudevents, raw};

/// The events of a request whose body was read.
struct Work {
    events: Events,
    client: Option<Principal>,
    asked: Option<Ack>,
    until: Instant,
    request_id: String,
    /// The memory of the body, until the events are accepted.
    share: Share,
}

impl Gateway {
    /// Reads the body of a request, publishes its events, and waits for their verdicts.
    pub(super) async fn publish<B: Body<Data = Bytes> + Unpin>(
        &self,
        head: &Head,
        client: Option<Principal>,
        headers: &HeaderMap,
        body: B,
        id: &str,
    ) -> Result<Answer, Failure>
    where
        B::Error: Display,
    {
        if head.key.is_none() {
            self.refusal().map_or(Ok(()), Err)?;
        }
        let topic_of = |event_type: &str| self.0.producer.topic_for(event_type);
        let (max_depth, max_events) = (self.0.config.max_json_depth, self.0.config.max_events);
        let reading = Reading { topic_of: &topic_of, context: &head.context, max_depth, max_events };
        if head.shape == Shape::Ndjson && head.key.is_none() {
            return self.publish_lines(head, client.as_ref(), body, reading, id).await;
        }
        let read = read_whole(body, head, &self.0.config, &self.0.budget).await;
        // An earlier request with the key may have written these events.
        let undecided = |failure: Failure| if head.key.is_some() { failure.undecided() } else { failure };
        let (body, share) = read.map_err(undecided)?;
        let until = Instant::now() + head.timeout;
        let key = head.key.clone().map(|key| {
            let client = client.as_ref().map(|client| client.name.clone());
            (DedupeKey { client, key }, digest(head, headers, &body))
        });
        let events = read_events(head, headers, body, reading)
            .and_then(|events| self.check_array(head, client.as_ref(), events))
            .map_err(undecided)?;
        let work = Work { events, client, asked: head.query.ack, until, request_id: id.to_owned(), share };
        match key {
            None => Ok(self.run(work, std::future::pending()).await),
            Some((key, digest)) => self.publish_once(key, digest, work).await,
        }
    }

    /// Checks the rights for every event of an array, so that none is published if one is refused.
    fn check_array(&self, head: &Head, client: Option<&Principal>, events: Events) -> Result<Events, Failure> {
        match events {
            Events::Array(events) if head.shape == Shape::Json && !head.query.partial => {
                let publisher = self.publisher(client, head.query.ack);
                let check = |(index, event): (usize, Result<OutRecord, Failure>)| {
                    let record = event?;
                    publisher.check(&record).map_err(|failure| failure.at(index)).map(|_| record)
                };
                event::all_valid(events.into_iter().enumerate().map(check).collect()).map(Events::Array)
            }
            events => Ok(events),
        }
    }

    /// Publishes the events of a request with a key, unless another request with the key has published them.
    async fn publish_once(&self, key: DedupeKey, digest: PayloadDigest, work: Work) -> Result<Answer, Failure> {
        let (sender, waiter) = watch::channel(None);
        let begun = self.0.dedupe.lock().begin(&key, digest, Instant::now(), waiter);
        match begun {
            Begun::New => {
                if let Some(failure) = self.refusal() {
                    self.0.dedupe.lock().finish(&key, None, Instant::now());
                    return Err(failure);
                }
                let request_id = work.request_id.clone();
                let begun = BegunKey { gateway: self.clone(), key, answer: sender, request_id, is_finished: false };
                let gateway = self.clone();
                // Dropped with this future, when the client leaves.
                let (client, client_left) = oneshot::channel::<()>();
                let task = tokio::spawn(async move {
                    let answer = Arc::new(gateway.run(work, client_left.map(drop)).await);
                    begun.finish(&answer);
                    Arc::unwrap_or_clone(answer)
                });
                // The task ends without an answer if its runtime ends.
                let answer = task.await.map_err(|error| Failure::new(Problem::Unknown, error.to_string()));
                drop(client);
                answer
            }
            Begun::Answered(first) => Ok(repeated(&first)),
            Begun::UnderWay(waiter) => joined(waiter, work.until).await,
            Begun::OtherPayload => {
                let why =
                    "idempotency-key: another request had this key and another payload: use a new key for each request";
                Err(Failure::new(Problem::KeyReused, why))
            }
        }
    }

    /// Publishes events, and waits for their verdicts.
    async fn run(&self, work: Work, client_left: impl Future<Output = ()>) -> Answer {
        let Work { events, client, asked, until, request_id, share } = work;
        let mut publisher = self.publisher(client.as_ref(), asked);
        let (events, is_one) = match events {
            Events::One(record) => (vec![Ok(record)], true),
            Events::Array(events) => (events, false),
        };
        for event in events {
            match event {
                Ok(record) => publisher.publish(record, until).await,
                Err(failure) => publisher.fail(failure),
            }
        }
        drop(share);
        let results = publisher.finish(until, client_left).await;
        match results.first().filter(|_| is_one) {
            Some(only) => Answer::one(only, &request_id),
            None => Answer::many(&results, None, &request_id),
        }
    }

    /// Publishes lines while the body arrives.
    async fn publish_lines<B: Body<Data = Bytes> + Unpin>(
        &self,
        head: &Head,
        client: Option<&Principal>,
        body: B,
        reading: Reading<'_>,
        id: &str,
    ) -> Result<Answer, Failure>
    where
        B::Error: Display,
    {
        let config = &self.0.config;
        let mut reader = BodyReader::new(body, head.encoding, config);
        let mut lines = Lines::new(config.max_body_bytes);
        let mut share = self.0.budget.empty_share();
        let mut publisher = self.publisher(client, head.query.ack);
        let mut closing = self.0.is_closing.subscribe();
        let stopped = loop {
            let part = tokio::select! {
                biased;
                // The gateway has the sender.
                _ = closing.wait_for(|is_closing| *is_closing) => break Some(closes()),
                part = async {
                    self.wait_for_rate(client, &mut reader).await;
                    reader.next().await
                } => part,
            };
            let part = match part {
                Ok(part) => part,
                Err(failure) => break Some(failure),
            };
            match &part {
                Some(part) if !share.grow_to(lines.waiting() + part.len() + publisher.answer_bytes()) => {
                    break Some(bodies_full());
                }
                Some(part) => lines.push(part),
                None => lines.end(),
            }
            let began = Instant::now();
            if let Err(failure) = publish_ready(&mut lines, &mut publisher, &mut share, reading, head.timeout).await {
                break Some(failure);
            }
            reader.paused(began.elapsed());
            if part.is_none() {
                break None;
            }
        };
        let results = publisher.finish(Instant::now() + head.timeout, std::future::pending()).await;
        Ok(Answer::many(&results, stopped.as_ref(), id))
    }

    /// Waits until the client has paid for the bytes of its bodies.
    async fn wait_for_rate<B: Body<Data = Bytes> + Unpin>(&self, client: Option<&Principal>, reader: &mut BodyReader<B>)
    where
        B::Error: Display,
    {
        let owed = self.0.clients.count_bytes(client, 0);
        if !owed.is_zero() {
            tokio::time::sleep(owed).await;
            reader.paused(owed);
        }
    }

    fn publisher<'a>(&'a self, client: Option<&'a Principal>, asked: Option<Ack>) -> Publisher<'a> {
        Publisher::new(&self.0.producer, &self.0.rules, client, asked)
    }
}

/// A key whose request is under way. The events of a key that is dropped without an answer may be written.
struct BegunKey {
    gateway: Gateway,
    key: DedupeKey,
    answer: watch::Sender<Option<Arc<Answer>>>,
    request_id: String,
    is_finished: bool,
}

impl BegunKey {
    fn finish(mut self, answer: &Arc<Answer>) {
        self.is_finished = true;
        self.settle(answer);
    }

    fn settle(&self, answer: &Arc<Answer>) {
        let remembered = Some(answer.clone()).filter(|answer| is_remembered(answer));
        self.gateway.0.dedupe.lock().finish(&self.key, remembered, Instant::now());
        self.answer.send_replace(Some(answer.clone()));
    }
}

impl Drop for BegunKey {
    fn drop(&mut self) {
        if !self.is_finished {
            self.settle(&Arc::new(Answer::problem(&Failure::no_verdict(), &self.request_id)));
        }
    }
}

/// Waits for the answer to the first request with a key.
async fn joined(mut waiter: Waiter, until: Instant) -> Result<Answer, Failure> {
    let first = timeout_at(until.into(), waiter.wait_for(Option::is_some)).await;
    match first {
        Ok(Ok(first)) => match &*first {
            Some(first) => Ok(repeated(first)),
            None => Err(under_way()),
        },
        _ => Err(under_way()),
    }
}

fn closes() -> Failure {
    Failure::new(Problem::Closing, "the service ends: send the rest of the events to another instance")
}

fn under_way() -> Failure {
    let why = "idempotency-key: the first request with this key has no answer yet: repeat the request later";
    Failure::new(Problem::KeyUnderWay, why).undecided()
}

fn repeated(first: &Answer) -> Answer {
    Answer { is_repeated: true, counts: (0, 0), ..first.clone() }
}

/// Reads the events of a whole body.
fn read_events(head: &Head, headers: &HeaderMap, body: Vec<u8>, reading: Reading<'_>) -> Result<Events, Failure> {
    match (head.shape, &head.route) {
        (Shape::CloudEvent, _) => cloudevents::read_structured(&body, reading).map(Events::One),
        (Shape::CloudEventData, _) => {
            let content_type = text(headers, CONTENT_TYPE.as_str());
            cloudevents::read_binary(content_type, pairs(headers), body, reading).map(Events::One)
        }
        (Shape::Ndjson, _) => read_lines(&body, reading).map(Events::Array),
        (_, Route::Topic(topic)) => raw::read(topic, &head.query, pairs(headers), body, &head.context).map(Events::One),
        (_, Route::Events) => match event::read_body(&body, reading)? {
            Events::Array(events) if !head.query.partial => event::all_valid(events).map(Events::Array),
            events => Ok(events),
        },
    }
}

/// Reads the lines of a whole body. Each line is an event, or the reason why it is none.
fn read_lines(body: &[u8], reading: Reading<'_>) -> Result<Vec<Result<OutRecord, Failure>>, Failure> {
    let mut lines = Lines::new(body.len());
    lines.push(body);
    lines.end();
    let mut events = Vec::new();
    while let Some(line) = lines.next_line()? {
        if events.len() == reading.max_events {
            return Err(too_many(reading.max_events));
        }
        let event = event::read_one(line, reading);
        events.push(event.map_err(|failure| failure.at(events.len()).at_line(lines.number())));
    }
    Ok(events)
}

/// Publishes the lines that are whole.
async fn publish_ready(
    lines: &mut Lines,
    publisher: &mut Publisher<'_>,
    share: &mut Share,
    reading: Reading<'_>,
    timeout: Duration,
) -> Result<(), Failure> {
    loop {
        // The results wait in memory until the answer.
        if !share.grow_to(lines.waiting() + publisher.answer_bytes()) {
            return Err(bodies_full());
        }
        let Some(line) = lines.next_line()? else { return Ok(()) };
        if publisher.len() == reading.max_events {
            return Err(too_many(reading.max_events));
        }
        match event::read_one(line, reading) {
            Ok(record) => publisher.publish(record, Instant::now() + timeout).await,
            Err(failure) => publisher.fail(failure.at_line(lines.number())),
        }
    }
}

/// Returns the digest of everything that decides which records a request writes.
fn digest(head: &Head, headers: &HeaderMap, body: &[u8]) -> PayloadDigest {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    };
    let crate::shapes::query::Query { key, partition, partial, tombstone, .. } = &head.query;
    add(format!("{:?} {:?} {partition:?} {partial} {tombstone}", head.route, head.shape).as_bytes());
    add(key.as_deref().unwrap_or_default());
    add(&[u8::from(key.is_some())]);
    if head.shape == Shape::CloudEventData {
        add(text(headers, CONTENT_TYPE.as_str()).unwrap_or_default().as_bytes());
    }
    let mut named: Vec<(&str, &[u8])> = pairs(headers).filter(|(name, _)| is_of_record(name)).collect();
    named.sort_unstable();
    named.iter().for_each(|(name, value)| {
        add(name.as_bytes());
        add(value);
    });
    add(body);
    hash.finalize().into()
}

fn is_of_record(name: &str) -> bool {
    name.starts_with("ce-") || name.starts_with("record-")
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use kafka_courier::{KafkaConfig, KafkaProducer};

    use super::*;
    use crate::options::GatewayConfig;

    #[tokio::test]
    async fn dropped_key_stays_in_doubt() {
        let kafka = KafkaConfig::default();
        let producer = KafkaProducer::build(kafka.clone()).unwrap();
        let gateway = Gateway::new(producer, &kafka, GatewayConfig::default()).unwrap();
        let key = DedupeKey { client: None, key: "k-1".to_owned() };
        let begin = |waiter| gateway.0.dedupe.lock().begin(&key, [1; 32], Instant::now(), waiter);
        let (answer, waiter) = watch::channel(None);
        assert!(matches!(begin(waiter.clone()), Begun::New));
        let (gateway, key, request_id) = (gateway.clone(), key.clone(), "r-1".to_owned());
        drop(BegunKey { gateway, key, answer, request_id, is_finished: false });
        assert!(matches!(begin(waiter), Begun::Answered(first) if first.status == 504));
    }
}
