//! The steps of a health check: whether the cluster is reachable and writable, and if not, which part fails.
//!
//! Rule: a check uses the open connection, and opens one only if there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::control::Control;
use crate::error_code::ErrorCode;
use crate::health_part::{HealthPart, HealthProgress};
use crate::reason::Reason;
use crate::wire::messenger::{InitProducerIdRequest, ProducerId};
use crate::wire::metadata::{MetadataAnswer, MetadataRequest, TopicMetadata};

/// The bit of the operation WRITE (KIP-430).
const WRITE: i32 = 1 << 4;

/// The pause before a broker without producer ids is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A failed check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unhealthy {
    /// The part that fails.
    pub part: HealthPart,
    /// The reason.
    pub reason: Reason,
}

impl Control {
    /// Checks a round trip, and that the topics exist and are writable. The check also requests a producer id if there
    /// is none.
    ///
    /// # Errors
    ///
    /// Returns the first part that fails.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. `progress` then holds the part that was not completed.
    pub async fn check(
        &self,
        topics: Vec<Arc<str>>,
        has_producer_id: bool,
        progress: &HealthProgress,
    ) -> Result<(), Unhealthy> {
        self.dialer.security.refresh();
        let had_connection = self.has_connection().await;
        let request = MetadataRequest { topics, auto_create: false, operations: true };
        let answer = match self.check_metadata(&request, progress).await {
            Err(_) if had_connection => self.check_metadata(&request, progress).await,
            answer => answer,
        };
        let answer = answer.map_err(|reason| Unhealthy { part: progress.part(), reason })?;
        check_topics(&answer)?;
        if !has_producer_id {
            self.check_producer_id_in_time(progress)
                .await
                .map_err(|reason| Unhealthy { part: progress.part(), reason })?;
        }
        Ok(())
    }

    async fn check_metadata(
        &self,
        request: &MetadataRequest,
        progress: &HealthProgress,
    ) -> Result<MetadataAnswer, Reason> {
        let connection = self.connection_with_progress(progress).await?;
        progress.enter(HealthPart::Metadata);
        self.metadata_over(&connection, request.clone()).await
    }

    /// Retries for as long as one answer may take. A broker that just started can't assign producer ids yet.
    async fn check_producer_id_in_time(&self, progress: &HealthProgress) -> Result<(), Reason> {
        let until = Instant::now() + self.timeout;
        loop {
            match self.check_producer_id(progress).await {
                Err(reason @ Reason::Broker { .. }) if reason.is_retriable() && Instant::now() < until => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                checked => return checked,
            }
        }
    }

    async fn check_producer_id(&self, progress: &HealthProgress) -> Result<(), Reason> {
        let connection = self.connection_with_progress(progress).await?;
        progress.enter(HealthPart::WriteAuthorization);
        match timeout(self.timeout, connection.request(InitProducerIdRequest)).await {
            Ok(Ok(ProducerId((0, _)))) => Ok(()),
            Ok(Ok(ProducerId((code, _)))) => {
                Err(Reason::Broker { code: ErrorCode(code), message: Some("the broker assigns no producer id".into()) })
            }
            Ok(Err(error)) => Err(self.no_answer_reason(&connection, error).await),
            Err(_) => self.fail(&connection, format!("no producer id within {:?}", self.timeout)).await,
        }
    }
}

/// Checks that each topic exists, and that the client may write to it as far as the broker reports operations.
fn check_topics(answer: &MetadataAnswer) -> Result<(), Unhealthy> {
    for topic in &answer.cluster.topics {
        check_topic(topic)?;
    }
    for (topic, operations) in &answer.operations {
        if operations & WRITE == 0
            && answer.cluster.topics.iter().any(|found| found.name == *topic && found.code == ErrorCode::NONE.0)
        {
            let (part, code) = (HealthPart::WriteAuthorization, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
            let message =
                Some(format!("topic {topic}: the client has no right to write: grant the operation WRITE").into());
            return Err(Unhealthy { part, reason: Reason::Broker { code, message } });
        }
    }
    Ok(())
}

fn check_topic(topic: &TopicMetadata) -> Result<(), Unhealthy> {
    let code = ErrorCode(topic.code);
    let part = match code {
        ErrorCode::NONE => return Ok(()),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => HealthPart::WriteAuthorization,
        _ => HealthPart::Metadata,
    };
    let message = Some(format!("topic {}: {}", topic.name, code.description()).into());
    Err(Unhealthy { part, reason: Reason::Broker { code, message } })
}
