//! One connection: requests are read ahead, and served one after the other.
//!
//! Rules:
//! - One request of a connection is served at a time, in the order in which they came; its successors wait, as at a real
//!   broker, whose connections are muted meanwhile.
//! - What was read is applied, even if the client is gone by then.
//! - What is not a request ends the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::frames::{Frame, read_frame, room};
use crate::api::{Answer, Call, MAX_FETCH_ANSWER, Refuse, Request, Session, unsupported_api_versions};
use crate::fault::{Fault, Rule};
use crate::shared::Shared;
use crate::wire::{Malformed, RequestHeader, Schema};

/// Requests of a connection that are read before the first of them is answered.
const READ_AHEAD: usize = 8;

/// What a connection belongs to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) broker: i32,
    pub(crate) paused: watch::Receiver<bool>,
}

impl Place {
    async fn unpaused(&self) {
        // The sender belongs to the broker, whose tasks end with it.
        let _ = self.paused.clone().wait_for(|paused| !paused).await;
    }

    fn is_alive(&self) -> bool {
        self.shared.lock().cluster.broker(self.broker).is_some_and(|broker| broker.alive)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite, place: Place) {
    let (mut input, output) = tokio::io::split(stream);
    let (queue, requests) = mpsc::channel(READ_AHEAD);
    let reader = async {
        loop {
            place.unpaused().await;
            match read_frame(&mut input, &place.shared).await {
                Ok(Some(frame)) => {
                    if queue.send(frame).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(broker = place.broker, %error, "a connection ended");
                    break;
                }
            }
        }
        drop(queue);
        std::future::pending::<()>().await;
    };
    let worker = Worker { place: place.clone(), session: Session::default(), output: Some(output) };
    tokio::select! {
        () = worker.run(requests) => {}
        () = reader => {}
    }
}

struct Worker<W> {
    place: Place,
    session: Session,
    /// `None` once the connection has ended: what was read is still applied.
    output: Option<W>,
}

/// What happens after a request.
enum Next {
    Go,
    /// No more answers; what was read is applied.
    Disconnect,
    /// The connection ends at once.
    End,
}

impl<W: AsyncWrite + Unpin> Worker<W> {
    async fn run(mut self, mut requests: mpsc::Receiver<Frame>) {
        while let Some(frame) = requests.recv().await {
            self.place.unpaused().await;
            match self.serve(&frame.bytes).await {
                Ok(Next::Go) => {}
                Ok(Next::Disconnect) => {
                    requests.close();
                    self.disconnect().await;
                }
                Ok(Next::End) => break,
                Err(error) => {
                    tracing::debug!(broker = self.place.broker, %error, "a connection was ended");
                    break;
                }
            }
        }
        self.disconnect().await;
    }

    async fn disconnect(&mut self) {
        if let Some(mut output) = self.output.take() {
            let _ = output.shutdown().await;
        }
    }

    async fn serve(&mut self, frame: &Bytes) -> Result<Next, Malformed> {
        let header = RequestHeader::parse(frame)?;
        let schema = Schema::of(header.api_key).ok_or(Malformed("the API key"))?;
        if !(schema.min..=schema.max).contains(&header.version) {
            if schema.key != ApiKey::ApiVersions {
                return Err(Malformed("the version"));
            }
            let answer = crate::wire::encode(header.correlation_id, 0, &unsupported_api_versions())?;
            return Ok(self.write(Answer::Frame(answer)).await);
        }
        let body_at = RequestHeader::body_at(frame, schema.is_flexible(header.version))?;
        let request = Request::decode(schema, header.version, frame.slice(body_at..))?;
        let rule = self.fault_for(schema.key, &request, header.version);
        self.place.shared.count(schema.key);
        self.place.shared.note_change();
        let served = self.serve_request(&request, schema.key, header, rule.as_ref()).await;
        self.place.shared.note_change();
        served
    }

    fn fault_for(&self, api: ApiKey, request: &Request, version: i16) -> Option<Rule> {
        let mut state = self.place.shared.lock();
        if state.faults.is_empty() {
            return None;
        }
        let partitions = request.partitions(&state.cluster, version);
        let partitions: Vec<(&str, i32)> = partitions.iter().map(|(topic, index)| (topic.as_str(), *index)).collect();
        state.faults.take(self.place.broker, api, &partitions)
    }

