//! `courier config`, and settings from arguments, environment and file.

use crate::support::{self, CourierProcess, LOGIN, cluster, command};

/// Runs the command with these arguments and settings.
async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> support::CommandOutput {
    CourierProcess::start(command(arguments, settings)).output_with_input("").await
}

#[tokio::test]
async fn output_is_a_settings_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.toml");
    let file = path.display().to_string();
    let settings = [("KAFKA_CLIENT_ID", "a \"b\" \\ c"), ("KAFKA_BROKERS", "x:1,[::1]:2")];
    let first = run(&["config", "--set", "linger.ms=7"], &settings).await;
    first.expect(0, &[]);
    for line in
        ["flush_timeout = \"7ms\"", "# --set linger.ms", "# KAFKA_CLIENT_ID", "retry_max = 3", "expedite = true "]
    {
        assert!(first.out.contains(line), "{line}: {}", first.out);
    }
    std::fs::write(&path, &first.out).unwrap();
    let second = run(&["config", "--config", &file, "--explain"], &[("KAFKA_FLUSH_TIMEOUT", "")]).await;
    second.expect(0, &[]);
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split("  #").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&first.out), values(&second.out));
    assert!(second.out.contains(&format!("# {file}")) && second.out.contains("# KAFKA_RETRY_MAX, default \"3\""));
}

#[tokio::test]
async fn all_errors_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.toml");
    std::fs::write(&path, "borkers = \"x:1\"\n").unwrap();
    let file = path.display().to_string();
    for subcommand in ["config", "publish"] {
        let arguments = [subcommand, "--config", &file, "--set", "retry_max=many"];
        let output = run(&arguments, &[("KAFKA_FLUSH_BYTES", "1")]).await;
        let in_file = format!("courier: borkers in {file} is not an option of kafka-courier: did you mean brokers?");
        let [in_argument, in_variable] =
            ["courier: --set retry_max is \"many\"", "courier: KAFKA_FLUSH_BYTES (flush_bytes) is 1, but must"];
        output.expect(78, &[&in_file, in_argument, in_variable]);
    }
}

#[tokio::test]
async fn malformed_settings_name_the_form() {
    for setting in ["retry_max", "=1", " = 1"] {
        run(&["config", "--set", setting], &[]).await.expect(64, &["such as flush_timeout=5ms"]);
    }
}

#[tokio::test]
async fn negative_numbers_reach_the_check() {
    let limit = &["dlq", "list", "--limit", "-1"];
    for arguments in [&["sample", "--seed", "-1"][..], limit, &["publish", "--grace", "-1"]] {
        run(arguments, &[]).await.expect(64, &["invalid value '-1'", "expected a whole number"]);
    }
    run(&["demo", "--events", "-1"], &[]).await.expect(64, &["invalid value '-1'", "from 1 to"]);
    for option in ["--rate", "--max-replays"] {
        run(&["dlq", "replay", "--all", option, "-1"], &[]).await.expect(64, &["invalid value '-1'"]);
    }
    run(&["dlq", "replay", "--all", "--rate", "0"], &[]).await.expect(64, &["must be at least 1"]);
}

#[tokio::test]
async fn unusable_inputs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let letters = folder.path().join("letters").display().to_string();
    run(&["publish", ""], &[]).await.expect(65, &["cannot open \"\": No such file"]);
    for command in [&["publish"][..], &["dlq", "import", "--file", &letters]] {
        run(&[command, &[path]].concat(), &[]).await.expect(65, &[path, "is a directory: name a file of"]);
    }
}

#[tokio::test]
async fn brokers_argument_overrides_file() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("courier.json");
    let file = path.display().to_string();
    for (in_file, arguments) in
        [(cluster.bootstrap(), vec![]), ("localhost:1".to_owned(), vec!["--brokers", &cluster.bootstrap()])]
    {
        std::fs::write(&path, format!("{{\"bootstrap.servers\": {in_file:?}}}")).unwrap();
        let arguments = [&["publish", "--config", &file], &*arguments].concat();
        CourierProcess::start(command(&arguments, &[])).output_with_input(&format!("{LOGIN}\n")).await.expect(0, &[]);
    }
    assert_eq!(cluster.record_count("user-events"), 2);
}

#[tokio::test]
async fn risks_are_warned_at_any_level() {
    let plain = [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "alice"),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
    ];
    let readable = run(&["config"], &plain).await;
    readable.expect(0, &["courier: warning: sasl_mechanism is PLAIN", "SASL_SSL"]);
    let skipped = [("KAFKA_SECURITY_PROTOCOL", "SSL"), ("KAFKA_INSECURE_SKIP_VERIFY", "true")];
    run(&["--log-level", "off", "config"], &skipped).await.expect(0, &["courier: warning: insecure_skip_verify"]);
}
