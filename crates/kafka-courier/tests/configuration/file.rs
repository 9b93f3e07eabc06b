//! Configuration files, and files that hold the value of one option.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::captured_log::CapturedLog;
use kafka_courier::{Compression, ConfigLoader, ConfigWarning, KafkaConfig, Origin};

struct SettingsFolder(tempfile::TempDir);

impl SettingsFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Returns the problems of a file. The file's name replaces its path.
fn problems(name: &str, text: &str) -> Vec<String> {
    let folder = SettingsFolder::new();
    let path = folder.file(name, text);
    let errors = KafkaConfig::from_file(&path).unwrap_err();
    errors.problems().iter().map(|problem| problem.to_string().replace(&path.display().to_string(), name)).collect()
}

#[test]
fn toml_and_json_are_equivalent() {
    let folder = SettingsFolder::new();
    let toml = folder.file(
        "courier.toml",
        r#"
        brokers = ["kafka-1:9092", "kafka-2:9092"]
        client_id = "gateway"
        flush_messages = 1_000
        flush_timeout = "5ms"
        compression = "none"
        [topic_mapping]
        "user.created" = "people"
        "*" = "others"
        "#,
    );
    let json = folder.file(
        "courier.json",
        r#"{"brokers": "kafka-1:9092,kafka-2:9092", "client_id": "gateway", "flush_messages": 1000, "flush_timeout": "5ms",
            "compression": "none", "topic_mapping": {"user.created": "people", "*": "others"}}"#,
    );
    let config = KafkaConfig::from_file(toml).unwrap();
    assert_eq!(Ok(&config), KafkaConfig::from_file(json).as_ref());
    assert_eq!((config.brokers.len(), config.flush_messages), (2, 1000));
    assert_eq!((config.flush_timeout, config.compression), (Duration::from_millis(5), Compression::None));
    assert_eq!(config.topic_mapping, "*=others,user.created=people");
}

#[test]
fn javas_properties_are_understood() {
    let folder = SettingsFolder::new();
    let path = folder.file(
        "java.toml",
        r#"
        bootstrap.servers = "kafka-1:9092,kafka-2:9092"
        client.id = "gateway"
        acks = "all"
        enable.idempotence = true
        linger.ms = 5
        batch.size = 65536
        delivery.timeout.ms = 120000
        request.timeout.ms = 30000
        max.in.flight.requests.per.connection = 3
        buffer.memory = 67108864
        max.block.ms = 60000
        compression.type = "snappy"
        retries = 2147483647
        retry.backoff.ms = 50
        retry.backoff.max.ms = "500"
        metadata.max.age.ms = 60000
        max.request.size = 1048576
        "#,
    );
    let config = KafkaConfig::from_file(path).unwrap();
    let expected = KafkaConfig::builder()
        .brokers("kafka-1:9092,kafka-2:9092")
        .client_id("gateway")
        .flush_timeout("5ms")
        .flush_bytes(65536)
        .delivery_timeout("2m")
        .request_timeout("30s")
        .max_in_flight(3)
        .buffer_memory(64 << 20)
        .max_block("1m")
        .retry_max(2_147_483_647)
        .retry_backoff("50ms")
        .retry_backoff_max("500ms")
        .metadata_max_age("1m")
        .max_request_bytes(1 << 20);
    assert_eq!(expected.config(), Ok(config));
}

#[test]
fn unsupported_java_values_are_refused() {
    let found = problems("java.toml", "acks = 1\nenable.idempotence = false\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("acks in java.toml is \"1\", which is not allowed: must be all"), "{found:?}");
    let idempotence = "enable.idempotence in java.toml is \"false\", which is not allowed: must be true";
    assert!(found[1].starts_with(idempotence), "{found:?}");
}