    async fn serve_request(
        &mut self,
        request: &Request,
        api: ApiKey,
        header: RequestHeader,
        rule: Option<&Rule>,
    ) -> Result<Next, Malformed> {
        match rule.map(|rule| &rule.fault) {
            Some(Fault::Disconnect) => return Ok(Next::Disconnect),
            Some(Fault::Swallow) => return Ok(Next::Go),
            Some(Fault::Hold(gate)) => gate.pass().await,
            _ => {}
        }
        // A broker that was killed meanwhile has not applied what it was about to.
        if !self.place.is_alive() {
            return Ok(Next::End);
        }
        let place = self.place.clone();
        let call = Call {
            shared: &place.shared,
            broker: place.broker,
            version: header.version,
            correlation_id: header.correlation_id,
            refuse: refuse(rule),
            throttle: throttle(rule),
        };
        if !self.session.allows(&call, api) {
            return Ok(Next::End);
        }
        let (answer, _room) = self.apply(request, &call).await?;
        let answer = match rule.map(|rule| &rule.fault) {
            Some(Fault::ApplyThenSend(bytes)) => Answer::Frame(Bytes::copy_from_slice(bytes)),
            Some(Fault::ApplyThenAnswer(body)) => Answer::Frame(crate::wire::framed(header.correlation_id, body)?),
            _ => answer,
        };
        self.answer(answer, rule).await
    }

    /// Applies a request; a Fetch waits for records. The room is what its answer takes until it is written.
    async fn apply(
        &mut self,
        request: &Request,
        call: &Call<'_>,
    ) -> Result<(Answer, Option<OwnedSemaphorePermit>), Malformed> {
        let Some(patience) = request.patience() else { return Ok((request.apply(call, &mut self.session)?.0, None)) };
        let deadline = Instant::now() + patience;
        let mut changes = self.place.shared.changes();
        let mut waited_enough = patience.is_zero();
        loop {
            let room = room(&call.shared.answer_room, MAX_FETCH_ANSWER).await.map_err(|_| Malformed("its size"))?;
            let (answer, wait) = request.apply(call, &mut self.session)?;
            if waited_enough || !wait {
                return Ok((answer, Some(room)));
            }
            drop((answer, room));
            waited_enough = tokio::time::timeout_at(deadline, changes.changed()).await.is_err();
        }
    }

    async fn answer(&mut self, answer: Answer, rule: Option<&Rule>) -> Result<Next, Malformed> {
        match rule.map(|rule| &rule.fault) {
            Some(Fault::ApplyThenDisconnect) => return Ok(Next::Disconnect),
            Some(Fault::ApplyThenSwallow) => return Ok(Next::Go),
            Some(Fault::ApplyThenHold(gate)) => gate.pass().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        self.place.unpaused().await;
        let next = self.write(answer).await;
        if let Some(Fault::Throttle(time)) = rule.map(|rule| &rule.fault) {
            tokio::time::sleep(*time).await;
        }
        Ok(next)
    }

    async fn write(&mut self, answer: Answer) -> Next {
        match answer {
            Answer::None => Next::Go,
            Answer::Close => Next::End,
            Answer::Frame(frame) => {
                if let Some(output) = &mut self.output
                    && output.write_all(&frame).await.is_err()
                {
                    self.output = None;
                }
                Next::Go
            }
        }
    }
}

fn refuse(rule: Option<&Rule>) -> Option<Refuse<'_>> {
    let rule = rule?;
    let (code, applied) = match rule.fault {
        Fault::Refuse(code) => (code, false),
        Fault::ApplyThenRefuse(code) => (code, true),
        _ => return None,
    };
    Some(Refuse { code, applied, rule })
}

fn throttle(rule: Option<&Rule>) -> Duration {
    match rule.map(|rule| &rule.fault) {
        Some(Fault::Throttle(time)) => *time,
        _ => Duration::ZERO,
    }
}
