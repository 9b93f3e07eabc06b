//! A minimal Kafka connection that shows a broker's raw answers. Tests use it to check the sender's assumptions about
//! brokers.
use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record, Stamp};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, DescribeProducersRequest, DescribeProducersResponse, ElectLeadersRequest, ElectLeadersResponse,
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PRODUCE_VERSION: i16 = 11;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
const DESCRIBE_PRODUCERS_VERSION: i16 = 0;
const ELECT_LEADERS_VERSION: i16 = 2;
/// The election type of ElectLeaders for the preferred replica.
const PREFERRED: i8 = 0;
/// The maximum time in which a coordinator must load.
const LOADING_MAX: Duration = Duration::from_secs(60);

/// A connection to one broker.
pub struct RawConnection {
    stream: TcpStream,
    next: i32,
}

/// A leader's answer to one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceAnswer {
    /// Kafka's error code. 0 means success.
    pub code: i16,
    /// The offset of the first record, or -1.
    pub base_offset: i64,
}

impl RawConnection {
    /// Connects to a broker.
    ///
    /// # Errors
    /// Fails if no process listens on the address.
    pub async fn connect(address: &str) -> Result<Self> {
        Ok(Self { stream: TcpStream::connect(address).await?, next: 0 })
    }

    /// Requests a producer id.
    ///
    /// # Errors
    /// Fails if the broker answers with an error.
    pub async fn producer_id(&mut self) -> Result<i64> {
        let begun = Instant::now();
        loop {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            let answer: InitProducerIdResponse =
                self.request(ApiKey::InitProducerId, INIT_PRODUCER_ID_VERSION, &request).await?;
            match answer.error_code {
                0 => return Ok(*answer.producer_id),
                // The coordinator is loading, unavailable or elsewhere.
                14..=16 if begun.elapsed() < LOADING_MAX => tokio::time::sleep(Duration::from_millis(50)).await,
                code => anyhow::bail!("no producer id: error {code}"),
            }
        }
    }

    /// Sends one record to a partition with acks=all, and returns the leader's answer.
    ///
    /// # Errors
    /// Fails if the connection ends before the answer.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        stamp: Stamp,
        value: &[u8],
        timeout: Duration,
    ) -> Result<ProduceAnswer> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch(stamp, value)?));
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(timeout.as_millis())?)
            .with_topic_data(vec![TopicProduceData::default().with_name(name).with_partition_data(vec![data])]);
        let answer: ProduceResponse = self.request(ApiKey::Produce, PRODUCE_VERSION, &request).await?;
        let part = answer.responses.first().and_then(|topic| topic.partition_responses.first()).context("no answer")?;
        Ok(ProduceAnswer { code: part.error_code, base_offset: part.base_offset })
    }

    /// Requests that the controller makes a partition's preferred replica its leader (KIP-460).
    ///
    /// # Errors
    /// Fails if the answer contains an error.
    pub async fn elect_preferred_leader(&mut self, topic: &str, partition: i32) -> Result<()> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let partitions = TopicPartitions::default().with_topic(name).with_partitions(vec![partition]);
        let request = ElectLeadersRequest::default()
            .with_election_type(PREFERRED)
            .with_topic_partitions(Some(vec![partitions]))
            .with_timeout_ms(30_000);
        let answer: ElectLeadersResponse = self.request(ApiKey::ElectLeaders, ELECT_LEADERS_VERSION, &request).await?;
        ensure!(answer.error_code == 0, "no election: error {}", answer.error_code);
        let topic = answer.replica_election_results.first().context("no answer")?;
        let result = topic.partition_result.first().context("no answer")?;
        ensure!(result.error_code == 0, "no election: error {}, {:?}", result.error_code, result.error_message);
        Ok(())
    }

    /// Returns the number of producer ids that the leader of these partitions knows.
    ///
    /// # Errors
    /// Fails if the answer contains an error.
    pub async fn known_producers(&mut self, topic: &str, partitions: u32) -> Result<usize> {
        let indexes = (0..partitions).map(i32::try_from).collect::<Result<_, _>>()?;
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let topic = TopicRequest::default().with_name(name).with_partition_indexes(indexes);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer: DescribeProducersResponse =
            self.request(ApiKey::DescribeProducers, DESCRIBE_PRODUCERS_VERSION, &request).await?;
        let mut known = 0;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            ensure!(partition.error_code == 0, "no producer state: error {}", partition.error_code);
            known += partition.active_producers.len();
        }
        Ok(known)
    }

    /// Sends one request and returns the body of its response.
    async fn request<Q: Encodable + HeaderVersion, A: Decodable + HeaderVersion>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<A> {
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("raw")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, Q::header_version(version))?;
        request.encode(&mut frame, version)?;
        self.stream.write_u32(u32::try_from(frame.len())?).await?;
        self.stream.write_all(&frame).await?;
        let length = self.stream.read_u32().await?;
        ensure!(length < 1 << 20, "the answer has {length} bytes");
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, A::header_version(version))?;
        ensure!(header.correlation_id == self.next, "the answer is to another request");
        let body = A::decode(&mut answer, version)?;
        ensure!(!answer.has_remaining(), "bytes follow the answer");
        Ok(body)
    }
}

/// Returns a stamped batch of one record.
fn batch(stamp: Stamp, value: &[u8]) -> Result<Bytes> {
    let limits = Limits { max_records: 1, max_bytes: 1 << 20, linger: Duration::ZERO };
    let pool = BufferPool::new(0);
    let mut accumulator = Accumulator::new(limits, Compression::None);
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    let record = Record { key: None, value: Some(value), headers: &[], timestamp: now };
    let pushed = accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ())?;
    let [_, full] = pushed.sealed;
    let mut sealed = full.context("a batch of one record is full")?.encode(&pool);
    sealed.batch.stamp(stamp);
    Ok(Bytes::copy_from_slice(sealed.batch.as_bytes()))
}
