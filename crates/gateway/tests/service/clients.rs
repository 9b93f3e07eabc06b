//! Bearer tokens, and the rights of their clients.

use crate::support::{JSON, LOGIN, Service, cluster};

/// SHA-256 of `secret` and of `other`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

#[tokio::test]
async fn clients_publish_within_their_rights() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let file = format!("billing {SECRET} topics=user-* floor=broker\nops {OTHER} topics=none manage\n");
    std::fs::write(&path, file).unwrap();
    let service = Service::start(&cluster, |config| config.tokens_file = path.display().to_string()).await;
    let billing = format!("{JSON}authorization: Bearer secret\r\n");
    service.post("/v1/events", &billing, LOGIN).await.expect(200);
    service.post("/v1/events?ack=memory", &billing, LOGIN).await.expect_problem(403, "ack-too-weak");
    service.post("/v1/events", &billing, r#"{"type":"other"}"#).await.expect_problem(403, "topic-not-allowed");
    service.post("/v1/topics/default-events", &billing, "v").await.expect_problem(403, "topic-not-allowed");
    assert_eq!((cluster.records("user-events").len(), cluster.records("default-events").len()), (1, 0));
    let remote = "host: service.example\r\n";
    assert_eq!(service.get("/stats", &format!("{remote}authorization: Bearer other\r\n")).await.status, 200);
    assert_eq!(service.get("/stats", &format!("{remote}authorization: Bearer secret\r\n")).await.status, 403);
}

#[tokio::test]
async fn unknown_client_is_refused_early() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, format!("billing {SECRET}")).unwrap();
    let service = Service::start(&cluster, |config| config.tokens_file = path.display().to_string()).await;
    for headers in ["", "authorization: Bearer wrong\r\n", "authorization: Basic c2VjcmV0\r\n"] {
        let mut client = service.connect().await;
        let head = "POST /v1/events HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n";
        client.send(format!("{head}{JSON}{headers}\r\n")).await;
        let reply = client.reply().await; // without 100 before
        reply.expect_problem(401, "unauthenticated");
        assert!(reply.head.contains("www-authenticate: bearer"), "{reply:?}");
    }
}
