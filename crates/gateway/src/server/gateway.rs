//! [`Gateway`], which answers requests with events.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use kafka_courier::events::TraceContext;
use kafka_courier::{KafkaConfig, KafkaProducer};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::body::discard;
use super::charged::Charged;
use super::clients::Clients;
use super::head::{Head, IDEMPOTENCY_KEY, request_id, text};
use super::keyed::{self, RequestTable};
use super::local_host::is_local;
use super::metrics::{self, MetricsText};
use super::tls::ServerTls;
use super::{Phase, ServeError, reached};
use crate::limits::budget::{Budget, Share};
use crate::limits::dedupe::{DedupeLimits, DedupeTable};
use crate::limits::room::RoomSample;
use crate::options::{Dedupe, GatewayConfig};
use crate::shapes::ack::AckRules;
use crate::shapes::answer::Answer;
use crate::shapes::certificate::CertificateNames;
use crate::shapes::failure::Failure;
use crate::shapes::principal::Principal;
use crate::shapes::problem::Problem;
use crate::shapes::route::Route;

/// The age of the producer's state by which requests are refused early.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// The interval of the recorder's regular work, in samples.
const UPKEEP: u32 = 25;

/// Answers requests with events. Clones share one gateway.
///
/// An application hands it requests of its own server:
///
/// ```
/// # use kafka_courier::{KafkaConfig, KafkaProducer};
/// # use kafka_courier_gateway::{Gateway, GatewayConfig};
/// # use kafka_courier_test_broker::TestCluster;
/// use http_body_util::Full;
/// use hyper::{Request, body::Bytes};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = TestCluster::builder().topic("user-events", 1).start().await?;
/// # let mut config = KafkaConfig::default();
/// # config.brokers = vec![cluster.bootstrap().parse()?];
/// let producer = KafkaProducer::build(config.clone())?;
/// let gateway = Gateway::new(producer, &config, GatewayConfig::default())?;
/// let event = r#"{"type":"user.logged_in","data":{"user_id":"u-42"}}"#;
/// let request = Request::post("/v1/events").header("content-type", "application/json").body(Full::new(Bytes::from(event)))?;
/// let response = gateway.answer(request).await;
/// assert_eq!(response.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gateway(pub(super) Arc<Inner>);

/// The state of a gateway.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) producer: KafkaProducer,
    pub(super) config: GatewayConfig,
    pub(super) rules: AckRules,
    pub(super) budget: Budget,
    pub(super) dedupe: Mutex<RequestTable>,
    pub(super) clients: Clients,
    buffer_limit: usize,
    spool_dir: Option<PathBuf>,
    room: RwLock<RoomSample>,
    requests: AtomicU64,
    /// Whether bodies of NDJSON are read no further.
    pub(super) is_closing: watch::Sender<bool>,
}

impl Gateway {
    /// Creates a gateway for a producer that was built with `kafka`.
    ///
    /// # Errors
    ///
    /// [`ServeError::File`] if `tokens_file` is unreadable or invalid.
    pub fn new(producer: KafkaProducer, kafka: &KafkaConfig, config: GatewayConfig) -> Result<Self, ServeError> {
        let clients = Clients::open(&config);
        let clients = clients.map_err(|why| ServeError::File { option: "tokens_file", why })?;
        let rules = AckRules {
            default: config.ack,
            floor: config.ack_floor,
            topics: config.topic_acks.clone(),
            has_spool: producer.stats().spool.is_some(),
        };
        let mut dedupe = DedupeTable::new(DedupeLimits {
            window: config.dedupe_window,
            max_keys: config.dedupe_max_keys,
            max_bytes: config.dedupe_max_bytes,
        });
        keyed::recover(&mut dedupe, &producer, &config);
        let gateway = Self(Arc::new(Inner {
            producer,
            rules,
            clients,
            budget: Budget::new(config.max_inflight_bytes),
            dedupe: Mutex::new(dedupe),
            buffer_limit: kafka.buffer_memory,
            spool_dir: Some(&kafka.spool_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            room: RwLock::default(),
            requests: AtomicU64::new(0),
            is_closing: watch::Sender::new(false),
            config,
        }));
        gateway.sample();
        Ok(gateway)
    }

    /// Answers a request. An application that calls it from its own server has no listener, no limits of connections and no
    /// early refusals for a full memory.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, events may have been accepted. Accepted events are still delivered.
    pub async fn answer<B: Body<Data = Bytes> + Unpin>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Display,
    {
        self.answer_for(request, false).await
    }

    /// Answers a request of the service's own listener.
    pub(super) async fn answer_own<B: Body<Data = Bytes> + Unpin>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Display,
    {
        let config = &self.0.config;
        let must_be_local = config.listen.ip().is_loopback() && !config.knows_clients() && !config.insecure_no_auth;
        self.answer_for(request, must_be_local).await
    }

    async fn answer_for<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: Request<B>,
        must_be_local: bool,
    ) -> Response<Full<Bytes>>
    where
        B::Error: Display,
    {
        let began = Instant::now();
        let (parts, mut body) = request.into_parts();
        let id = request_id(&parts.headers);
        let _active = ActiveRequest::new();
        let route = Route::find(parts.method.as_str(), parts.uri.path());
        let answered = match self.read_head(&parts, must_be_local) {
            Ok((head, client)) => {
                let charged = client.clone();
                let body = Charged::new(&mut body, &self.0.clients, charged.as_ref());
                self.publish(&head, client, &parts.headers, body, &id).await
            }
            Err(failure)
                if parts.headers.contains_key(IDEMPOTENCY_KEY) || self.0.config.deduped() == Dedupe::EventId =>
            {
                Err(failure.undecided())
            }
            Err(failure) => Err(failure),
        };
        let answer = answered.unwrap_or_else(|failure| Answer::problem(&failure, &id));
        // A client that expects 100 has not sent its body.
        if !parts.headers.contains_key(EXPECT) {
            discard(&mut body).await;
        }
        let took = began.elapsed();
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let (route, method) = route.map_or(("none", "_OTHER"), |route| (route.pattern(), "POST"));
        metrics::answered(method, route, &answer, took);
        let (succeeded, failed) = answer.counts;
        let trace = text(&parts.headers, "traceparent").and_then(|parent| TraceContext::new(parent, None).ok());
        let trace = trace.as_ref().map(TraceContext::traceparent);
        tracing::info!(
            request_id = id,
            route,
            status = answer.status,
            succeeded,
            failed,
            ?took,
            trace,
            "request answered"
        );
        let mut share = self.0.budget.empty_share();
        share.exceed_to(answer.body.len());
        response(answer, share, &id)
    }

