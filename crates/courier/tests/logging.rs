//! What is said on standard error, and how much of it.
mod support;

use support::{Courier, LOGIN, cluster, command};

const QUICK: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "500ms"), ("KAFKA_CONNECT_TIMEOUT", "200ms")];

#[tokio::test]
async fn debug_explains_a_connection_step_by_step() {
    let nobody = command(&["--log-level", "debug", "publish", "--brokers", "localhost:1"], QUICK);
    let ended = Courier::start(nobody).ended().await;
    let steps = ["broker=localhost:1 step=DNS", "broker=localhost:1 step=connect", "connection attempt failed"];
    ended.expect(69, &steps);
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let well = Courier::start(command(&["publish", "--brokers", &brokers], &[("RUST_LOG", "debug")]));
    let ended = well.ended_with(&format!("{LOGIN}\n")).await;
    ended.expect(0, &["step=DNS", "step=connect", "step=ApiVersions", "broker connected"]);
}

#[tokio::test]
async fn without_being_asked_nothing_is_said_of_connections() {
    let nobody = command(&["publish", "--brokers", "localhost:1"], QUICK);
    let ended = Courier::start(nobody).ended().await;
    ended.expect(69, &["connect: localhost:1"]);
    assert!(!ended.err.contains("step="), "{}", ended.err);
}
