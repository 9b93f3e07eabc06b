//! Asks a partition's leader for its producer state, and searches the partition's log.
//!
//! Rules:
//! - Each question has a separate connection. A connection with Produce requests may be silent while a write waits
//!   for its replicas.
//! - Followers answer DescribeProducers too, with older state. The broker must therefore answer ListOffsets under the
//!   known leader epoch before and after the question. Otherwise the question has no result.
//! - A search reads up to the high watermark. Each record that it finds is on every in-sync replica.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kafka_courier_batcher::BatchView;
use tokio::time::timeout;

use super::connection::{BrokerConnection, Dialer, NoAnswer};
use crate::core::{
    BrokerAddress, ErrorCode, LogSearch, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookup, StateLookupAnswer,
};
use crate::wire::describe_producers;
use crate::wire::fetch::FetchRequest;
use crate::wire::list_offsets::{LATEST, ListOffsetsRequest};
use crate::wire::messenger::{Fetched, ListedOffsets};

/// The largest Fetch, in bytes.
const FETCH_BYTES: i32 = 4 << 20;

/// Why a question has no result.
enum LookError {
    /// The question may succeed later.
    Transient,
    /// The question never succeeds: a right is missing, or no version of a request is in common.
    Permanent,
}

impl LookError {
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

/// A client of partition leaders.
pub(super) struct LeaderClient {
    pub(super) dialer: Dialer,
    /// The time limit of one question.
    pub(super) timeout: Duration,
}

/// A partition's leader, with a connection to it.
struct ConnectedLeader<'a> {
    connection: BrokerConnection,
    topic: &'a Arc<str>,
    partition: i32,
    epoch: i32,
}

impl LeaderClient {
    /// Asks a partition's leader for its producer state.
    pub(super) async fn look(&self, question: &StateLookup) -> StateLookupAnswer {
        let StateLookup { topic, leader, leader_epoch, producer_id, .. } = question;
        let looked = timeout(self.timeout, async {
            let leader = self.leader(leader, topic, question.partition.index, *leader_epoch).await?;
            leader.look(*producer_id).await
        });
        match looked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(LookError::Permanent)) => StateLookupAnswer::Nothing,
            Ok(Err(LookError::Transient)) | Err(_) => StateLookupAnswer::Unavailable,
        }
    }

    /// Searches a partition's log for the sender's batches.
    pub(super) async fn search(&self, question: &LogSearch) -> SearchAnswer {
        let LogSearch { topic, leader, leader_epoch, .. } = question;
        let searched = timeout(self.timeout, async {
            let leader = self.leader(leader, topic, question.partition.index, *leader_epoch).await?;
            leader.search(question).await
        });
        match searched.await {
            Ok(Ok(found)) => SearchAnswer::Read(found),
            Ok(Err(LookError::Permanent)) => SearchAnswer::Unreadable,
            Ok(Err(LookError::Transient)) | Err(_) => SearchAnswer::Unavailable,
        }
    }

    async fn leader<'a>(
        &self,
        at: &BrokerAddress,
        topic: &'a Arc<str>,
        partition: i32,
        epoch: i32,
    ) -> Result<ConnectedLeader<'a>, LookError> {
        let connection = self.dialer.dial(&at.host, at.port).await.map_err(|_| LookError::Transient)?;
        Ok(ConnectedLeader { connection, topic, partition, epoch })
    }
}

