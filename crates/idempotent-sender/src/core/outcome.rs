//! The outcome table: how the sender reacts to an answer of a leader.
//!
//! Rules:
//!  - A code has one row. A code without a row is retried if Kafka calls it retriable, and rejected otherwise.
//!  - *Refused* means that this attempt certainly did not append: the broker checks for the error before the append
//!    (Apache Kafka's `ReplicaManager` and `ProducerAppendInfo`). The answer says nothing about other attempts.
//!  - `DelayedProduce` keeps the base offset in the errors that end its wait. UNKNOWN_TOPIC_OR_PARTITION,
//!    NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH are no refusals if they have an offset. An offset in any other
//!    error means nothing, because some brokers send 0 where Kafka sends none.
//!  - REQUEST_TIMED_OUT with a base offset is the timeout of the leader while replicas are missing (since Kafka 3.7,
//!    NOT_ENOUGH_REPLICAS_AFTER_APPEND before). This is a wait for the cluster, not a failed write.
//!  - A disconnect or a timeout of the client is no answer and has no row. The attempt stays open.

use kafka_courier_client::{ErrorCode, PartAnswer};

/// The reaction to an answer, applied to the head batch of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Treatment {
    /// The batch is in the log.
    Delivered,
    /// An earlier attempt of the batch is in the log. Only brokers before Kafka 2.5 answer this.
    Duplicate,
    /// The cluster is not ready: send the batch again after a pause. Costs no retry.
    Wait,
    /// The same as `Wait`, but the leader may have changed.
    WaitForLeader,
    /// The write failed: send the batch again. Costs a retry.
    Retry,
    /// The batch is too large: split it into two halves whose records keep their sequence numbers (KIP-126).
    Split,
    /// The leader expects another sequence number, or another epoch, of this producer id.
    Sequence,
    /// The topic was recreated: request its new id.
    NewTopicId,
    /// The error is final for these records.
    Reject,
}

/// A treatment, and whether the answered attempt certainly wrote nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classification {
    /// The reaction.
    pub treatment: Treatment,
    /// Whether the attempt was refused. Otherwise it is open (or delivered).
    pub refused: bool,
}

/// Errors for which a broker checks before the append.
const REFUSALS: &[ErrorCode] = &[
    ErrorCode::CORRUPT_MESSAGE,
    ErrorCode::MESSAGE_TOO_LARGE,
    ErrorCode::INVALID_TOPIC_EXCEPTION,
    ErrorCode::RECORD_LIST_TOO_LARGE,
    ErrorCode::NOT_ENOUGH_REPLICAS,
    ErrorCode::INVALID_REQUIRED_ACKS,
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode::INVALID_TIMESTAMP,
    ErrorCode::UNSUPPORTED_VERSION,
    ErrorCode::INVALID_REQUEST,
    ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ErrorCode::POLICY_VIOLATION,
    ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode::INVALID_PRODUCER_EPOCH,
    ErrorCode::INVALID_TXN_STATE,
    ErrorCode::UNKNOWN_PRODUCER_ID,
    ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
    ErrorCode::INVALID_RECORD,
    ErrorCode::UNKNOWN_TOPIC_ID,
    ErrorCode::INCONSISTENT_TOPIC_ID,
];

/// Errors that are refusals only without a base offset. `DelayedProduce` also sends them after an append that timed
/// out.
const REFUSALS_WITHOUT_OFFSET: &[ErrorCode] =
    &[ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH];

