//! The test of each option's effect.
//!
//! Rule: a test fails if the producer ignores the option and uses the default. A time is bounded on the side of the
//! default.

use kafka_courier::KafkaConfig;

/// Option, test file, test.
const TESTED: &[(&str, &str, &str)] = &[
    ("brokers", "configuration/options", "brokers_are_tried_in_turn"),
    ("client_id", "configuration/options", "client_id_reaches_the_broker"),
    ("retry_max", "configuration/options", "retry_max_bounds_attempts"),
    ("retry_backoff", "configuration/options", "retry_backoff_separates_attempts"),
    ("retry_backoff_max", "configuration/options", "retry_backoff_max_caps_waits"),
    ("flush_messages", "configuration/options", "flush_messages_fills_a_batch"),
    ("flush_bytes", "configuration/options", "flush_bytes_fills_a_batch"),
    ("flush_timeout", "publishing/expedite", "awaited_events_wait_without_expedite"),
    ("expedite", "publishing/expedite", "awaited_events_wait_without_expedite"),
    ("delivery_timeout", "publishing/outages", "delivery_timeout_fails_events_not_written"),
    ("request_timeout", "publishing/outages", "request_timeout_causes_no_duplicates"),
    ("connect_timeout", "configuration/options", "connect_timeout_bounds_silent_brokers"),
    ("metadata_timeout", "publishing/lifetime", "missing_topic_is_awaited_once"),
    ("metadata_max_age", "configuration/options", "metadata_max_age_triggers_refreshes"),
    ("buffer_memory", "publishing/bounds", "full_buffer_refuses_after_max_block"),
    ("max_block", "publishing/bounds", "full_buffer_refuses_after_max_block"),
    ("max_in_flight", "configuration/options", "max_in_flight_bounds_unanswered_batches"),
    ("max_request_bytes", "configuration/options", "max_request_bytes_bounds_a_request"),
    ("connections_per_broker", "configuration/options", "connections_per_broker_bounds_connections"),
    ("compression", "configuration/options", "compression_is_snappy_or_none"),
    ("security_protocol", "security/tls", "trusted_authority_is_accepted"),
    ("sasl_mechanism", "security/sasl", "unknown_mechanism_lists_offered_ones"),
    ("sasl_username", "security/sasl", "right_password_delivers_events"),
    ("sasl_password", "security/sasl", "wrong_password_is_tried_once"),
    ("sasl_oauthbearer_token_location", "security/sasl", "token_file_is_read_per_connection"),
    ("ssl_ca_location", "security/tls", "trusted_authority_is_accepted"),
    ("ssl_roots", "security/tls", "ssl_roots_trusts_system_authorities"),
    ("ssl_certificate_location", "security/tls", "each_client_key_kind_is_accepted"),
    ("ssl_key_location", "security/tls", "each_client_key_kind_is_accepted"),
    ("insecure_skip_verify", "security/tls", "insecure_skip_verify_accepts_any_broker"),
    ("topic_mapping", "configuration/options", "topic_mapping_chooses_the_topic"),
    ("dlq_buffer", "configuration/options_dead_letters", "dlq_buffer_keeps_the_newest"),
    ("dlq_file", "dead_letters/storing", "dead_letter_file_outlives_producer"),
    ("dlq_max_letters", "dead_letters/storing", "full_file_follows_overflow_option"),
    ("dlq_max_bytes", "configuration/options_dead_letters", "dlq_max_bytes_bounds_the_file"),
    ("dlq_max_age", "configuration/options_dead_letters", "dlq_max_age_drops_older_letters"),
    ("dlq_overflow", "dead_letters/storing", "full_file_follows_overflow_option"),
    ("dlq_topic", "dead_letters/replay", "topic_letters_are_replayed_and_settled"),
    ("spool_dir", "spool/storing", "close_leaves_events_stored"),
    ("spool_max_bytes", "spool/room", "full_spool_follows_spool_full"),
    ("spool_keep_free", "spool/room", "spool_keep_free_leaves_disk_free"),
    ("spool_full", "spool/room", "full_spool_follows_spool_full"),
    ("spool_idle_sync", "spool/storing", "spool_idle_sync_delays_marks"),
    ("spool_any_filesystem", "spool/storing", "memory_file_system_is_refused"),
    ("spool_old_timestamps", "spool/old_timestamps", "old_events_get_new_timestamps"),
    ("spool_doubt", "spool/doubt", "unreadable_log_follows_spool_doubt"),
    ("auto_replay", "dead_letters/replay", "auto_replay_runs_when_healthy"),
    ("auto_replay_interval", "configuration/options_dead_letters", "auto_replay_interval_delays_replay"),
    ("auto_replay_rate", "configuration/options_dead_letters", "auto_replay_rate_bounds_replays"),
];

#[test]
fn every_option_has_a_test() {
    let options: Vec<_> = KafkaConfig::options().into_iter().map(|option| option.name).collect();
    let tested: Vec<_> = TESTED.iter().map(|(option, ..)| *option).collect();
    assert_eq!(options, tested);
    for (option, file, test) in TESTED {
        let path = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fn {test}()")) && text.contains(option), "{option}: {test} in {path}");
    }
}
