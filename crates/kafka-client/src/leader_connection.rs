//! A connection to a partition's leader: its producer states, its offsets, its log.
//!
//! Rules:
//! - Each question has a separate connection. A connection with Produce requests may be silent while a write waits
//!   for its replicas.
//! - Followers answer DescribeProducers too, with older state. The broker must therefore answer ListOffsets under the
//!   known leader epoch before and after the question. Otherwise the question has no result.
//! - A read ends at the high watermark. Each record that it returns is on every in-sync replica.
//! - The log may end behind the high watermark. A leader answers OffsetForLeaderEpoch for its current epoch with the
//!   log's end.
//! - Answers are returned as data. The caller decides what they prove.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::{BrokerConnection, Dialer, NoAnswer};
use crate::error_code::ErrorCode;
use crate::ids::{BrokerAddress, TopicUuid};
use crate::wire::describe_producers::{self, DescribedPartition};
use crate::wire::fetch::FetchRequest;
use crate::wire::list_offsets::ListOffsetsRequest;
use crate::wire::messenger::{EpochEnds, Fetched, ListedOffsets};
use crate::wire::offset_for_leader_epoch::{EpochEnd, EpochEndRequest};

pub use crate::wire::describe_producers::ActiveProducer;
pub use crate::wire::list_offsets::{EARLIEST, LATEST};

/// The largest Fetch, in bytes.
const FETCH_BYTES: i32 = 4 << 20;

/// Why a question to a leader has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaderError {
    /// The question may succeed later.
    Transient,
    /// The question never succeeds: a right is missing, or no version of a request is in common.
    Permanent,
}

impl LeaderError {
    fn from_code(code: i16) -> Self {
        let code = ErrorCode(code);
        let transient = [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH];
        if code.is_retriable() || transient.contains(&code) { Self::Transient } else { Self::Permanent }
    }

    fn from_no_answer(error: &NoAnswer) -> Self {
        match error {
            NoAnswer::Failed(_) => Self::Transient,
            NoAnswer::NoVersion(_) => Self::Permanent,
        }
    }
}

/// A partition's leader, with a connection to it.
///
/// # Cancel safety
///
/// All methods are cancel safe: the requests only read.
pub struct LeaderConnection {
    connection: BrokerConnection,
    topic: Arc<str>,
    partition: i32,
    /// The leader epoch, if known.
    epoch: Option<i32>,
}

impl LeaderConnection {
    /// Opens a connection to the leader of a partition, under the leader epoch, if it is known.
    ///
    /// # Errors
    ///
    /// Any failure to connect is [`LeaderError::Transient`].
    pub async fn open(
        dialer: &Dialer,
        leader: &BrokerAddress,
        topic: Arc<str>,
        partition: i32,
        epoch: Option<i32>,
    ) -> Result<Self, LeaderError> {
        let connection = dialer.dial(&leader.host, leader.port).await.map_err(|_| LeaderError::Transient)?;
        Ok(Self { connection, topic, partition, epoch })
    }

    /// Returns the leader's state of a producer id, or `None` if the leader does not know the id.
    ///
    /// # Errors
    ///
    /// [`LeaderError::Transient`] also if the broker is not confirmed as the leader before and after the question.
    /// [`LeaderError::Permanent`] also without the right Read on the topic.
    pub async fn producer_state(&self, producer_id: i64) -> Result<Option<ActiveProducer>, LeaderError> {
        self.offset(LATEST).await?;
        let question =
            describe_producers::DescribeProducersRequest { topic: self.topic.clone(), partition: self.partition };
        let described = self.connection.request(question).await.map_err(|error| LeaderError::from_no_answer(&error))?;
        self.offset(LATEST).await?;
        find_producer(&described.0, &self.topic, self.partition, producer_id)
    }

    /// Returns the offset of the first record of this time or later, in milliseconds since the Unix epoch. The time
    /// [`LATEST`] stands for the high watermark, and [`EARLIEST`] for the first record that the log still has. Returns `None` if there is no such record. Only the leader answers.
    ///
    /// # Errors
    ///
    /// [`LeaderError`] describes the errors.
    pub async fn offset(&self, timestamp: i64) -> Result<Option<i64>, LeaderError> {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let question = ListOffsetsRequest { topic, partition, leader_epoch: self.epoch, timestamp };
        let ListedOffsets(answer) =
            self.connection.request(question).await.map_err(|error| LeaderError::from_no_answer(&error))?;
        let part = answer.iter().find(|part| part.topic == self.topic && part.partition == partition);
        match part.ok_or(LeaderError::Transient)? {
            part if part.code != ErrorCode::NONE.0 => Err(LeaderError::from_code(part.code)),
            part => Ok(Some(part.offset).filter(|offset| *offset >= 0)),
        }
    }

    /// Returns the end of the leader's log: the offset of its next record. Records between the high watermark and the
    /// end are not on every in-sync replica yet, and no read returns them. Only the leader answers.
    ///
    /// # Errors
    ///
    /// [`LeaderError::Transient`] also if the leader epoch is unknown. [`LeaderError::Permanent`] also without the right
    /// Describe on the topic.
    pub async fn log_end(&self) -> Result<i64, LeaderError> {
        let leader_epoch = self.epoch.ok_or(LeaderError::Transient)?;
        let question = EpochEndRequest { topic: self.topic.clone(), partition: self.partition, leader_epoch };
        let EpochEnds(answer) =
            self.connection.request(question).await.map_err(|error| LeaderError::from_no_answer(&error))?;
        find_log_end(&answer, &self.topic, self.partition, leader_epoch)
    }

