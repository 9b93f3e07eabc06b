//! Dead letters and the spool over the second listener.

use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use serde_json::Value;

use crate::support::{JSON, LONG, Reply, SECRET, Service, cluster, kafka};

const LOCAL: &str = "host: localhost\r\n";

/// Leaves this number of dead letters, for whose events no client waits.
async fn with_letters(cluster: &TestCluster, count: u64) -> Service {
    let service = Service::start(cluster, |_| {}).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(count).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    for number in 0..count {
        let event = format!(r#"{{"id":"e-{number}","type":"user.logged_in","data":{{"user_id":"u"}}}}"#);
        service.post("/v1/events?ack=memory", JSON, event).await.expect(202);
        assert!(service.producer.flush(LONG).await);
    }
    service
}

fn ids(page: &Value) -> Vec<String> {
    let letters = page["letters"].as_array().unwrap().iter();
    letters.map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

async fn change(service: &Service, method: &str, target: &str, body: &str) -> Reply {
    service.manage(method, target, &format!("{LOCAL}{JSON}"), body).await
}

#[tokio::test]
async fn letters_are_listed_in_pages() {
    let cluster = cluster().await;
    let service = with_letters(&cluster, 3).await;
    let first = service.get("/dlq?limit=2&topic=user-events", LOCAL).await.expect(200);
    let target = format!("/dlq?limit=2&cursor={}", first["next"].as_str().unwrap());
    let second = service.get(&target, LOCAL).await.expect(200);
    assert_eq!((ids(&first).len(), ids(&second).len(), &second["next"]), (2, 1, &Value::Null));
    assert_eq!(service.get("/dlq?topic=other", LOCAL).await.expect(200)["letters"], Value::Array(Vec::new()));
    let one = service.get(&format!("/dlq/{}", ids(&second)[0]), LOCAL).await.expect(200);
    assert_eq!((&one["event"]["id"], &one["error_code"]), (&"e-2".into(), &"INVALID_RECORD".into()), "{one}");
    let unknown = service.get("/dlq/0190163d-8694-739b-aea5-966c26f8ad91", LOCAL).await;
    assert_eq!(unknown.expect(404)["title"], "Not Found");
    assert_eq!(service.get("/dlq?limit=x", LOCAL).await.status, 400);
    let stats = service.get("/dlq/stats", LOCAL).await.expect(200);
    assert_eq!(stats["stores"][0]["stats"]["letters"], 3, "{stats}");
}

#[tokio::test]
async fn letters_are_replayed_and_removed() {
    let cluster = cluster().await;
    let service = with_letters(&cluster, 4).await;
    let all = ids(&service.get("/dlq", LOCAL).await.expect(200));
    assert_eq!(change(&service, "POST", "/dlq/replay", "{}").await.status, 400, "nothing is selected");
    let dry = change(&service, "POST", "/dlq/replay", r#"{"all":true,"dry_run":true}"#).await.expect(200);
    assert_eq!((&dry["would_be_sent"], cluster.records("user-events").len()), (&4.into(), 0));
    let removed = change(&service, "DELETE", &format!("/dlq/{}", all[3]), "").await.expect(200);
    assert_eq!(removed["removed"], 1);
    let one = change(&service, "POST", &format!("/dlq/{}/replay", all[0]), "{}").await.expect(200);
    assert_eq!((&one["delivered"], cluster.records("user-events").len()), (&1.into(), 1));
    assert_eq!(change(&service, "POST", &format!("/dlq/{}/replay", all[0]), "{}").await.status, 404);
    let body = format!(r#"{{"selection":{{"ids":["{}"]}}}}"#, all[1]);
    assert_eq!(change(&service, "POST", "/dlq/purge", &body).await.expect(200)["removed"], 1);
    let rest = change(&service, "POST", "/dlq/replay", r#"{"all":true}"#).await.expect(200);
    assert_eq!((&rest["selected"], &rest["delivered"]), (&1.into(), &1.into()), "{rest}");
    assert!(ids(&service.get("/dlq", LOCAL).await.expect(200)).is_empty());
}

/// A page of another site sends a POST without a preflight only with the types of HTML forms.
#[tokio::test]
async fn forms_change_nothing() {
    let cluster = cluster().await;
    let service = with_letters(&cluster, 1).await;
    for headers in ["content-type: text/plain\r\n", ""] {
        let reply = service.manage("POST", "/dlq/purge", &format!("{LOCAL}{headers}"), r#"{"all":true}"#).await;
        assert_eq!(reply.status, 415);
    }
    for (method, target) in [("POST", "/dlq"), ("GET", "/dlq/purge"), ("POST", "/spool"), ("PUT", "/dlq/x")] {
        assert_eq!(change(&service, method, target, r#"{"all":true}"#).await.status, 405, "{method} {target}");
    }
    assert_eq!(service.get("/dlq/x/y/z", LOCAL).await.status, 404);
    assert_eq!(ids(&service.get("/dlq", LOCAL).await.expect(200)).len(), 1);
}

#[tokio::test]
async fn other_machines_need_the_token() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.set("management_token", SECRET).unwrap()).await;
    let remote = "host: evil.example\r\n";
    for target in ["/dlq", "/dlq/stats", "/spool", "/spool/events", "/dlq/nowhere"] {
        let refused = service.get(target, remote).await;
        assert_eq!(refused.expect(403)["title"], "Forbidden", "DNS rebinding: {target}");
    }
    for (token, status) in [("secret", 200), ("other", 403)] {
        let headers = format!("{remote}authorization: Bearer {token}\r\n");
        assert_eq!(service.get("/dlq", &headers).await.status, status, "{token}");
        assert_eq!(service.get("/stats", &headers).await.status, status, "{token}");
    }
}

#[tokio::test]
async fn spool_in_use_is_read() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = kafka(&cluster);
    kafka.spool_dir = folder.path().join("spool").display().to_string();
    let service = Service::with(kafka, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    cluster.pause(1);
    for number in 0..3 {
        let event = format!(r#"{{"id":"e-{number}","type":"user.logged_in","data":{{"user_id":"u"}}}}"#);
        service.post("/v1/events?ack=disk", JSON, event).await.expect(202);
    }
    let stats = service.get("/spool", LOCAL).await.expect(200);
    assert_eq!((&stats["events"], &stats["held"]), (&3.into(), &true.into()), "{stats}");
    let events = service.get("/spool/events?topic=user-events&limit=2", LOCAL).await.expect(200);
    assert_eq!((&events["events"][1]["event_id"], &events["next_offset"]), (&"e-1".into(), &2.into()), "{events}");
    let rest = service.get("/spool/events?offset=2", LOCAL).await.expect(200);
    assert_eq!((&rest["events"][0]["event_id"], &rest["next_offset"]), (&"e-2".into(), &Value::Null));
    cluster.resume(1);
    let without = Service::start(&cluster, |_| {}).await;
    assert_eq!(without.get("/spool", LOCAL).await.status, 404);
}
