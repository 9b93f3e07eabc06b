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
use tokio::sync::{oneshot, watch};

use super::answer_body::AnswerBody;
use super::body::discard;
use super::charged::Charged;
use super::clients::Clients;
use super::head::{Head, IDEMPOTENCY_KEY, request_id, text};
use super::keyed::{self, RequestTable};
use super::local_host::is_local;
use super::metrics::{self, MetricsText};
use super::request_guard::RequestGuard;
use super::tls::ServerTls;
use super::{Phase, ServeError, reached};
use crate::limits::budget::{Budget, Share};
use crate::limits::dedupe::{DedupeLimits, DedupeTable};
use crate::limits::room::RoomSample;
use crate::limits::topic_names::TopicNames;
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
    pub(super) clients: Arc<Clients>,
    topics: Mutex<TopicNames>,
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
            clients: Arc::new(clients),
            budget: Budget::new(config.max_inflight_bytes),
            dedupe: Mutex::new(dedupe),
            topics: Mutex::new(TopicNames::new(config.max_topics)),
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
    pub async fn answer<B>(&self, request: Request<B>) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Display,
    {
        self.answer_for(request, false).await
    }

    /// Answers a request of the service's own listener.
    pub(super) async fn answer_own<B>(&self, request: Request<B>) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Display,
    {
        let config = &self.0.config;
        let must_be_local = config.listen.ip().is_loopback() && !config.knows_clients() && !config.insecure_no_auth;
        self.answer_for(request, must_be_local).await
    }

    async fn answer_for<B>(&self, request: Request<B>, must_be_local: bool) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Display,
    {
        let (parts, mut body) = request.into_parts();
        let record = RequestRecord::begin(self, &parts);
        let answered = match self.read_head(&parts, must_be_local) {
            Ok((head, client)) if head.query.stream && self.refusal().is_none() => {
                return self.stream(head, client, &parts, body, record).await;
            }
            Ok((head, client)) => {
                let body = Charged::new(&mut body, &self.0.clients, client.as_ref());
                self.publish(&head, client, &parts.headers, body, &record.id).await
            }
            Err(failure)
                if parts.headers.contains_key(IDEMPOTENCY_KEY) || self.0.config.deduped() == Dedupe::EventId =>
            {
                Err(failure.undecided())
            }
            Err(failure) => Err(failure),
        };
        let answer = answered.unwrap_or_else(|failure| Answer::problem(&failure, &record.id));
        // A client that expects 100 has not sent its body.
        if !parts.headers.contains_key(EXPECT) {
            discard(&mut body).await;
        }
        record.end(answer.status, answer.counts);
        let mut share = self.0.budget.empty_share();
        share.exceed_to(answer.body.len());
        response(answer, share, &record.id)
    }

    /// Answers a request whose results are sent while its body arrives.
    async fn stream<B>(
        &self,
        head: Head,
        client: Option<Principal>,
        parts: &Parts,
        body: B,
        record: RequestRecord,
    ) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Display,
    {
        let (writer, results) = AnswerBody::results(self.0.config.max_result_bytes);
        let mut response = Response::new(results);
        *response.status_mut() = StatusCode::MULTI_STATUS;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        add_request_id(&mut response, &record.id);
        let (reads, first_read) = oneshot::channel();
        let body = Charged::new(body, &self.0.clients, client.as_ref()).notifying(reads);
        // The connection has a request until the last result is written.
        let guard = parts.extensions.get::<Arc<RequestGuard>>().cloned();
        let gateway = self.clone();
        tokio::spawn(async move {
            let counts = gateway.stream_lines(&head, client.as_ref(), body, writer).await;
            record.end(StatusCode::MULTI_STATUS.as_u16(), counts);
            drop(guard);
        });
        // hyper sends 100 before the head of the answer only if the body is read before. A task that ended has read nothing.
        let _ = first_read.await;
        tokio::task::yield_now().await;
        response
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
        if let Route::Topic(topic) = &head.route {
            // The head was read, so the client has the right to publish there.
            self.0.topics.lock().admit(topic)?;
        }
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

/// A request without an answer yet, for metrics and the log.
struct RequestRecord {
    gateway: Gateway,
    id: String,
    began: Instant,
    method: &'static str,
    route: &'static str,
    trace: Option<String>,
}

impl RequestRecord {
    fn begin(gateway: &Gateway, parts: &Parts) -> Self {
        metrics::active_requests(1.0);
        let route = Route::find(parts.method.as_str(), parts.uri.path());
        let (route, method) = route.map_or(("none", "_OTHER"), |route| (route.pattern(), "POST"));
        let trace = text(&parts.headers, "traceparent").and_then(|parent| TraceContext::new(parent, None).ok());
        let trace = trace.map(|trace| trace.traceparent().to_owned());
        let (id, began) = (request_id(&parts.headers), Instant::now());
        Self { gateway: gateway.clone(), id, began, method, route, trace }
    }

    /// Records the answer. `counts` are the events that succeeded, and that failed.
    fn end(&self, status: u16, counts: (usize, usize)) {
        let took = self.began.elapsed();
        self.gateway.0.requests.fetch_add(1, Ordering::Relaxed);
        metrics::answered(self.method, self.route, status, counts, took);
        let (succeeded, failed) = counts;
        tracing::info!(
            request_id = self.id,
            route = self.route,
            status,
            succeeded,
            failed,
            ?took,
            trace = self.trace,
            "request answered"
        );
    }
}

impl Drop for RequestRecord {
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

fn response(answer: Answer, share: Share, request_id: &str) -> Response<AnswerBody> {
    let body = CountedBytes { bytes: answer.body, _share: share };
    let mut response = Response::new(AnswerBody::whole(Full::new(Bytes::from_owner(body))));
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
    add_request_id(&mut response, request_id);
    response
}

fn add_request_id(response: &mut Response<AnswerBody>, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-request-id", id);
    }
}
