//! The orderly end.

use std::time::Duration;

use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule};
use tokio::net::TcpStream;

use crate::support::{Client, JSON, LOGIN, Service, cluster};

/// Asks on a connection that stays open.
async fn probe(client: &mut Client) -> u16 {
    client.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    client.reply().await.status
}

#[tokio::test]
async fn drain_finishes_requests() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    let (address, management) = (service.server.address(), service.server.management_address());
    let mut client = service.connect().await;
    let mut prober = Client::connect(management).await;
    assert_eq!(probe(&mut prober).await, 200);
    let request = tokio::spawn(async move {
        let reply = client.post("/v1/events", JSON, LOGIN).await;
        (reply, client.closed().await)
    });
    gate.arrived(1).await;
    let drain = tokio::spawn(service.server.drain());
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(probe(&mut prober).await, 200, "probes are answered until the end");
    gate.open();
    let (reply, rest) = request.await.unwrap();
    reply.expect(200);
    assert_eq!(rest, "", "the connection ends after its answer");
    let report = drain.await.unwrap();
    assert_eq!((report.producer.delivered, report.requests, report.is_complete), (1, 1, true));
}

#[tokio::test]
async fn draining_service_still_serves() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.drain_delay = Duration::from_secs(2)).await;
    let (events, management) = (service.server.address(), service.server.management_address());
    let drain = tokio::spawn(service.server.drain());
    let ready = || async {
        let mut client = Client::connect(management).await;
        client.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        client.reply().await.status
    };
    while ready().await == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = Client::connect(events).await;
    client.post("/v1/events", JSON, LOGIN).await.expect(200);
    assert_eq!(drain.await.unwrap().producer.delivered, 1);
}

#[tokio::test]
async fn stream_of_lines_stops() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let mut client = service.connect().await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let line = format!("{LOGIN}\n");
    client.send(format!("{head}{:x}\r\n{line}\r\n", line.len())).await;
    cluster.wait_for_records("user-events", 1).await;
    let drain = tokio::spawn(service.server.drain());
    let body = client.reply().await.expect(207);
    assert_eq!((&body["succeeded"], &body["stopped"]["code"]), (&1.into(), &"closing".into()));
    let report = drain.await.unwrap();
    assert_eq!((report.producer.delivered, report.is_complete), (1, true));
}

#[tokio::test]
async fn requests_are_cut_after_the_grace() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.grace = Duration::from_millis(100)).await;
    let mut client = service.connect().await;
    client.send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 90\r\n\r\n{{")).await;
    let drain = tokio::spawn(service.server.drain());
    assert_eq!(client.closed().await, "");
    assert!(!drain.await.unwrap().is_complete);
}
