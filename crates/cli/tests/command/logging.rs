//! Log lines on standard error.

use crate::support::{CourierProcess, LOGIN, cluster, command};

const QUICK: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "500ms"), ("KAFKA_CONNECT_TIMEOUT", "200ms")];

#[tokio::test]
async fn debug_logs_each_connection_step() {
    let no_broker = command(&["--log-level", "debug", "publish", "--brokers", "localhost:1"], QUICK);
    let output = CourierProcess::start(no_broker).output().await;
    let steps = ["broker=localhost:1 step=DNS", "broker=localhost:1 step=connect", "connection attempt failed"];
    output.expect(69, &steps);
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let publish = CourierProcess::start(command(&["publish", "--brokers", &brokers], &[("RUST_LOG", "debug")]));
    let output = publish.output_with_input(&format!("{LOGIN}\n")).await;
    output.expect(0, &["step=DNS", "step=connect", "step=ApiVersions", "broker connected"]);
}

#[tokio::test]
async fn default_level_hides_connection_steps() {
    let no_broker = command(&["publish", "--brokers", "localhost:1"], QUICK);
    let output = CourierProcess::start(no_broker).output().await;
    output.expect(69, &["connect: localhost:1"]);
    assert!(!output.err.contains("step="), "{}", output.err);
}
