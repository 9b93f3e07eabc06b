//! Probes and statistics.

use crate::support::{JSON, LOGIN, Service, cluster};

const LOCAL: &str = "host: localhost\r\n";

#[tokio::test]
async fn service_is_ready_without_kafka() {
    let cluster = cluster().await;
    cluster.pause(1);
    let service = Service::start(&cluster, |_| {}).await;
    for probe in ["/livez", "/healthz", "/startupz", "/readyz"] {
        let reply = service.get(probe, LOCAL).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok\n"), "{probe}");
    }
    let verbose = service.get("/readyz?verbose", LOCAL).await.body;
    assert!(verbose.contains("[+] accepting events: ok\n") && verbose.contains("[i] kafka: "), "{verbose}");
}

#[tokio::test]
async fn statistics_are_for_this_machine() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
    let stats = service.get("/stats", LOCAL).await.expect(200);
    assert_eq!((&stats["requests"], &stats["producer"]["sent"]), (&1.into(), &1.into()));
    assert_eq!(service.get("/stats", "host: evil.example\r\n").await.status, 403, "DNS rebinding");
    assert_eq!(service.get("/metrics", "host: evil.example\r\n").await.status, 200);
    let open = service.get("/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n").await;
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open:?}");
    assert!(open.body.ends_with("# EOF\n"), "{open:?}");
    assert_eq!(service.get("/openapi.json", LOCAL).await.expect(200)["openapi"], "3.1.0");
    assert_eq!(service.get("/nowhere", LOCAL).await.status, 404);
}
