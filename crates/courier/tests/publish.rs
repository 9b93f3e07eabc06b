//! `courier publish`: what goes in, and what it says.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use support::{Courier, LOGIN, arrived, cluster, code_after, command, ids};

#[tokio::test]
async fn whole_lines_are_published_while_the_next_is_still_being_written() {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, &[], &[]);
    let (head, tail) = LOGIN.split_at(20);
    courier.write(&format!("{LOGIN}\n{head}")).await;
    arrived(&cluster, "user-events", 1).await;
    courier.ended_with(tail).await.expect(0, &["2 read, 2 delivered"]);
    assert_eq!(ids(&cluster.records("user-events")), ["login", "login"]);
}

#[tokio::test]
async fn the_last_element_of_an_array_is_published_while_the_input_stays_open() {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, &[], &[]);
    courier.write(&format!("[{LOGIN},{LOGIN}]")).await;
    arrived(&cluster, "user-events", 2).await;
    courier.ended_with("x").await.expect(65, &["element 3: ", "follows the array", "2 delivered"]);
}

#[tokio::test]
async fn unknown_variables_are_named_whatever_the_log_level() {
    let cluster = cluster().await;
    let courier = Courier::publish(&cluster, &["--log-level", "off"], &[("KAFKA_BORKERS", "x:1")]);
    courier.ended_with("").await.expect(0, &["courier: warning: KAFKA_BORKERS"]);
}

#[tokio::test]
async fn a_log_level_that_is_none_is_refused_and_rust_log_of_other_programs_is_not() {
    for level in ["bogus", "", "info,bogus", "kafka_courier=bogus"] {
        Courier::start(command(&["--log-level", level, "sample"], &[])).ended().await.expect(64, &["--log-level"]);
    }
    for level in ["off", "INFO", "info,rskafka=debug"] {
        Courier::start(command(&["--log-level", level, "sample"], &[])).ended().await.expect(0, &[]);
    }
    Courier::start(command(&["sample"], &[("RUST_LOG", "tower_http")])).ended().await.expect(0, &[]);
    let warned = Courier::start(command(&["sample"], &[("RUST_LOG", "a=b=c")])).ended().await;
    warned.expect(0, &["courier: warning: RUST_LOG"]);
}

#[tokio::test]
async fn json_over_several_lines_is_answered_with_how_to_make_it_one() {
    let cluster = cluster().await;
    let ended = Courier::publish(&cluster, &[], &[]).ended_with("{\n  \"type\": \"a\"\n}\n").await;
    ended.expect(65, &["line 1: ", "one event per line; `jq -c` makes it so"]);
    assert_eq!(ended.err.matches("jq -c").count(), 1, "{}", ended.err);
    assert!(!ended.err.contains("at line 1"), "{}", ended.err);
}

#[tokio::test]
async fn where_rights_are_all_that_is_missing_the_exit_code_says_so() {
    let cluster = cluster().await;
    cluster.deny_writes("user-events", true);
    let ended = Courier::publish(&cluster, &[], &[]).ended_with(LOGIN).await;
    ended.expect(77, &["TOPIC_AUTHORIZATION_FAILED", "1 failed and not written"]);
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
        let ended = Courier::start(command(arguments, settings)).ended_with(input).await;
        let found =
            format!("{}{}", ended.out, ended.err).chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(found, None, "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn usage_errors_escape_arguments_alone() {
    let ended =
        Courier::start(command(&["publish", "--topic", "a\u{1b}[31mb\u{202e}c", "x"], &[])).ended_with("").await;
    assert!(ended.err.contains("a\\u{1b}[31mb\\u{202e}c"), "{}", ended.err);
    assert!(!ended.err.contains("[1m") && !ended.err.contains("[0m"), "{}", ended.err);
}

#[tokio::test]
async fn values_that_are_no_event_are_named() {
    let cluster = cluster().await;
    let input =
        "null\ntrue\n{\"type\":\"a\",\"data\":[1]}\n{\"type\":\"a\",\"data\":null}\n{\"type\":\"a\",\"source\":7}\n";
    let said = [
        "line 1: an event is a JSON object {\"type\": ..}, not null",
        "line 2: an event is a JSON object {\"type\": ..}, not a boolean",
        "line 3: field \"data\" is [1], expected an object such as {}, or leave it out",
        "line 4: field \"data\" is null, expected an object",
        "line 5: field \"source\" is 7, expected a string, or leave it out",
    ];
    Courier::publish(&cluster, &[], &[]).ended_with(input).await.expect(65, &said);
}

#[tokio::test]
async fn help_has_the_exit_codes_and_a_negative_count_is_named() {
    for arguments in [&["--help"][..], &["publish", "--help"]] {
        let ended = Courier::start(command(arguments, &[])).ended().await;
        assert!(ended.code == Some(0) && ended.out.contains("143"), "{}", ended.out);
    }
    Courier::start(command(&["sample", "--count", "-1"], &[])).ended().await.expect(64, &["'-1'", "0 or more"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_standard_error_that_is_full_changes_no_verdict() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut command = command(&["publish", "--brokers", &brokers], &[]);
    command.stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(code_after(command, &format!("garbage\n{LOGIN}\n"), false).await, Some(65));
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

#[tokio::test]
async fn a_demo_that_nobody_reads_ends_as_it_would() {
    let mut command = command(&["demo", "--events", "100"], &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    assert_eq!(code_after(command, "", false).await, Some(0));
}
