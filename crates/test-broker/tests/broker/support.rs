//! A client that sends exactly the requests of a test.
#![allow(dead_code)] // no test file uses every helper
#![allow(clippy::unwrap_used, clippy::expect_used)] // test helpers may panic
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Header, Limits, Record, Stamp};
use kafka_courier_test_broker::{TestCluster, TopicSpec};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    next_id: i32,
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(crate) async fn cluster(brokers: i32, partitions: i32) -> TestCluster {
    TestCluster::builder().brokers(brokers).topic_spec(TopicSpec::new("t", partitions)).start().await.unwrap()
}

impl Client {
    pub(crate) async fn connect(cluster: &TestCluster, broker: i32) -> Self {
        let stream = TcpStream::connect(cluster.address(broker).unwrap()).await.unwrap();
        Self { stream: Box::new(stream), next_id: 1 }
    }

    pub(crate) fn in_memory(cluster: &TestCluster, broker: i32) -> Self {
        Self { stream: Box::new(cluster.connect_in_memory(broker).unwrap()), next_id: 1 }
    }

    fn encode<R: Request>(&mut self, request: &R, version: i16) -> (i32, BytesMut) {
        let id = self.next_id;
        self.next_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(text("test")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        (id, frame)
    }

    /// Sends a request without waiting, and returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.try_send(request, version).await.unwrap()
    }

    /// Sends a request, and returns its correlation id. `None` means that the connection has ended.
    pub(crate) async fn try_send<R: Request>(&mut self, request: &R, version: i16) -> Option<i32> {
        let (id, frame) = self.encode(request, version);
        self.stream.write_all(&frame).await.ok().map(|()| id)
    }

    pub(crate) async fn send_frame(&mut self, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_i32(body.len() as i32);
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Returns the bytes of the next answer. `None` means that the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    /// Returns the next answer, and checks its correlation id.
    pub(crate) async fn receive<R: Request>(&mut self, id: i32, version: i16) -> Option<R::Response> {
        let mut body = self.frame().await?;
        assert_eq!(body.get_i32(), id);
        if <R::Response as HeaderVersion>::header_version(version) >= 1 {
            assert_eq!(body.get_u8(), 0);
        }
        let answer = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "the answer has {} trailing bytes", body.len());
        Some(answer)
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version).await;
        self.receive::<R>(id, version).await.expect("the connection has ended")
    }

    /// Produces one batch to a partition of topic "t", and returns the answer.
    pub(crate) async fn produce(&mut self, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let request = produce_request(partition, batch);
        let mut answer = self.call(&request, 12).await;
        answer.responses.remove(0).partition_responses.remove(0)
    }
}

pub(crate) fn produce_request(partition: i32, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(text("t").into()).with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![topic])
}

/// Returns a batch of these values without keys, stamped with producer id 7.
pub(crate) fn batch(epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    let records: Vec<_> = values.iter().map(|value| (None, *value, now_ms())).collect();
    stamped(Some(Stamp { producer_id: 7, epoch, base_sequence }), &records, Compression::None)
}

/// Returns a batch of records. A record is key, value and timestamp.
pub(crate) fn stamped(stamp: Option<Stamp>, records: &[(Option<&str>, &str, i64)], compression: Compression) -> Bytes {
    let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 28, linger: std::time::Duration::ZERO };
    let pool = BufferPool::new(0);
    let mut accumulator = Accumulator::new(limits, compression);
    for (key, value, timestamp) in records {
        let headers = [Header { key: "h", value: None }];
        let record = Record {
            key: key.map(str::as_bytes),
            value: Some(value.as_bytes()),
            headers: &headers,
            timestamp: *timestamp,
        };
        accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
    }
    let mut sealed = accumulator.seal().unwrap().encode(&pool);
    sealed.batch.stamp(stamp.unwrap_or(Stamp { producer_id: -1, epoch: -1, base_sequence: -1 }));
    Bytes::copy_from_slice(sealed.batch.as_bytes())
}