impl ConnectedLeader<'_> {
    async fn look(&self, producer_id: i64) -> Result<StateLookupAnswer, LookError> {
        self.offset(LATEST).await?;
        let question = describe_producers::Request { topic: self.topic.clone(), partition: self.partition };
        let described = self.connection.request(question).await.map_err(|error| LookError::from_no_answer(&error))?;
        self.offset(LATEST).await?;
        Ok(describe_producers::look_answer(&described.0, self.topic, self.partition, producer_id, wall_clock_ms()))
    }

    /// Returns the offset of the first record of this time or later, or [`LATEST`]. Returns -1 if there is none. Only
    /// the leader answers.
    async fn offset(&self, timestamp: i64) -> Result<i64, LookError> {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let question = ListOffsetsRequest { topic, partition, leader_epoch: self.epoch, timestamp };
        let ListedOffsets(answer) =
            self.connection.request(question).await.map_err(|error| LookError::from_no_answer(&error))?;
        let part = answer.iter().find(|part| part.topic == *self.topic && part.partition == partition);
        match part.ok_or(LookError::Transient)? {
            part if part.code != ErrorCode::NONE.0 => Err(LookError::from_code(part.code)),
            part => Ok(part.offset),
        }
    }

    async fn search(&self, question: &LogSearch) -> Result<Vec<LoggedBatch>, LookError> {
        let end = self.offset(LATEST).await?;
        let mut next = match question.wanted.from {
            Some(from) => from,
            None => self.offset(question.wanted.since).await?,
        };
        let mut found = Vec::new();
        while (0..end).contains(&next) {
            let bytes = self.fetch(question, next).await?;
            let Some(next_offset) = collect(&bytes, &question.wanted, next, end, &mut found) else {
                // The batches have another format than v2, or are damaged.
                return Err(if bytes.is_empty() { LookError::Transient } else { LookError::Permanent });
            };
            if found.iter().any(|batch| batch.offset_of(question.wanted.last_sequence, 1).is_some()) {
                break;
            }
            next = next_offset;
        }
        Ok(found)
    }

    async fn fetch(&self, question: &LogSearch, offset: i64) -> Result<Vec<u8>, LookError> {
        let request = FetchRequest {
            topic: self.topic.clone(),
            topic_uuid: question.topic_uuid,
            partition: self.partition,
            leader_epoch: self.epoch,
            offset,
            max_bytes: FETCH_BYTES,
            max_wait: Duration::ZERO,
        };
        let Fetched((code, parts)) =
            self.connection.request(request).await.map_err(|error| LookError::from_no_answer(&error))?;
        if code != ErrorCode::NONE.0 {
            return Err(LookError::from_code(code));
        }
        match parts.into_iter().find(|part| part.index == self.partition).ok_or(LookError::Transient)? {
            part if part.code != ErrorCode::NONE.0 => Err(LookError::from_code(part.code)),
            part => Ok(part.records),
        }
    }
}

