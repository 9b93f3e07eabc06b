//! Probes, metrics, statistics, and the routes of operators.
//!
//! Rules:
//! - `/livez` never depends on Kafka: a restart does not bring a broker back.
//! - `/readyz` says whether the service accepts events, not whether Kafka is there.
//! - Only probes and metrics are open to other machines. A request for the rest has a token, or names this machine as its host,
//!   so that no page of another site reaches it (DNS rebinding).

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use kafka_courier::{Reachability, Stats};
use tokio::sync::watch;

use super::Phase;
use super::gateway::Gateway;
use super::local_host::is_local;
use super::metrics::MetricsText;
use super::operator::{Operator, OperatorFailure, is_operator_path};
use crate::shapes::openapi;
use crate::shapes::openmetrics::{OPENMETRICS, from_prometheus, is_preferred};

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers requests of probes and operators.
#[derive(Clone, Debug)]
pub(super) struct Management {
    gateway: Gateway,
    metrics: MetricsText,
    phase: watch::Receiver<Phase>,
    address: SocketAddr,
    operator: Operator,
}

impl Management {
    pub(super) fn new(
        gateway: Gateway,
        metrics: MetricsText,
        phase: watch::Receiver<Phase>,
        address: SocketAddr,
    ) -> Self {
        let operator = Operator::new(gateway.clone(), phase.clone());
        Self { gateway, metrics, phase, address, operator }
    }

    pub(super) async fn answer<B: Body<Data = Bytes>>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match is_operator_path(request.uri().path()) {
            true if !self.may_manage(&request) => OperatorFailure::NoRight.response(),
            true => self.operator.answer(request).await,
            false => self.read(&request),
        }
    }

    /// Answers a request that only reads.
    fn read<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "these routes have the method GET\n".to_owned());
        }
        match request.uri().path() {
            "/livez" | "/healthz" | "/startupz" => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => self.ready(request.uri().query() == Some("verbose")),
            "/metrics" => self.metrics(request.headers()),
            "/stats" | "/openapi.json" if !self.may_manage(request) => {
                answer(StatusCode::FORBIDDEN, TEXT, format!("{}\n", OperatorFailure::NoRight))
            }
            "/stats" => self.stats(),
            "/openapi.json" => answer(StatusCode::OK, "application/json", format!("{}\n", openapi::document())),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "no such route\n".to_owned()),
        }
    }

    fn may_manage<B>(&self, request: &Request<B>) -> bool {
        let is_local = self.address.ip().is_loopback() && is_local(request.uri(), request.headers());
        is_local || self.has_token(request.headers())
    }

    /// Returns whether a request has the token of operators, or that of a client with the right.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let is_operator =
            authorization.is_some_and(|header| self.gateway.config().management_token.is_proved_by(header));
        is_operator || matches!(self.gateway.client(headers, None), Ok(Some(client)) if client.may_manage)
    }

    /// Returns the metrics in the format that the client asks for.
    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let text = self.metrics.render();
        match is_preferred(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok())) {
            true => answer(StatusCode::OK, OPENMETRICS, from_prometheus(&text)),
            false => answer(StatusCode::OK, METRICS, text),
        }
    }

    fn ready(&self, is_verbose: bool) -> Response<Full<Bytes>> {
        let is_draining = *self.phase.borrow() > Phase::Running;
        let refusal = self.gateway.refusal().map(|failure| failure.detail);
        let is_ready = !is_draining && refusal.is_none();
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = String::new();
        if is_verbose {
            let mark = |is_ok| if is_ok { "+" } else { "-" };
            let draining = if is_draining { "the service ends" } else { "ok" };
            let _ = writeln!(body, "[{}] serving: {draining}", mark(!is_draining));
            let _ = writeln!(
                body,
                "[{}] accepting events: {}",
                mark(refusal.is_none()),
                refusal.as_deref().unwrap_or("ok")
            );
            // Not a condition: events are accepted while Kafka is away.
            let _ = writeln!(body, "[i] kafka: {}", kafka(&self.gateway.producer().stats()));
        }
        body.push_str(if is_ready { "ok\n" } else { "not ready\n" });
        answer(status, TEXT, body)
    }

    fn stats(&self) -> Response<Full<Bytes>> {
        let stats = serde_json::json!({
            "requests": self.gateway.requests(),
            "body_bytes": self.gateway.body_bytes(),
            "producer": self.gateway.producer().stats(),
        });
        answer(StatusCode::OK, "application/json", format!("{stats}\n"))
    }
}

fn kafka(stats: &Stats) -> String {
    let reachable = stats.brokers.iter().filter(|broker| broker.state != Reachability::Unreachable).count();
    match stats.brokers.len() {
        0 => "no broker has answered yet".to_owned(),
        known => format!("{reachable} of {known} brokers are reachable"),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
