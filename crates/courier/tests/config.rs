//! Settings by argument, environment and file, and the command that prints them.
mod support;

use support::{Courier, LOGIN, cluster, command};

/// Runs the command to its end, with these arguments and settings.
async fn ended(arguments: &[&str], settings: &[(&str, &str)]) -> support::Ended {
    Courier::start(command(arguments, settings)).ended_with("").await
}

#[tokio::test]
async fn what_is_printed_is_a_file_that_says_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.toml");
    let file = path.display().to_string();
    let settings = [("KAFKA_CLIENT_ID", "a \"b\" \\ c"), ("KAFKA_BROKERS", "x:1,[::1]:2")];
    let first = ended(&["config", "--set", "linger.ms=7"], &settings).await;
    first.expect(0, &[]);
    for line in
        ["flush_timeout = \"7ms\"", "# --set linger.ms", "# KAFKA_CLIENT_ID", "retry_max = 3", "expedite = true "]
    {
        assert!(first.out.contains(line), "{line}: {}", first.out);
    }
    std::fs::write(&path, &first.out).unwrap();
    let second = ended(&["config", "--config", &file, "--explain"], &[("KAFKA_FLUSH_TIMEOUT", "")]).await;
    second.expect(0, &[]);
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split("  #").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&first.out), values(&second.out));
    assert!(second.out.contains(&format!("# {file}")) && second.out.contains("# KAFKA_RETRY_MAX, default \"3\""));
}

#[tokio::test]
async fn all_that_is_wrong_with_the_settings_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.toml");
    std::fs::write(&path, "borkers = \"x:1\"\n").unwrap();
    let file = path.display().to_string();
    for subcommand in ["config", "publish"] {
        let arguments = [subcommand, "--config", &file, "--set", "retry_max=many"];
        let told = ended(&arguments, &[("KAFKA_FLUSH_BYTES", "1")]).await;
        let told_file = format!("courier: borkers in {file} is not an option of kafka-courier: did you mean brokers?");
        let [told_argument, told_variable] =
            ["courier: --set retry_max is \"many\"", "courier: KAFKA_FLUSH_BYTES (flush_bytes) is 1, but must"];
        told.expect(78, &[&told_file, told_argument, told_variable]);
    }
    ended(&["config", "--set", "retry_max"], &[]).await.expect(64, &["such as flush_timeout=5ms"]);
}

#[tokio::test]
async fn publish_takes_its_brokers_from_a_file_and_an_argument_goes_before_it() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.json");
    let file = path.display().to_string();
    for (in_file, arguments) in
        [(cluster.bootstrap(), vec![]), ("localhost:1".to_owned(), vec!["--brokers", &cluster.bootstrap()])]
    {
        std::fs::write(&path, format!("{{\"bootstrap.servers\": {in_file:?}}}")).unwrap();
        let arguments = [&["publish", "--config", &file], &*arguments].concat();
        Courier::start(command(&arguments, &[])).ended_with(&format!("{LOGIN}\n")).await.expect(0, &[]);
    }
    assert_eq!(cluster.record_count("user-events"), 2);
}

#[tokio::test]
async fn what_is_dangerous_is_warned_of_whatever_the_log_level() {
    let plain = [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "alice"),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
    ];
    let readable = ended(&["config"], &plain).await;
    readable.expect(0, &["courier: warning: sasl_mechanism is PLAIN", "SASL_SSL"]);
    let skipped = [("KAFKA_SECURITY_PROTOCOL", "SSL"), ("KAFKA_INSECURE_SKIP_VERIFY", "true")];
    ended(&["--log-level", "off", "config"], &skipped).await.expect(0, &["courier: warning: insecure_skip_verify"]);
}
