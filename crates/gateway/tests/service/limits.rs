//! Each limit of connections, heads and bodies.

use std::io::Write as _;
use std::time::Duration;

use crate::support::{JSON, LOGIN, Service, cluster};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn continue_follows_the_checks() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_body_bytes = 100).await;
    let head = |length: usize| {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut client = service.connect().await;
    client.send(head(101)).await;
    client.reply().await.expect_problem(413, "body-too-large"); // without 100 before
    let mut client = service.connect().await;
    client.send(head(LOGIN.len())).await;
    assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(LOGIN).await;
    client.reply().await.expect(200);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_body_bytes = 100).await;
    let chunked = format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    let mut client = service.connect().await;
    client.send(format!("{chunked}65\r\n{}\r\n", " ".repeat(101))).await;
    client.reply().await.expect_problem(413, "body-too-large");
    let large = vec![b' '; 900_000];
    service.post("/v1/events", JSON, large).await.expect_problem(413, "body-too-large"); // the answer is not lost
    let lines = "content-type: application/x-ndjson\r\n";
    let many = format!("{LOGIN}\n").repeat(5);
    assert_eq!(service.post("/v1/events", lines, &many).await.expect(200)["succeeded"], 5, "the limit is for a line");
    let long = format!("{LOGIN}\n{}", " ".repeat(101));
    let body = service.post("/v1/events", lines, long).await.expect(207);
    assert_eq!(body["stopped"]["code"], "body-too-large");
}

#[tokio::test]
async fn decompressed_bodies_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_decompressed_bytes = 1 << 20).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 64 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let headers = format!("{JSON}content-encoding: gzip\r\n");
    let body = service.post("/v1/events", &headers, bomb).await.expect_problem(413, "body-too-large");
    assert!(body["detail"].as_str().unwrap().contains("after decompression"));
}

#[tokio::test]
async fn depth_and_count_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| (config.max_json_depth, config.max_events) = (3, 2)).await;
    let deep = r#"{"type":"t","data":{"a":[[1]]}}"#;
    service.post("/v1/events", JSON, deep).await.expect_problem(422, "too-deep");
    let three = format!("[{LOGIN},{LOGIN},{LOGIN}]");
    service.post("/v1/events", JSON, three).await.expect_problem(413, "too-many-events");
    let lines = format!("{LOGIN}\n").repeat(3);
    let body = service.post("/v1/events", "content-type: application/x-ndjson\r\n", lines).await.expect(207);
    assert_eq!((&body["succeeded"], &body["stopped"]["code"]), (&2.into(), &"too-many-events".into()));
}

#[tokio::test]
async fn memory_for_bodies_is_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| {
        (config.max_body_bytes, config.max_decompressed_bytes, config.max_inflight_bytes) = (100, 100, 100);
    })
    .await;
    let mut slow = service.connect().await;
    slow.send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 90\r\n\r\n")).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200); // a length alone takes nothing
    body_bytes(&service, |bytes| bytes == 0).await;
    slow.send(LOGIN).await;
    body_bytes(&service, |bytes| bytes > 0).await;
    let reply = service.post("/v1/events", JSON, LOGIN).await;
    reply.expect_problem(503, "bodies-full");
    assert!(reply.head.contains("retry-after"), "{reply:?}");
    slow.send(" ".repeat(90 - LOGIN.len())).await;
    slow.reply().await.expect(200);
    body_bytes(&service, |bytes| bytes == 0).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
}

/// Waits until the memory for bodies and answers is as expected.
async fn body_bytes(service: &Service, expected: impl Fn(u64) -> bool) {
    let bytes = || async { service.get("/stats", "host: localhost\r\n").await.json()["body_bytes"].as_u64().unwrap() };
    while !expected(bytes().await) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The answer counts until the client has read it.
#[tokio::test]
async fn answers_are_counted() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| {
        (config.max_body_bytes, config.max_decompressed_bytes, config.max_inflight_bytes) = (9000, 9000, 100_000);
    })
    .await;
    let body = service.post("/v1/events", "content-type: application/x-ndjson\r\n", "x\n".repeat(4000)).await;
    assert_eq!(body.expect(503)["code"], "bodies-full");
    body_bytes(&service, |bytes| bytes == 0).await;
}

