//! Appends single batches with the log client, by the outcome table of the core.
//!
//! Rule: the table decides whether an answer proves the append. The log client sends, waits and retries.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::PartAnswer;
use kafka_courier_client::log_client::{AppendDecision, LogClient, LogError};

use crate::core::{Treatment, classify};

/// Appends a stamped batch. Returns the first record's offset, if the leader names it, once every in-sync replica has the
/// batch. The same bytes are sent again after each lost answer and each transient error, until `deadline`.
///
/// Appending the same batch again, later or in another process, is safe as long as the leader remembers the stamp.
///
/// # Errors
///
/// [`LogError::is_open`] returns whether the batch may be in the log despite the error.
///
/// # Cancel safety
///
/// Not cancel safe: after a drop of this future, the batch may or may not be in the log.
pub async fn append_batch(
    client: &LogClient,
    topic: &str,
    partition: i32,
    batch: Arc<EncodedBatch>,
    deadline: Instant,
) -> Result<Option<i64>, LogError> {
    client.append(topic, partition, batch, decide, deadline).await
}

fn decide(answer: &PartAnswer) -> AppendDecision {
    let outcome = classify(answer);
    let refused = outcome.refused;
    match outcome.treatment {
        Treatment::Delivered => AppendDecision::Written,
        Treatment::Wait | Treatment::WaitForLeader | Treatment::Retry => AppendDecision::Retry { refused },
        Treatment::Duplicate | Treatment::Split | Treatment::Sequence | Treatment::NewTopicId | Treatment::Reject => {
            AppendDecision::Fail { refused }
        }
    }
}
