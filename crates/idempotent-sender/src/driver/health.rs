//! Whether the cluster can be reached and written, and if not, which part fails.
//!
//! Rules: every step on the way says where it is before it begins, so that what takes too long is known as well as what
//! fails; a check asks over the connection that is there, and makes a new one only if there is none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::control::Control;
use crate::core::{ErrorCode, Reason, TopicMetadata};
use crate::wire::messenger::{InitProducerIdRequest, ProducerId};
use crate::wire::metadata::{MetadataAnswer, MetadataRequest};

/// The bit of the operation WRITE (KIP-430).
const WRITE: i32 = 1 << 4;

/// How long a broker that gives no producer id yet is left alone.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A part of the way to the cluster, in the order in which they are gone through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum HealthPart {
    /// The producer itself: it is closed, or its task is kept from running.
    Producer,
    /// A broker's name is looked up.
    Dns,
    /// The TCP connection.
    Connect,
    /// The TLS handshake: certificates.
    Tls,
    /// ApiVersions: what the broker speaks.
    ApiVersions,
    /// SASL: who we are.
    Sasl,
    /// Metadata: brokers, topics and leaders.
    Metadata,
    /// Whether we may write: topics, and with a producer id at all.
    WriteAuthorization,
}

impl HealthPart {
    const ALL: [Self; 8] = [
        Self::Producer,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::ApiVersions,
        Self::Sasl,
        Self::Metadata,
        Self::WriteAuthorization,
    ];

    /// Its name: `DNS`, `connect`, `TLS`, `ApiVersions`, `SASL`, `metadata`, `write authorization` or `producer`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Dns => "DNS",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::ApiVersions => "ApiVersions",
            Self::Sasl => "SASL",
            Self::Metadata => "metadata",
            Self::WriteAuthorization => "write authorization",
        }
    }
}

impl fmt::Display for HealthPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far somebody has come, for those who lose patience.
#[derive(Debug, Default)]
pub struct Progress(AtomicU8);

impl Progress {
    /// The part that is gone through now.
    pub fn part(&self) -> HealthPart {
        let at = usize::from(self.0.load(Ordering::Relaxed));
        HealthPart::ALL.get(at).copied().unwrap_or(HealthPart::Producer)
    }

    /// This part begins.
    pub(crate) fn enter(&self, part: HealthPart) {
        self.0.store(part as u8, Ordering::Relaxed);
    }
}

/// What is to be checked, and who wants to know.
#[derive(Debug)]
pub struct Probe {
    /// Topics that must be there and writable, beside those that were published to.
    pub topics: Vec<Arc<str>>,
    /// How far it has come.
    pub progress: Arc<Progress>,
    /// Who wants to know.
    pub answer: oneshot::Sender<Result<(), Unhealthy>>,
}

/// What fails, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unhealthy {
    /// The part.
    pub part: HealthPart,
    /// Why.
    pub reason: Reason,
}

impl Control {
    /// Proves a round trip, that the topics are there and may be written, and, unless there is a producer id already,
    /// that one is given.
    pub(crate) async fn check(
        &self,
        topics: Vec<Arc<str>>,
        has_producer_id: bool,
        progress: &Progress,
    ) -> Result<(), Unhealthy> {
        self.dialer.security.refresh();
        let was_there = self.has_link().await;
        let request = MetadataRequest { topics, auto_create: false, operations: true };
        let answer = match self.check_metadata(&request, progress).await {
            Err(_) if was_there => self.check_metadata(&request, progress).await,
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

    async fn check_metadata(&self, request: &MetadataRequest, progress: &Progress) -> Result<MetadataAnswer, Reason> {
        let link = self.link_noting(progress).await?;
        progress.enter(HealthPart::Metadata);
        self.metadata_over(&link, request.clone()).await
    }

    /// A broker that has just started can't give a producer id yet: it is asked again for as long as an answer may take.
    async fn check_producer_id_in_time(&self, progress: &Progress) -> Result<(), Reason> {
        let until = Instant::now() + self.timeout;
        loop {
            match self.check_producer_id(progress).await {
                Err(reason @ Reason::Broker { .. }) if reason.is_retriable() && Instant::now() < until => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                checked => return checked,
            }
        }
    }

    async fn check_producer_id(&self, progress: &Progress) -> Result<(), Reason> {
        let link = self.link_noting(progress).await?;
        progress.enter(HealthPart::WriteAuthorization);
        match timeout(self.timeout, link.request(InitProducerIdRequest)).await {
            Ok(Ok(ProducerId((0, _)))) => Ok(()),
            Ok(Ok(ProducerId((code, _)))) => {
                Err(Reason::Broker { code: ErrorCode(code), message: Some("no producer id is given".into()) })
            }
            Ok(Err(error)) => Err(self.unanswered(&link, error).await),
            Err(_) => self.fail(&link, format!("no producer id within {:?}", self.timeout)).await,
        }
    }
}

/// Whether every topic is there, and whether we may write it, where that is told.
fn check_topics(answer: &MetadataAnswer) -> Result<(), Unhealthy> {
    for topic in &answer.cluster.topics {
        check_topic(topic)?;
    }
    for (topic, operations) in &answer.operations {
        if operations & WRITE == 0 && answer.cluster.topics.iter().any(|found| found.name == *topic && found.code == 0)
        {
            let (part, code) = (HealthPart::WriteAuthorization, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
            let message = Some(format!("topic {topic}: we may not write it (the operation WRITE)").into());
            return Err(Unhealthy { part, reason: Reason::Broker { code, message } });
        }
    }
    Ok(())
}

fn check_topic(topic: &TopicMetadata) -> Result<(), Unhealthy> {
    let code = ErrorCode(topic.code);
    let part = match code {
        ErrorCode(0) => return Ok(()),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => HealthPart::WriteAuthorization,
        _ => HealthPart::Metadata,
    };
    let message = Some(format!("topic {}: {}", topic.name, code.description()).into());
    Err(Unhealthy { part, reason: Reason::Broker { code, message } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_was_entered_last_is_the_one_that_is_told() {
        let progress = Progress::default();
        assert_eq!(progress.part(), HealthPart::Producer);
        for part in HealthPart::ALL {
            progress.enter(part);
            assert_eq!(progress.part(), part);
        }
    }
}
