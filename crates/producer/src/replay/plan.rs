//! What is done with each letter of a replay.
//!
//! Rules: pure; a letter that may be in the log already is left out, unless somebody says otherwise or looked; one that
//! was sent again too often is left out; a letter goes to the log, with what is known of it, before its record leaves.

use kafka_courier_batcher::partition_for_key;
use kafka_courier_dlq::{Bytes, Letter, Outcome, Timestamp, Uuid};

use super::{Doubtful, Replay};

/// What becomes of a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// It is sent: it is certainly not in the log, or somebody takes the risk.
    Send,
    /// It is looked for first.
    Check,
    /// It may be in the log, and nobody said what to do with such letters.
    LeaveOut,
    /// It was sent again so often that another time would be no better.
    TooOften,
}

/// The reason of a letter whose replay has not ended.
pub(crate) const IN_REPLAY: &str = "a replay of it was interrupted";

/// Whether a replay had this letter in hand when its process ended.
pub(crate) fn was_interrupted(letter: &Letter) -> bool {
    letter.outcome == Outcome::Unknown && letter.failure_reason.starts_with(IN_REPLAY)
}

/// Decides on a letter that was selected.
pub(crate) fn decide(letter: &Letter, replay: &Replay) -> Decision {
    if letter.replay_count >= replay.max_replays {
        return Decision::TooOften;
    }
    match (letter.outcome, replay.doubtful) {
        (Outcome::NotWritten, _) | (Outcome::Unknown, Doubtful::Send) => Decision::Send,
        (Outcome::Unknown, Doubtful::Verify { .. }) => Decision::Check,
        (Outcome::Unknown, Doubtful::LeaveOut) if was_interrupted(letter) => Decision::Check,
        (Outcome::Unknown, Doubtful::LeaveOut) => Decision::LeaveOut,
    }
}

/// What is known of an attempt to send a letter again, before its record leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) now: Timestamp,
    pub(crate) partition: i32,
    /// The topic's id now; `None` where nobody tells.
    pub(crate) topic_id: Option<Uuid>,
    pub(crate) producer_id: Option<i64>,
    /// Where the partition's log ends now.
    pub(crate) log_end: Option<i64>,
}

/// The letter as it stands in its store while its record is under way: whoever finds it so knows that it may have been
/// written, by whom, and from where on to look.
pub(crate) fn in_hand(letter: &Letter, attempt: &Attempt) -> Letter {
    let mut marked = letter.clone();
    let same_place = letter.partition == Some(attempt.partition) && letter.topic_id == attempt.topic_id;
    marked.partition = Some(attempt.partition);
    marked.topic_id = attempt.topic_id;
    let was = match letter.failure_reason.strip_prefix(IN_REPLAY) {
        Some(rest) => rest.trim_start_matches("; before: "),
        None => &letter.failure_reason,
    };
    marked.failure_reason = format!("{IN_REPLAY}; before: {was}");
    marked.replay_count = letter.replay_count.saturating_add(1);
    marked.outcome = Outcome::Unknown;
    marked.last_attempt = attempt.now;
    (marked.producer_epoch, marked.sequence) = (None, None);
    if letter.outcome == Outcome::Unknown {
        // Two doubts can't be settled by one check of one producer's stamp; its ids may still be found.
        marked.producer_id = None;
        marked.search_from = letter.search_from.filter(|_| same_place);
    } else {
        marked.producer_id = attempt.producer_id;
        marked.search_from = attempt.log_end;
    }
    marked
}

/// The partition that a letter's record goes to: its own, while the topic has it, else its key's, or any.
pub(crate) fn partition(letter: &Letter, count: i32, any: impl FnOnce() -> i32) -> i32 {
    let own = letter.partition.filter(|partition| (0..count).contains(partition));
    own.unwrap_or_else(|| match &letter.key {
        Some(key) => partition_for_key(key, count.max(1)),
        None => any(),
    })
}

/// The letter after its record was not even accepted again, or failed in a way that told nothing new.
pub(crate) fn put_back(letter: &Letter, now: Timestamp, reason: String) -> Letter {
    let mut back = letter.clone();
    back.replay_count = letter.replay_count.saturating_add(1);
    back.attempt_count = letter.attempt_count.saturating_add(1);
    back.last_attempt = now;
    back.failure_reason = reason;
    back
}

/// The letter, of which it is proved that it is not in the log.
pub(crate) fn certain(mut letter: Letter) -> Letter {
    letter.outcome = Outcome::NotWritten;
    (letter.producer_id, letter.producer_epoch, letter.sequence) = (None, None, None);
    letter
}

