//! No option without a test of its effect: which test that is.
//!
//! Rule: it fails where the option is ignored and its default holds; a time is told from the default on the side where it lies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kafka_courier::KafkaConfig;

/// Option, file of tests, test.
const TESTED: &[(&str, &str, &str)] = &[
    ("brokers", "options", "brokers_are_asked_one_after_the_other_until_one_answers"),
    ("client_id", "options", "client_id_is_what_the_broker_is_told"),
    ("retry_max", "options", "retry_max_is_how_many_errors_of_the_write_itself_a_batch_survives"),
    ("retry_backoff", "options", "retry_backoff_is_waited_for_between_tries"),
    ("retry_backoff_max", "options", "retry_backoff_max_is_the_longest_wait_however_many_tries_there_were"),
    ("flush_messages", "options", "flush_messages_fills_a_batch"),
    ("flush_bytes", "options", "flush_bytes_fills_a_batch"),
    ("flush_timeout", "expedite", "switched_off_awaited_events_wait_as_all_do"),
    ("expedite", "expedite", "switched_off_awaited_events_wait_as_all_do"),
    (
        "delivery_timeout",
        "outages",
        "an_outage_longer_than_delivery_timeout_gives_each_event_a_verdict_that_the_log_confirms",
    ),
    (
        "request_timeout",
        "outages",
        "a_leader_that_swallows_requests_is_given_up_and_its_late_copies_are_not_written_twice",
    ),
    ("connect_timeout", "options", "connect_timeout_bounds_the_wait_for_a_broker_that_says_nothing"),
    ("metadata_timeout", "lifetime", "a_topic_that_is_not_there_is_waited_for_once"),
    ("metadata_max_age", "options", "metadata_max_age_has_metadata_refreshed_unasked"),
    ("buffer_memory", "bounds", "a_full_buffer_refuses_after_max_block_and_takes_again_when_there_is_room"),
    ("max_block", "bounds", "a_full_buffer_refuses_after_max_block_and_takes_again_when_there_is_room"),
    ("max_in_flight", "options", "max_in_flight_is_how_many_batches_of_a_partition_are_unanswered_at_once"),
    ("max_request_bytes", "options", "max_request_bytes_bounds_the_batches_of_a_request"),
    ("connections_per_broker", "options", "connections_per_broker_is_how_many_are_opened_under_load_and_no_more"),
    ("compression", "options", "compression_is_snappy_or_none"),
    ("security_protocol", "tls", "a_broker_whose_authority_is_trusted_gets_the_events"),
    ("sasl_mechanism", "sasl", "a_mechanism_that_the_broker_does_not_know_is_an_error_that_names_those_that_it_knows"),
    ("sasl_username", "sasl", "with_the_right_password_everything_is_delivered"),
    ("sasl_password", "sasl", "a_wrong_password_fails_at_once_is_not_tried_again_and_again_and_is_never_shown"),
    ("sasl_oauthbearer_token_location", "sasl", "a_token_is_read_from_its_file_for_each_connection"),
    ("ssl_ca_location", "tls", "a_broker_whose_authority_is_trusted_gets_the_events"),
    ("ssl_roots", "tls", "ssl_roots_trusts_the_systems_authorities_if_so_asked"),
    ("ssl_certificate_location", "tls", "a_certificate_of_our_own_is_shown_with_a_key_of_each_kind"),
    ("ssl_key_location", "tls", "a_certificate_of_our_own_is_shown_with_a_key_of_each_kind"),
    ("insecure_skip_verify", "tls", "insecure_skip_verify_takes_any_broker"),
    ("topic_mapping", "options", "topic_mapping_says_where_a_type_goes"),
    ("dlq_buffer", "options_letters", "dlq_buffer_is_how_many_letters_memory_keeps_the_newest"),
    ("dlq_file", "dead_letters", "letters_in_the_file_outlive_the_producer"),
    ("dlq_max_letters", "dead_letters", "a_full_file_refuses_or_drops_the_oldest_as_it_was_told"),
    ("dlq_max_bytes", "options_letters", "dlq_max_bytes_bounds_the_file_and_the_rest_goes_to_the_next_store"),
    ("dlq_max_age", "options_letters", "dlq_max_age_drops_letters_that_have_been_there_for_longer"),
    ("dlq_overflow", "dead_letters", "a_full_file_refuses_or_drops_the_oldest_as_it_was_told"),
    ("dlq_topic", "replay", "letters_go_to_the_topic_come_back_from_it_and_are_settled_there"),
    ("auto_replay", "replay", "letters_go_again_unasked_when_the_cluster_is_healthy"),
    ("auto_replay_interval", "options_letters", "auto_replay_interval_is_waited_for_before_letters_go_again"),
    ("auto_replay_rate", "options_letters", "auto_replay_rate_bounds_how_many_letters_go_again_in_a_second"),
];

#[test]
fn every_option_has_a_test_that_shows_its_effect() {
    let options: Vec<_> = KafkaConfig::options().into_iter().map(|option| option.name).collect();
    let tested: Vec<_> = TESTED.iter().map(|(option, ..)| *option).collect();
    assert_eq!(options, tested);
    for (option, file, test) in TESTED {
        let path = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fn {test}()")) && text.contains(option), "{option}: {test} in {path}");
    }
}
