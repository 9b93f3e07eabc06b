//! Secrets in arguments, variables and files: no error shows any part of one.

use crate::leak;
use crate::support::{CourierProcess, command};

/// A text of which no message contains eight characters by accident.
const SECRET: &str = "Zq7xVr2mKw9pLt4nHs6bJd8fQc3gYy5eXu1aRv0o";

/// Runs the command at log level trace and searches its output for the secret. Returns the exit code and the output.
async fn hidden(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let arguments = [&["--log-level", "trace"], arguments].concat();
    let output = CourierProcess::start(command(&arguments, settings)).output_with_input("").await;
    let text = format!("{}\n{}", output.out, output.err);
    let found = leak::find(SECRET.as_bytes(), &text);
    assert_eq!(found, None, "{arguments:?} {settings:?}: {text}");
    (output.code, text)
}

#[tokio::test]
async fn arguments_hide_their_values() {
    let swapped = format!("{SECRET}=sasl_password");
    for (value, code) in [
        (format!("sasl_password {SECRET}"), 64),
        (format!("sasl_password:{SECRET}"), 64),
        (SECRET.to_owned(), 64),
        (format!("sasl_password={SECRET}"), 78),
        (format!("sasl.pasword={SECRET}"), 78),
        (format!("sasl_password_file={SECRET}"), 78),
        (format!("ssl_key_location=-----BEGIN PRIVATE KEY-----\\n{SECRET}"), 78),
        (format!("ssl.key.password={SECRET}"), 78),
        (swapped, 78),
    ] {
        for subcommand in ["config", "publish"] {
            let (output, text) = hidden(&[subcommand, "--set", &value], &[]).await;
            assert_eq!(output, Some(code), "{text}");
        }
    }
    for (brokers, word) in [
        (format!("SASL_SSL://me:{SECRET}@kafka:9092"), "set security_protocol to SASL_SSL"),
        (format!("me:{SECRET}@kafka:9092"), "a broker is host:port"),
    ] {
        let (code, text) = hidden(&["config", "--brokers", &brokers], &[]).await;
        assert!(code == Some(64) && text.contains(word), "{text}");
        let (code, text) = hidden(&["config", "--set", &format!("brokers={brokers}")], &[]).await;
        assert!(code == Some(78) && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn arguments_for_paths_hide_content() {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----");
    for text in [SECRET, &pem] {
        for (arguments, code) in [
            (&["config", "--config", text][..], if text == SECRET { 78 } else { 64 }),
            (&["config", &format!("--config={text}")], 78),
            (&["publish", &format!("--topic={text} x")], 64),
            (&["publish", "--brokers", "127.0.0.1:1", text], if text == SECRET { 65 } else { 64 }),
            (&["publish", "events", text], 64),
            (&[text], 64),
            (&["--log-level", text, "sample"], 64),
            (&["sample", "--count", text], 64),
            (&["dlq", "list", &format!("--file={text}")], 65),
            (&["dlq", "import", "--file", "/dev/null/none", "--", text], 65),
        ] {
            let output = CourierProcess::start(command(arguments, &[])).output_with_input("").await;
            let text = format!("{}\n{}", output.out, output.err);
            assert_eq!(leak::find(SECRET.as_bytes(), &text), None, "{arguments:?}: {text}");
            assert!(text.contains("***") && output.code == Some(code), "{arguments:?} {:?}: {text}", output.code);
        }
    }
    for (arguments, shown) in [
        (&["config", "--config", "settings"][..], "settings: "),
        (&["publish", "--brokers", "127.0.0.1:1", "none/events.ndjson"], "none/events.ndjson"),
        (&["publish", "--tpoic", "a"], "--tpoic"),
        (&["--log-level", "loud", "sample"], "\"loud\""),
    ] {
        let output = CourierProcess::start(command(arguments, &[])).output_with_input("").await;
        assert!(output.err.contains(shown), "{arguments:?}: {}", output.err);
    }
}

#[tokio::test]
async fn variables_and_files_stay_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pem = format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----\\n");
    let (key, certificate) = (file("key.pem", &pem), file("certificate.pem", "none"));
    for settings in [
        vec![("KAFKA_SASL_PASSWORD", SECRET)],
        vec![("KAFKA_SASL_PASSWORD_FILE", SECRET)],
        vec![("KAFKA_SASL_PASWORD", SECRET), ("KAFKA_RETRY_MAX", "x")],
        vec![("KAFKA_SSL_KEY_LOCATION", &pem), ("KAFKA_SECURITY_PROTOCOL", "SSL")],
        vec![
            ("KAFKA_SSL_KEY_LOCATION", &key),
            ("KAFKA_SSL_CERTIFICATE_LOCATION", &certificate),
            ("KAFKA_SECURITY_PROTOCOL", "SSL"),
        ],
    ] {
        let (code, text) = hidden(&["publish"], &settings).await;
        assert_eq!(code, Some(78), "{text}");
    }
    for (name, text) in [
        ("c.toml", format!("sasl_password = {SECRET}")),
        ("c.toml", format!("sasl_password = \"{SECRET}")),
        ("c.json", format!("{{\"sasl_password\": \"{SECRET}\n\"}}")),
        ("c.json", format!("{{\"sasl_password\": {{\"{SECRET}\": 1}}}}")),
    ] {
        let path = file(name, &text);
        let (code, text) = hidden(&["config", "--config", &path], &[]).await;
        assert!(code == Some(78) && text.contains(name), "{text}");
    }
}