    /// Checks who sends the request, and what the head asks for.
    fn read_head(&self, parts: &Parts, must_be_local: bool) -> Result<(Head, Option<Principal>), Failure> {
        if must_be_local && !is_local(&parts.uri, &parts.headers) {
            let why =
                "the host of the request is not this machine: use localhost, or set tokens_file or insecure_no_auth";
            return Err(Failure::new(Problem::HostNotLocal, why));
        }
        let client = self.client(&parts.headers, parts.extensions.get())?;
        self.0.clients.count_request(client.as_ref())?;
        let head = Head::read(parts, &self.0.config, &self.0.rules, client.as_ref())?;
        Ok((head, client))
    }

    /// Returns the client of a request. `None` if every client is accepted.
    pub(super) fn client(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Arc<CertificateNames>>,
    ) -> Result<Option<Principal>, Failure> {
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        self.0.clients.find(authorization, certificate.map(|names| &**names))
    }

    /// Returns the options.
    pub fn config(&self) -> &GatewayConfig {
        &self.0.config
    }

    /// Returns the producer.
    pub fn producer(&self) -> &KafkaProducer {
        &self.0.producer
    }

    /// Returns the folder of the producer's spool, if it has one.
    pub(super) fn spool_dir(&self) -> Option<&Path> {
        self.0.spool_dir.as_deref()
    }

    /// Returns the number of answered requests.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns the bytes held for bodies.
    pub(super) fn body_bytes(&self) -> usize {
        self.0.budget.used()
    }

    /// Returns why the gateway accepts no events, if it accepts none.
    pub(super) fn refusal(&self) -> Option<Failure> {
        self.0.room.read().check().err()
    }

    /// Ends the reading of bodies that are published while they arrive.
    pub(super) fn stop_reading(&self) {
        self.0.is_closing.send_replace(true);
    }

    fn sample(&self) {
        let stats = self.0.producer.stats();
        *self.0.room.write() = RoomSample {
            buffered: stats.buffered_bytes,
            buffer_limit: self.0.buffer_limit,
            spool_fault: stats.spool.and_then(|spool| spool.fault),
            is_closed: stats.is_closed,
        };
    }

    /// Reports the window of repeated requests, and warns once it is shortened.
    fn report_window(&self) {
        let now = Instant::now();
        let mut dedupe = self.0.dedupe.lock();
        let (window, shortened) = (dedupe.window(now), dedupe.shortened_window(now));
        drop(dedupe);
        metrics::dedupe_window(window);
        if let Some(window) = shortened {
            tracing::warn!(
                ?window,
                "keys of requests have no room, and repeated requests are recognized for a shorter time: raise \
                 dedupe_max_keys and dedupe_max_bytes"
            );
        }
    }

    /// Keeps the producer's state fresh until the service has ended.
    pub(super) async fn watch_producer(
        self,
        mut phase: watch::Receiver<Phase>,
        text: MetricsText,
        tls: Option<Arc<ServerTls>>,
    ) {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        let mut until_upkeep = UPKEEP;
        loop {
            tokio::select! {
                () = reached(&mut phase, Phase::Ended) => return,
                _ = ticks.tick() => {}
            }
            self.sample();
            metrics::body_bytes(self.0.budget.used());
            self.report_window();
            until_upkeep -= 1;
            if until_upkeep == 0 {
                until_upkeep = UPKEEP;
                text.run_upkeep();
                let (gateway, tls) = (self.clone(), tls.clone());
                // A failed task of a runtime that ends changes nothing.
                let _ = tokio::task::spawn_blocking(move || {
                    gateway.0.clients.reload();
                    tls.iter().for_each(|tls| tls.reload());
                })
                .await;
            }
        }
    }
}

/// A request without an answer yet.
struct ActiveRequest;

impl ActiveRequest {
    fn new() -> Self {
        metrics::active_requests(1.0);
        Self
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        metrics::active_requests(-1.0);
    }
}

/// The bytes of an answer, with their memory until they are written.
struct CountedBytes {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn response(answer: Answer, share: Share, request_id: &str) -> Response<Full<Bytes>> {
    let body = CountedBytes { bytes: answer.body, _share: share };
    let mut response = Response::new(Full::new(Bytes::from_owner(body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    answer.retry_after.into_iter().for_each(|seconds| _ = headers.insert(RETRY_AFTER, seconds.into()));
    answer.allow.into_iter().for_each(|methods| _ = headers.insert(ALLOW, HeaderValue::from_static(methods)));
    if answer.is_repeated {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    if answer.status == StatusCode::UNAUTHORIZED.as_u16() {
        for scheme in ["Bearer", "Basic realm=\"courier serve\""] {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
    response
}