/// A record's headers.
pub(crate) type Headers = Vec<(String, Option<Bytes>)>;

/// The headers of a letter's record when it is sent again: its own, and what ties it to its letter.
pub(crate) fn headers(letter: &Letter) -> Headers {
    use crate::headers::{DLQ_ID, DLQ_ORIGINAL_TIMESTAMP, DLQ_POSSIBLY_WRITTEN, DLQ_REPLAY_COUNT};
    let mut headers: Headers = letter.headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into())));
    add(DLQ_ID, letter.id.to_string());
    add(DLQ_REPLAY_COUNT, (letter.replay_count.saturating_add(1)).to_string());
    if letter.outcome == Outcome::Unknown {
        add(DLQ_POSSIBLY_WRITTEN, "true".to_owned());
    }
    if let Ok(at) = Timestamp::from_millisecond(letter.timestamp_ms) {
        add(DLQ_ORIGINAL_TIMESTAMP, at.to_string());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(outcome: Outcome) -> Letter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        letter.outcome = outcome;
        letter
    }

    fn attempt(partition: i32, producer_id: Option<i64>, log_end: Option<i64>) -> Attempt {
        Attempt { now: Timestamp::UNIX_EPOCH, partition, topic_id: None, producer_id, log_end }
    }

    #[test]
    fn what_is_certainly_not_written_is_sent_whatever_was_said_of_the_others() {
        for doubtful in [Doubtful::LeaveOut, Doubtful::Send, Doubtful::Verify { force: false }] {
            let replay = Replay { doubtful, ..Replay::default() };
            assert_eq!(decide(&letter(Outcome::NotWritten), &replay), Decision::Send);
        }
    }

    #[test]
    fn what_may_be_written_is_left_out_unless_told() {
        let decided = |doubtful| decide(&letter(Outcome::Unknown), &Replay { doubtful, ..Replay::default() });
        assert_eq!(decided(Doubtful::LeaveOut), Decision::LeaveOut);
        assert_eq!(decided(Doubtful::Verify { force: true }), Decision::Check);
        assert_eq!(decided(Doubtful::Send), Decision::Send);
    }

    #[test]
    fn what_another_replay_had_in_hand_is_looked_for_unasked() {
        let marked = in_hand(&letter(Outcome::NotWritten), &attempt(0, Some(7), Some(40)));
        assert!(was_interrupted(&marked));
        assert_eq!((marked.producer_id, marked.search_from, marked.replay_count), (Some(7), Some(40), 1));
        assert_eq!(decide(&marked, &Replay::default()), Decision::Check);
    }

    #[test]
    fn a_letter_in_hand_twice_keeps_its_first_reason_and_claims_no_single_producer() {
        let once = in_hand(&letter(Outcome::NotWritten), &attempt(0, Some(7), Some(40)));
        let twice = in_hand(&once, &attempt(0, Some(8), Some(90)));
        assert_eq!(twice.failure_reason, once.failure_reason);
        assert_eq!((twice.producer_id, twice.search_from, twice.replay_count), (None, Some(40), 2));
    }

    #[test]
    fn a_letter_goes_to_its_own_partition_while_there_is_such() {
        let mut letter = letter(Outcome::NotWritten);
        letter.key = Some(Bytes::from_static(b"k"));
        let by_key = partition_for_key(b"k", 4);
        letter.partition = Some(3 - by_key);
        assert_eq!(partition(&letter, 4, || 9), 3 - by_key);
        letter.partition = Some(4);
        assert_eq!(partition(&letter, 4, || 9), by_key);
        letter.key = None;
        assert_eq!(partition(&letter, 4, || 2), 2);
    }

    #[test]
    fn a_doubt_about_one_partition_is_not_bounded_by_an_offset_of_another() {
        let mut doubtful = letter(Outcome::Unknown);
        (doubtful.partition, doubtful.search_from) = (Some(1), Some(7));
        assert_eq!(in_hand(&doubtful, &attempt(1, None, Some(9))).search_from, Some(7));
        assert_eq!(in_hand(&doubtful, &attempt(0, None, Some(9))).search_from, None);
    }

    #[test]
    fn a_letter_that_was_sent_again_too_often_is_left_out() {
        let mut letter = letter(Outcome::NotWritten);
        letter.replay_count = Replay::default().max_replays;
        assert_eq!(decide(&letter, &Replay::default()), Decision::TooOften);
    }

    #[test]
    fn a_record_that_is_sent_again_says_which_letter_it_was() {
        let names: Vec<String> = headers(&letter(Outcome::NotWritten)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["dlq.id", "dlq.replay-count", "dlq.original-timestamp"]);
    }
}