/// One error lists every problem of a file.
#[test]
fn all_problems_are_reported_together() {
    let found = problems(
        "c.toml",
        "borkers = \"a:1\"\nflush_timeout = 5\nlinger.ms = 1\nmax_in_flight = 9\nkey.serializer = \"x\"",
    );
    let expected = [
        "borkers in c.toml is not an option of kafka-courier: did you mean brokers?",
        "flush_timeout in c.toml is \"5\", which is not allowed: must be a duration with units",
        "linger.ms in c.toml sets flush_timeout, and flush_timeout sets it too: remove one of them",
        "key.serializer in c.toml is not an option of kafka-courier",
        "max_in_flight in c.toml is 9",
    ];
    for expected in expected {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn unreadable_files_join_other_problems() {
    let valid = "security_protocol = \"SSL\"\nssl_ca_location = \"/nowhere/ca.pem\"\n\
                 ssl_certificate_location = \"/nowhere/me.pem\"\nssl_key_location = \"/nowhere/me.key\"\n";
    let found = problems("c.toml", &format!("{valid}metadata_timeout = \"0s\"\n"));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found[0].starts_with("metadata_timeout in c.toml is 0") && found[3].contains("/nowhere/me.key"),
        "{found:#?}"
    );
    let folder = SettingsFolder::new();
    assert!(KafkaConfig::from_file(folder.file("c.toml", valid)).is_ok());
}

#[test]
fn duplicate_json_options_are_errors() {
    let found = problems("c.json", r#"{"retry_max": 1, "retry_max": 2}"#);
    assert_eq!(found, ["retry_max in c.json is set twice: remove one of them"]);
    let found = problems("c.json", r#"{"linger.ms": 1, "linger.ms": 2}"#);
    assert_eq!(found, ["linger.ms in c.json (flush_timeout) is set twice: remove one of them"]);
}

#[test]
fn empty_names_are_quoted() {
    let found = problems("c.json", r#"{"": 1}"#);
    assert!(found[0].starts_with("\"\" in c.json is not an option"), "{found:?}");
}

#[test]
fn syntax_errors_show_line_not_text() {
    let found = problems("c.toml", "client_id = \"a\"\nsasl_password = \"hunter2\n");
    assert!(found[0].starts_with("c.toml: invalid TOML settings (line 2)"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
    let found = problems("c.json", "{\"client_id\": \"a\",\n \"sasl_password\": \"hunter2\n\"}");
    assert!(found[0].contains("JSON") && found[0].contains("line 3") && !found[0].contains("hunter2"), "{found:?}");
    for (name, text) in [("c.toml", "a = [[1], {x = 1}]"), ("c.json", "[1]"), ("c.json", "null"), ("c.json", "")] {
        assert_eq!(problems(name, text).len(), 1, "{text}");
    }
}

/// A missing file, a folder and an endless file are errors.
#[test]
fn unreadable_files_are_named() {
    let folder = SettingsFolder::new();
    for path in [folder.0.path().join("none.toml"), folder.0.path().to_owned(), PathBuf::from("/dev/zero")] {
        let error = KafkaConfig::from_file(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}

#[test]
fn argument_overrides_variable_overrides_file() {
    let folder = SettingsFolder::new();
    let path = folder.file("c.toml", "retry_max = 1\nflush_messages = 1\nmax_in_flight = 1");
    let variables =
        [("KAFKA_FLUSH_MESSAGES", "2"), ("KAFKA_MAX_IN_FLIGHT", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loaded = ConfigLoader::new()
        .argument("--set max_in_flight", "max_in_flight", "3")
        .variables(variables)
        .file(&path)
        .load()
        .unwrap();
    let config = &loaded.config;
    assert_eq!((config.retry_max, config.flush_messages, config.max_in_flight), (1, 2, 3));
    assert_eq!(loaded.origin("retry_max"), Origin::File(path));
    let shown = loaded.effective().into_iter().find(|option| option.name == "flush_messages").unwrap();
    assert_eq!((&*shown.value, shown.origin.to_string()), ("2", "KAFKA_FLUSH_MESSAGES".to_owned()));
}

#[test]
fn problems_of_all_sources_are_collected() {
    let folder = SettingsFolder::new();
    let path = folder.file("c.toml", "flush_bytes = \"many\"");
    let variables = [("KAFKA_RETRY_MAX".to_owned(), "-1".to_owned())];
    let error = ConfigLoader::new()
        .file(&path)
        .variables(variables)
        .argument("--set max_block", "max_block", "soon")
        .load()
        .unwrap_err();
    let starts = [
        format!("flush_bytes in {} is \"many\"", path.display()),
        "KAFKA_RETRY_MAX (retry_max) is".into(),
        "--set max_block".into(),
    ];
    assert_eq!(error.problems().len(), 3, "{error}");
    assert!(
        error.problems().iter().zip(&starts).all(|(problem, start)| problem.to_string().starts_with(start)),
        "{error}"
    );
}

#[test]
fn file_suffix_reads_value_from_file() {
    let folder = SettingsFolder::new();
    for text in ["from-a-file", "from-a-file\n", "from-a-file\r\n"] {
        let path = folder.file("client", text).display().to_string();
        let loaded = ConfigLoader::new().variables([("KAFKA_CLIENT_ID_FILE".to_owned(), path)]).load().unwrap();
        assert_eq!((&*loaded.config.client_id, loaded.warnings), ("from-a-file", vec![]));
    }
    let path = folder.file("id", "from-a-file");
    let toml = folder.file("c.toml", &format!("client_id_file = {:?}", path.display().to_string()));
    assert_eq!(KafkaConfig::from_file(toml).unwrap().client_id, "from-a-file");
}

#[test]
fn missing_and_conflicting_files_are_errors() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let error = KafkaConfig::from_variables([variable("KAFKA_CLIENT_ID_FILE", "/nowhere/id")]).unwrap_err().to_string();
    assert!(error.starts_with("KAFKA_CLIENT_ID_FILE: /nowhere/id: No such file"), "{error}");
    let folder = SettingsFolder::new();
    let path = folder.file("client", "x").display().to_string();
    let both = [variable("KAFKA_CLIENT_ID_FILE", &path), variable("KAFKA_CLIENT_ID", "y")];
    let error = KafkaConfig::from_variables(both).unwrap_err().to_string();
    assert_eq!(error, "KAFKA_CLIENT_ID sets client_id, and KAFKA_CLIENT_ID_FILE sets it too: remove one of them");
}

/// `retry_backoff` above the default of `retry_backoff_max` raises that default, and not a value that is set.
#[test]
fn long_backoff_raises_default_maximum() {
    let loaded = ConfigLoader::new().set("retry_backoff", "5s").load().unwrap();
    assert_eq!(loaded.config.retry_backoff_max, Duration::from_secs(5));
    let both = ConfigLoader::new().set("retry_backoff", "5s").set("retry_backoff_max", "2s").load().unwrap_err();
    assert_eq!(both.problems().len(), 1, "{both}");
    assert_eq!(both.to_string().matches("[retry_backoff").count(), 1, "{both}");
}

/// Any value may be a secret, such as one of a misspelt option.
#[test]
fn loader_debug_shows_no_values() {
    let folder = SettingsFolder::new();
    let secret = folder.file("password", "hunter2-d");
    let loader = ConfigLoader::new()
        .variables([
            ("KAFKA_SASL_PASSWORD".to_owned(), "hunter2-a".to_owned()),
            ("KAFKA_SASL_PASWORD".to_owned(), "hunter2-b".to_owned()),
            ("KAFKA_SASL_PASSWORD_FILE".to_owned(), secret.display().to_string()),
        ])
        .set("sasl_password", "hunter2-c");
    let shown = format!("{loader:?}");
    assert!(shown.contains("KAFKA_SASL_PASSWORD") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn errors_do_not_show_secrets() {
    for text in [
        "sasl_password = hunter2",
        "sasl_password = \"hunter2",
        "sasl_password = \"hunter2\\q\"",
        "sasl_password = 'hunter2' hunter2",
        "sasl_password \"hunter2\"",
        "sasl_password = [[\"hunter2\"]]",
        "sasl_password = [{ is = \"hunter2\" }]",
        "sasl_password = \"hunter2\"\nsasl_password = \"hunter2\"",
        "sasl.password.ms = \"hunter2\"",
        "sasl_pasword = \"hunter2\"",
        "sasl.jaas.config = \"password=hunter2\"",
        "sasl_password = \"hunter2\"",
        "\"hunter2\"",
    ] {
        let found = problems("c.toml", text);
        assert!(!found.is_empty() && !format!("{found:?}").contains("hunter2"), "{text}: {found:?}");
    }
    for text in [
        "{\"sasl_password\": hunter2}",
        "{\"sasl_password\": \"hunter2}",
        "{\"sasl_password\": \"hunter2\" \"hunter2\"}",
        "{\"sasl_password\": [[\"hunter2\"]]}",
        "{\"sasl.password.ms\": \"hunter2\"}",
        "\"hunter2\"",
        "[\"hunter2\"]",
    ] {
        let found = problems("c.json", text);
        assert!(!found.is_empty() && !format!("{found:?}").contains("hunter2"), "{text}: {found:?}");
    }
}

#[test]
fn configuration_warnings_are_logged() {
    let (log, _guard) = CapturedLog::capture();
    let variables = [("KAFKA_BORKERS".to_owned(), "x:1".to_owned()), ("KAFKA_RETRY_MAX".to_owned(), "3".to_owned())];
    let config = KafkaConfig::from_variables(variables).unwrap();
    assert_eq!(config.retry_max, 3);
    let text = log.text();
    assert_eq!(text.matches("configuration warning").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("did you mean KAFKA_BROKERS?"), "{text}");
}

#[test]
fn unverified_certificates_cause_a_warning() {
    let loaded =
        ConfigLoader::new().set("security_protocol", "SSL").set("insecure_skip_verify", "true").load().unwrap();
    assert_eq!(loaded.warnings, [ConfigWarning::UnverifiedBrokers]);
    assert!(loaded.warnings[0].to_string().contains("certificates of brokers are not verified"));
}

#[test]
fn clear_text_password_causes_a_warning() {
    let loader = |protocol, mechanism| {
        let loader = ConfigLoader::new().set("security_protocol", protocol).set("sasl_mechanism", mechanism);
        loader.set("sasl_username", "alice").set("sasl_password", "hunter2").load().unwrap().warnings
    };
    let warnings = loader("SASL_PLAINTEXT", "PLAIN");
    assert_eq!(warnings, [ConfigWarning::ReadablePassword]);
    assert!(warnings[0].to_string().contains("the password crosses the network in clear text"));
    assert_eq!(loader("SASL_SSL", "PLAIN"), []);
    assert_eq!(loader("SASL_PLAINTEXT", "SCRAM-SHA-512"), []);
}

#[test]
fn conflicting_trust_options_are_refused() {
    let loader = ConfigLoader::new().set("security_protocol", "SSL").set("ssl_roots", "system");
    let error = loader.set("ssl_ca_location", "ca.pem").load().unwrap_err().to_string();
    assert!(error.contains("set only one of them"), "{error}");
}