#[tokio::test]
async fn large_head_is_431() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_head_bytes = 8192).await;
    let large = format!("{JSON}x-large: {}\r\n", "a".repeat(10_000));
    let mut client = service.connect().await;
    client.send(format!("POST /v1/events HTTP/1.1\r\n{large}\r\n")).await;
    assert_eq!(client.reply().await.status, 431);
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let mut client = service.connect().await;
    client.send(format!("POST /v1/events HTTP/1.1\r\n{many}\r\n")).await;
    assert_eq!(client.reply().await.status, 431);
}

/// The server's first frame has its settings (RFC 9113, 6.5).
#[tokio::test]
async fn http2_limits_are_announced() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| (config.max_streams, config.max_head_bytes) = (7, 9000)).await;
    let mut client = service.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let head = client.bytes(9).await;
    assert_eq!(head[3], 4, "SETTINGS");
    let settings = client.bytes(usize::from(u16::from_be_bytes([head[1], head[2]]))).await;
    let value = |id: u16| {
        let found = settings.chunks(6).find(|setting| setting[..2] == id.to_be_bytes());
        found.map(|setting| u32::from_be_bytes(setting[2..6].try_into().unwrap()))
    };
    assert_eq!((value(3), value(6)), (Some(7), Some(9000)));
}

#[tokio::test]
async fn slow_head_is_cut() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.head_timeout = SHORT).await;
    let mut client = service.connect().await;
    client.send("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n").await;
    assert_eq!(client.closed().await, "");
    let silent = service.connect().await;
    assert_eq!(silent.closed().await, "");
}

#[tokio::test]
async fn slow_body_is_408() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.head_timeout = SHORT).await;
    let mut client = service.connect().await;
    client.send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 90\r\n\r\n{{")).await;
    client.reply().await.expect_problem(408, "too-slow");
    let service = Service::start(&cluster, |config| config.body_timeout = SHORT).await;
    let mut client = service.connect().await;
    client.send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 90\r\n\r\n{{")).await;
    client.reply().await.expect_problem(408, "too-slow");
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.idle_timeout = SHORT).await;
    let mut client = service.connect().await;
    client.post("/v1/events", JSON, LOGIN).await.expect(200);
    assert_eq!(client.closed().await, "");
}

#[tokio::test]
async fn connections_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_connections = 1).await;
    let mut first = service.connect().await;
    first.post("/v1/events", JSON, LOGIN).await.expect(200);
    let mut second = service.connect().await;
    let waiting = tokio::spawn(async move { second.post("/v1/events", JSON, LOGIN).await });
    first.post("/v1/events", JSON, LOGIN).await.expect(200);
    assert!(!waiting.is_finished(), "the second connection waits for the end of the first");
    drop(first);
    waiting.await.unwrap().expect(200);
}

#[tokio::test]
async fn full_memory_is_503() {
    let cluster = cluster().await;
    let mut kafka = crate::support::kafka(&cluster);
    kafka.buffer_memory = 64 << 10;
    (kafka.flush_bytes, kafka.max_request_bytes) = (16 << 10, 32 << 10);
    let service = Service::with(kafka, |_| {}).await;
    service.producer.learn_topic("default-events").await.unwrap();
    cluster.pause(1);
    let event = format!(r#"{{"type":"t","data":{{"text":"{}"}}}}"#, "x".repeat(8000));
    let full = async {
        loop {
            let reply = service.post("/v1/events?ack=memory&timeout=50ms", JSON, &event).await;
            if reply.status == 503 {
                return reply;
            }
        }
    };
    let reply = tokio::time::timeout(crate::support::LONG, full).await.unwrap();
    assert!(reply.head.contains("retry-after"), "{reply:?}");
    cluster.resume(1);
}
