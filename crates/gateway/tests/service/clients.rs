//! Bearer tokens, and the rights of their clients.

use crate::support::{JSON, LOGIN, OTHER, SECRET, Service, cluster};

#[tokio::test]
async fn clients_publish_within_their_rights() {
    let cluster = cluster().await;
    let tokens = format!("billing {SECRET} topics=user-* floor=broker\nops {OTHER} topics=none manage\n");
    let (service, _folder) = Service::with_tokens(&cluster, &tokens, |_| {}).await;
    let billing = format!("{JSON}authorization: Bearer secret\r\n");
    service.post("/v1/events", &billing, LOGIN).await.expect(200);
    service.post("/v1/events?ack=memory", &billing, LOGIN).await.expect_problem(403, "ack-too-weak");
    service.post("/v1/events", &billing, r#"{"type":"other"}"#).await.expect_problem(403, "topic-not-allowed");
    let array = format!(r#"[{LOGIN},{{"type":"other"}}]"#);
    let refused = service.post("/v1/events", &billing, &array).await.expect_problem(403, "topic-not-allowed");
    assert_eq!(refused["index"], 1, "an array is refused whole");
    service.post("/v1/events?partial=true", &billing, &array).await.expect(207);
    service.post("/v1/topics/default-events", &billing, "v").await.expect_problem(403, "topic-not-allowed");
    assert_eq!((cluster.records("user-events").len(), cluster.records("default-events").len()), (2, 0));
    // billing:secret
    let basic = format!("{JSON}authorization: Basic YmlsbGluZzpzZWNyZXQ=\r\n");
    service.post("/v1/events", &basic, LOGIN).await.expect(200);
    service.post("/v1/events", &basic, r#"{"type":"other"}"#).await.expect_problem(403, "topic-not-allowed");
    let remote = "host: service.example\r\n";
    assert_eq!(service.get("/stats", &format!("{remote}authorization: Bearer other\r\n")).await.status, 200);
    assert_eq!(service.get("/stats", &format!("{remote}authorization: Bearer secret\r\n")).await.status, 403);
}

#[tokio::test]
async fn refused_topics_take_no_room() {
    let cluster = cluster().await;
    let tokens = format!("billing {SECRET} topics=user-*\n");
    let (service, _folder) = Service::with_tokens(&cluster, &tokens, |config| config.max_topics = 1).await;
    let billing = format!("{JSON}authorization: Bearer secret\r\n");
    service.post("/v1/topics/default-events", &billing, "1").await.expect_problem(403, "topic-not-allowed");
    service.post("/v1/topics/user-events", &billing, "1").await.expect(200);
}

/// A page of another site reaches the service under the name of that site (DNS rebinding).
#[tokio::test]
async fn foreign_host_is_refused() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let request = |host: &str| {
        let length = LOGIN.len();
        format!("POST /v1/events HTTP/1.1\r\n{host}{JSON}content-length: {length}\r\n\r\n{LOGIN}")
    };
    for (host, status) in [("host: evil.example\r\n", 403), ("", 403), ("host: 127.0.0.1:8080\r\n", 200)] {
        let mut client = service.connect().await;
        client.send(request(host)).await;
        assert_eq!(client.reply().await.status, status, "{host}");
    }
    let behind_proxy = Service::start(&cluster, |config| config.insecure_no_auth = true).await;
    let mut client = behind_proxy.connect().await;
    client.send(request("host: service.example\r\n")).await;
    client.reply().await.expect(200);
}

#[tokio::test]
async fn unknown_client_is_refused_early() {
    let cluster = cluster().await;
    let (service, _folder) = Service::with_tokens(&cluster, &format!("billing {SECRET}"), |_| {}).await;
    for headers in
        ["", "authorization: Bearer wrong\r\n", "authorization: Basic c2VjcmV0\r\n", "authorization: Digest x\r\n"]
    {
        let mut client = service.connect().await;
        let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n";
        client.send(format!("{head}{JSON}{headers}\r\n")).await;
        let reply = client.reply().await; // without 100 before
        reply.expect_problem(401, "unauthenticated");
        for scheme in ["bearer", "basic realm="] {
            assert!(reply.head.contains(&format!("www-authenticate: {scheme}")), "{reply:?}");
        }
    }
}
