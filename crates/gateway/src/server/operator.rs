//! Dead letters and the spool, for operators: the second listener's routes below `/dlq` and `/spool`.
//!
//! Rules:
//! - The work is that of `courier dlq` and `courier spool`, on the stores of this process.
//! - A request that changes something has a content type or a method that a page of another site can't send without a preflight.
//! - A replay continues if its client leaves, and stops between two groups once the service ends.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use kafka_courier::dlq::{BeginReplayError, LetterId, Selection, StoreError};
use kafka_courier::spool::{SpoolRecordError, SpoolReport, SpoolView, SpoolViewError, spool_records};
use kafka_courier::{Replay, ReplayError};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Phase;
use super::gateway::Gateway;
use crate::shapes::dead_letters::{OperatorError, PageQuery, SpoolQuery, read_purge, read_replay};

/// The longest body of a request.
const MAX_BODY: usize = 1 << 20;
/// The longest time of such a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request of an operator failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorFailure {
    #[error(transparent)]
    Invalid(#[from] OperatorError),
    #[error("the body is too large, too slow, or ended early")]
    UnreadBody,
    #[error("use content-type application/json")]
    ContentType,
    #[error("this route has the methods {0}")]
    Method(&'static str),
    #[error("no such route")]
    NoRoute,
    #[error("no store of this process has the dead letter: it may have been delivered, found in the log, or purged")]
    NoLetter,
    #[error("the service has no spool: start it with --spool")]
    NoSpool,
    #[error(
        "this route needs the token of management_token, a client with the right manage, or a loopback address and a host such \
         as localhost"
    )]
    NoRight,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Spool(#[from] SpoolRecordError),
    #[error("the work ended without a result: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("the answer has no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<SpoolViewError> for OperatorFailure {
    fn from(error: SpoolViewError) -> Self {
        Self::Spool(error.into())
    }
}

impl OperatorFailure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::UnreadBody => StatusCode::BAD_REQUEST,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute | Self::NoLetter | Self::NoSpool => StatusCode::NOT_FOUND,
            Self::NoRight => StatusCode::FORBIDDEN,
            Self::Replay(ReplayError::Begin(BeginReplayError::Busy { .. } | BeginReplayError::Claimed { .. })) => {
                StatusCode::CONFLICT
            }
            Self::Spool(SpoolRecordError::View(SpoolViewError::Unsteady { .. }))
            | Self::Replay(ReplayError::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) | Self::Replay(_) | Self::Spool(_) | Self::Task(_) | Self::Json(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// Returns the failure as problem details (RFC 9457), whose title is that of the status.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.to_string(),
        });
        with_body(status, "application/problem+json", &body)
    }
}

