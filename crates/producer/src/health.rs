//! Health checks: whether the cluster is reachable and writable.
//!
//! The rules of this module:
//!  - A check never affects deliveries.
//!  - A failed check names the failed part, also after a timeout.
//!  - Liveness is not a question for Kafka.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::health_check::Unhealthy;
use kafka_courier_client::health_part::{HealthPart, HealthProgress};
use kafka_courier_client::{ErrorCode, Reason};
use kafka_courier_event_model::validate_topic_name;
use kafka_courier_idempotent_sender::driver::{DriverCommand, Probe};
use tokio::sync::oneshot;

use crate::engine::{Engine, deadline_after};
use crate::error::debug_as_display;

/// Why the cluster is unreachable or not writable, or did not answer in time.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {why}")]
pub struct HealthError {
    part: HealthPart,
    why: String,
    #[source]
    reason: Option<Reason>,
}

debug_as_display!(HealthError);

impl HealthError {
    /// Creates the failure that a mock returns on demand.
    #[cfg(feature = "mock")]
    #[doc(hidden)]
    pub fn new(why: String) -> Self {
        Self { part: HealthPart::Metadata, why, reason: None }
    }

    /// Returns the failed part, or the part that was in progress at the timeout.
    pub fn part(&self) -> HealthPart {
        self.part
    }

    /// Returns whether the cluster refuses the client, or its certificate is not trusted. Repeating the check does not
    /// help.
    pub fn is_refusal(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| !reason.is_retriable())
    }

    /// Returns Kafka's error code, if a broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.reason.as_ref().and_then(Reason::code)
    }
}

impl From<Unhealthy> for HealthError {
    fn from(Unhealthy { part, reason }: Unhealthy) -> Self {
        let why = match &reason {
            Reason::NotAvailable(why) => why.to_string(),
            reason => reason.to_string(),
        };
        let why = why.strip_prefix(&format!("{part}: ")).map_or(why.clone(), str::to_owned);
        Self { part, why, reason: Some(reason) }
    }
}

impl Engine {
    /// Checks within `timeout` that the cluster is reachable and writable.
    ///
    /// The check proves:
    ///  - a round trip to a broker (DNS, TCP, TLS, SASL, metadata), over an open connection if there is one.
    ///  - that every topic that was published to exists and is writable, if brokers report that (Kafka 2.3 and later).
    ///  - that the cluster assigns a producer id, until the first event. Assignment needs the right to write at all
    ///    (IDEMPOTENT_WRITE or WRITE).
    ///
    ///  - that the spool accepts events and holds no partition back, if the producer has a spool.
    ///
    /// It does not prove that each partition's leader is reachable or has enough in-sync replicas.
    ///
    /// Use it for readiness and at startup, not for liveness: a liveness probe that asks Kafka restarts every instance
    /// while a broker is away.
    ///
    /// # Errors
    ///
    /// A [`HealthError`] names the failed part.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn health_check(&self, timeout: Duration) -> Result<(), HealthError> {
        self.health_check_topics(&[], timeout).await
    }

    /// Checks the cluster as [`health_check`](Self::health_check) does, and that `topics` exist and are writable.
    ///
    /// No topic is created. The topics' partitions are known afterwards, and [`try_publish`](Self::try_publish) accepts
    /// events for them.
    ///
    /// # Errors
    ///
    /// As [`health_check`](Self::health_check).
    ///
    /// # Cancel safety
    ///
    /// As [`health_check`](Self::health_check).
    pub async fn health_check_topics(&self, topics: &[&str], timeout: Duration) -> Result<(), HealthError> {
        let failed = |part, why: String| HealthError { part, why, reason: None };
        let until = deadline_after(timeout);
        if let Some(why) = self.intake.shared.spool.as_ref().and_then(|spool| spool.status.complaint()) {
            return Err(failed(HealthPart::Producer, format!("spool: {why}")));
        }
        for topic in topics {
            validate_topic_name(topic).map_err(|error| failed(HealthPart::Metadata, error.to_string()))?;
        }
        let (answer, answered) = oneshot::channel();
        let progress = Arc::new(HealthProgress::default());
        let names = topics.iter().map(|topic| Arc::from(*topic)).collect();
        self.intake.send_command(DriverCommand::Probe(Probe { topics: names, progress: progress.clone(), answer }));
        match tokio::time::timeout_at(until.into(), answered).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) => return Err(failed(HealthPart::Producer, "closed".to_owned())),
            Err(_) => return Err(failed(progress.part(), format!("no answer within {timeout:?}"))),
        }
        // All topics are requested before the first wait. A topic's error returns from its wait.
        for topic in topics {
            let _ = self.topic(topic).and_then(|topic| self.request_topic(&topic));
        }
        for topic in topics {
            match tokio::time::timeout_at(until.into(), self.partition_count(topic)).await {
                Ok(learnt) => {
                    learnt.map_err(|error| failed(HealthPart::Metadata, error.to_string()))?;
                }
                Err(_) => {
                    return Err(failed(HealthPart::Metadata, format!("topic {topic} not known within {timeout:?}")));
                }
            }
        }
        Ok(())
    }
}
