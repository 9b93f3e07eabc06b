//! Requests in each shape become records.

use std::io::Write as _;

use kafka_courier_test_broker::{Record, TestCluster};

use crate::support::{JSON, LOGIN, Service, cluster};

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    std::str::from_utf8(record.header(name).unwrap()).unwrap()
}

#[tokio::test]
async fn event_is_written_and_placed() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let reply = service.post("/v1/events", &format!("{JSON}x-request-id: r-1\r\n"), LOGIN).await;
    let expected = serde_json::json!({"ack":"broker","id":"login","topic":"user-events","partition":0,"offset":0});
    assert_eq!(reply.expect(200), expected);
    assert!(reply.head.contains("x-request-id: r-1"), "{reply:?}");
    let [record] = &cluster.records("user-events")[..] else { panic!("expected one record") };
    assert_eq!((record.key_text(), header(record, "event_id")), (Some("u-1"), "login"));
    assert_eq!(header(record, "correlation_id"), "r-1");
    assert!(record.value_text().unwrap().contains(r#""correlation_id":"r-1""#));
}

#[tokio::test]
async fn array_is_checked_whole() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let both = format!("[{LOGIN},{{\"kind\":\"none\"}}]");
    let refused = service.post("/v1/events", JSON, &both).await.expect_problem(422, "not-an-event");
    assert_eq!(refused["index"], 1);
    assert!(cluster.records("user-events").is_empty(), "no event of an invalid array is published");
    let mixed = service.post("/v1/events?partial=true", JSON, &both).await.expect(207);
    assert_eq!((&mixed["events"][0]["status"], &mixed["events"][1]["status"]), (&200.into(), &422.into()));
    assert_eq!(cluster.records("user-events").len(), 1);
    let whole = service.post("/v1/events", JSON, format!("[{LOGIN},{LOGIN}]")).await.expect(200);
    assert_eq!((&whole["succeeded"], &whole["events"][1]["offset"]), (&2.into(), &2.into()));
}

#[tokio::test]
async fn lines_are_published_while_read() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let mut client = service.connect().await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(head).await;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    client.send(chunk(&format!("{LOGIN}\n{{\"ty"))).await;
    cluster.wait_for_records("user-events", 1).await; // before the body has ended
    client.send(chunk("pe\":\"other\"}\n\nnonsense")).await;
    client.send("0\r\n\r\n").await;
    let body = client.reply().await.expect(207);
    let statuses: Vec<u64> =
        body["events"].as_array().unwrap().iter().map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 400]);
    assert_eq!(body["events"][2]["line"], 4, "empty lines count");
    let detail = body["events"][2]["detail"].as_str().unwrap();
    assert!(detail.starts_with("line 4: ") && !detail.contains("line 1"), "{detail}");
    assert_eq!(cluster.records("default-events").len(), 1);
}

#[tokio::test]
async fn cloud_events_keep_their_mode() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let binary = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: user.logged_in\r\nce-partitionkey: k\r\n\
                  content-type: text/xml\r\n";
    assert_eq!(service.post("/v1/events", binary, "<much/>").await.expect(200)["id"], "1");
    let structured = r#"{"specversion":"1.0","id":"2","source":"/s","type":"user.logged_in","data":{"a":1}}"#;
    let content_type = "content-type: application/cloudevents+json\r\n";
    service.post("/v1/events", content_type, structured).await.expect(200);
    let [first, second] = &cluster.records("user-events")[..] else { panic!("expected two records") };
    assert_eq!((first.key_text(), first.value_text()), (Some("k"), Some("<much/>")));
    assert_eq!((header(first, "content-type"), header(first, "ce_type")), ("text/xml", "user.logged_in"));
    assert_eq!(second.value_text(), Some(structured));
    assert_eq!(header(second, "content-type"), "application/cloudevents+json; charset=UTF-8");
    service.post("/v1/events", "ce-specversion: 1.0\r\n", "").await.expect_problem(422, "not-a-cloudevent");
    let batch = "content-type: application/cloudevents-batch+json\r\n";
    service.post("/v1/events", batch, "[]").await.expect_problem(415, "unsupported-type");
}

#[tokio::test]
async fn raw_record_has_key_and_headers() {
    let cluster = TestCluster::builder().topic("orders", 3).start().await.unwrap();
    let service = Service::start(&cluster, |_| {}).await;
    let headers = "content-type: application/octet-stream\r\nrecord-tenant: acme\r\n";
    let target = "/v1/topics/orders?key=k%00&partition=2";
    let placed = service.post(target, headers, b"\xff\x00").await.expect(200);
    assert_eq!((&placed["partition"], &placed["offset"]), (&2.into(), &0.into()));
    let records = cluster.records("orders");
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k\0"[..]), Some(&b"\xff\x00"[..])));
    assert_eq!(header(&records[0], "tenant"), "acme");
    service.post("/v1/topics/orders?tombstone=true&key=k", headers, "").await.expect(200);
    assert!(cluster.records("orders").iter().any(|record| record.value.is_none()));
    service.post("/v1/topics/orders?partition=3", headers, "v").await.expect_problem(404, "partition-unknown");
    service.post("/v1/topics/ordrs", headers, "v").await.expect_problem(404, "topic-unknown");
    service
        .post("/v1/topics/orders", "content-type: text/plain\r\n", "v")
        .await
        .expect_problem(415, "unsupported-type");
}

#[tokio::test]
async fn gzip_bodies_are_decoded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let encoding = "content-encoding: gzip\r\n";
    service.post("/v1/events", &format!("{JSON}{encoding}"), gzip(LOGIN)).await.expect(200);
    let lines = format!("content-type: application/x-ndjson\r\n{encoding}");
    service.post("/v1/events", &lines, gzip(&format!("{LOGIN}\n{LOGIN}\n"))).await.expect(200);
    assert_eq!(cluster.records("user-events").len(), 3);
    service.post("/v1/events", &format!("{JSON}{encoding}"), LOGIN).await.expect_problem(400, "not-gzip");
}

#[tokio::test]
async fn routes_and_methods_are_checked() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.post("/v2/events", JSON, LOGIN).await.expect_problem(404, "not-found");
    service.post("/v1/events?akc=disk", JSON, LOGIN).await.expect_problem(400, "bad-query");
    let mut client = service.connect().await;
    client.send("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let reply = client.reply().await;
    reply.expect_problem(405, "method-not-allowed");
    assert!(reply.head.contains("allow: post"), "{reply:?}");
}