/// The treatment of each code that does not follow Kafka's retriable flag.
const ROWS: &[(ErrorCode, Treatment)] = &[
    (ErrorCode::NONE, Treatment::Delivered),
    (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Treatment::WaitForLeader),
    (ErrorCode::LEADER_NOT_AVAILABLE, Treatment::WaitForLeader),
    (ErrorCode::NOT_LEADER_OR_FOLLOWER, Treatment::WaitForLeader),
    (ErrorCode::MESSAGE_TOO_LARGE, Treatment::Split),
    (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, Treatment::Wait),
    (ErrorCode::COORDINATOR_NOT_AVAILABLE, Treatment::Wait),
    (ErrorCode::NOT_COORDINATOR, Treatment::Wait),
    (ErrorCode::RECORD_LIST_TOO_LARGE, Treatment::Split),
    (ErrorCode::NOT_ENOUGH_REPLICAS, Treatment::Wait),
    (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, Treatment::Wait),
    (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, Treatment::Sequence),
    (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, Treatment::Duplicate),
    (ErrorCode::INVALID_PRODUCER_EPOCH, Treatment::Sequence),
    (ErrorCode::KAFKA_STORAGE_ERROR, Treatment::WaitForLeader),
    (ErrorCode::UNKNOWN_PRODUCER_ID, Treatment::Sequence),
    (ErrorCode::FENCED_LEADER_EPOCH, Treatment::WaitForLeader),
    (ErrorCode::UNKNOWN_LEADER_EPOCH, Treatment::WaitForLeader),
    (ErrorCode::THROTTLING_QUOTA_EXCEEDED, Treatment::Wait),
    (ErrorCode::UNKNOWN_TOPIC_ID, Treatment::NewTopicId),
    (ErrorCode::INCONSISTENT_TOPIC_ID, Treatment::NewTopicId),
    // Final for Kafka's own client. This client can always send a stamp again, and an unexpected failure of the broker
    // (a failing disk, a shutdown in progress) often passes.
    (ErrorCode::UNKNOWN_SERVER_ERROR, Treatment::Retry),
];

