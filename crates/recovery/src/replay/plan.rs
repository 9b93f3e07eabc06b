//! Decides on one letter alone: send it, search the log for it, or leave it. Computes its new states.
//!
//! Rules:
//! - Pure.
//! - A letter that may be in the log is left out, unless the caller accepts a duplicate or a check has an answer.
//! - A letter that was replayed too often is left out.
//! - The letter's state is in the store, with all that is known of the attempt, before its record leaves.
//! - The field `replay` says that a letter is in progress. The text of `failure_reason` decides nothing.

use kafka_courier_batcher::{EncodedBatch, PushError, Record, Stamp, partition_for_key};
use kafka_courier_dlq::{Header, Letter, Outcome, ReplayState, Timestamp, Uuid};
use kafka_courier_producer::wall_clock_ms;

use super::{Doubtful, Replay};
use crate::headers::borrowed_headers;
use crate::verify::oldest_remembered_ms;

/// The action of a replay on a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// Send the record: it is certainly not in the log, or the caller accepts a duplicate.
    Send,
    /// Search the log for the record first.
    Check,
    /// Leave the letter where it is: its record may be in the log, and the caller did not say how to treat such letters.
    LeaveOut,
    /// Leave the letter where it is: it was replayed too often.
    TooOften,
}

/// Decides on a selected letter.
pub(crate) fn decide(letter: &Letter, replay: &Replay) -> Decision {
    if letter.replay_count >= replay.max_replays {
        return Decision::TooOften;
    }
    match (letter.outcome, replay.doubtful) {
        (Outcome::NotWritten, _) | (Outcome::Unknown, Doubtful::Send) => Decision::Send,
        (Outcome::Unknown, Doubtful::Verify { .. }) => Decision::Check,
        (Outcome::Unknown, Doubtful::LeaveOut) if letter.is_replay_unfinished() => Decision::Check,
        (Outcome::Unknown, Doubtful::LeaveOut) => Decision::LeaveOut,
    }
}

/// Returns the letter as it is sent: for another topic, without its position in the former topic.
pub(crate) fn rerouted(mut letter: Letter, replay: &Replay) -> Letter {
    if replay.reroutes(&letter) {
        letter.topic = replay.topic_of(&letter).to_owned();
        letter.forget_place();
    }
    letter
}

/// An attempt to send a letter, as known before its record leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayAttempt {
    pub(crate) now: Timestamp,
    pub(crate) partition: i32,
    /// The topic's id now. `None` if it is not known.
    pub(crate) topic_id: Option<Uuid>,
    pub(crate) producer_id: Option<i64>,
    /// The partition's high watermark now.
    pub(crate) log_end: Option<i64>,
}

/// Returns the letter as it is stored while its record is in progress: the record may be in the log, under this producer
/// id, from this offset.
pub(crate) fn in_progress(letter: &Letter, attempt: &ReplayAttempt) -> Letter {
    let mut marked = letter.clone();
    let same_place = letter.partition == Some(attempt.partition) && letter.topic_id == attempt.topic_id;
    marked.partition = Some(attempt.partition);
    marked.topic_id = attempt.topic_id;
    marked.replay = ReplayState::InProgress;
    marked.replay_count = letter.replay_count.saturating_add(1);
    marked.outcome = Outcome::Unknown;
    marked.last_attempt = attempt.now;
    (marked.producer_epoch, marked.sequence) = (None, None);
    if letter.outcome == Outcome::Unknown {
        // A check of one producer's stamp cannot settle two open attempts. The ids in the headers can still be found.
        marked.producer_id = None;
        marked.search_from = letter.search_from.filter(|_| same_place);
    } else {
        marked.producer_id = attempt.producer_id;
        marked.search_from = attempt.log_end;
    }
    marked
}

/// Returns the stored state of a letter that is certainly not in the log and leaves in its own batch.
///
/// No other record in this partition ever has the stamp's producer id. A leader that remembers the stamp appends the record
/// once, even if a copy with the same stamp arrives earlier or later.
pub(crate) fn in_progress_stamped(letter: &Letter, attempt: &ReplayAttempt, stamp: Stamp) -> Letter {
    let mut marked = in_progress(letter, attempt);
    marked.producer_id = Some(stamp.producer_id);
    (marked.producer_epoch, marked.sequence) = (Some(stamp.epoch), Some(stamp.base_sequence));
    marked.replay = ReplayState::Stamped {
        producer_id: stamp.producer_id,
        producer_epoch: stamp.epoch,
        sequence: stamp.base_sequence,
    };
    marked
}

