//! The outcome table: from what a leader answered to what is done about it.
//!
//! Rules:
//! - One row for each treatment that a code can have; a code without a row is rejected if Kafka calls it
//!   final, retried if Kafka calls it retriable.
//! - *Refused* means that this attempt certainly did not append: the broker checks it before the append
//!   (Apache Kafka's `ReplicaManager` and `ProducerAppendInfo`). It says nothing of other attempts.
//! - `DelayedProduce` keeps the base offset in the errors that end its wait: with one, 3, 6 and 74 are no refusals. In
//!   any other error a base offset says nothing: some brokers fill it with 0 where Kafka says -1.
//! - REQUEST_TIMED_OUT with a base offset is the leader's own timeout while replicas are missing (since Kafka 3.7, where
//!   NOT_ENOUGH_REPLICAS_AFTER_APPEND came before): a wait for the cluster, not a failure of the write.
//! - A disconnect or a timeout is no answer; it has no row here, and the attempt stays open.

use super::error_code::ErrorCode;
use super::types::PartAnswer;

/// What to do about the head batch of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Treatment {
    /// It is in the log.
    Delivered,
    /// An earlier attempt of it is in the log (only brokers before 2.5 say so).
    Duplicate,
    /// The cluster is not ready for it: the same again after a wait, which costs no retry.
    Wait,
    /// The same, and the leader may be another by now.
    WaitForLeader,
    /// The write itself failed: the same again, at the cost of a retry.
    Retry,
    /// Too large as a whole: in two halves, which keep the records' sequences (KIP-126).
    Split,
    /// The leader expected another sequence number, or another epoch, of this producer id.
    Sequence,
    /// The topic is another one by the same name: learn its id.
    NewTopicId,
    /// Final for these records.
    Reject,
}

/// A treatment, and whether the attempt that was so answered certainly wrote nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What to do.
    pub treatment: Treatment,
    /// Whether the attempt is a refusal; otherwise it is open (or delivered).
    pub refused: bool,
}

/// What refuses: codes that a broker gives before it appends.
const REFUSALS: &[i16] = &[2, 10, 17, 18, 19, 21, 29, 31, 32, 35, 42, 43, 44, 45, 47, 48, 59, 76, 87, 100, 103];
/// Refusals only without a base offset: `DelayedProduce` also puts them over an append that timed out.
const REFUSALS_WITHOUT_OFFSET: &[i16] = &[3, 6, 74];

/// The table.
const ROWS: &[(i16, Treatment)] = &[
    (0, Treatment::Delivered),
    (3, Treatment::WaitForLeader),
    (5, Treatment::WaitForLeader),
    (6, Treatment::WaitForLeader),
    (10, Treatment::Split),
    (14, Treatment::Wait),
    (15, Treatment::Wait),
    (16, Treatment::Wait),
    (18, Treatment::Split),
    (19, Treatment::Wait),
    (20, Treatment::Wait),
    (45, Treatment::Sequence),
    (46, Treatment::Duplicate),
    (47, Treatment::Sequence),
    (56, Treatment::WaitForLeader),
    (59, Treatment::Sequence),
    (74, Treatment::WaitForLeader),
    (75, Treatment::WaitForLeader),
    (89, Treatment::Wait),
    (100, Treatment::NewTopicId),
    (103, Treatment::NewTopicId),
    // Final for Kafka's own client; but a stamp can always be sent again, and what the broker did not
    // expect (a failing disk, a shutdown half done) often passes.
    (-1, Treatment::Retry),
];

