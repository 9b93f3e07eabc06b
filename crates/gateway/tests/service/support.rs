//! A service on a cluster inside the process, and a client that writes and reads the bytes of HTTP/1.1.

use std::net::SocketAddr;
use std::time::Duration;

use kafka_courier::{KafkaConfig, KafkaProducer};
use kafka_courier_gateway::{Gateway, GatewayConfig, GatewayServer, MetricsText};
use kafka_courier_test_broker::TestCluster;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// SHA-256 of `secret` and of `other`.
pub(crate) const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
pub(crate) const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const JSON: &str = "content-type: application/json\r\n";
pub(crate) const LOGIN: &str = r#"{"id":"login","type":"user.logged_in","data":{"user_id":"u-1"}}"#;

/// A running service.
pub(crate) struct Service {
    pub(crate) server: GatewayServer,
    pub(crate) producer: KafkaProducer,
}

/// One broker with the topic of [`LOGIN`].
pub(crate) async fn cluster() -> TestCluster {
    TestCluster::builder().topic("user-events", 1).topic("default-events", 1).start().await.unwrap()
}

/// Returns settings for a quick test.
pub(crate) fn kafka(cluster: &TestCluster) -> KafkaConfig {
    let mut config = KafkaConfig::default();
    config.brokers = vec![cluster.bootstrap().parse().unwrap()];
    config.flush_timeout = Duration::from_millis(1);
    config.retry_backoff = Duration::from_millis(2);
    config.retry_backoff_max = Duration::from_millis(20);
    config.retry_max = 100;
    config.delivery_timeout = LONG;
    config
}

impl Service {
    pub(crate) async fn start(cluster: &TestCluster, set: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::with(kafka(cluster), set).await
    }

    /// Starts a service whose file of tokens has this text.
    pub(crate) async fn with_tokens(
        cluster: &TestCluster,
        tokens: &str,
        set: impl FnOnce(&mut GatewayConfig),
    ) -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, tokens).unwrap();
        let set = |config: &mut GatewayConfig| {
            config.tokens_file = path.display().to_string();
            set(config);
        };
        (Self::start(cluster, set).await, folder)
    }

    /// Starts a service on free ports.
    pub(crate) async fn with(kafka: KafkaConfig, set: impl FnOnce(&mut GatewayConfig)) -> Self {
        let producer = KafkaProducer::build(kafka.clone()).unwrap();
        Self::over(producer, &kafka, set).await
    }

    /// Starts a service for a producer that was built with `kafka`.
    pub(crate) async fn over(
        producer: KafkaProducer,
        kafka: &KafkaConfig,
        set: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let mut config = GatewayConfig::default();
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.management = config.listen;
        config.drain_delay = Duration::ZERO;
        set(&mut config);
        let gateway = Gateway::new(producer.clone(), kafka, config).unwrap();
        let server = GatewayServer::start(gateway, MetricsText::default()).await.unwrap();
        Self { server, producer }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.server.address()).await
    }

    /// Posts a body on a new connection.
    pub(crate) async fn post(&self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.post(target, headers, body).await
    }

    /// Sends a request to the second listener.
    pub(crate) async fn manage(&self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        let mut client = Client::connect(self.server.management_address()).await;
        let length = body.len();
        client.send(format!("{method} {target} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}")).await;
        client.reply().await
    }

    pub(crate) async fn get(&self, target: &str, headers: &str) -> Reply {
        let mut client = Client::connect(self.server.management_address()).await;
        client.send(format!("GET {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await;
        client.reply().await
    }
}

/// A connection.
pub(crate) struct Client<S = TcpStream>(S, Vec<u8>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(stream, Vec::new())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn post(&mut self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        let length = body.as_ref().len();
        self.send(format!("POST {target} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n"))
            .await;
        self.send(body).await;
        self.reply().await
    }

    /// Sends text. `None` if the service has closed the connection.
    pub(crate) async fn try_send(&mut self, text: &str) -> Option<()> {
        self.0.write_all(text.as_bytes()).await.ok()
    }

    /// Posts a body. `None` if the service closes the connection first.
    pub(crate) async fn try_post(&mut self, target: &str, headers: &str, body: &str) -> Option<Reply> {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n");
        self.0.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
        self.0.flush().await.ok()?;
        let read = tokio::time::timeout(LONG, self.0.read_buf(&mut self.1)).await.unwrap().ok()?;
        if read == 0 {
            return None;
        }
        Some(self.reply().await)
    }

    /// Reads until the text is there, and returns the bytes up to its end.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.1.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.1.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.1, rest)).unwrap();
            }
            let read = tokio::time::timeout(LONG, self.0.read_buf(&mut self.1)).await.unwrap().unwrap();
            assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.1));
        }
    }

    /// Reads this number of bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(LONG, self.0.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Reads one answer.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.read_until("\r\n\r\n").await.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        while self.1.len() < length {
            let read = tokio::time::timeout(LONG, self.0.read_buf(&mut self.1)).await.unwrap().unwrap();
            assert!(read > 0, "the answer is cut");
        }
        let rest = self.1.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.1, rest)).unwrap();
        Reply { status, head, body }
    }

    /// Waits until the service closes the connection, and returns the bytes before.
    pub(crate) async fn closed_bytes(mut self) -> Vec<u8> {
        // A reset is an end, too.
        let _ = tokio::time::timeout(LONG, self.0.read_to_end(&mut self.1)).await.unwrap();
        self.1
    }

    /// Waits until the service closes the connection, and returns the text before.
    pub(crate) async fn closed(self) -> String {
        String::from_utf8(self.closed_bytes().await).unwrap()
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status, and returns the body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// Asserts status and code of a problem.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        body
    }
}