/// Returns the stamp for sending a letter again although a copy may be in flight. `None` if the letter did not leave in its
/// own batch, or left too early: its leader may have forgotten the stamp.
pub(crate) fn stamp_to_repeat(letter: &Letter, now_ms: i64) -> Option<Stamp> {
    let ReplayState::Stamped { producer_id, producer_epoch, sequence } = letter.replay else { return None };
    let sent_at = letter.last_attempt.as_millisecond();
    let is_young = (oldest_remembered_ms(now_ms)
        ..=now_ms.saturating_mul(2).saturating_sub(oldest_remembered_ms(now_ms)))
        .contains(&sent_at);
    let stamp = Stamp { producer_id, epoch: producer_epoch, base_sequence: sequence };
    (letter.is_replay_unfinished() && is_young).then_some(stamp)
}

/// Returns the letter after a failed repeat under its stamp. The first copy stays in doubt, and so does the time since
/// when. `counts` says whether this was a replay: not if the cluster was the cause.
pub(crate) fn after_failed_repeat(letter: &Letter, counts: bool) -> Letter {
    let replay_count = letter.replay_count.saturating_add(counts.into());
    Letter { replay_count, attempt_count: letter.attempt_count.saturating_add(1), ..letter.clone() }
}

/// Corrects the replay count of a letter whose stored state has counted the replay already. The attempt count grows, so
/// that this state is newer than the stored one.
pub(crate) fn with_replay_counted(letter: Letter, counts: bool) -> Letter {
    let replay_count = letter.replay_count.saturating_sub((!counts).into());
    Letter { replay_count, attempt_count: letter.attempt_count.saturating_add(1), ..letter }
}

/// Encodes a letter's record in its own batch. The record's timestamp is the present time.
pub(crate) fn single_record_batch(letter: &Letter) -> Result<EncodedBatch, PushError> {
    let headers = headers(letter);
    EncodedBatch::single(&Record {
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: &borrowed_headers(&headers),
        timestamp: wall_clock_ms(),
    })
}

/// Returns the partition for a letter's record: the letter's own while the topic has it, else the key's, or `any` without
/// a key.
pub(crate) fn target_partition(letter: &Letter, count: i32, any: impl FnOnce() -> i32) -> i32 {
    let own = letter.partition.filter(|partition| (0..count).contains(partition));
    own.unwrap_or_else(|| match &letter.key {
        Some(key) => partition_for_key(key, count.max(1)),
        None => any(),
    })
}

/// Returns the letter after its record was refused, or failed without a new fact about the log. `counts` says whether this
/// was a replay: not if the cluster was the cause.
pub(crate) fn after_failed_attempt(letter: &Letter, now: Timestamp, reason: String, counts: bool) -> Letter {
    let mut back = letter.clone();
    back.replay_count = letter.replay_count.saturating_add(counts.into());
    back.attempt_count = letter.attempt_count.saturating_add(1);
    back.last_attempt = now;
    back.failure_reason = reason;
    back.replay = ReplayState::Idle;
    back
}

/// Returns the reason of a letter that left as a fence and was not written.
pub(crate) fn fence_failure_reason(why: &str) -> String {
    format!("the replay failed: {why}")
}

/// Returns the letter with the outcome that its record is certainly not in the log.
pub(crate) fn proved_absent(mut letter: Letter) -> Letter {
    letter.outcome = Outcome::NotWritten;
    letter.replay = ReplayState::Idle;
    (letter.producer_id, letter.producer_epoch, letter.sequence) = (None, None, None);
    letter
}

