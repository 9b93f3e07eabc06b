//! Answers the core's lookups: a leader's producer state, and the sender's batches in a log.
//!
//! Rules:
//! - Each lookup has a separate connection to the leader, and a time limit.
//! - A search reads up to the high watermark. Each record that it finds is on every in-sync replica.
//! - A search of the whole log that begins at a time finds nothing for certain only if the log still has an older record,
//!   or has all its records.
//! - A search of the whole log has no result until the high watermark has passed the end of the leader's log. Nothing
//!   reads the records between them, and the wanted batches may be among them.

use std::time::{Duration, SystemTime};

use kafka_courier_batcher::BatchView;
use kafka_courier_client::connection::Dialer;
use kafka_courier_client::leader_connection::{EARLIEST, LATEST, LeaderConnection, LeaderError};
use tokio::time::{sleep, timeout};

use crate::core::{
    CLOCK_SKEW_MS, LogSearch, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookup, StateLookupAnswer,
};

/// The pauses in which the high watermark may reach the end of the log, in milliseconds: a second in total. Replicas are
/// usually milliseconds behind.
const CATCH_UP_PAUSES_MS: [u64; 6] = [5, 15, 50, 130, 300, 500];

/// Asks leaders, one connection for each lookup.
pub(super) struct LookupClient {
    pub(super) dialer: Dialer,
    /// The time limit of one lookup.
    pub(super) timeout: Duration,
}

impl LookupClient {
    /// Asks a partition's leader for its producer state.
    pub(super) async fn look_up(&self, question: &StateLookup) -> StateLookupAnswer {
        let StateLookup { partition, topic, leader, leader_epoch, producer_id, .. } = question;
        let looked = timeout(self.timeout, async {
            let (topic, index) = (topic.clone(), partition.index);
            let leader = LeaderConnection::open(&self.dialer, leader, topic, index, *leader_epoch).await?;
            let state = leader.producer_state(*producer_id).await;
            // Records that are deleted after the state was read are not missing from it.
            Ok(match state {
                Ok(Some(state)) => StateLookupAnswer::Producer {
                    epoch: state.epoch,
                    last_sequence: state.last_sequence,
                    age: age(state.last_timestamp, wall_clock_ms()),
                },
                Ok(None) => StateLookupAnswer::NotKnown { log_start: log_start(&leader).await? },
                Err(LeaderError::Permanent) => {
                    StateLookupAnswer::Unreadable { log_start: Some(log_start(&leader).await?) }
                }
                Err(LeaderError::Transient) => StateLookupAnswer::Unavailable,
            })
        });
        match looked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(LeaderError::Permanent)) => StateLookupAnswer::Unreadable { log_start: None },
            Ok(Err(LeaderError::Transient)) | Err(_) => StateLookupAnswer::Unavailable,
        }
    }

    /// Searches a partition's log for the sender's batches.
    pub(super) async fn search(&self, question: &LogSearch) -> SearchAnswer {
        let LogSearch { partition, topic, leader, leader_epoch, .. } = question;
        let searched = timeout(self.timeout, async {
            let (topic, index) = (topic.clone(), partition.index);
            let leader = LeaderConnection::open(&self.dialer, leader, topic, index, *leader_epoch).await?;
            search(&leader, question).await
        });
        match searched.await {
            Ok(Ok(found)) => SearchAnswer::Read(found),
            Ok(Err(LeaderError::Permanent)) => SearchAnswer::Unreadable,
            Ok(Err(LeaderError::Transient)) | Err(_) => SearchAnswer::Unavailable,
        }
    }
}

async fn log_start(leader: &LeaderConnection) -> Result<i64, LeaderError> {
    leader.offset(EARLIEST).await?.ok_or(LeaderError::Transient)
}

async fn search(leader: &LeaderConnection, question: &LogSearch) -> Result<Vec<LoggedBatch>, LeaderError> {
    let end = leader.offset(LATEST).await?.ok_or(LeaderError::Transient)?;
    let from = match question.wanted.from {
        Some(from) => Some(from),
        None => leader.offset(question.wanted.since).await?,
    };
    // If no record before the high watermark is young enough, the search skips all of them.
    let mut reading = LogReading { leader, question, next: from.unwrap_or(end).max(0), found: Vec::new() };
    let is_found = reading.read_to(end).await?;
    if !is_found && question.wanted.whole_log {
        reading.read_to_log_end(end).await?;
    }
    let found = reading.found;
    if found.is_empty() && question.wanted.whole_log && question.wanted.from.is_none() {
        // The wanted batches may be among the records that are deleted.
        let log_start = log_start(leader).await?;
        if log_start > 0 && from.unwrap_or(end) <= log_start {
            return Err(LeaderError::Permanent);
        }
    }
    Ok(found)
}

