//! Metrics of dead letters, through the facade `metrics`.
//!
//! Rule: each metric is defined once, in the table below.

use kafka_courier_dlq::Letter;
use kafka_courier_producer::metric_table;
use metrics::{counter, gauge};

metric_table! {
    LETTERS = "kafka_dead_letter_queue_size", Gauge, Count, [], &[], "Dead letters held now.";
    KEPT = "kafka_dlq_records_total", Counter, Count, ["store", "reason"], &[],
        "Dead letters by the store that took them (topic, file, memory, custom, or log if none did) and by Kafka's error name (none if no broker sent an error).";
    REPLAYED = "kafka_replay_records_total", Counter, Count, ["result"], &[],
        "Dead letters handled by a replay, by result: delivered, landed (found in the log), failed, left_out, not_found, too_often, held_back (behind an earlier one of the same key that stays).";
}

/// Registers the help texts and units with the recorder.
pub(crate) fn describe() {
    kafka_courier_producer::metrics::describe(METRICS);
}

/// Sets the number of dead letters held now.
pub(crate) fn dead_letters(held: u64) {
    gauge!(LETTERS).set(held as f64);
}

/// Counts dead letters that a store took.
pub(crate) fn letters_kept(store: &'static str, letters: &[Letter]) {
    for letter in letters {
        let reason = letter.error_code.clone().unwrap_or_else(|| "none".to_owned());
        counter!(KEPT, "store" => store, "reason" => reason).increment(1);
    }
}

/// Counts dead letters that a replay handled.
pub(crate) fn replayed(result: &'static str, letters: u64) {
    if letters > 0 {
        counter!(REPLAYED, "result" => result).increment(letters);
    }
}
