//! One connection. Requests are read ahead and served one after the other.
//!
//! Rules:
//! - The requests of a connection are served one at a time, in their order. A real broker mutes the connection while
//!   it serves a request.
//! - A request that was read is applied, even if the client has disconnected meanwhile.
//! - A malformed request ends the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::frames::{Frame, read_frame, reserve_memory};
use crate::api::{Call, DecodedRequest, MAX_FETCH_ANSWER, Refuse, Reply, SaslSession, unsupported_api_versions};
use crate::fault::{Fault, Rule};
use crate::shared::SharedState;
use crate::wire::{Malformed, RequestHeader, Schema};

/// The number of requests that a connection reads before the first of them is answered.
const READ_AHEAD: usize = 8;

/// The broker of a connection.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) shared: Arc<SharedState>,
    pub(crate) broker: i32,
    pub(crate) paused: watch::Receiver<bool>,
}

impl ConnectionContext {
    async fn wait_unpaused(&self) {
        // The sender lives as long as the broker, and the broker's tasks end with the broker.
        let _ = self.paused.clone().wait_for(|paused| !paused).await;
    }

    fn is_alive(&self) -> bool {
        self.shared.lock().cluster.broker(self.broker).is_some_and(|broker| broker.alive)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite, context: ConnectionContext) {
    let (mut input, output) = tokio::io::split(stream);
    let (queue, requests) = mpsc::channel(READ_AHEAD);
    let reader = async {
        loop {
            context.wait_unpaused().await;
            match read_frame(&mut input, &context.shared).await {
                Ok(Some(frame)) => {
                    if queue.send(frame).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(broker = context.broker, %error, "connection read failed");
                    break;
                }
            }
        }
        drop(queue);
        std::future::pending::<()>().await;
    };
    let worker = Worker { context: context.clone(), session: SaslSession::default(), output: Some(output) };
    tokio::select! {
        () = worker.run(requests) => {}
        () = reader => {}
    }
}

struct Worker<W> {
    context: ConnectionContext,
    session: SaslSession,
    /// `None` after the connection has ended. Requests that were read are still applied.
    output: Option<W>,
}

/// The connection's state after a request.
enum AfterRequest {
    /// The connection serves the next request.
    Continue,
    /// The connection ends. Requests that were read are applied without answers.
    Disconnect,
    /// The connection ends, and requests that were read are dropped.
    Close,
}

impl<W: AsyncWrite + Unpin> Worker<W> {
    async fn run(mut self, mut requests: mpsc::Receiver<Frame>) {
        while let Some(frame) = requests.recv().await {
            self.context.wait_unpaused().await;
            match self.serve(&frame.bytes).await {
                Ok(AfterRequest::Continue) => {}
                Ok(AfterRequest::Disconnect) => {
                    requests.close();
                    self.disconnect().await;
                }
                Ok(AfterRequest::Close) => break,
                Err(error) => {
                    tracing::debug!(broker = self.context.broker, %error, "malformed request: connection closed");
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

    async fn serve(&mut self, frame: &Bytes) -> Result<AfterRequest, Malformed> {
        let header = RequestHeader::parse(frame)?;
        let schema = Schema::of(header.api_key).ok_or(Malformed("API key"))?;
        if !(schema.min..=schema.max).contains(&header.version) {
            if schema.key != ApiKey::ApiVersions {
                return Err(Malformed("API version"));
            }
            let answer = crate::wire::encode(header.correlation_id, 0, &unsupported_api_versions())?;
            return Ok(self.write(Reply::Frame(answer)).await);
        }
        let body_at = RequestHeader::body_at(frame, schema.is_flexible(header.version))?;
        let request = DecodedRequest::decode(schema, header.version, frame.slice(body_at..))?;
        let rule = self.take_fault(schema.key, &request, header.version);
        self.context.shared.count_request(schema.key);
        self.context.shared.note_change();
        let served = self.serve_request(&request, schema.key, header, rule.as_ref()).await;
        self.context.shared.note_change();
        served
    }

    fn take_fault(&self, api: ApiKey, request: &DecodedRequest, version: i16) -> Option<Rule> {
        let mut state = self.context.shared.lock();
        if state.faults.is_empty() {
            return None;
        }
        let partitions = request.partitions(&state.cluster, version);
        let partitions: Vec<(&str, i32)> = partitions.iter().map(|(topic, index)| (topic.as_str(), *index)).collect();
        state.faults.take(self.context.broker, api, &partitions)
    }

    async fn serve_request(
        &mut self,
        request: &DecodedRequest,
        api: ApiKey,
        header: RequestHeader,
        rule: Option<&Rule>,
    ) -> Result<AfterRequest, Malformed> {
        match rule.map(|rule| &rule.fault) {
            Some(Fault::Disconnect) => return Ok(AfterRequest::Disconnect),
            Some(Fault::Swallow) => return Ok(AfterRequest::Continue),
            Some(Fault::Hold(gate)) => gate.pass().await,
            _ => {}
        }
        // A broker that was killed meanwhile must not apply the request.
        if !self.context.is_alive() {
            return Ok(AfterRequest::Close);
        }
        let context = self.context.clone();
        let call = Call {
            shared: &context.shared,
            broker: context.broker,
            version: header.version,
            correlation_id: header.correlation_id,
            refuse: demanded_error(rule),
            throttle: throttle_time(rule),
        };
        if !self.session.allows(&call, api) {
            return Ok(AfterRequest::Close);
        }
        let (reply, _memory) = self.apply(request, &call).await?;
        let reply = match rule.map(|rule| &rule.fault) {
            Some(Fault::ApplyThenSend(bytes)) => Reply::Frame(Bytes::copy_from_slice(bytes)),
            Some(Fault::ApplyThenAnswer(body)) => Reply::Frame(crate::wire::frame(header.correlation_id, body)?),
            _ => reply,
        };
        self.answer(reply, rule).await
    }

    /// Applies a request. A Fetch waits for records. The permit reserves memory for a Fetch answer until it is written.
    async fn apply(
        &mut self,
        request: &DecodedRequest,
        call: &Call<'_>,
    ) -> Result<(Reply, Option<OwnedSemaphorePermit>), Malformed> {
        let Some(max_wait) = request.max_wait() else { return Ok((request.apply(call, &mut self.session)?.0, None)) };
        let deadline = Instant::now() + max_wait;
        let mut changes = self.context.shared.changes();
        let mut is_expired = max_wait.is_zero();
        loop {
            let memory = reserve_memory(&call.shared.answer_memory, MAX_FETCH_ANSWER).await;
            let memory = memory.map_err(|_| Malformed("answer size"))?;
            let (reply, wait) = request.apply(call, &mut self.session)?;
            if is_expired || !wait {
                return Ok((reply, Some(memory)));
            }
            drop((reply, memory));
            is_expired = tokio::time::timeout_at(deadline, changes.changed()).await.is_err();
        }
    }

    async fn answer(&mut self, reply: Reply, rule: Option<&Rule>) -> Result<AfterRequest, Malformed> {
        match rule.map(|rule| &rule.fault) {
            Some(Fault::ApplyThenDisconnect) => return Ok(AfterRequest::Disconnect),
            Some(Fault::ApplyThenSwallow) => return Ok(AfterRequest::Continue),
            Some(Fault::ApplyThenHold(gate)) => gate.pass().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        self.context.wait_unpaused().await;
        let next = self.write(reply).await;
        if let Some(Fault::Throttle(time)) = rule.map(|rule| &rule.fault) {
            tokio::time::sleep(*time).await;
        }
        Ok(next)
    }

    async fn write(&mut self, reply: Reply) -> AfterRequest {
        match reply {
            Reply::None => AfterRequest::Continue,
            Reply::Close => AfterRequest::Close,
            Reply::Frame(frame) => {
                if let Some(output) = &mut self.output
                    && output.write_all(&frame).await.is_err()
                {
                    self.output = None;
                }
                AfterRequest::Continue
            }
        }
    }
}

fn demanded_error(rule: Option<&Rule>) -> Option<Refuse<'_>> {
    let rule = rule?;
    let (code, applied) = match rule.fault {
        Fault::Refuse(code) => (code, false),
        Fault::ApplyThenRefuse(code) => (code, true),
        _ => return None,
    };
    Some(Refuse { code, applied, rule })
}

fn throttle_time(rule: Option<&Rule>) -> Duration {
    match rule.map(|rule| &rule.fault) {
        Some(Fault::Throttle(time)) => *time,
        _ => Duration::ZERO,
    }
}
