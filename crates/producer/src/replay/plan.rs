//! What is done with each letter of a replay.
//!
//! Rules: pure; a letter that may be in the log already is left out, unless somebody says otherwise or looked; one that
//! was sent again too often is left out; a letter goes to the log, with what is known of it, before its record leaves.

use kafka_courier_batcher::{EncodedBatch, PushError, Record, Stamp, partition_for_key};
use kafka_courier_dlq::{Header, Letter, Outcome, Timestamp, Uuid};

use super::{Doubtful, Replay};
use crate::record::borrowed;
use crate::shared::wall_clock_ms;
use crate::verify::young;

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
const IN_REPLAY: &str = "a replay of it was interrupted";
/// Of a letter that went alone: its stamp is no other record's. Begins as the other does.
const ALONE: &str = "a replay of it was interrupted while it went alone";

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

/// The letter as it is sent: where it goes to another topic nothing is known of its place there.
pub(crate) fn rerouted(mut letter: Letter, replay: &Replay) -> Letter {
    if replay.reroutes(&letter) {
        letter.topic = replay.topic_of(&letter).to_owned();
        letter.forget_place();
    }
    letter
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
    marked.failure_reason = format!("{IN_REPLAY}; before: {}", reason_before(letter));
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

/// Why a letter was given up before any replay.
fn reason_before(letter: &Letter) -> &str {
    let reason = letter.failure_reason.as_str();
    let rest = reason.strip_prefix(ALONE).or_else(|| reason.strip_prefix(IN_REPLAY));
    rest.map_or(reason, |rest| rest.trim_start_matches("; before: "))
}

/// As [`in_hand`], of a letter that is certainly not in the log and goes alone: in a batch of its own, under a stamp whose
/// producer id sends nothing else to this partition, ever. Sent again under the same stamp it is taken once by a leader
/// that remembers it, whichever copy comes first.
pub(crate) fn in_hand_alone(letter: &Letter, attempt: &Attempt, stamp: Stamp) -> Letter {
    let mut marked = in_hand(letter, attempt);
    marked.failure_reason = format!("{ALONE}; before: {}", reason_before(letter));
    marked.producer_id = Some(stamp.producer_id);
    (marked.producer_epoch, marked.sequence) = (Some(stamp.epoch), Some(stamp.base_sequence));
    marked
}

/// The stamp under which a letter may go once more, though it may be under way: it went alone, and so lately that its
/// leader certainly still remembers what it took under this stamp.
pub(crate) fn stamp_to_repeat(letter: &Letter, now_ms: i64) -> Option<Stamp> {
    let went_at = letter.last_attempt.as_millisecond();
    let is_young = (young(now_ms)..=now_ms.saturating_mul(2).saturating_sub(young(now_ms))).contains(&went_at);
    let went_alone = was_interrupted(letter) && letter.failure_reason.starts_with(ALONE);
    let (producer_id, epoch) = (letter.producer_id?, letter.producer_epoch?);
    (went_alone && is_young).then_some(Stamp { producer_id, epoch, base_sequence: letter.sequence? })
}

/// The letter after it went once more under its stamp and nothing came of that: the doubt is as it was, and so is the
/// time that it is counted from. `counts` says whether that was a replay: not if the cluster is the cause.
pub(crate) fn still_alone(letter: &Letter, counts: bool) -> Letter {
    let replay_count = letter.replay_count.saturating_add(counts.into());
    Letter { replay_count, attempt_count: letter.attempt_count.saturating_add(1), ..letter.clone() }
}

/// A letter whose mark has counted the replay already, once it is known whether that counts. Its attempts grow, by which
/// this state is newer than the mark's.
pub(crate) fn counted(letter: Letter, counts: bool) -> Letter {
    let replay_count = letter.replay_count.saturating_sub((!counts).into());
    Letter { replay_count, attempt_count: letter.attempt_count.saturating_add(1), ..letter }
}

/// A letter's record in a batch of its own, with the present time as its timestamp.
pub(crate) fn single(letter: &Letter) -> Result<EncodedBatch, PushError> {
    let headers = headers(letter);
    EncodedBatch::single(&Record {
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: &borrowed(&headers),
        timestamp: wall_clock_ms(),
    })
}

/// The partition that a letter's record goes to: its own, while the topic has it, else its key's, or any.
pub(crate) fn partition(letter: &Letter, count: i32, any: impl FnOnce() -> i32) -> i32 {
    let own = letter.partition.filter(|partition| (0..count).contains(partition));
    own.unwrap_or_else(|| match &letter.key {
        Some(key) => partition_for_key(key, count.max(1)),
        None => any(),
    })
}

/// The letter after its record was not even accepted again, or failed in a way that told nothing new. `counts` says
/// whether that was a replay: not if the cluster is the cause.
pub(crate) fn put_back(letter: &Letter, now: Timestamp, reason: String, counts: bool) -> Letter {
    let mut back = letter.clone();
    back.replay_count = letter.replay_count.saturating_add(counts.into());
    back.attempt_count = letter.attempt_count.saturating_add(1);
    back.last_attempt = now;
    back.failure_reason = reason;
    back
}

/// What a fence's letter says after it was not written.
pub(crate) fn not_written(why: &str) -> String {
    format!("it could not be sent again: {why}")
}

/// The letter, of which it is proved that it is not in the log.
pub(crate) fn certain(mut letter: Letter) -> Letter {
    letter.outcome = Outcome::NotWritten;
    (letter.producer_id, letter.producer_epoch, letter.sequence) = (None, None, None);
    letter
}

/// The headers of a letter's record when it is sent again: its own, and what ties it to its letter.
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
    fn only_a_letter_that_went_alone_and_lately_goes_once_more_under_its_stamp() {
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0 };
        let attempt = attempt(0, None, Some(40));
        let alone = in_hand_alone(&letter(Outcome::NotWritten), &attempt, stamp);
        assert!(was_interrupted(&alone) && alone.search_from == Some(40));
        let hours = |hours: i64| hours * 60 * 60 * 1000;
        for (now, wanted) in [(hours(0), true), (hours(11), true), (hours(13), false), (hours(-13), false)] {
            assert_eq!(stamp_to_repeat(&alone, now), wanted.then_some(stamp), "{now}");
            assert_eq!(stamp_to_repeat(&still_alone(&alone, true), now), wanted.then_some(stamp), "{now}");
        }
        let mut with_others = in_hand(&letter(Outcome::NotWritten), &attempt);
        (with_others.producer_id, with_others.producer_epoch, with_others.sequence) = (Some(7), Some(0), Some(0));
        assert_eq!(stamp_to_repeat(&with_others, 0), None);
        assert_eq!(in_hand(&alone, &attempt).failure_reason, with_others.failure_reason);
        assert_eq!(stamp_to_repeat(&certain(alone), 0), None);
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
    fn a_rerouted_letter_has_no_place() {
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
        let marked = in_hand(&before, &attempt(0, Some(7), None));
        for (counts, replays) in [(false, 0), (true, 1)] {
            let back = put_back(&before, Timestamp::UNIX_EPOCH, "why".to_owned(), counts);
            assert_eq!((back.replay_count, back.attempt_count), (replays, before.attempt_count + 1));
            assert_eq!(counted(marked.clone(), counts).replay_count, replays);
            assert_eq!(still_alone(&before, counts).replay_count, replays);
        }
    }

    #[test]
    fn each_settled_state_is_newer() {
        use kafka_courier_dlq::{Compared, Digest};
        let before = letter(Outcome::NotWritten);
        let attempt = Attempt { now: Timestamp::from_second(9).unwrap_or_default(), ..attempt(0, Some(7), None) };
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0 };
        let marked = in_hand_alone(&before, &attempt, stamp);
        let mut states = vec![(before, marked.clone())];
        for counts in [false, true] {
            states.push((marked.clone(), counted(marked.clone(), counts)));
            states.push((marked.clone(), certain(counted(marked.clone(), counts))));
            states.push((marked.clone(), still_alone(&marked, counts)));
            states.push((marked.clone(), put_back(&marked, attempt.now, "why".to_owned(), counts)));
        }
        states.push((marked.clone(), certain(marked)));
        for (older, newer) in states {
            let (older, newer) = (Digest::of(&older), Digest::of(&newer));
            assert_eq!((older.compare(&newer), newer.compare(&older)), (Compared::Newer, Compared::Older), "{newer:?}");
        }
    }

    #[test]
    fn a_record_that_is_sent_again_says_which_letter_it_was() {
        let names: Vec<String> = headers(&letter(Outcome::NotWritten)).into_iter().map(|header| header.name).collect();
        assert_eq!(names, ["dlq.id", "dlq.replay-count", "dlq.original-timestamp"]);
    }
}