/// A search in progress.
struct LogReading<'a> {
    leader: &'a LeaderConnection,
    question: &'a LogSearch,
    /// The next offset to read.
    next: i64,
    found: Vec<LoggedBatch>,
}

impl LogReading<'_> {
    /// Reads up to `end`. Returns whether the search has found its last sequence number, and ends early.
    async fn read_to(&mut self, end: i64) -> Result<bool, LeaderError> {
        let wanted = &self.question.wanted;
        while self.next < end {
            let bytes = self.leader.fetch(self.question.topic_uuid, self.next).await?;
            let Some(next_offset) = collect(&bytes, wanted, self.next, end, &mut self.found) else {
                // The batches have another format than v2, or are damaged.
                return Err(if bytes.is_empty() { LeaderError::Transient } else { LeaderError::Permanent });
            };
            // An answer may contain batches behind `end`. A later call reads them again.
            self.next = next_offset.min(end);
            if self.found.iter().any(|batch| batch.offset_of(wanted.last_sequence, 1).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads from the high watermark `end` up to the end that the log has now. Fails if the high watermark does not reach
    /// that end soon.
    async fn read_to_log_end(&mut self, mut end: i64) -> Result<(), LeaderError> {
        let log_end = self.leader.log_end().await?;
        let mut pauses = CATCH_UP_PAUSES_MS.into_iter();
        while end < log_end {
            let pause = pauses.next().ok_or(LeaderError::Transient)?;
            sleep(Duration::from_millis(pause)).await;
            end = self.leader.offset(LATEST).await?.ok_or(LeaderError::Transient)?;
            if self.read_to(end).await? {
                break;
            }
        }
        Ok(())
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

/// Returns the age of a timestamp at `now`, both in milliseconds since the Unix epoch. A time in the future has the age
/// zero if the leader's clock may explain it. Otherwise a clock was wrong, and the age is unknown: the greatest one.
fn age(timestamp: i64, now: i64) -> Duration {
    match u64::try_from(now.saturating_sub(timestamp)) {
        Ok(age) => Duration::from_millis(age),
        Err(_) if timestamp.saturating_sub(now) <= CLOCK_SKEW_MS => Duration::ZERO,
        Err(_) => Duration::MAX,
    }
}

/// Returns the time in milliseconds since the Unix epoch.
pub(super) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
    use kafka_courier_client::config::ClientConfig;
    use kafka_courier_client::log_client::LogClient;
    use kafka_courier_client::security::ConnectionSecurity;
    use kafka_courier_client::{BrokerAddress, BrokerId, PartitionId, TopicId};
    use kafka_courier_test_broker::{ApiKey, ErrorCode, TestCluster};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::append_batch;
    use crate::core::LookupId;

    const PARTITION: PartitionId = PartitionId { topic: TopicId(0), index: 0 };

    /// Starts two brokers, the first of which leads under epoch 0, and configures a client.
    async fn cluster() -> (TestCluster, ClientConfig) {
        let cluster = TestCluster::builder().brokers(2).topic("t", 1).start().await.unwrap();
        let address = cluster.address(1).unwrap();
        let config = ClientConfig {
            bootstrap: vec![(address.ip().to_string().into(), address.port())],
            client_id: "lookups".into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            security: ConnectionSecurity::default(),
            default_broker: None,
        };
        (cluster, config)
    }

    fn lookup_client(config: &ClientConfig) -> LookupClient {
        LookupClient { dialer: Dialer::new(config), timeout: Duration::from_secs(30) }
    }

    async fn append(config: &ClientConfig, stamp: Stamp, values: u32) {
        let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: wall_clock_ms() };
        for sequence in 0..values as i32 {
            let mut batch = EncodedBatch::single(&record).unwrap();
            batch.stamp(Stamp { base_sequence: stamp.base_sequence + sequence, ..stamp });
            let deadline = Instant::now() + Duration::from_secs(30);
            append_batch(&LogClient::new(config), "t", 0, Arc::new(batch), deadline).await.unwrap();
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
            let question = StateLookup {
                partition: PARTITION,
                topic,
                leader,
                leader_epoch: Some(leader_epoch),
                look,
                producer_id,
            };
            lookup_client(&config).look_up(&question).await
        };
        let StateLookupAnswer::Producer { epoch, last_sequence, age } = look(1, 0, 7).await else {
            panic!("no producer found")
        };
        assert_eq!((epoch, last_sequence), (3, 1));
        assert!(age < Duration::from_secs(60));
        assert_eq!(look(1, 0, 8).await, StateLookupAnswer::NotKnown { log_start: 0 });
        assert_eq!(look(2, 0, 7).await, StateLookupAnswer::Unavailable, "a follower's state may be older");
        assert!(cluster.move_leader("t", 0, 2));
        assert_eq!(look(1, 0, 7).await, StateLookupAnswer::Unavailable, "a former leader");
        assert_eq!(look(2, 0, 7).await, StateLookupAnswer::Unavailable, "the leader epoch is not the known one");
        assert!(matches!(look(2, 1, 7).await, StateLookupAnswer::Producer { .. }));
    }

    #[tokio::test]
    async fn refused_state_differs_from_unknown() {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 0 }, 1).await;
        for (error, expected) in [
            (ErrorCode::TopicAuthorizationFailed, StateLookupAnswer::Unreadable { log_start: Some(0) }),
            (ErrorCode::ClusterAuthorizationFailed, StateLookupAnswer::Unreadable { log_start: Some(0) }),
            (ErrorCode::NotLeaderOrFollower, StateLookupAnswer::Unavailable),
            (ErrorCode::UnknownTopicOrPartition, StateLookupAnswer::Unavailable),
        ] {
            cluster.fail_next(ApiKey::DescribeProducers, 1, error);
            let (topic, look, leader) = ("t".into(), LookupId(1), at(&cluster, 1));
            let leader_epoch = Some(0);
            let question = StateLookup { partition: PARTITION, topic, leader, leader_epoch, look, producer_id: 7 };
            assert_eq!(lookup_client(&config).look_up(&question).await, expected, "{error:?}");
        }
    }

    /// Returns a search for producer 7 in epoch 3 from the first offset on, at the first broker.
    async fn log_search(cluster: &TestCluster, config: &ClientConfig, last_sequence: i32) -> LogSearch {
        let deadline = Instant::now() + Duration::from_secs(30);
        let topic_uuid = LogClient::new(config).topic("t", deadline).await.unwrap().uuid;
        let (from, since, whole_log) = (Some(0), 0, false);
        LogSearch {
            partition: PARTITION,
            topic: "t".into(),
            topic_uuid,
            leader: at(cluster, 1),
            leader_epoch: Some(0),
            look: LookupId(1),
            wanted: LogSearchTarget { producer_id: 7, epoch: 3, last_sequence, from, since, whole_log },
        }
    }

    /// Returns the sequence number and offset of each found batch.
    fn found(answer: SearchAnswer) -> Vec<(i32, i64)> {
        match answer {
            SearchAnswer::Read(found) => found.iter().map(|batch| (batch.base_sequence, batch.base_offset)).collect(),
            other => panic!("not read: {other:?}"),
        }
    }

    #[tokio::test]
    async fn search_stops_at_wanted_sequence() {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 6, epoch: 0, base_sequence: 0 }, 2).await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 40 }, 4).await;
        let search = async |broker, from| {
            let mut question = log_search(&cluster, &config, 43).await;
            (question.leader, question.wanted.from) = (at(&cluster, broker), from);
            lookup_client(&config).search(&question).await
        };
        assert_eq!(found(search(1, Some(3)).await), [(41, 3), (42, 4), (43, 5)]);
        assert_eq!(found(search(1, None).await), [(40, 2), (41, 3), (42, 4), (43, 5)]);
        assert_eq!(search(1, Some(6)).await, SearchAnswer::Read(vec![]));
        assert_eq!(search(2, Some(0)).await, SearchAnswer::Unavailable);
    }

    /// Starts a cluster with sequence numbers 40 and 41 of producer 7, and 42 behind the high watermark. Returns it with
    /// a search of the whole log for sequence number 43, and the task that appends 42.
    async fn unreplicated() -> (TestCluster, ClientConfig, LogSearch, JoinHandle<()>) {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 40 }, 2).await;
        assert!(cluster.pause_replication("t", 0));
        let writer = config.clone();
        let late = Stamp { producer_id: 7, epoch: 3, base_sequence: 42 };
        let appended = tokio::spawn(async move { append(&writer, late, 1).await });
        cluster.wait_for_records("t", 3).await;
        let mut question = log_search(&cluster, &config, 43).await;
        question.wanted.whole_log = true;
        (cluster, config, question, appended)
    }

    #[tokio::test]
    async fn unreplicated_records_end_no_search() {
        let (cluster, config, mut question, appended) = unreplicated().await;
        let client = lookup_client(&config);
        assert_eq!(client.search(&question).await, SearchAnswer::Unavailable);
        question.wanted.from = Some(2);
        assert_eq!(client.search(&question).await, SearchAnswer::Unavailable);
        (question.wanted.from, question.wanted.since) = (None, wall_clock_ms() + 3_600_000);
        assert_eq!(client.search(&question).await, SearchAnswer::Unavailable, "no record is that young");
        question.wanted.whole_log = false;
        assert_eq!(client.search(&question).await, SearchAnswer::Read(vec![]));
        assert!(cluster.resume_replication("t", 0));
        appended.await.unwrap();
        question.wanted.whole_log = true;
        assert_eq!(client.search(&question).await, SearchAnswer::Read(vec![]));
        question.wanted.from = Some(0);
        assert_eq!(found(client.search(&question).await), [(40, 0), (41, 1), (42, 2)]);
    }

    #[tokio::test]
    async fn search_waits_for_slow_replicas() {
        let (cluster, config, question, appended) = unreplicated().await;
        let client = lookup_client(&config);
        let resume = async {
            cluster.wait_for_requests(ApiKey::OffsetForLeaderEpoch, 1).await;
            assert!(cluster.resume_replication("t", 0));
        };
        let (answer, ()) = tokio::join!(client.search(&question), resume);
        assert_eq!(found(answer), [(40, 0), (41, 1), (42, 2)]);
        appended.await.unwrap();
    }

    #[tokio::test]
    async fn found_sequence_ends_whole_search() {
        let (cluster, config, mut question, appended) = unreplicated().await;
        question.wanted.last_sequence = 41;
        assert_eq!(found(lookup_client(&config).search(&question).await), [(40, 0), (41, 1)]);
        assert_eq!(cluster.requests(ApiKey::OffsetForLeaderEpoch), 0);
        appended.abort();
    }

    #[tokio::test]
    async fn unknown_log_end_is_no_result() {
        let (cluster, config) = cluster().await;
        append(&config, Stamp { producer_id: 7, epoch: 3, base_sequence: 40 }, 1).await;
        let mut question = log_search(&cluster, &config, 43).await;
        question.wanted.whole_log = true;
        let client = lookup_client(&config);
        cluster.fail_next(ApiKey::OffsetForLeaderEpoch, 1, ErrorCode::TopicAuthorizationFailed);
        assert_eq!(client.search(&question).await, SearchAnswer::Unreadable);
        cluster.fail_next(ApiKey::OffsetForLeaderEpoch, 1, ErrorCode::NotLeaderOrFollower);
        assert_eq!(client.search(&question).await, SearchAnswer::Unavailable);
        question.leader_epoch = None;
        assert_eq!(client.search(&question).await, SearchAnswer::Unavailable, "the leader epoch is unknown");
        question.leader_epoch = Some(0);
        assert_eq!(found(client.search(&question).await), [(40, 0)]);
    }

    #[tokio::test]
    async fn deleted_records_prove_no_absence() {
        let (cluster, config) = cluster().await;
        cluster.set_topic_config("t", "retention.bytes", "1").unwrap();
        append(&config, Stamp { producer_id: 6, epoch: 0, base_sequence: 0 }, 3).await;
        let (topic, look, leader) = ("t".into(), LookupId(1), at(&cluster, 1));
        let question = StateLookup { partition: PARTITION, topic, leader, leader_epoch: Some(0), look, producer_id: 7 };
        let client = lookup_client(&config);
        assert_eq!(client.look_up(&question).await, StateLookupAnswer::NotKnown { log_start: 2 });
        let mut question = log_search(&cluster, &config, 43).await;
        question.wanted.whole_log = true;
        for from in [None, Some(0)] {
            question.wanted.from = from;
            assert_eq!(client.search(&question).await, SearchAnswer::Unreadable, "{from:?}");
        }
        question.wanted.from = Some(2);
        assert_eq!(found(client.search(&question).await), []);
    }

    #[test]
    fn future_timestamps_have_age_zero() {
        assert_eq!((age(5, 12), age(12, 5)), (Duration::from_millis(7), Duration::ZERO));
        assert_eq!(age(CLOCK_SKEW_MS + 6, 5), Duration::MAX, "one of the clocks was wrong");
    }
}