    /// Reads record batches from `offset` on, up to 4 MiB. The last batch may be cut off.
    ///
    /// # Errors
    ///
    /// [`LeaderError`] describes the errors.
    pub async fn fetch(&self, topic_uuid: Option<TopicUuid>, offset: i64) -> Result<Vec<u8>, LeaderError> {
        let request = FetchRequest {
            topic: self.topic.clone(),
            topic_uuid,
            partition: self.partition,
            leader_epoch: self.epoch,
            offset,
            max_bytes: FETCH_BYTES,
            max_wait: Duration::ZERO,
        };
        let Fetched((code, parts)) =
            self.connection.request(request).await.map_err(|error| LeaderError::from_no_answer(&error))?;
        if code != ErrorCode::NONE.0 {
            return Err(LeaderError::from_code(code));
        }
        match parts.into_iter().find(|part| part.index == self.partition).ok_or(LeaderError::Transient)? {
            part if part.code != ErrorCode::NONE.0 => Err(LeaderError::from_code(part.code)),
            part => Ok(part.records),
        }
    }
}

/// Returns the state of one producer id in the requested partition. An answer for another partition proves nothing.
fn find_producer(
    answer: &[DescribedPartition],
    topic: &str,
    partition: i32,
    producer_id: i64,
) -> Result<Option<ActiveProducer>, LeaderError> {
    let asked = answer.iter().find(|found| &*found.topic == topic && found.partition == partition);
    let asked = asked.ok_or(LeaderError::Transient)?;
    if asked.code != ErrorCode::NONE.0 {
        return Err(LeaderError::from_code(asked.code));
    }
    Ok(asked.producers.iter().find(|producer| producer.id == producer_id).copied())
}

/// Returns the end of the log from a leader's answer for its current epoch. The end of an earlier epoch is not the
/// end of the log.
fn find_log_end(answer: &[EpochEnd], topic: &str, partition: i32, leader_epoch: i32) -> Result<i64, LeaderError> {
    let asked = answer.iter().find(|found| &*found.topic == topic && found.partition == partition);
    match asked.ok_or(LeaderError::Transient)? {
        part if part.code != ErrorCode::NONE.0 => Err(LeaderError::from_code(part.code)),
        part if part.leader_epoch == leader_epoch && part.end_offset >= 0 => Ok(part.end_offset),
        _ => Err(LeaderError::Transient),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ActiveProducer = ActiveProducer { id: 7, epoch: 3, last_sequence: 12, last_timestamp: 1 };

    fn answer(code: i16, partition: i32, producers: &[ActiveProducer]) -> DescribedPartition {
        DescribedPartition { topic: "orders".into(), partition, code, producers: producers.to_vec() }
    }

    #[test]
    fn states_are_found_absent_or_unavailable() {
        let find = |code, producers: &[ActiveProducer], id| {
            find_producer(&[answer(code, 6, producers), answer(code, 7, producers)], "orders", 7, id)
        };
        assert_eq!(find(0, &[ActiveProducer { id: 8, ..OURS }, OURS], 7), Ok(Some(OURS)));
        assert_eq!(find(0, &[OURS], 9), Ok(None));
        assert_eq!(find(0, &[], 7), Ok(None));
        for code in [3, 6, 56, 74] {
            assert_eq!(find(code, &[], 7), Err(LeaderError::Transient), "code {code}");
        }
        for code in [17, 29, 31] {
            assert_eq!(find(code, &[], 7), Err(LeaderError::Permanent), "code {code}");
        }
        assert_eq!(find(29, &[OURS], 7), Err(LeaderError::Permanent), "an error has no state");
    }

    #[test]
    fn only_current_epoch_ends_the_log() {
        let find = |code, leader_epoch, end_offset| {
            let part = EpochEnd { topic: "orders".into(), partition: 7, code, leader_epoch, end_offset };
            let other = EpochEnd { partition: 6, end_offset: 99, ..part.clone() };
            find_log_end(&[other, part], "orders", 7, 3)
        };
        assert_eq!([find(0, 3, 40), find(0, 3, 0)], [Ok(40), Ok(0)]);
        for (code, epoch, end) in
            [(0, 2, 40), (0, 4, 40), (0, -1, -1), (0, 3, -1), (6, -1, -1), (74, -1, -1), (75, 3, 9)]
        {
            assert_eq!(find(code, epoch, end), Err(LeaderError::Transient), "code {code}, epoch {epoch}, end {end}");
        }
        for code in [29, 31] {
            assert_eq!(find(code, -1, -1), Err(LeaderError::Permanent), "code {code}");
        }
        assert_eq!(find_log_end(&[], "orders", 7, 3), Err(LeaderError::Transient));
    }

    #[test]
    fn other_partitions_prove_nothing() {
        let other = [answer(0, 6, &[OURS])];
        assert_eq!(find_producer(&other, "orders", 7, 7), Err(LeaderError::Transient));
        assert_eq!(find_producer(&other, "other", 6, 7), Err(LeaderError::Transient));
        assert_eq!(find_producer(&[], "orders", 7, 7), Err(LeaderError::Transient));
    }
}
