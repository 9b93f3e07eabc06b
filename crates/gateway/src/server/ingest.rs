//! From the head of a request to its answer: the body, the records, their verdicts.
//!
//! Rules:
//! - A body of NDJSON without a key is read as fast as its events are accepted.

use std::fmt::Display;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use kafka_courier::events::SystemStamper;
use sha2::{Digest, Sha256};

use super::body::read_whole;
use super::gateway::Gateway;
use super::head::{Head, text};
use super::keyed::{Keyed, KeyedRequest};
use super::line_body::LineBody;
use super::publisher::Publisher;
use crate::limits::budget::Share;
use crate::limits::dedupe::{DedupeKey, PayloadDigest, shortened};
use crate::shapes::ack::Ack;
use crate::shapes::answer::Answer;
use crate::shapes::content::Shape;
use crate::shapes::event::{self, Events, too_many};
use crate::shapes::failure::Failure;
use crate::shapes::key_stamper::KeyStamper;
use crate::shapes::ndjson::Lines;
use crate::shapes::principal::Principal;
use crate::shapes::record::{OutRecord, Reading};
use crate::shapes::route::Route;
use crate::shapes::{cloudevents, raw, records};

/// The events of a request whose body was read.
pub(super) struct Work {
    events: Events,
    client: Option<Principal>,
    asked: Option<Ack>,
    pub(super) until: Instant,
    pub(super) request_id: String,
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
        // An earlier request with the same key may have written these events.
        let may_have_key = self.may_have_key(head);
        if !may_have_key {
            self.refusal().map_or(Ok(()), Err)?;
        }
        let topic_of = |event_type: &str| self.0.producer.topic_for(event_type);
        let (max_depth, max_events) = (self.0.config.max_json_depth, self.0.config.max_events);
        let needs_source = may_have_key && head.key.is_none();
        let (context, stamper) = (&head.context, &SystemStamper);
        let reading = Reading { topic_of: &topic_of, context, max_depth, max_events, stamper, needs_source };
        if head.shape == Shape::Ndjson && head.key.is_none() {
            return self.publish_lines(head, client.as_ref(), body, reading, id).await;
        }
        let undecided = |failure: Failure| if may_have_key { failure.undecided() } else { failure };
        let (body, share) = read_whole(body, head, &self.0.config, &self.0.budget).await.map_err(undecided)?;
        let until = Instant::now() + head.timeout;
        let read = self.read_keyed(head, client.as_ref(), headers, body, reading);
        let (events, keyed) = read.map_err(undecided)?;
        let work = Work { events, client, asked: head.query.ack, until, request_id: id.to_owned(), share };
        match (keyed, self.refusal().filter(|_| may_have_key)) {
            (Some(keyed), _) => self.publish_once(keyed, work).await,
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(self.run(work, None, std::future::pending()).await),
        }
    }

    /// Reads the events of a whole body, and the key of the request.
    fn read_keyed(
        &self,
        head: &Head,
        client: Option<&Principal>,
        headers: &HeaderMap,
        body: Vec<u8>,
        reading: Reading<'_>,
    ) -> Result<(Events, Option<Keyed>), Failure> {
        let may_have_key = head.key.is_some() || reading.needs_source;
        // The digest reads the whole body, which other requests need not pay for.
        let payload = if may_have_key { digest(head, headers, &body) } else { PayloadDigest::default() };
        let name = client.map(|client| client.name.as_str());
        let named = head.key.as_deref().map(|key| self.keyed(DedupeKey::of_header(name, key), payload));
        let key_stamper = named.map(|keyed| KeyStamper::new(keyed.key.0, keyed.at_ms));
        let reading = match &key_stamper {
            Some(stamper) => Reading { stamper, ..reading },
            None => reading,
        };
        let events = read_events(head, headers, body, reading)?;
        let events = self.check_array(head, client, events)?;
        let keyed = named.or_else(|| Some(self.keyed(event_key(name, &events)?, payload)));
        Ok((events, keyed))
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

    /// Publishes events, and waits for their verdicts.
    pub(super) async fn run(
        &self,
        work: Work,
        request: Option<KeyedRequest>,
        client_left: impl Future<Output = ()>,
    ) -> Answer {
        let Work { events, client, asked, until, request_id, share } = work;
        let mut publisher = self.publisher(client.as_ref(), asked);
        let (events, is_one) = match events {
            Events::One(record) => (vec![Ok(record)], true),
            Events::Array(events) => (events, false),
        };
        let count = events.len();
        for (index, event) in events.into_iter().enumerate() {
            let stored = request.as_ref().and_then(|request| request.stored(index));
            let key = request.as_ref().and_then(|request| request.key(index, count));
            match (event, stored) {
                (Ok(record), Some(stored)) => publisher.resume(record, stored),
                (Ok(record), None) => publisher.publish(record, until, key.as_ref()).await,
                (Err(failure), _) => publisher.fail(failure),
            }
        }
        drop(share);
        let results = publisher.finish(until, client_left).await;
        let answer = match results.first().filter(|_| is_one) {
            Some(only) => Answer::one(only, &request_id),
            None => Answer::many(&results, None, &request_id),
        };
        match request.is_some_and(|request| request.is_stored(count)) {
            true => answer.repeated(),
            false => answer,
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
        let mut body = LineBody::new(self, head, client, body);
        let mut publisher = self.publisher(client, head.query.ack);
        let stopped = loop {
            let part = match body.read().await {
                Ok(part) => part,
                Err(failure) => break Some(failure),
            };
            if let Err(failure) = body.add(part.as_ref(), publisher.answer_bytes()) {
                break Some(failure);
            }
            let began = Instant::now();
            if let Err(failure) = publish_ready(&mut body, &mut publisher, reading, head.timeout).await {
                break Some(failure);
            }
            body.paused(began.elapsed());
            if part.is_none() {
                break None;
            }
        };
        let results = publisher.finish(Instant::now() + head.timeout, std::future::pending()).await;
        Ok(Answer::many(&results, stopped.as_ref(), id))
    }

    pub(super) fn publisher<'a>(&'a self, client: Option<&'a Principal>, asked: Option<Ack>) -> Publisher<'a> {
        Publisher::new(&self.0.producer, &self.0.rules, client, asked)
    }
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
        (Shape::Records, Route::Topic(topic)) => records::read_body(topic, &body, reading),
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
async fn publish_ready<B: Body<Data = Bytes> + Unpin>(
    body: &mut LineBody<'_, B>,
    publisher: &mut Publisher<'_>,
    reading: Reading<'_>,
    timeout: Duration,
) -> Result<(), Failure>
where
    B::Error: Display,
{
    loop {
        // The results wait in memory until the answer.
        body.reserve(publisher.answer_bytes())?;
        let Some(line) = body.lines.next_line()? else { return Ok(()) };
        if publisher.len() == reading.max_events {
            return Err(too_many(reading.max_events));
        }
        match event::read_one(line, reading) {
            Ok(record) => publisher.publish(record, Instant::now() + timeout, None).await,
            Err(failure) => publisher.fail(failure.at_line(body.lines.number())),
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
    shortened(hash)
}

/// Returns the key of a request with one event, if the event has one.
fn event_key(client: Option<&str>, events: &Events) -> Option<DedupeKey> {
    let Events::One(OutRecord { id: Some(id), source: Some(source), .. }) = events else { return None };
    Some(DedupeKey::of_event(client, source, id))
}

fn is_of_record(name: &str) -> bool {
    name.starts_with("ce-") || name.starts_with("record-")
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}
