//! Whether the cluster can be reached and written.
//!
//! Rules: a check never touches what is being delivered; it says which part fails, also when time runs out. Whether the
//! process lives is no question for Kafka.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier_event_model::validate_topic_name;
use kafka_courier_idempotent_sender::core::{ErrorCode, Reason};
use kafka_courier_idempotent_sender::driver::{Command, HealthPart, HealthProgress, Probe, Unhealthy};
use tokio::sync::oneshot;

use crate::error::debug_as_display;
use crate::producer::{KafkaProducer, after};

/// Why the cluster can't be reached or written, or not in time.
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
    /// A failure that a mock was asked for.
    #[cfg(feature = "mock")]
    pub(crate) fn new(why: String) -> Self {
        Self { part: HealthPart::Metadata, why, reason: None }
    }

    /// The part of the way that fails, or was under way when time ran out.
    pub fn part(&self) -> HealthPart {
        self.part
    }

    /// Whether the cluster refuses us, or is not to be trusted: asking again will not help.
    pub fn is_refusal(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| !reason.is_retriable())
    }

    /// Kafka's error code, where a broker gave one.
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

impl KafkaProducer {
    /// Proves that the cluster can be reached and written, within `timeout`, or says which part fails.
    ///
    /// Proved are: a round trip to a broker (name, TCP, TLS, SASL, metadata), over the connection that is there if there is
    /// one; that every topic that was published to is still there and may be written, where brokers tell that (Kafka 2.3
    /// and later); and, until the first event, that a producer id is given, which takes the right to write anything at
    /// all (IDEMPOTENT_WRITE or WRITE). Not proved are: that each partition's leader is reachable, or has enough replicas.
    ///
    /// It is for readiness and for starting up. Whether a process lives is no question for Kafka: a liveness probe that asks
    /// it restarts every instance when a broker is away.
    ///
    /// Cancel safety: it only looks.
    pub async fn health_check(&self, timeout: Duration) -> Result<(), HealthError> {
        self.health_check_topics(&[], timeout).await
    }

    /// As [`health_check`](Self::health_check), of these topics too: that they are there, and may be written. None is
    /// created. Afterwards they are known, so that the first [`try_publish`](Self::try_publish) finds them.
    pub async fn health_check_topics(&self, topics: &[&str], timeout: Duration) -> Result<(), HealthError> {
        let failed = |part, why: String| HealthError { part, why, reason: None };
        let until = after(timeout);
        for topic in topics {
            validate_topic_name(topic).map_err(|error| failed(HealthPart::Metadata, error.to_string()))?;
        }
        let (answer, answered) = oneshot::channel();
        let progress = Arc::new(HealthProgress::default());
        let names = topics.iter().map(|topic| Arc::from(*topic)).collect();
        self.inner.intake.tell(Command::Probe(Probe { topics: names, progress: progress.clone(), answer }));
        match tokio::time::timeout_at(until.into(), answered).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) => return Err(failed(HealthPart::Producer, "it is closed".to_owned())),
            Err(_) => return Err(failed(progress.part(), format!("no answer within {timeout:?}"))),
        }
        // All are asked for together. Why one can't be is told where it is waited for.
        for topic in topics {
            let _ = self.topic(topic).and_then(|topic| self.ask_for(&topic));
        }
        for topic in topics {
            match tokio::time::timeout_at(until.into(), self.learn_topic(topic)).await {
                Ok(learnt) => learnt.map_err(|error| failed(HealthPart::Metadata, error.to_string()))?,
                Err(_) => return Err(failed(HealthPart::Metadata, format!("{topic}: not learnt within {timeout:?}"))),
            }
        }
        Ok(())
    }
}
