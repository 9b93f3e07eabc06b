//! Results of NDJSON while its lines arrive.

use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule};

use crate::support::{Client, LOGIN, LONG, Service, cluster};

const HEAD: &str = "POST /v1/events?stream=true HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n";
/// The end of a chunked body.
const END: &str = "0\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn begin(service: &Service, headers: &str) -> Client {
    let mut client = service.connect().await;
    client.send(format!("{HEAD}{headers}transfer-encoding: chunked\r\n\r\n")).await;
    client
}

#[tokio::test]
async fn result_precedes_the_next_line() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let mut client = begin(&service, "").await;
    let head = client.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 207 ") && head.contains("content-type: application/x-ndjson"), "{head}");
    for line in 1..4 {
        client.send(chunk(&format!("{LOGIN}\n"))).await;
        let result = client.read_until(&format!("\"line\":{line}}}\n")).await;
        assert!(result.contains(r#""status":200,"ack":"broker","id":"login""#), "{result}");
    }
    client.send(chunk("not JSON\n\n{}")).await;
    client.send(END).await;
    let rest = client.read_until(END).await;
    for text in ["\"code\":\"not-json\"", "\"line\":4}\n", "\"code\":\"not-an-event\"", "\"line\":6}\n"] {
        assert!(rest.contains(text), "{text}: {rest}");
    }
    assert!(rest.contains("{\"succeeded\":3,\"failed\":2}\n"), "{rest}");
    assert_eq!(cluster.records("user-events").len(), 3);
    client.post("/v1/events", crate::support::JSON, LOGIN).await.expect(200); // the connection stays
}

#[tokio::test]
async fn results_keep_the_order_of_lines() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    let mut client = begin(&service, "").await;
    client.send(chunk(&format!("{LOGIN}\nwrong\n"))).await;
    client.send(END).await;
    gate.arrived(1).await;
    gate.open();
    let results = client.read_until(END).await;
    let (first, second) = (results.find("\"line\":1}").unwrap(), results.find("\"line\":2}").unwrap());
    assert!(first < second && results.contains("{\"succeeded\":1,\"failed\":1}\n"), "{results}");
}

#[tokio::test]
async fn continue_precedes_the_results() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let mut client = begin(&service, "expect: 100-continue\r\n").await;
    let first = client.read_until("\r\n\r\n").await;
    assert!(first.starts_with("HTTP/1.1 100 "), "{first}");
    client.send(chunk(LOGIN)).await;
    client.send(END).await;
    assert!(client.read_until(END).await.contains("{\"succeeded\":1,\"failed\":0}\n"));
}

#[tokio::test]
async fn end_of_service_is_last_line() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let mut client = begin(&service, "").await;
    client.send(chunk(&format!("{LOGIN}\n"))).await;
    client.read_until("\"line\":1}\n").await;
    let drained = tokio::spawn(service.server.drain());
    let rest = client.read_until(END).await;
    assert!(rest.contains("{\"succeeded\":1,\"failed\":0,\"stopped\":{\"status\":503,\"code\":\"closing\""), "{rest}");
    assert!(drained.await.unwrap().is_complete);
}

/// A client that never reads holds a bounded number of results.
#[tokio::test]
async fn unread_results_reset_the_connection() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_result_bytes = 10_000).await;
    let mut client = begin(&service, "").await;
    client.send(chunk(&format!("{LOGIN}\n"))).await;
    cluster.wait_for_records("user-events", 1).await;
    let lines = chunk(&"x\n".repeat(5000));
    let refused = async { while client.try_send(&lines).await.is_some() {} };
    tokio::time::timeout(LONG, refused).await.unwrap();
    let results = client.closed_bytes().await;
    assert!(!String::from_utf8_lossy(&results).contains("\"succeeded\""), "there is no last line");
    assert_eq!(cluster.records("user-events").len(), 1, "the accepted event stands");
}

#[tokio::test]
async fn waiting_events_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_events = 2).await;
    let mut client = begin(&service, "").await;
    client.send(chunk(&format!("{LOGIN}\n").repeat(50))).await;
    client.send(END).await;
    assert!(client.read_until(END).await.contains("{\"succeeded\":50,\"failed\":0}\n"));
    assert_eq!(cluster.records("user-events").len(), 50);
}