/// Returns the headers of a replayed record: the record's own, and the identity of its letter.
pub(crate) fn headers(letter: &Letter) -> Vec<Header> {
    use crate::headers::{DLQ_ID, DLQ_ORIGINAL_TIMESTAMP, DLQ_POSSIBLY_WRITTEN, DLQ_REPLAY_COUNT};
    let mut headers = letter.headers.clone();
    let mut add = |name: &str, value: String| headers.push(Header { name: name.to_owned(), value: Some(value.into()) });
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
    use kafka_courier_dlq::Bytes;

    use super::*;

    fn letter(outcome: Outcome) -> Letter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        letter.outcome = outcome;
        letter
    }

    fn attempt(partition: i32, producer_id: Option<i64>, log_end: Option<i64>) -> ReplayAttempt {
        ReplayAttempt { now: Timestamp::UNIX_EPOCH, partition, topic_id: None, producer_id, log_end }
    }

    #[test]
    fn unwritten_letter_is_always_sent() {
        for doubtful in [Doubtful::LeaveOut, Doubtful::Send, Doubtful::Verify { force: false }] {
            let replay = Replay { doubtful, ..Replay::default() };
            assert_eq!(decide(&letter(Outcome::NotWritten), &replay), Decision::Send);
        }
    }

    #[test]
    fn unknown_outcome_follows_the_option() {
        let decided = |doubtful| decide(&letter(Outcome::Unknown), &Replay { doubtful, ..Replay::default() });
        assert_eq!(decided(Doubtful::LeaveOut), Decision::LeaveOut);
        assert_eq!(decided(Doubtful::Verify { force: true }), Decision::Check);
        assert_eq!(decided(Doubtful::Send), Decision::Send);
    }

    #[test]
    fn unfinished_replay_is_checked() {
        let marked = in_progress(&letter(Outcome::NotWritten), &attempt(0, Some(7), Some(40)));
        assert_eq!(marked.replay, ReplayState::InProgress);
        assert_eq!((marked.producer_id, marked.search_from, marked.replay_count), (Some(7), Some(40), 1));
        assert_eq!(decide(&marked, &Replay::default()), Decision::Check);
    }

    /// Neither the text of format 1 nor any other text changes the decision.
    #[test]
    fn reason_text_decides_nothing() {
        let mut reworded = letter(Outcome::Unknown);
        reworded.failure_reason = "a replay of it was interrupted while it went alone; before: why".to_owned();
        (reworded.producer_id, reworded.producer_epoch, reworded.sequence) = (Some(7), Some(0), Some(0));
        assert_eq!(decide(&reworded, &Replay::default()), Decision::LeaveOut);
        assert_eq!(stamp_to_repeat(&reworded, 0), None);
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0 };
        let mut stamped = in_progress_stamped(&letter(Outcome::NotWritten), &attempt(0, None, None), stamp);
        stamped.failure_reason = "because".to_owned();
        assert_eq!(decide(&stamped, &Replay::default()), Decision::Check);
        assert_eq!(stamp_to_repeat(&stamped, 0), Some(stamp));
    }

    #[test]
    fn second_attempt_keeps_the_first_reason() {
        let once = in_progress(&letter(Outcome::NotWritten), &attempt(0, Some(7), Some(40)));
        let twice = in_progress(&once, &attempt(0, Some(8), Some(90)));
        assert_eq!((twice.failure_reason.as_str(), twice.replay), ("why", ReplayState::InProgress));
        assert_eq!((twice.producer_id, twice.search_from, twice.replay_count), (None, Some(40), 2));
    }

    #[test]
    fn young_stamp_is_repeated() {
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0 };
        let attempt = attempt(0, None, Some(40));
        let stamped = in_progress_stamped(&letter(Outcome::NotWritten), &attempt, stamp);
        assert!(stamped.is_replay_unfinished() && stamped.search_from == Some(40));
        let hours = |hours: i64| hours * 60 * 60 * 1000;
        for (now, wanted) in [(hours(0), true), (hours(11), true), (hours(13), false), (hours(-13), false)] {
            assert_eq!(stamp_to_repeat(&stamped, now), wanted.then_some(stamp), "{now}");
            assert_eq!(stamp_to_repeat(&after_failed_repeat(&stamped, true), now), wanted.then_some(stamp), "{now}");
        }
        let mut with_others = in_progress(&letter(Outcome::NotWritten), &attempt);
        (with_others.producer_id, with_others.producer_epoch, with_others.sequence) = (Some(7), Some(0), Some(0));
        assert_eq!(stamp_to_repeat(&with_others, 0), None);
        assert_eq!(in_progress(&stamped, &attempt).replay, ReplayState::InProgress);
        assert_eq!(stamp_to_repeat(&proved_absent(stamped), 0), None);
    }

    #[test]
    fn existing_partition_is_kept() {
        let mut letter = letter(Outcome::NotWritten);
        letter.key = Some(Bytes::from_static(b"k"));
        let by_key = partition_for_key(b"k", 4);
        letter.partition = Some(3 - by_key);
        assert_eq!(target_partition(&letter, 4, || 9), 3 - by_key);
        letter.partition = Some(4);
        assert_eq!(target_partition(&letter, 4, || 9), by_key);
        letter.key = None;
        assert_eq!(target_partition(&letter, 4, || 2), 2);
    }

    #[test]
    fn other_partition_has_no_search_bound() {
        let mut doubtful = letter(Outcome::Unknown);
        (doubtful.partition, doubtful.search_from) = (Some(1), Some(7));
        assert_eq!(in_progress(&doubtful, &attempt(1, None, Some(9))).search_from, Some(7));
        assert_eq!(in_progress(&doubtful, &attempt(0, None, Some(9))).search_from, None);
    }

    #[test]
    fn replay_limit_leaves_out() {
        let mut letter = letter(Outcome::NotWritten);
        letter.replay_count = Replay::default().max_replays;
        assert_eq!(decide(&letter, &Replay::default()), Decision::TooOften);
    }

    #[test]
    fn rerouted_letter_has_no_place() {
        let mut letter = letter(Outcome::NotWritten);
        (letter.partition, letter.producer_id, letter.search_from) = (Some(3), Some(7), Some(9));
        let to = |topic: &str| Replay { to_topic: Some(topic.to_owned()), ..Replay::default() };
        assert_eq!(rerouted(letter.clone(), &Replay::default()), letter);
        assert_eq!(rerouted(letter.clone(), &to("t")), letter);
        let elsewhere = rerouted(letter.clone(), &to("other"));
        assert_eq!((elsewhere.topic.as_str(), elsewhere.partition, elsewhere.search_from), ("other", None, None));
        assert_eq!((elsewhere.id, elsewhere.producer_id), (letter.id, None));
    }

    #[test]
    fn outage_counts_no_replay() {
        let before = letter(Outcome::NotWritten);
        let marked = in_progress(&before, &attempt(0, Some(7), None));
        for (counts, replays) in [(false, 0), (true, 1)] {
            let back = after_failed_attempt(&before, Timestamp::UNIX_EPOCH, "why".to_owned(), counts);
            assert_eq!((back.replay_count, back.attempt_count), (replays, before.attempt_count + 1));
            assert_eq!(with_replay_counted(marked.clone(), counts).replay_count, replays);
            assert_eq!(after_failed_repeat(&before, counts).replay_count, replays);
        }
    }

    #[test]
    fn failed_attempt_ends_the_replay() {
        let marked = in_progress(&letter(Outcome::NotWritten), &attempt(0, Some(7), None));
        let back = after_failed_attempt(&marked, Timestamp::UNIX_EPOCH, "refused".to_owned(), true);
        assert!(!back.is_replay_unfinished());
        assert_eq!(decide(&back, &Replay::default()), Decision::LeaveOut);
        assert_eq!(proved_absent(marked).replay, ReplayState::Idle);
    }

    #[test]
    fn each_settled_state_is_newer() {
        use kafka_courier_dlq::{Compared, Digest};
        let before = letter(Outcome::NotWritten);
        let attempt = ReplayAttempt { now: Timestamp::from_second(9).unwrap_or_default(), ..attempt(0, Some(7), None) };
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0 };
        let marked = in_progress_stamped(&before, &attempt, stamp);
        let mut states = vec![(before, marked.clone())];
        for counts in [false, true] {
            states.push((marked.clone(), with_replay_counted(marked.clone(), counts)));
            states.push((marked.clone(), proved_absent(with_replay_counted(marked.clone(), counts))));
            states.push((marked.clone(), after_failed_repeat(&marked, counts)));
            states.push((marked.clone(), after_failed_attempt(&marked, attempt.now, "why".to_owned(), counts)));
        }
        states.push((marked.clone(), proved_absent(marked)));
        for (older, newer) in states {
            let (older, newer) = (Digest::of(&older), Digest::of(&newer));
            assert_eq!((older.compare(&newer), newer.compare(&older)), (Compared::Newer, Compared::Older), "{newer:?}");
        }
    }

    #[test]
    fn replayed_record_identifies_its_letter() {
        let names: Vec<String> = headers(&letter(Outcome::NotWritten)).into_iter().map(|header| header.name).collect();
        assert_eq!(names, ["dlq.id", "dlq.replay-count", "dlq.original-timestamp"]);
    }
}