/// Reads the table for an answer.
pub fn classify(answer: &PartAnswer) -> Outcome {
    let code = answer.code;
    let names_an_offset = answer.base_offset >= 0;
    let treatment = match ROWS.iter().find(|row| row.0 == code) {
        _ if code == ErrorCode::REQUEST_TIMED_OUT.0 && names_an_offset => Treatment::Wait,
        Some(row) => row.1,
        None if ErrorCode(code).is_retriable() => Treatment::Retry,
        None => Treatment::Reject,
    };
    let refused = REFUSALS.contains(&code) || (REFUSALS_WITHOUT_OFFSET.contains(&code) && !names_an_offset);
    Outcome { treatment, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: i16) -> Outcome {
        classify(&PartAnswer { code, base_offset: -1, ..PartAnswer::default() })
    }

    fn appended(code: i16) -> Outcome {
        classify(&PartAnswer { code, base_offset: 5, ..PartAnswer::default() })
    }

    macro_rules! rows {
        ($($name:ident: $code:expr => $treatment:ident, refused $refused:expr;)*) => {$(
            #[test]
            fn $name() {
                assert_eq!(outcome($code), Outcome { treatment: Treatment::$treatment, refused: $refused });
            }
        )*};
    }

    rows! {
        success_is_delivered: 0 => Delivered, refused false;
        an_unknown_server_error_is_retried_and_stays_open: -1 => Retry, refused false;
        a_corrupt_message_is_retried_and_was_not_appended: 2 => Retry, refused true;
        an_unknown_topic_or_partition_waits_for_the_leader: 3 => WaitForLeader, refused true;
        leader_not_available_waits_and_stays_open: 5 => WaitForLeader, refused false;
        not_leader_waits_for_the_leader: 6 => WaitForLeader, refused true;
        request_timed_out_is_retried_and_stays_open: 7 => Retry, refused false;
        message_too_large_splits: 10 => Split, refused true;
        network_exception_is_retried_and_stays_open: 13 => Retry, refused false;
        coordinator_load_in_progress_waits: 14 => Wait, refused false;
        coordinator_not_available_waits: 15 => Wait, refused false;
        not_coordinator_waits: 16 => Wait, refused false;
        an_invalid_topic_is_rejected: 17 => Reject, refused true;
        record_list_too_large_splits: 18 => Split, refused true;
        not_enough_replicas_waits_and_was_not_appended: 19 => Wait, refused true;
        not_enough_replicas_after_append_waits_and_stays_open: 20 => Wait, refused false;
        invalid_required_acks_is_rejected: 21 => Reject, refused true;
        a_topic_authorization_failure_is_rejected: 29 => Reject, refused true;
        a_cluster_authorization_failure_is_rejected: 31 => Reject, refused true;
        an_invalid_timestamp_is_rejected: 32 => Reject, refused true;
        an_unsupported_version_is_rejected: 35 => Reject, refused true;
        an_invalid_request_is_rejected: 42 => Reject, refused true;
        an_unsupported_message_format_is_rejected: 43 => Reject, refused true;
        a_policy_violation_is_rejected: 44 => Reject, refused true;
        out_of_order_sequence_goes_by_sequence: 45 => Sequence, refused true;
        a_duplicate_sequence_is_a_duplicate: 46 => Duplicate, refused false;
        an_invalid_producer_epoch_goes_by_sequence: 47 => Sequence, refused true;
        an_invalid_transaction_state_is_rejected: 48 => Reject, refused true;
        a_storage_error_waits_for_another_leader_and_stays_open: 56 => WaitForLeader, refused false;
        an_unknown_producer_id_goes_by_sequence: 59 => Sequence, refused true;
        a_fenced_leader_epoch_waits_for_the_leader: 74 => WaitForLeader, refused true;
        an_unknown_leader_epoch_waits_and_stays_open: 75 => WaitForLeader, refused false;
        an_unsupported_compression_is_rejected: 76 => Reject, refused true;
        an_invalid_record_is_rejected: 87 => Reject, refused true;
        a_throttling_error_waits: 89 => Wait, refused false;
        an_unknown_topic_id_asks_for_the_new_one: 100 => NewTopicId, refused true;
        an_inconsistent_topic_id_asks_for_the_new_one: 103 => NewTopicId, refused true;
        a_code_from_the_future_is_rejected_and_stays_open: 999 => Reject, refused false;
    }

    #[test]
    fn offset_in_an_error_proves_an_append_for_few_codes() {
        for code in ErrorCode::all().map(|code| code.0) {
            let expected = REFUSALS.contains(&code);
            assert_eq!(appended(code).refused, expected, "{code}");
        }
        assert!([3, 6, 74].into_iter().all(|code| outcome(code).refused && !appended(code).refused));
    }

    #[test]
    fn replicas_missing_after_the_append_are_waited_for() {
        let waits = Outcome { treatment: Treatment::Wait, refused: false };
        assert_eq!((appended(7), appended(20)), (waits, waits));
    }

    #[test]
    fn every_code_without_a_row_follows_kafkas_own_flag() {
        for code in ErrorCode::all().filter(|code| !ROWS.iter().any(|row| row.0 == code.0)) {
            let expected = if code.is_retriable() { Treatment::Retry } else { Treatment::Reject };
            assert_eq!(outcome(code.0).treatment, expected, "{code}");
        }
    }

    #[test]
    fn a_refusal_never_stands_among_the_codes_that_follow_an_append() {
        for code in [-1, 7, 20, 56] {
            assert!(!outcome(code).refused, "{code}");
        }
    }
}
