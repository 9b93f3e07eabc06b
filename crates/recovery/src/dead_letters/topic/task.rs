//! The task of the dead-letter topic, which writes and reads the topic for blocking threads.
//!
//! Rules:
//! - One task answers requests in order. Only a claim to replay runs concurrently, because it can take a whole lease.
//! - The task closes its engine and ends once all senders of requests are dropped and all claims are released.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kafka_courier_producer::Engine;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::check::TopicCheck;
use super::lease::{self, Claimant, Lease, LeaseError};
use super::policy::{TopicWarning, UnfitTopic};
use super::reader::{CLUSTER_TIMEOUT, RequestError, TopicPage, TopicReader};
use super::writer::{OutgoingRecord, WriteOutcome, write_each};

/// The sender of the answer to a request.
pub(crate) type Reply<A> = SyncSender<Result<A, RequestError>>;

/// The warnings about the topic, or the reason for which it accepts no dead letters.
pub(crate) type Fitness = Result<Vec<TopicWarning>, UnfitTopic>;

/// A request to the task, with the sender of its answer.
pub(crate) enum TopicRequest {
    /// Write records, and return the outcome of each.
    Append(Vec<OutgoingRecord>, Reply<Vec<WriteOutcome>>),
    /// Return the number of partitions.
    Partitions(Reply<i32>),
    /// Read a partition from an offset, or from its start for `None`.
    Read(i32, Option<i64>, Reply<TopicPage>),
    /// Return whether the topic exists.
    Exists(Reply<bool>),
    /// Return whether the topic is fit for dead letters.
    Check(Reply<Fitness>),
    /// Claim the right to replay, with a lease of this duration.
    Claim(Duration, SyncSender<Result<Lease, LeaseError>>),
}

/// The task of a dead-letter topic.
pub(crate) struct TopicTask {
    pub(crate) engine: Arc<Engine>,
    pub(crate) reader: TopicReader,
    pub(crate) requests: UnboundedReceiver<TopicRequest>,
    pub(super) check: TopicCheck,
    /// Whether the task checks the topic before the first request, and logs the result.
    pub(super) logs_check: bool,
}

impl TopicTask {
    pub(crate) async fn run(mut self) {
        let mut claims = JoinSet::new();
        if self.logs_check {
            self.check.check_and_log(&self.reader).await;
        }
        while let Some(request) = self.requests.recv().await {
            // The requester may have timed out, so a failed reply is no error.
            match request {
                TopicRequest::Append(records, reply) => {
                    let _ = reply.send(match self.check.before_writing(&self.engine, &self.reader).await {
                        Ok(()) => Ok(write_each(&self.engine, &self.reader.topic, &records).await),
                        Err(unfit) => Err(unfit.into()),
                    });
                }
                TopicRequest::Check(reply) => {
                    let _ = reply.send(Ok(self.check.check_for_caller(&self.reader).await));
                }
                TopicRequest::Exists(reply) => {
                    let _ = reply.send(Ok(self.check.exists(&self.reader).await));
                }
                TopicRequest::Partitions(reply) => {
                    let found = self.reader.log.topic(&self.reader.topic, Instant::now() + CLUSTER_TIMEOUT).await;
                    let _ = reply.send(match found {
                        Ok(topic) => Ok(i32::try_from(topic.partitions).unwrap_or(i32::MAX)),
                        Err(error) => Err(error.into()),
                    });
                }
                TopicRequest::Read(partition, from, reply) => {
                    let _ = reply.send(self.reader.read(partition, from).await);
                }
                TopicRequest::Claim(lease, reply) => {
                    while claims.try_join_next().is_some() {}
                    let (engine, reader) = (self.engine.clone(), self.reader.clone());
                    claims.spawn(claim(Claimant { engine, reader, lease }, reply));
                }
            }
        }
        // Claims that are still held after the timeout are dropped with the runtime, and expire.
        let _ = tokio::time::timeout(CLUSTER_TIMEOUT, async { while claims.join_next().await.is_some() {} }).await;
        self.engine.close(CLUSTER_TIMEOUT).await;
    }
}

/// Acquires the lease on the right to replay, and renews it.
async fn claim(claimant: Claimant, reply: SyncSender<Result<Lease, LeaseError>>) {
    match lease::acquire(claimant).await {
        Ok((lease, renewal)) => {
            // If the requester has timed out, the lease is dropped with the answer, which releases it.
            let _ = reply.send(Ok(lease));
            renewal.await;
        }
        Err(error) => {
            let _ = reply.send(Err(error));
        }
    }
}
