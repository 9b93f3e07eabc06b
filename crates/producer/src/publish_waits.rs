//! The waits of `publish`: for an unknown topic, and for memory.
//!
//! The rules of this module:
//!  - Each wait has an end: `metadata_timeout` or [`TOPIC_RETRY_WAIT`] for a topic, `max_block` for memory and for room in the
//!    spool.
//!  - A wait reserves nothing, so a dropped future loses nothing.

use std::time::{Duration, Instant};

use kafka_courier_idempotent_sender::driver::DriverCommand;

use crate::engine::{Engine, deadline_after};
use crate::error::PublishError;
use crate::intake::Refused;
use crate::memory::MemoryShare;
use crate::topics::{TopicEntry, TopicLookup};

/// The time after which a failed topic is requested again. `publish` returns the last error without waiting before.
const TOPIC_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long `publish` waits for a topic that is requested again. A cluster that is up answers within this time, and a
/// caller that also publishes to other topics is not blocked for longer. The request continues in the background.
const TOPIC_RETRY_WAIT: Duration = Duration::from_secs(1);

/// How long `publish` waits for batches in flight to free memory, before it has all open batches sent.
const MEMORY_STALL: Duration = Duration::from_millis(50);

impl Engine {
    /// Waits until the cause of a refusal is gone. The first wait for memory sets the deadline.
    pub(crate) async fn wait_after_refusal(
        &self,
        topic: &TopicEntry,
        refused: Refused,
        max_block: Duration,
        deadline: &mut Option<Instant>,
    ) -> Result<(), PublishError> {
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => self.wait_for_topic(topic).await,
            Refused::NoRoom { needed } => {
                let deadline = *deadline.get_or_insert_with(|| deadline_after(max_block));
                self.wait_for_room(needed, max_block, deadline).await
            }
            Refused::NoMemory { needed, share } => {
                let deadline = *deadline.get_or_insert_with(|| deadline_after(max_block));
                if self.wait_for_memory(needed, share, deadline).await {
                    return Ok(());
                }
                Err(PublishError::BufferFull { needed, waited: max_block })
            }
        }
    }

    /// Waits for room in the spool until `deadline`, if the spool's publishers wait.
    async fn wait_for_room(&self, needed: usize, max_block: Duration, deadline: Instant) -> Result<(), PublishError> {
        let Some(spool) = &self.intake.shared.spool else { return Ok(()) };
        let space = &spool.status.space;
        if !space.blocks() {
            return Err(PublishError::SpoolFull { needed, waited: Duration::ZERO });
        }
        let waited = tokio::time::timeout_at(deadline.into(), space.room_for(needed)).await;
        waited.map_err(|_| PublishError::SpoolFull { needed, waited: max_block })
    }

    /// Waits for memory until `deadline`. Returns whether there is room.
    ///
    /// Only the fullest open batches are sealed at first. All open batches are sealed if the batches in flight free no
    /// memory for [`MEMORY_STALL`].
    async fn wait_for_memory(&self, needed: usize, share: MemoryShare, deadline: Instant) -> bool {
        let intake = &self.intake;
        let memory = &intake.shared.memory;
        let remaining = || deadline.saturating_duration_since(Instant::now());
        intake.seal_fullest(needed, share);
        if memory.wait_for(needed, share, remaining().min(MEMORY_STALL)).await {
            return true;
        }
        intake.send_command(DriverCommand::SealOpen);
        memory.wait_for(needed, share, remaining()).await
    }

    /// Requests a topic's partitions, unless they are requested already. Returns the end of the wait, where the request
    /// repeats a failed one.
    ///
    /// # Errors
    ///
    /// The last error, if that error is younger than [`TOPIC_RETRY_AFTER`], or if a repeated request has no answer
    /// after [`TOPIC_RETRY_WAIT`].
    pub(crate) fn request_topic(&self, topic: &TopicEntry) -> Result<Option<Instant>, PublishError> {
        let (mut is_due, mut refused, mut until) = (false, None, None);
        topic.state.lookup.send_if_modified(|lookup| match lookup {
            TopicLookup::NotRequested => {
                is_due = true;
                *lookup = TopicLookup::Requested;
                true
            }
            TopicLookup::Failed(reason, at) if at.elapsed() >= TOPIC_RETRY_AFTER => {
                is_due = true;
                let now = Instant::now();
                until = Some(now + TOPIC_RETRY_WAIT);
                *lookup = TopicLookup::RequestedAgain(reason.clone(), now);
                true
            }
            TopicLookup::RequestedAgain(_, at) if at.elapsed() < TOPIC_RETRY_WAIT => {
                until = Some(*at + TOPIC_RETRY_WAIT);
                false
            }
            TopicLookup::Failed(reason, _) | TopicLookup::RequestedAgain(reason, _) => {
                refused = Some(reason.clone());
                false
            }
            TopicLookup::Requested | TopicLookup::Ready => false,
        });
        if is_due {
            self.intake.send_command(DriverCommand::WantTopic(topic.name.clone()));
        }
        match refused {
            Some(reason) => Err(PublishError::Topic { topic: topic.name.clone(), reason }),
            None => Ok(until),
        }
    }

    /// Waits until a topic's partitions are known, or its lookup has failed.
    pub(crate) async fn wait_for_topic(&self, topic: &TopicEntry) -> Result<(), PublishError> {
        let mut lookup = topic.state.lookup.subscribe();
        let until = self.request_topic(topic)?;
        let finished = self.finished();
        let expiry = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let state = tokio::select! {
            changed = lookup.wait_for(|now| matches!(now, TopicLookup::Ready | TopicLookup::Failed(..))) => changed.map(|state| state.clone()),
            () = expiry => Ok(topic.state.lookup.borrow().clone()),
            () = finished => return Err(PublishError::Closed),
        };
        match state {
            Ok(TopicLookup::Failed(reason, _) | TopicLookup::RequestedAgain(reason, _)) => {
                Err(PublishError::Topic { topic: topic.name.clone(), reason })
            }
            Ok(_) => Ok(()),
            Err(_) => Err(PublishError::Closed),
        }
    }
}