/// Adds the wanted batches before `end` to `found`. Returns the offset after the last batch. Returns `None` if no
/// batch was read, or if a batch is damaged.
fn collect(
    mut bytes: &[u8],
    wanted: &LogSearchTarget,
    from: i64,
    end: i64,
    found: &mut Vec<LoggedBatch>,
) -> Option<i64> {
    let mut next = from;
    while let Ok((batch, rest)) = BatchView::parse(bytes) {
        let records = u32::try_from(batch.last_offset_delta).ok()?.checked_add(1)?;
        let next_offset = batch.base_offset.checked_add(i64::from(records))?;
        let is_wanted = (batch.producer_id, batch.producer_epoch) == (wanted.producer_id, wanted.epoch);
        if is_wanted && !batch.is_control() && next_offset <= end && next_offset > from {
            if !batch.check_crc() {
                return None;
            }
            let log_append_time = batch.is_log_append_time().then_some(batch.max_timestamp);
            let (base_sequence, base_offset) = (batch.base_sequence, batch.base_offset);
            found.push(LoggedBatch { base_sequence, records, base_offset, log_append_time });
        }
        next = next.max(next_offset);
        bytes = rest;
    }
    (next > from).then_some(next)
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
    use kafka_courier_test_broker::TestCluster;

    use super::*;
    use crate::core::{BrokerId, LookupId, PartitionId, TopicId};
    use crate::driver::{DriverConfig, LogClient, LogErrorKind};

    const PARTITION: PartitionId = PartitionId { topic: TopicId(0), index: 0 };

    /// Starts two brokers, the first of which leads under epoch 0, and configures a client.
    async fn cluster() -> (TestCluster, DriverConfig) {
        let cluster = TestCluster::builder().brokers(2).topic("t", 1).start().await.unwrap();
        let address = cluster.address(1).unwrap();
        let config = DriverConfig {
            core: crate::core::Config::default(),
            bootstrap: vec![(address.ip().to_string().into(), address.port())],
            default_broker: None,
            client_id: "leader_client".into(),
            connect_timeout: Duration::from_secs(5),
            security: crate::driver::security::ConnectionSecurity::default(),
        };
        (cluster, config)
    }

    fn leader_client(config: &DriverConfig) -> LeaderClient {
        LeaderClient { dialer: config.dialer(), timeout: Duration::from_secs(30) }
    }

    async fn append(config: &DriverConfig, stamp: Stamp, values: u32) {
        let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: wall_clock_ms() };
        for sequence in 0..values as i32 {
            let mut batch = EncodedBatch::single(&record).unwrap();
            batch.stamp(Stamp { base_sequence: stamp.base_sequence + sequence, ..stamp });
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            LogClient::new(config).append("t", 0, Arc::new(batch), deadline).await.unwrap();
        }
    }

    fn at(cluster: &TestCluster, broker: i32) -> BrokerAddress {
        let address = cluster.address(broker).unwrap();
        BrokerAddress { id: BrokerId(broker), host: address.ip().to_string().into(), port: address.port() }
    }

    #[tokio::test]
    async fn only_a_confirmed_leader_counts() {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 0 }, 2).await;
        let look = async |broker, leader_epoch, producer_id| {
            let (topic, look, leader) = ("t".into(), LookupId(1), at(&cluster, broker));
            let question = StateLookup { partition: PARTITION, topic, leader, leader_epoch, look, producer_id };
            leader_client(&config).look(&question).await
        };
        let StateLookupAnswer::Producer { epoch, last_sequence, age } = look(1, 0, 7).await else {
            panic!("no producer found")
        };
        assert_eq!((epoch, last_sequence), (3, 1));
        assert!(age < Duration::from_secs(60));
        assert_eq!(look(1, 0, 8).await, StateLookupAnswer::Nothing);
        assert_eq!(look(2, 0, 7).await, StateLookupAnswer::Unavailable, "a follower's state may be older");
        assert!(cluster.move_leader("t", 0, 2));
        assert_eq!(look(1, 0, 7).await, StateLookupAnswer::Unavailable, "a former leader");
        assert_eq!(look(2, 0, 7).await, StateLookupAnswer::Unavailable, "the leader epoch is not the known one");
        assert!(matches!(look(2, 1, 7).await, StateLookupAnswer::Producer { .. }));
    }

    #[tokio::test]
    async fn search_stops_at_wanted_sequence() {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 6, epoch: 0, base_sequence: 0 }, 2).await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 40 }, 4).await;
        let search = async |broker, from, last_sequence| {
            let wanted = LogSearchTarget { producer_id: 7, epoch: 3, last_sequence, from, since: 0 };
            let (topic, leader, look) = ("t".into(), at(&cluster, broker), LookupId(1));
            let (client, deadline) = (LogClient::new(&config), std::time::Instant::now() + Duration::from_secs(30));
            let topic_uuid = client.topic("t", deadline).await.unwrap().uuid;
            let question = LogSearch { partition: PARTITION, topic, topic_uuid, leader, leader_epoch: 0, look, wanted };
            leader_client(&config).search(&question).await
        };
        let found = |answer| match answer {
            SearchAnswer::Read(found) => found.iter().map(|b: &LoggedBatch| (b.base_sequence, b.base_offset)).collect(),
            _ => vec![],
        };
        assert_eq!(found(search(1, Some(3), 43).await), [(41, 3), (42, 4), (43, 5)]);
        assert_eq!(found(search(1, None, 43).await), [(40, 2), (41, 3), (42, 4), (43, 5)]);
        assert_eq!(search(1, Some(6), 43).await, SearchAnswer::Read(vec![]));
        assert_eq!(search(2, Some(0), 43).await, SearchAnswer::Unavailable);
    }

    #[tokio::test]
    async fn missing_version_is_permanent() {
        let (cluster, config) = cluster().await;
        // ApiVersions v3: the requests of delivery, and DescribeConfigs of Kafka 0.11.
        let ranges = [(0_i16, 3_i16, 3_i16), (3, 4, 4), (22, 0, 0), (32, 0, 0)];
        let mut answer = vec![0, 0, ranges.len() as u8 + 1];
        for (key, lowest, highest) in ranges {
            answer.extend([key, lowest, highest].iter().flat_map(|field| field.to_be_bytes()));
            answer.push(0);
        }
        answer.extend([0; 5]);
        let rule = kafka_courier_test_broker::Rule::for_api(kafka_courier_test_broker::ApiKey::ApiVersions).always();
        cluster.inject(rule.then(kafka_courier_test_broker::Fault::ApplyThenAnswer(answer)));
        let began = std::time::Instant::now();
        let error = LogClient::new(&config).is_compacted("t", began + Duration::from_secs(60)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(20), "the client must not retry");
        let LogErrorKind::ClusterRefused(crate::core::Reason::NoCommonVersion(none)) = error.kind() else {
            panic!("{error}")
        };
        assert_eq!((none.api, none.ours, none.theirs), ("DescribeConfigs", (1, 4), Some((0, 0))));
    }
}
