//! Configurations from the environment, single settings and the builder.

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<(KafkaConfig, Vec<ConfigWarning>), ConfigErrors> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    ConfigLoader::new().variables(variables).load().map(|loaded| (loaded.config, loaded.warnings))
}

#[test]
fn variables_set_options() {
    let (config, warnings) = read(&[
        ("KAFKA_BROKERS", "kafka-1:9092,kafka-2:9092"),
        ("KAFKA_CLIENT_ID", "go-api-gateway"),
        ("KAFKA_RETRY_MAX", "5"),
        ("KAFKA_RETRY_BACKOFF", "100ms"),
        ("KAFKA_FLUSH_MESSAGES", "1000"),
        ("KAFKA_FLUSH_BYTES", "10485760"),
        ("KAFKA_FLUSH_TIMEOUT", "1m30s"),
        ("KAFKA_DELIVERY_TIMEOUT", "2m"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.brokers.len(), 2);
    assert_eq!((config.retry_max, config.flush_messages, config.flush_bytes), (5, 1000, 10 << 20));
    assert_eq!(config.flush_timeout, Duration::from_secs(90));
    assert!(warnings.is_empty());
}

#[test]
fn warnings_follow_problems() {
    let errors = read(&[("KAFKA_RETRYMAX", "3"), ("KAFKA_FLUSH_TIMEOUT", "5")]).unwrap_err();
    assert_eq!((errors.problems().len(), errors.warnings().len()), (1, 1), "{errors}");
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("KAFKA_FLUSH_TIMEOUT"), "{lines:?}");
    assert!(lines[1].starts_with("warning: KAFKA_RETRYMAX") && lines[1].contains("KAFKA_RETRY_MAX"), "{lines:?}");
}

#[test]
fn kubernetes_service_variables_are_warnings() {
    let (config, warnings) =
        read(&[("KAFKA_PORT", "tcp://10.0.0.1:9092"), ("KAFKA_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!(config, KafkaConfig::default());
    assert_eq!(warnings.len(), 2);
}

#[test]
fn all_problems_are_reported() {
    let error =
        read(&[("KAFKA_FLUSH_TIMEOUT", "5"), ("KAFKA_MAX_IN_FLIGHT", "6"), ("KAFKA_BROKERS", "::")]).unwrap_err();
    assert_eq!(error.problems().len(), 3, "{error}");
    assert!(error.to_string().contains("KAFKA_FLUSH_TIMEOUT (flush_timeout) is \"5\""), "{error}");
    assert!(error.to_string().contains("KAFKA_MAX_IN_FLIGHT (max_in_flight) is 6"), "{error}");
}

#[test]
fn default_texts_parse_back() {
    let variables = KafkaConfig::options().into_iter().map(|option| (option.variable, option.default));
    let loaded = ConfigLoader::new().variables(variables).load().unwrap();
    assert_eq!(loaded.config, KafkaConfig::default());
    assert!(loaded.warnings.is_empty());
}

#[test]
fn durations_over_a_year_are_errors() {
    let config = KafkaConfig { max_block: Duration::MAX, ..Default::default() };
    assert!(config.validate().unwrap_err().to_string().contains("max_block"));
}

#[test]
fn contradictions_name_both_options() {
    let config = KafkaConfig { buffer_memory: 2000, delivery_timeout: Duration::from_millis(1), ..Default::default() };
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("buffer_memory is 2000") && error.contains("flush_bytes (1048576)"), "{error}");
    assert!(error.contains("delivery_timeout is 1ms, less than flush_timeout (1s)"), "{error}");
}

#[test]
fn misspelt_variables_get_a_suggestion() {
    let (_, warnings) = read(&[("KAFKA_BORKERS", "x:1")]).unwrap();
    let suggestion = Some("KAFKA_BROKERS".to_owned());
    assert_eq!(warnings, [ConfigWarning::UnknownVariable { variable: "KAFKA_BORKERS".to_owned(), suggestion }]);
    assert_eq!(
        warnings[0].to_string(),
        "KAFKA_BORKERS is not an option of kafka-courier and is ignored: did you mean KAFKA_BROKERS?"
    );
}

#[test]
fn brokers_override_bootstrap_servers() {
    let (config, warnings) = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1")]).unwrap();
    assert_eq!((config.brokers[0].to_string(), warnings.len()), ("a:1".to_owned(), 0));
    for turn in [0, 1] {
        let mut both = [("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_BROKERS", "b:1")];
        both.rotate_left(turn);
        let (config, warnings) = read(&both).unwrap();
        assert_eq!((config.brokers[0].to_string(), warnings.len()), ("b:1".to_owned(), 1), "{warnings:?}");
    }
}

#[test]
fn empty_variables_are_unset() {
    assert_eq!(read(&[("KAFKA_FLUSH_BYTES", ""), ("KAFKA_ANYTHING", "")]).unwrap(), (KafkaConfig::default(), vec![]));
}

#[test]
fn later_settings_override_earlier_ones() {
    let variables =
        [("KAFKA_RETRY_MAX", "1"), ("KAFKA_FLUSH_MESSAGES", "7")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loader = ConfigLoader::new().set("retry_max", "2").set("retries", "9").variables(variables);
    let loaded = loader.load().unwrap();
    assert_eq!((loaded.config.retry_max, loaded.config.flush_messages), (9, 7));
    assert_eq!(loaded.origin("retry_max"), Origin::Application);
    assert_eq!(loaded.origin("flush_messages"), Origin::Environment("KAFKA_FLUSH_MESSAGES".to_owned()));
    assert_eq!(loaded.origin("flush_bytes"), Origin::Default);
}

#[test]
fn contradictions_name_both_places() {
    let variables = [("KAFKA_FLUSH_TIMEOUT".to_owned(), "2m".to_owned())];
    let loader =
        ConfigLoader::new().variables(variables).argument("--set delivery.timeout.ms", "delivery.timeout.ms", "60000");
    let error = loader.load().unwrap_err().to_string();
    assert!(
        error.starts_with("--set delivery.timeout.ms (delivery_timeout) is 1m, less than flush_timeout (2m)"),
        "{error}"
    );
    assert!(error.ends_with("[flush_timeout: KAFKA_FLUSH_TIMEOUT]"), "{error}");
}

#[test]
fn unknown_settings_are_errors() {
    let error = ConfigLoader::new().set("flush_mesages", "1").load().unwrap_err();
    let text = "flush_mesages is not an option of kafka-courier: did you mean flush_messages?";
    assert_eq!(error.to_string(), text);
    let problem = &error.problems()[0];
    assert_eq!(problem.kind(), ConfigProblemKind::UnknownOption);
    assert_eq!((problem.option(), problem.suggestion()), (Some("flush_mesages"), Some("flush_messages")));
}

#[test]
fn builders_accept_option_texts() {
    let built =
        KafkaConfig::builder().brokers("a:1").flush_messages(5).client_id("c").max_block("1m").config().unwrap();
    assert_eq!((built.flush_messages, &*built.client_id, built.max_block), (5, "c", Duration::from_secs(60)));
    let error = KafkaConfig::builder().flush_timeout("5").brokers("::").max_in_flight(6).config().unwrap_err();
    assert_eq!(error.problems().len(), 3, "{error}");
    assert!(
        error.to_string().starts_with("flush_timeout is \"5\", which is not allowed: must be a duration"),
        "{error}"
    );
}

#[test]
fn serde_reads_configurations() {
    #[derive(serde::Deserialize)]
    struct Application {
        kafka: KafkaConfig,
    }
    let text = r#"{"kafka": {"brokers": ["a:1", "b:2"], "flush_messages": 7, "linger.ms": 20}}"#;
    let application: Application = serde_json::from_str(text).unwrap();
    assert_eq!((application.kafka.brokers.len(), application.kafka.flush_messages), (2, 7));
    assert_eq!(application.kafka.flush_timeout, Duration::from_millis(20));
    let wrong =
        serde_json::from_str::<KafkaConfig>(r#"{"flush_messages": "x", "borkers": "a:1"}"#).unwrap_err().to_string();
    assert!(wrong.contains("flush_messages is \"x\"") && wrong.contains("did you mean brokers?"), "{wrong}");
}

#[test]
fn arguments_take_secrets_only_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2").unwrap();
    let sasl =
        [("KAFKA_SASL_MECHANISM", "PLAIN"), ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"), ("KAFKA_SASL_USERNAME", "u")];
    let loader = || ConfigLoader::new().variables(sasl.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for name in ["sasl_password", "sasl.password"] {
        let error = loader().argument("--set", name, "hunter2").load().unwrap_err().to_string();
        assert!(error.contains("KAFKA_SASL_PASSWORD") && !error.contains("hunter2"), "{error}");
    }
    let file = file.to_str().unwrap();
    let config = loader().argument("--set", "sasl_password_file", file).load().unwrap().config;
    assert_eq!(config.sasl_password.unwrap().expose(), "hunter2");
}

#[test]
fn events_never_map_to_dlq_topic() {
    for (mapping, topic, word) in [
        ("", "default-events", "events of type *"),
        ("", "error-events", "events of type api.error"),
        ("order.placed=orders", "orders", "type \"order.placed\""),
        ("order.*=orders", "orders", "type \"order.*\""),
        ("*=all", "all", "type \"*\""),
    ] {
        let error = read(&[("KAFKA_TOPIC_MAPPING", mapping), ("KAFKA_DLQ_TOPIC", topic)]).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        let text = error.to_string();
        assert!(text.contains("dlq_topic") && text.contains(word), "{text}");
    }
    let (config, _) = read(&[("KAFKA_TOPIC_MAPPING", "api.*=calls"), ("KAFKA_DLQ_TOPIC", "error-events")]).unwrap();
    assert_eq!(config.dlq_topic, "error-events");
    let error = read(&[("KAFKA_TOPIC_MAPPING", "*.created=t")]).unwrap_err().to_string();
    assert!(error.contains("*.created") && error.contains("user.*"), "{error}");
}

#[test]
fn set_brokers_are_not_default() {
    let default = KafkaConfig::default().default_broker().map(|(host, port)| (host.to_string(), port));
    assert_eq!(default, Some(("localhost".to_owned(), 9092)));
    assert_eq!(KafkaConfig::builder().brokers("a:1").config().unwrap().default_broker(), None);
}

#[test]
fn long_client_id_is_refused() {
    let problem = |length: usize| {
        let config = KafkaConfig { client_id: "x".repeat(length), ..KafkaConfig::default() };
        config.validate().map_err(|errors| errors.to_string())
    };
    assert_eq!(problem(32_767), Ok(()));
    let error = problem(32_768).unwrap_err();
    assert!(error.contains("client_id") && error.contains("32768 bytes long") && error.contains("32767"), "{error}");
    assert!(error.len() < 200, "{error}");
}

#[test]
fn memory_below_a_batch_is_refused() {
    let small = |memory| {
        let config = KafkaConfig { buffer_memory: memory, flush_bytes: 128, ..KafkaConfig::default() };
        config.validate().map_err(|errors| errors.to_string())
    };
    assert_eq!(small(1024), Ok(()));
    let error = small(1023).unwrap_err();
    assert!(error.contains("buffer_memory") && error.contains("at least 1024"), "{error}");
}

#[cfg(feature = "tls")]
#[test]
fn problems_of_files_name_their_variable() {
    let error = read(&[
        ("KAFKA_FLUSH_TIMEOUT", "5"),
        ("KAFKA_SECURITY_PROTOCOL", "SSL"),
        ("KAFKA_SSL_CA_LOCATION", "/no/such/ca.pem"),
    ]);
    let text = error.unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("KAFKA_")), "{text}");
    assert!(text.contains("KAFKA_SSL_CA_LOCATION (ssl_ca_location): /no/such/ca.pem: "), "{text}");
}
