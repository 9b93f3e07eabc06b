//! Errors of an unreachable cluster, with the address and a remedy. Examples and exit codes in `--help`.

use std::net::TcpListener;

use crate::support::{CourierProcess, command};

async fn error_of(brokers: &str) -> String {
    let settings = [("KAFKA_METADATA_TIMEOUT", "1s"), ("KAFKA_CONNECT_TIMEOUT", "500ms")];
    let words = ["publish", "--no-dlq-file", "--brokers", brokers];
    let output = CourierProcess::start(command(&words, &settings)).output_with_input("").await;
    output.expect(69, &["no broker could be reached: "]);
    output.err
}

#[tokio::test]
async fn refused_connection_has_a_remedy() {
    let error = error_of("127.0.0.1:1").await;
    assert!(error.contains("connect: 127.0.0.1:1: Connection refused"), "{error}");
    assert!(
        error.matches("127.0.0.1:1").count() == 1 && error.contains(": start the broker, or set brokers"),
        "{error}"
    );
}

#[tokio::test]
async fn silent_port_has_a_remedy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let error = error_of(&address).await;
    assert!(error.matches(&address).count() == 1, "{error}");
    assert!(
        error.contains("ApiVersions: ") && error.contains("names a port of Kafka, and that security_protocol"),
        "{error}"
    );
}

#[tokio::test]
async fn help_has_examples_and_codes() {
    let commands = [
        "publish",
        "serve",
        "health",
        "config",
        "demo",
        "sample",
        "dlq",
        "dlq list",
        "dlq show",
        "dlq stats",
        "dlq replay",
        "dlq purge",
        "dlq export",
        "dlq import",
    ];
    for words in commands {
        let words: Vec<&str> = words.split(' ').chain(["--help"]).collect();
        let help = CourierProcess::start(command(&words, &[])).output_with_input("").await;
        help.expect(0, &[]);
        assert!(help.out.contains("\nExit codes:\n") && help.out.contains("\nExample"), "{words:?}: {}", help.out);
        let options = help.out.split_once("\nExample").map_or("", |(options, _)| options);
        let selection = options.split_once("\nSelection:").map_or("", |(_, rest)| rest);
        assert!(!selection.contains("[FILE]") && !selection.contains("--dry-run"), "{words:?}: {}", help.out);
    }
}
