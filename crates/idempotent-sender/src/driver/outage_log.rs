//! Log lines about brokers and the cluster: unavailable, available again, refused, accepted.
//!
//! Rule: the core decides which changes are news. Each piece of news is one line. A failed attempt has none.

use std::time::{Duration, Instant};

use kafka_courier_client::{BrokerAddress, Reason};

use super::Driver;
use super::interface::Upcalls;
use crate::core::OutageReport;

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Logs the core's broker news.
    pub(super) fn log_broker_news(&mut self) {
        for news in self.core.take_outage_reports() {
            self.brokers_changed = true;
            log(&news, Instant::now());
        }
    }

    /// Logs that the cluster refuses the client, or that no broker can be trusted.
    pub(super) fn log_cluster_refused(&mut self, reason: &Reason) {
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!(%reason, "cluster refuses the client");
        }
    }

    /// Logs that a broker accepts the client again.
    pub(super) fn log_cluster_accepted(&mut self) {
        if std::mem::take(&mut self.is_refused) {
            tracing::info!("cluster accepts the client again");
        }
    }
}

fn log(news: &OutageReport, now: Instant) {
    match news {
        OutageReport::Lost { broker, why, waiting } => {
            let fails_in = waiting.first_fails_at.map(|at| millis(at.saturating_duration_since(now)));
            let (id, address, waiting) = (broker.id.0, address(broker), waiting.events);
            tracing::warn!(broker = id, address, waiting, first_fails_in = fails_in, %why, "broker unavailable");
        }
        OutageReport::Back { broker, lasted } => {
            let (id, address, away_for) = (broker.id.0, address(broker), millis(*lasted));
            tracing::info!(broker = id, address, away_for, "broker available again");
        }
    }
}

/// A duration to the millisecond.
fn millis(duration: Duration) -> tracing::field::DebugValue<Duration> {
    tracing::field::debug(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

fn address(broker: &BrokerAddress) -> String {
    let (host, port) = (&broker.host, broker.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