/// Classifies an answer by the table.
pub fn classify(answer: &PartAnswer) -> Classification {
    let code = ErrorCode(answer.code);
    let names_an_offset = answer.base_offset.is_some();
    let treatment = match ROWS.iter().find(|row| row.0 == code) {
        _ if code == ErrorCode::REQUEST_TIMED_OUT && names_an_offset => Treatment::Wait,
        Some(row) => row.1,
        None if code.is_retriable() => Treatment::Retry,
        None => Treatment::Reject,
    };
    let refused = REFUSALS.contains(&code) || (REFUSALS_WITHOUT_OFFSET.contains(&code) && !names_an_offset);
    Classification { treatment, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify_without_offset(code: ErrorCode) -> Classification {
        classify(&PartAnswer { code: code.0, base_offset: None, ..PartAnswer::default() })
    }

    fn classify_with_offset(code: ErrorCode) -> Classification {
        classify(&PartAnswer { code: code.0, base_offset: Some(5), ..PartAnswer::default() })
    }

    macro_rules! rows {
        ($($name:ident: $code:expr => $treatment:ident, refused $refused:expr;)*) => {$(
            #[test]
            fn $name() {
                let expected = Classification { treatment: Treatment::$treatment, refused: $refused };
                assert_eq!(classify_without_offset($code), expected);
            }
        )*};
    }

    rows! {
        success_is_delivered: ErrorCode::NONE => Delivered, refused false;
        unknown_server_error_is_retried: ErrorCode::UNKNOWN_SERVER_ERROR => Retry, refused false;
        corrupt_message_is_retried: ErrorCode::CORRUPT_MESSAGE => Retry, refused true;
        unknown_partition_waits_for_leader: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => WaitForLeader, refused true;
        missing_leader_is_waited_for: ErrorCode::LEADER_NOT_AVAILABLE => WaitForLeader, refused false;
        not_leader_waits_for_leader: ErrorCode::NOT_LEADER_OR_FOLLOWER => WaitForLeader, refused true;
        request_timed_out_is_retried: ErrorCode::REQUEST_TIMED_OUT => Retry, refused false;
        message_too_large_is_split: ErrorCode::MESSAGE_TOO_LARGE => Split, refused true;
        network_exception_is_retried: ErrorCode::NETWORK_EXCEPTION => Retry, refused false;
        coordinator_load_is_waited_for: ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Wait, refused false;
        missing_coordinator_is_waited_for: ErrorCode::COORDINATOR_NOT_AVAILABLE => Wait, refused false;
        not_coordinator_waits: ErrorCode::NOT_COORDINATOR => Wait, refused false;
        invalid_topic_is_rejected: ErrorCode::INVALID_TOPIC_EXCEPTION => Reject, refused true;
        record_list_too_large_is_split: ErrorCode::RECORD_LIST_TOO_LARGE => Split, refused true;
        missing_replicas_refuse_and_wait: ErrorCode::NOT_ENOUGH_REPLICAS => Wait, refused true;
        missing_replicas_after_append_wait: ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND => Wait, refused false;
        invalid_acks_are_rejected: ErrorCode::INVALID_REQUIRED_ACKS => Reject, refused true;
        topic_authorization_is_rejected: ErrorCode::TOPIC_AUTHORIZATION_FAILED => Reject, refused true;
        cluster_authorization_is_rejected: ErrorCode::CLUSTER_AUTHORIZATION_FAILED => Reject, refused true;
        invalid_timestamp_is_rejected: ErrorCode::INVALID_TIMESTAMP => Reject, refused true;
        unsupported_version_is_rejected: ErrorCode::UNSUPPORTED_VERSION => Reject, refused true;
        invalid_request_is_rejected: ErrorCode::INVALID_REQUEST => Reject, refused true;
        unsupported_format_is_rejected: ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT => Reject, refused true;
        policy_violation_is_rejected: ErrorCode::POLICY_VIOLATION => Reject, refused true;
        out_of_order_checks_sequence: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => Sequence, refused true;
        duplicate_sequence_is_duplicate: ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Duplicate, refused false;
        invalid_epoch_checks_sequence: ErrorCode::INVALID_PRODUCER_EPOCH => Sequence, refused true;
        invalid_transaction_state_is_rejected: ErrorCode::INVALID_TXN_STATE => Reject, refused true;
        storage_error_waits_for_leader: ErrorCode::KAFKA_STORAGE_ERROR => WaitForLeader, refused false;
        unknown_producer_id_checks_sequence: ErrorCode::UNKNOWN_PRODUCER_ID => Sequence, refused true;
        fenced_leader_epoch_waits: ErrorCode::FENCED_LEADER_EPOCH => WaitForLeader, refused true;
        unknown_leader_epoch_waits: ErrorCode::UNKNOWN_LEADER_EPOCH => WaitForLeader, refused false;
        unsupported_compression_is_rejected: ErrorCode::UNSUPPORTED_COMPRESSION_TYPE => Reject, refused true;
        invalid_record_is_rejected: ErrorCode::INVALID_RECORD => Reject, refused true;
        throttling_error_waits: ErrorCode::THROTTLING_QUOTA_EXCEEDED => Wait, refused false;
        unknown_topic_id_requests_id: ErrorCode::UNKNOWN_TOPIC_ID => NewTopicId, refused true;
        inconsistent_topic_id_requests_id: ErrorCode::INCONSISTENT_TOPIC_ID => NewTopicId, refused true;
        unknown_code_is_rejected: ErrorCode(999) => Reject, refused false;
    }

    #[test]
    fn error_offset_rarely_proves_append() {
        for code in ErrorCode::all() {
            let expected = REFUSALS.contains(&code);
            assert_eq!(classify_with_offset(code).refused, expected, "{code}");
        }
        for code in
            [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH]
        {
            assert!(classify_without_offset(code).refused && !classify_with_offset(code).refused, "{code}");
        }
    }

    #[test]
    fn missing_replicas_with_offset_wait() {
        let waits = Classification { treatment: Treatment::Wait, refused: false };
        for code in [ErrorCode::REQUEST_TIMED_OUT, ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND] {
            assert_eq!(classify_with_offset(code), waits, "{code}");
        }
    }

    #[test]
    fn codes_without_row_follow_kafka() {
        for code in ErrorCode::all().filter(|code| !ROWS.iter().any(|row| row.0 == *code)) {
            let expected = if code.is_retriable() { Treatment::Retry } else { Treatment::Reject };
            assert_eq!(classify_without_offset(code).treatment, expected, "{code}");
        }
    }

    #[test]
    fn errors_after_append_are_open() {
        for code in [
            ErrorCode::UNKNOWN_SERVER_ERROR,
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            ErrorCode::KAFKA_STORAGE_ERROR,
        ] {
            assert!(!classify_without_offset(code).refused, "{code}");
        }
    }
}
