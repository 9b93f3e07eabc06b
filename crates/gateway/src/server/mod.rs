//! The service: listeners, connections, requests and the orderly end.
//!
//! Rules:
//! - Every decision is made in `shapes` and `limits`. This module moves bytes and time.
//! - The service is ready before any broker answers. Its readiness says whether it accepts events, not whether Kafka is there.
//! - The end loses no accepted event: the producer closes after the last request.

mod answer_body;
mod body;
mod charged;
mod clients;
mod connection;
mod gateway;
mod handler;
mod head;
mod ingest;
mod keyed;
mod line_body;
mod listener;
mod local_host;
mod management;
pub(crate) mod metrics;
mod once;
mod operator;
mod publisher;
mod request_guard;
mod router;
mod stream;
mod tls;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::CloseReport;
use tokio::sync::watch;

pub use answer_body::{AnswerBody, ResultsUnread};
pub use gateway::Gateway;
use handler::Handler;
use listener::Listener;
use management::Management;
use metrics::MetricsText;
pub use router::{AnswerFuture, GatewayService, router};

/// The phases of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// The service accepts events.
    Running,
    /// The service is not ready, and still accepts connections and events.
    Draining,
    /// Connections end after their requests.
    Closing,
    /// Connections end now.
    Ended,
}

/// The part of the grace that requests leave to the producer: one in this number.
const CLOSE_PART: u32 = 4;

/// Waits until the service has reached a phase.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    // Without a sender the server was dropped.
    let _ = phase.wait_for(|phase| *phase >= at_least).await;
}

/// Why the service can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The options are invalid.
    #[error("{0}")]
    Options(String),
    /// A file that an option names can't be used.
    #[error("{option}: {why}")]
    File {
        /// The option with the path.
        option: &'static str,
        /// The reason.
        why: String,
    },
    /// An address can't be listened on.
    #[error("{option}: cannot listen on {address}: {error}: stop the other process, or choose another address")]
    Listen {
        /// The option with the address.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        error: std::io::Error,
    },
}

/// The result of an orderly end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DrainReport {
    /// The producer's final counts.
    pub producer: CloseReport,
    /// Requests for events that were answered.
    pub requests: u64,
    /// Whether every request had its answer before its connection was closed.
    pub is_complete: bool,
}

/// A running service.
#[derive(Debug)]
pub struct GatewayServer {
    gateway: Gateway,
    phase: watch::Sender<Phase>,
    events: Listener,
    management: Listener,
}

impl GatewayServer {
    /// Listens on both addresses, and serves until [`drain`](Self::drain).
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the options are invalid or an address is in use.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has started nothing.
    pub async fn start(gateway: Gateway, metrics: MetricsText) -> Result<Self, ServeError> {
        let config = gateway.config();
        config.validate().map_err(ServeError::Options)?;
        let (phase, observed) = watch::channel(Phase::Running);
        let tls = tls::ServerTls::open(config)?;
        let events = Listener::bind("listen", config.listen).await?;
        let probes = Listener::bind("management", config.management).await?;
        let management = Management::new(gateway.clone(), metrics.clone(), observed.clone(), probes.address());
        let handler = Handler::Events(gateway.clone());
        let events = events.serve(handler, tls.clone(), Arc::new(config.clone()), observed.clone());
        let handler = Handler::Management(management);
        let management = probes.serve(handler, None, Arc::new(config.for_management()), observed);
        tokio::spawn(gateway.clone().watch_producer(phase.subscribe(), metrics, tls));
        Ok(Self { gateway, phase, events, management })
    }

    /// Returns the address for events.
    pub fn address(&self) -> SocketAddr {
        self.events.address()
    }

    /// Returns the address for probes, metrics and statistics.
    pub fn management_address(&self) -> SocketAddr {
        self.management.address()
    }

    /// Ends the service in order: it is not ready for `drain_delay`, stops accepting connections, answers its requests, and
    /// closes the producer. Requests have three quarters of the time `grace`, and events have the rest.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends all connections. Accepted events are still delivered until the producer is closed or dropped.
    pub async fn drain(mut self) -> DrainReport {
        let (delay, grace) = (self.gateway.config().drain_delay, self.gateway.config().grace);
        tracing::info!(?delay, "service drains");
        self.phase.send_replace(Phase::Draining);
        tokio::time::sleep(delay).await;
        self.phase.send_replace(Phase::Closing);
        self.gateway.stop_reading();
        let ends = Instant::now() + grace;
        let is_complete = self.events.ended(ends - grace / CLOSE_PART).await;
        let rest = ends.saturating_duration_since(Instant::now());
        let producer = self.gateway.producer().close(rest).await;
        self.phase.send_replace(Phase::Ended);
        self.management.ended(Instant::now() + Duration::from_secs(1)).await;
        DrainReport { producer, requests: self.gateway.requests(), is_complete }
    }
}
