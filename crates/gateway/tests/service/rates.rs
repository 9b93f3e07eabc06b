//! Requests and bytes a second of each client.

use crate::support::{JSON, LOGIN, LONG, OTHER, SECRET, Service, cluster};

#[tokio::test]
async fn fast_client_gets_429() {
    let cluster = cluster().await;
    let tokens = format!("slow {SECRET} bytes=1\nother {OTHER}\n");
    let (service, _folder) = Service::with_tokens(&cluster, &tokens, |_| {}).await;
    let slow = format!("{JSON}authorization: Bearer secret\r\n");
    service.post("/v1/events", &slow, LOGIN).await.expect(200);
    let reply = service.post("/v1/events", &slow, LOGIN).await;
    let body = reply.expect_problem(429, "rate-exceeded");
    assert_eq!(body["verdict"], "not_written");
    let seconds = body["retry_after"].as_u64().unwrap();
    assert!(seconds > 1 && seconds < LOGIN.len() as u64, "{body}");
    assert!(reply.head.contains(&format!("retry-after: {seconds}\r\n")), "{reply:?}");
    let keyed = service.post("/v1/events", &format!("{slow}idempotency-key: k\r\n"), LOGIN).await;
    assert!(keyed.expect_problem(429, "rate-exceeded")["verdict"].is_null(), "an earlier request may have written");
    service.post("/v1/events", &format!("{JSON}authorization: Bearer other\r\n"), LOGIN).await.expect(200);
    assert_eq!(cluster.records("user-events").len(), 2);
}

#[tokio::test]
async fn unnamed_clients_share_a_rate() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| (config.rate_requests, config.rate_bytes) = (0, 1)).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
    service.post("/v1/events", JSON, LOGIN).await.expect_problem(429, "rate-exceeded");
    assert_eq!(service.get("/livez", "host: localhost\r\n").await.status, 200, "probes have no rate");
    let service = Service::start(&cluster, |config| config.rate_requests = 1).await;
    let fast = async { while service.post("/v1/events", JSON, LOGIN).await.status != 429 {} };
    tokio::time::timeout(LONG, fast).await.unwrap();
}

/// The rest of a body is read at the rate of the client.
#[tokio::test]
async fn streamed_body_waits_for_its_rate() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.rate_bytes = 1).await;
    let mut client = service.connect().await;
    let lines = "content-type: application/x-ndjson\r\n";
    client.send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: 1000\r\n\r\n")).await;
    client.send(format!("{LOGIN}\n")).await;
    cluster.wait_for_records("user-events", 1).await;
    client.send(format!("{LOGIN}\n")).await;
    let drained = tokio::spawn(service.server.drain());
    let reply = client.reply().await.expect(207);
    assert_eq!((&reply["succeeded"], &reply["stopped"]["code"]), (&1.into(), &"closing".into()), "{reply}");
    assert!(drained.await.unwrap().is_complete);
}