fn with_body(status: StatusCode, content_type: &'static str, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns whether a path is one of these routes.
pub(super) fn is_operator_path(path: &str) -> bool {
    ["/dlq", "/spool"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Answers the requests of operators who have the right.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    gateway: Gateway,
    phase: watch::Receiver<Phase>,
}

impl Operator {
    pub(super) fn new(gateway: Gateway, phase: watch::Receiver<Phase>) -> Self {
        Self { gateway, phase }
    }

    pub(super) async fn answer<B: Body<Data = Bytes>>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.route(request).await {
            Ok(body) => with_body(StatusCode::OK, "application/json", &body),
            Err(failure) => failure.response(),
        }
    }

    async fn route<B: Body<Data = Bytes>>(&self, request: Request<B>) -> Result<Value, OperatorFailure>
    where
        B::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let reads = || if is_read { Ok(()) } else { Err(OperatorFailure::Method("GET")) };
        match segments.as_slice() {
            ["dlq"] => {
                reads()?;
                self.list(&PageQuery::parse(query)?).await
            }
            ["dlq", "stats"] => {
                reads()?;
                self.stats().await
            }
            ["dlq", "purge"] => {
                let selection = read_purge(&change(&parts, body).await?)?;
                self.purge(selection).await
            }
            ["dlq", "replay"] => {
                let replay = read_replay(&change(&parts, body).await?, None)?;
                self.replay(replay).await
            }
            ["dlq", id, "replay"] => {
                let id = letter_id(id)?;
                let replay = read_replay(&change(&parts, body).await?, Some(id))?;
                self.show(id).await?;
                self.replay(replay).await
            }
            ["dlq", id] if is_read => self.show(letter_id(id)?).await,
            ["dlq", id] if parts.method == Method::DELETE => {
                let id = letter_id(id)?;
                self.show(id).await?;
                self.purge(Selection { ids: vec![id], ..Selection::all() }).await
            }
            ["dlq", _] => Err(OperatorFailure::Method("GET, DELETE")),
            ["spool"] => {
                reads()?;
                self.spool().await
            }
            ["spool", "events"] => {
                reads()?;
                self.spool_events(SpoolQuery::parse(query)?).await
            }
            _ => Err(OperatorFailure::NoRoute),
        }
    }

    async fn list(&self, page: &PageQuery) -> Result<Value, OperatorFailure> {
        let letters = self.gateway.producer().dead_letters();
        let found = letters.page(&page.selection, page.after, page.limit).await?;
        let unread: Vec<_> =
            found.unread.iter().map(|(store, error)| json!({ "store": store, "error": error.to_string() })).collect();
        let letters = found.letters.iter().map(|held| serde_json::to_value(&held.letter));
        let letters: Vec<Value> = letters.collect::<Result<_, _>>()?;
        Ok(json!({ "letters": letters, "next": found.next.map(|next| next.to_string()), "unread": unread }))
    }

    async fn show(&self, id: LetterId) -> Result<Value, OperatorFailure> {
        let selection = Selection { ids: vec![id], ..Selection::all() };
        let found = self.gateway.producer().dead_letters().page(&selection, None, 1).await?;
        match found.letters.first() {
            Some(held) => Ok(serde_json::to_value(&held.letter)?),
            None => match found.unread.into_iter().next() {
                Some((_, error)) => Err(error.into()),
                None => Err(OperatorFailure::NoLetter),
            },
        }
    }

    async fn stats(&self) -> Result<Value, OperatorFailure> {
        let stores = self.gateway.producer().dead_letters().stats().await?;
        let stores = stores.into_iter().map(|store| {
            json!({
                "store": store.store, "kept": store.kept, "stats": store.stats,
                "error": store.error.map(|error| error.to_string()),
            })
        });
        Ok(json!({ "stores": stores.collect::<Vec<_>>() }))
    }

    async fn purge(&self, selection: Selection) -> Result<Value, OperatorFailure> {
        let removed = self.gateway.producer().dead_letters().purge(&selection).await?;
        tracing::info!(removed, "dead letters purged by an operator");
        Ok(json!({ "removed": removed }))
    }

    async fn replay(&self, replay: Replay) -> Result<Value, OperatorFailure> {
        let (producer, phase, began) = (self.gateway.producer().clone(), self.phase.clone(), Instant::now());
        let dry_run = replay.dry_run;
        let task = tokio::spawn(async move {
            let ended = producer.replay(&replay, |_| match *phase.borrow() {
                Phase::Running | Phase::Draining => ControlFlow::Continue(()),
                Phase::Closing | Phase::Ended => ControlFlow::Break(()),
            });
            let ended = ended.await;
            match &ended {
                Ok(report) => tracing::info!(?report, "dead letters replayed by an operator"),
                Err(error) => tracing::warn!(%error, "replay of an operator failed"),
            }
            ended
        });
        let report = task.await??;
        Ok(serde_json::to_value(report.as_json(dry_run, began.elapsed()))?)
    }

    async fn spool(&self) -> Result<Value, OperatorFailure> {
        self.with_spool(|dir| {
            let (view, holder) = (SpoolView::read(dir)?, SpoolView::holder_of(dir)?);
            let report = SpoolReport::of(dir.display().to_string(), &view, holder)?;
            Ok(serde_json::to_value(&report)?)
        })
        .await
    }

    async fn spool_events(&self, query: SpoolQuery) -> Result<Value, OperatorFailure> {
        self.with_spool(move |dir| {
            let view = SpoolView::read(dir)?;
            let mut records = spool_records(&view, query.topic.as_deref()).skip(query.offset);
            let mut events = Vec::new();
            for record in records.by_ref().take(query.limit) {
                events.push(record?.to_json()?);
            }
            let next = records.next().transpose()?.map(|_| query.offset + events.len());
            Ok(json!({ "events": events, "next_offset": next }))
        })
        .await
    }

    /// Reads the spool on a thread that may block.
    async fn with_spool(
        &self,
        read: impl FnOnce(&Path) -> Result<Value, OperatorFailure> + Send + 'static,
    ) -> Result<Value, OperatorFailure> {
        let dir = self.gateway.spool_dir().ok_or(OperatorFailure::NoSpool)?.to_owned();
        tokio::task::spawn_blocking(move || read(&dir)).await?
    }
}

fn letter_id(text: &str) -> Result<LetterId, OperatorFailure> {
    text.parse().map_err(|_| OperatorFailure::NoLetter)
}

/// Reads the body of a request that changes something.
async fn change<B: Body<Data = Bytes>>(parts: &hyper::http::request::Parts, body: B) -> Result<Bytes, OperatorFailure>
where
    B::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if parts.method != Method::POST {
        return Err(OperatorFailure::Method("POST"));
    }
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(OperatorFailure::ContentType);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, Box::pin(Limited::new(body, MAX_BODY).collect())).await;
    match read {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        _ => Err(OperatorFailure::UnreadBody),
    }
}
