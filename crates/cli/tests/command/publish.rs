//! `courier publish`: its input and its messages.

use crate::support::{CourierProcess, LOGIN, cluster, code_after, command, ids, wait_for_records};

#[tokio::test]
async fn incomplete_line_delays_no_other() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &[], &[]);
    let (head, tail) = LOGIN.split_at(20);
    courier.write(&format!("{LOGIN}\n{head}")).await;
    wait_for_records(&cluster, "user-events", 1).await;
    courier.output_with_input(tail).await.expect(0, &["2 read, 2 delivered"]);
    assert_eq!(ids(&cluster.records("user-events")), ["login", "login"]);
}

#[tokio::test]
async fn last_element_is_published_immediately() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &[], &[]);
    courier.write(&format!("[{LOGIN},{LOGIN}]")).await;
    wait_for_records(&cluster, "user-events", 2).await;
    courier.output_with_input("x").await.expect(65, &["element 3: ", "follows the array", "2 delivered"]);
}

#[tokio::test]
async fn unknown_variables_are_warned() {
    let cluster = cluster().await;
    let courier = CourierProcess::publish(&cluster, &["--log-level", "off"], &[("KAFKA_BORKERS", "x:1")]);
    courier.output_with_input("").await.expect(0, &["courier: warning: KAFKA_BORKERS"]);
}

#[tokio::test]
async fn invalid_log_level_is_an_error() {
    for level in ["bogus", "", "info,bogus", "kafka_courier=bogus"] {
        CourierProcess::start(command(&["--log-level", level, "sample"], &[]))
            .output()
            .await
            .expect(64, &["--log-level"]);
    }
    for level in ["off", "INFO", "info,rskafka=debug"] {
        CourierProcess::start(command(&["--log-level", level, "sample"], &[])).output().await.expect(0, &[]);
    }
    CourierProcess::start(command(&["sample"], &[("RUST_LOG", "tower_http")])).output().await.expect(0, &[]);
    let warned = CourierProcess::start(command(&["sample"], &[("RUST_LOG", "a=b=c")])).output().await;
    warned.expect(0, &["courier: warning: RUST_LOG"]);
}

#[tokio::test]
async fn multiline_json_gets_a_remedy() {
    let cluster = cluster().await;
    let output = CourierProcess::publish(&cluster, &[], &[]).output_with_input("{\n  \"type\": \"a\"\n}\n").await;
    output.expect(65, &["line 1: ", "write one event per line (`jq -c` does)"]);
    assert_eq!(output.err.matches("jq -c").count(), 1, "{}", output.err);
    assert!(!output.err.contains("at line 1"), "{}", output.err);
}

#[tokio::test]
async fn missing_authorization_has_exit_code() {
    let cluster = cluster().await;
    cluster.deny_writes("user-events", true);
    let output = CourierProcess::publish(&cluster, &[], &[]).output_with_input(LOGIN).await;
    output.expect(77, &["TOPIC_AUTHORIZATION_FAILED", "1 failed and not written"]);
}

#[tokio::test]
async fn control_characters_never_reach_the_terminal() {
    let odd = "a\u{1b}[31mb\u{9b}c\rd\u{202e}e";
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let file = letters.to_str().unwrap();
    let letter = format!(
        "{{\"id\":\"0190163d-8694-739b-aea5-966c26f8ad91\",\"topic\":{0},\"value\":\"x\",\"failure_reason\":{0},\
         \"last_attempt\":\"2024-01-15T10:00:00Z\"}}\n",
        serde_json::Value::from(odd)
    );
    let mapped = format!("x={odd}");
    for (arguments, settings, input) in [
        (&["publish", "--topic", odd][..], &[][..], ""),
        (&["publish", odd], &[], ""),
        (&["publish", "--log-level", odd], &[], ""),
        (&["publish", "--brokers", odd], &[], ""),
        (&["publish"], &[("KAFKA_TOPIC_MAPPING", odd)], ""),
        (&["publish"], &[("KAFKA_TOPIC_MAPPING", &mapped)], ""),
        (&["publish"], &[("KAFKA_DLQ_TOPIC", odd)], ""),
        (&["config", "--set", odd], &[], ""),
        (&["config"], &[("KAFKA_CLIENT_ID", odd)], ""),
        (&["dlq", "import", "--file", file], &[], &letter),
        (&["dlq", "list", "--file", file], &[], ""),
        (&["dlq", "stats", "--file", file], &[], ""),
        (&["dlq", "replay", "--all", "--dry-run", "--file", file], &[], ""),
        (&["dlq", "replay", "--all", "--file", odd], &[], ""),
        (&["dlq", "list", odd], &[], ""),
    ] {
        let output = CourierProcess::start(command(arguments, settings)).output_with_input(input).await;
        let found =
            format!("{}{}", output.out, output.err).chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(found, None, "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn usage_errors_escape_only_arguments() {
    let output = CourierProcess::start(command(&["publish", "--topic", "a\u{1b}[31mb\u{202e}c", "x"], &[]))
        .output_with_input("")
        .await;
    assert!(output.err.contains("a\\u{1b}[31mb\\u{202e}c"), "{}", output.err);
    assert!(!output.err.contains("[1m") && !output.err.contains("[0m"), "{}", output.err);
}

#[tokio::test]
async fn invalid_values_are_named() {
    let cluster = cluster().await;
    let input =
        "null\ntrue\n{\"type\":\"a\",\"data\":[1]}\n{\"type\":\"a\",\"data\":null}\n{\"type\":\"a\",\"source\":7}\n";
    let texts = [
        "line 1: an event is a JSON object {\"type\": ..}, not null",
        "line 2: an event is a JSON object {\"type\": ..}, not a boolean",
        "line 3: field \"data\" is [1], expected an object such as {}, or leave it out",
        "line 4: field \"data\" is null, expected an object",
        "line 5: field \"source\" is 7, expected a string, or leave it out",
    ];
    CourierProcess::publish(&cluster, &[], &[]).output_with_input(input).await.expect(65, &texts);
}

#[tokio::test]
async fn help_lists_exit_codes() {
    for arguments in [&["--help"][..], &["publish", "--help"]] {
        let output = CourierProcess::start(command(arguments, &[])).output().await;
        assert!(output.code == Some(0) && output.out.contains("143"), "{}", output.out);
    }
    CourierProcess::start(command(&["sample", "--count", "-1"], &[])).output().await.expect(64, &["'-1'", "0 or more"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_stderr_changes_no_verdict() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut command = command(&["publish", "--brokers", &brokers], &[]);
    command.stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(code_after(command, &format!("garbage\n{LOGIN}\n"), false).await, Some(65));
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

#[tokio::test]
async fn demo_ignores_closed_stdout() {
    let mut command = command(&["demo", "--events", "100"], &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    assert_eq!(code_after(command, "", false).await, Some(0));
}
