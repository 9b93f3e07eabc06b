//! Answers the core's lookups: a leader's producer state, and the sender's batches in a log.
//!
//! Rules:
//! - Each lookup has a separate connection to the leader, and a time limit.
//! - A search reads up to the high watermark. Each record that it finds is on every in-sync replica.

use std::time::{Duration, SystemTime};

use kafka_courier_batcher::BatchView;
use kafka_courier_client::connection::Dialer;
use kafka_courier_client::leader_connection::{LATEST, LeaderConnection, LeaderError};
use tokio::time::timeout;

use crate::core::{LogSearch, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookup, StateLookupAnswer};

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
            leader.producer_state(*producer_id).await
        });
        match looked.await {
            Ok(Ok(Some(state))) => StateLookupAnswer::Producer {
                epoch: state.epoch,
                last_sequence: state.last_sequence,
                age: age(state.last_timestamp, wall_clock_ms()),
            },
            Ok(Ok(None) | Err(LeaderError::Permanent)) => StateLookupAnswer::Nothing,
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

async fn search(leader: &LeaderConnection, question: &LogSearch) -> Result<Vec<LoggedBatch>, LeaderError> {
    let mut found = Vec::new();
    let end = leader.offset(LATEST).await?;
    let next = match question.wanted.from {
        Some(from) => Some(from),
        None => leader.offset(question.wanted.since).await?,
    };
    let (Some(end), Some(mut next)) = (end, next) else { return Ok(found) };
    while (0..end).contains(&next) {
        let bytes = leader.fetch(question.topic_uuid, next).await?;
        let Some(next_offset) = collect(&bytes, &question.wanted, next, end, &mut found) else {
            // The batches have another format than v2, or are damaged.
            return Err(if bytes.is_empty() { LeaderError::Transient } else { LeaderError::Permanent });
        };
        if found.iter().any(|batch| batch.offset_of(question.wanted.last_sequence, 1).is_some()) {
            break;
        }
        next = next_offset;
    }
    Ok(found)
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

/// Returns the age of a timestamp at `now`, both in milliseconds since the Unix epoch. A time in the future has the
/// age zero.
fn age(timestamp: i64, now: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(timestamp)).unwrap_or(0))
}

fn wall_clock_ms() -> i64 {
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
    use kafka_courier_test_broker::TestCluster;

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
            let (client, deadline) = (LogClient::new(&config), Instant::now() + Duration::from_secs(30));
            let topic_uuid = client.topic("t", deadline).await.unwrap().uuid;
            let question =
                LogSearch { partition: PARTITION, topic, topic_uuid, leader, leader_epoch: Some(0), look, wanted };
            lookup_client(&config).search(&question).await
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

    #[test]
    fn future_timestamps_have_age_zero() {
        assert_eq!((age(5, 12), age(12, 5)), (Duration::from_millis(7), Duration::ZERO));
    }
}
