//! Every way in which a request can land, late or never, and what may be said of it.

use kafka_courier_batcher::Stamp;
use proptest::prelude::*;

use super::check::{PartitionCheck, Topic};
use super::model::{DAY, ModelLog, NOW, Q, TOPIC, UUID, bytes, doubt, stamp, verdicts};
use super::scan::{ScanError, scan};
use super::verifier::{FenceOutcome, Sent, outcome_of};
use super::{Doubt, Verdict, WhyNot};

fn not_found(why: WhyNot) -> Vec<Verdict> {
    vec![Verdict::NotFound { why }]
}

const ABSENT: [Verdict; 1] = [Verdict::Absent];

fn landed(offset: i64) -> Vec<Verdict> {
    vec![Verdict::Landed { offset }]
}

#[test]
fn scenario_15_a_request_that_landed_before_the_read_is_found() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["a", "b", "c"]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 1)])), landed(1));
}

#[test]
fn scenario_15_a_request_that_lands_between_the_read_and_the_fence_is_found_and_not_called_absent() {
    let mut log = ModelLog::default();
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    log.produce(stamp(3, 0), NOW, &["b"]);
    assert_eq!(log.fence(&mut check), 1);
    assert_eq!(check.unread_fence(), Some(2));
    log.read(&mut check);
    assert_eq!(verdicts(check), landed(0));
}

#[test]
fn scenario_15_a_request_that_comes_after_the_fence_is_refused_so_its_record_is_absent() {
    let mut log = ModelLog::default();
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(log.fence(&mut check), 1);
    log.read(&mut check);
    assert_eq!(verdicts(check), ABSENT);
    assert_eq!(log.produce(stamp(3, 0), NOW, &["b"]), None);
}

#[test]
fn without_a_fence_nothing_is_absent_for_it_may_still_land() {
    let mut log = ModelLog::default();
    log.produce(Stamp { producer_id: 43, epoch: 9, base_sequence: 0 }, NOW, &["x"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
    assert!(log.produce(stamp(3, 0), NOW, &["b"]).is_some());
}

#[test]
fn scenario_15_a_watermark_that_lags_behind_the_fence_proves_nothing_until_it_has_passed() {
    let mut log = ModelLog::default();
    log.watermark = Some(0);
    let mut check = log.check(vec![doubt("a", 3, 0), doubt("b", 3, 1)]);
    log.produce(stamp(3, 0), NOW, &["a"]);
    log.fence(&mut check);
    log.read(&mut check);
    assert_eq!(check.unread_fence(), Some(2));
    log.watermark = Some(1);
    log.read(&mut check);
    assert_eq!(check.unread_fence(), Some(2));
    let lagging = PartitionCheck::new(vec![doubt("b", 3, 1)], TOPIC);
    let lagging = {
        let mut check = lagging;
        check.begin_at(0);
        log.read(&mut check);
        check.on_fenced(stamp(1003, 0), 1);
        check
    };
    assert_eq!(verdicts(lagging), not_found(WhyNot::WatermarkBehindFence));
    log.watermark = None;
    log.read(&mut check);
    assert_eq!(verdicts(check), [Verdict::Landed { offset: 0 }, Verdict::Absent]);
}

#[test]
fn scenario_15_a_log_that_begins_past_where_the_record_may_be_proves_nothing() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["a", "b"]);
    log.produce(stamp(4, 0), NOW, &["c"]);
    log.start = 2;
    let earlier = Doubt { search_from: Some(1), ..doubt("b", 3, 1) };
    assert_eq!(verdicts(log.check(vec![earlier])), not_found(WhyNot::LogStartPast { log_start: 2 }));
    let later = Doubt { search_from: Some(2), ..doubt("z", 3, 5) };
    assert_eq!(verdicts(log.check(vec![later])), ABSENT);
}

#[test]
fn a_log_whose_start_moves_past_the_reader_proves_nothing_of_what_was_skipped() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["a"]);
    log.watermark = Some(1);
    let mut check = log.check(vec![doubt("b", 3, 1), Doubt { search_from: Some(2), ..doubt("z", 3, 7) }]);
    log.produce(stamp(3, 1), NOW, &["b"]);
    log.produce(stamp(4, 0), NOW, &["c"]);
    (log.start, log.watermark) = (2, None);
    log.read(&mut check);
    let skipped = Verdict::NotFound { why: WhyNot::LogStartPast { log_start: 2 } };
    assert_eq!(verdicts(check), [skipped, Verdict::Absent]);
}

#[test]
fn a_higher_epoch_of_the_same_id_that_is_in_the_log_is_a_fence() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(check.wanted_fences(NOW), []);
    assert_eq!(verdicts(check), ABSENT);
    assert_eq!(log.produce(stamp(3, 0), NOW, &["b"]), None);
    // The same epoch is none, nor is a lower one.
    for epoch in [4, 5] {
        assert_eq!(verdicts(log.check(vec![doubt("b", epoch, 9)])), not_found(WhyNot::NoFence));
    }
}

/// A leader that has forgotten what was read takes a late request; a new fence, which is wanted, finds it.
fn lands_after_the_read(mut log: ModelLog) -> Vec<Verdict> {
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    log.forget(check.next());
    assert_eq!(check.wanted_fences(NOW), [stamp(1004, 0)]);
    log.produce(stamp(3, 0), NOW, &["b"]);
    log.fence(&mut check);
    log.read(&mut check);
    verdicts(check)
}

#[test]
fn a_fence_so_old_that_its_leader_may_have_forgotten_it_is_none_but_a_new_one_proves() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW - DAY, &["x"]);
    assert_eq!(lands_after_the_read(log), landed(1));
}

#[test]
fn a_leader_forgets_an_id_by_its_last_batch_so_an_older_one_behind_a_young_fence_ends_it() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    log.produce(stamp(4, 1), NOW - 2 * DAY, &["y"]);
    assert_eq!(lands_after_the_read(log), landed(2));
}

#[test]
fn an_id_that_was_forgotten_and_begun_anew_under_a_lower_epoch_is_not_fenced_by_its_past() {
    let mut log = ModelLog::default();
    log.produce(stamp(5, 0), NOW - 2 * DAY, &["x"]);
    log.forget(1);
    log.produce(stamp(2, 0), NOW, &["y"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert!(log.produce(stamp(3, 0), NOW, &["b"]).is_some());
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
}

#[test]
fn a_fence_before_a_gap_is_none_for_the_ids_last_batch_may_be_in_the_gap() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    let mut check = log.check(vec![Doubt { search_from: Some(2), ..doubt("b", 3, 0) }, doubt("z", 3, 9)]);
    log.produce(stamp(4, 1), NOW - 2 * DAY, &["y"]);
    log.start = 2;
    log.read(&mut check);
    log.forget(check.next());
    assert!(log.produce(stamp(3, 0), NOW, &["b"]).is_some());
    assert_eq!(verdicts(check)[0], not_found(WhyNot::NoFence)[0]);
}

#[test]
fn a_stamp_is_found_by_cover_in_halves_and_across_the_end_of_the_circle() {
    let mut log = ModelLog::default();
    let anonymous = |sequence| Doubt { event_id: None, ..doubt("", 3, sequence) };
    log.produce(stamp(3, i32::MAX - 1), NOW, &["a", "b", "c", "d"]);
    log.produce(stamp(3, 2), NOW, &["e", "f"]);
    let all = [i32::MAX - 2, i32::MAX - 1, i32::MAX, 0, 1, 2, 3, 4];
    let offsets: Vec<Option<i64>> = verdicts(log.check(all.map(anonymous).to_vec()))
        .into_iter()
        .map(|verdict| if let Verdict::Landed { offset } = verdict { Some(offset) } else { None })
        .collect();
    assert_eq!(offsets, [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None]);
    let other_epoch = Doubt { producer_epoch: Some(2), ..anonymous(0) };
    let other_id = Doubt { producer_id: Some(Q + 1), ..anonymous(0) };
    let verdicts = verdicts(log.check(vec![other_epoch, other_id]));
    assert_eq!(verdicts, [Verdict::Absent, Verdict::NotFound { why: WhyNot::NoFence }]);
}

#[test]
fn an_earlier_replays_copy_is_found_by_the_events_id_or_the_letters() {
    let mut log = ModelLog::default();
    let other = Stamp { producer_id: 99, epoch: 0, base_sequence: 0 };
    log.produce_records(other, NOW, &[("x", ""), ("b", "letter-b"), ("", "letter-c")]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 0)])), landed(1));
    let without_event = Doubt { event_id: None, producer_id: None, ..doubt("c", 3, 0) };
    assert_eq!(verdicts(log.check(vec![without_event])), landed(2));
}

#[test]
fn a_copy_before_where_the_record_can_be_is_another_record() {
    let mut log = ModelLog::default();
    log.produce(stamp(2, 0), NOW, &["b"]);
    log.produce(stamp(4, 0), NOW, &["x"]);
    // Read from the start, for the sake of the other doubt.
    let check = log.check(vec![Doubt { search_from: Some(1), ..doubt("b", 3, 0) }, doubt("y", 3, 1)]);
    assert_eq!(verdicts(check), [Verdict::Absent, Verdict::Absent]);
}

#[test]
fn a_letter_that_was_in_hand_of_a_replay_that_died_is_absent_only_behind_a_fence_of_ours() {
    let mut log = ModelLog::default();
    let in_hand = || Doubt { producer_epoch: None, sequence: None, ..doubt("b", 0, 0) };
    log.produce(stamp(7, 0), NOW, &["x"]);
    let mut check = log.check(vec![in_hand()]);
    assert_eq!(verdicts(log.check(vec![in_hand()])), not_found(WhyNot::NoFence));
    assert_eq!(check.wanted_fences(NOW), [stamp(1007, 0)]);
    log.fence(&mut check);
    log.read(&mut check);
    assert_eq!(verdicts(check), ABSENT);
    log.produce_records(stamp(1007, 1), NOW, &[("y", "letter-b")]);
    assert_eq!(verdicts(log.check(vec![Doubt { event_id: None, ..in_hand() }])), landed(2));
}

#[test]
fn epochs_that_are_used_up_leave_no_fence_to_be_had() {
    let mut log = ModelLog::default();
    let check = log.check(vec![doubt("b", i16::MAX - 1, 0)]);
    assert_eq!(check.wanted_fences(NOW), [stamp(i16::MAX, 0)]);
    log.produce(stamp(i16::MAX, 0), NOW - DAY, &["x"]);
    let check = log.check(vec![doubt("b", i16::MAX, 1)]);
    assert_eq!(check.wanted_fences(NOW), []);
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
}

#[test]
fn what_is_no_proof_in_this_topic_is_said() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    let anew = Topic { uuid: [8; 16], ..TOPIC };
    let unnamed = Topic { uuid: [0; 16], ..TOPIC };
    let compacted = Topic { compacted: Some(true), ..TOPIC };
    let unknown = Topic { compacted: None, ..TOPIC };
    for (topic, why) in [
        (anew, WhyNot::TopicMadeAnew),
        (unnamed, WhyNot::TopicIdUnknown),
        (compacted, WhyNot::Compacted),
        (unknown, WhyNot::CleanupPolicyUnknown),
    ] {
        assert_eq!(verdicts(log.check_of(topic, vec![doubt("b", 3, 0)])), not_found(why));
        // What is there is there all the same; in another topic its old offsets mean nothing.
        let there = Doubt { search_from: Some(0), ..doubt("x", 4, 0) };
        assert_eq!(verdicts(log.check_of(topic, vec![there])), landed(0));
    }
    let unnamed_then = Doubt { topic_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check(vec![unnamed_then])), not_found(WhyNot::TopicIdUnknown));
    let unsent = Doubt { producer_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check(vec![unsent])), not_found(WhyNot::NoStamp));
}

#[test]
fn in_a_topic_that_is_not_surely_the_same_a_stamp_is_no_sign() {
    let mut log = ModelLog::default();
    // Producer ids start again in a cluster that was built anew: all of it is somebody else's.
    log.produce(stamp(3, 0), NOW, &["foreign"]);
    let anew = Topic { uuid: [8; 16], ..TOPIC };
    let unnamed = Topic { uuid: [0; 16], ..TOPIC };
    let anonymous = Doubt { event_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check_of(TOPIC, vec![anonymous.clone()])), landed(0));
    assert_eq!(verdicts(log.check_of(anew, vec![anonymous.clone()])), not_found(WhyNot::TopicMadeAnew));
    assert_eq!(verdicts(log.check_of(unnamed, vec![anonymous.clone()])), not_found(WhyNot::TopicIdUnknown));
    for unknown in [None, Some([0; 16])] {
        let doubt = Doubt { topic_id: unknown, ..anonymous.clone() };
        for topic in [TOPIC, unnamed] {
            assert_eq!(
                verdicts(log.check_of(topic, vec![doubt.clone()])),
                not_found(WhyNot::TopicIdUnknown),
                "{doubt:?} in {topic:?}"
            );
        }
    }
}

#[test]
fn a_stamp_under_which_another_event_stands_is_neither_landed_nor_absent() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["other"]);
    log.produce(stamp(4, 0), NOW, &["x"]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 0)])), not_found(WhyNot::StampTaken { offset: 0 }));
    assert_eq!(verdicts(log.check(vec![Doubt { event_id: None, ..doubt("b", 3, 0) }])), landed(0));
}

/// The codec bits say gzip, which is not read here; the checksum is made to fit.
fn as_gzip(mut batch: Vec<u8>) -> Vec<u8> {
    batch[22] = 1;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[test]
fn a_batch_that_cannot_be_looked_into_counts_by_its_header() {
    let log = [as_gzip(bytes(0, stamp(3, 0), NOW, &[("a", ""), ("b", "")])), bytes(2, stamp(4, 0), NOW, &[("x", "")])];
    let in_hand = Doubt { producer_epoch: None, sequence: None, ..doubt("z", 0, 0) };
    let mut check = PartitionCheck::new(vec![doubt("b", 3, 1), doubt("c", 3, 2), in_hand], TOPIC);
    check.begin_at(0);
    assert_eq!(scan(&log.concat(), &mut check), Ok(true));
    let unreadable = Verdict::NotFound { why: WhyNot::UnreadableBatch { offset: 0 } };
    assert_eq!(verdicts(check), [Verdict::Landed { offset: 1 }, Verdict::Absent, unreadable]);
}

/// What is said of the fence `letter-f` that was acknowledged under epoch 1003 at this offset, where this log was read.
fn fence_outcome(log: &[Vec<u8>], offset: i64) -> FenceOutcome {
    let mut check = PartitionCheck::new(vec![doubt("b", 3, 0)], TOPIC);
    check.begin_at(0);
    check.watch("letter-f");
    check.on_fenced(stamp(1003, 0), offset);
    assert_eq!(scan(&log.concat(), &mut check), Ok(true));
    let sent = Sent { letter_id: "letter-f".into(), stamp: stamp(1003, 0), result: Ok(offset) };
    outcome_of(sent, &check).1
}

#[test]
fn a_fence_that_its_topic_recompressed_is_known_by_its_stamp_and_never_called_unwritten() {
    let first = || bytes(0, stamp(3, 5), NOW, &[("x", ""), ("y", "")]);
    let fence = |stamp, letter| bytes(2, stamp, NOW, &[("f", letter)]);
    let ours = fence(stamp(1003, 0), "letter-f");
    assert_eq!(fence_outcome(&[first(), ours.clone()], 2), FenceOutcome::Written { offset: 2 });
    assert_eq!(fence_outcome(&[first(), as_gzip(ours.clone())], 2), FenceOutcome::Written { offset: 2 });
    assert_eq!(fence_outcome(&[as_gzip(first()), as_gzip(ours.clone())], 2), FenceOutcome::Written { offset: 2 });
    // Others' batches there, which nobody can look into.
    let two = bytes(2, stamp(1003, 0), NOW, &[("f", "letter-f"), ("g", "")]);
    let other_id = fence(Stamp { producer_id: Q + 1, epoch: 1003, base_sequence: 0 }, "letter-f");
    for other in [two, other_id, fence(stamp(1004, 0), "letter-f"), fence(stamp(1003, 1), "letter-f")] {
        let outcome = fence_outcome(&[first(), as_gzip(other)], 2);
        assert!(matches!(outcome, FenceOutcome::Unknown(_)), "{outcome:?}");
    }
    let outcome = fence_outcome(&[as_gzip(first()), ours], 1);
    assert_eq!(outcome, FenceOutcome::Written { offset: 2 }, "seen, wherever it was said to be");
    // One that can be read, and is another's.
    for log in [[first(), fence(stamp(1003, 0), "letter-g")], [as_gzip(first()), fence(stamp(1003, 0), "letter-g")]] {
        let outcome = fence_outcome(&log, 2);
        assert!(matches!(outcome, FenceOutcome::NotWritten(_)), "{outcome:?}");
    }
    let outcome = fence_outcome(&[as_gzip(first())], 2);
    assert!(matches!(outcome, FenceOutcome::Unknown(_)), "{outcome:?}");
}

#[test]
fn what_a_transaction_wrote_is_no_copy_for_it_may_have_been_aborted() {
    let mut batch = bytes(0, Stamp { producer_id: 99, epoch: 0, base_sequence: 0 }, NOW, &[("b", "letter-b")]);
    batch[22] |= 1 << 4;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let log = [batch, bytes(1, stamp(4, 0), NOW, &[("x", "")])];
    let mut check = PartitionCheck::new(vec![doubt("b", 3, 0)], TOPIC);
    check.begin_at(0);
    assert_eq!(scan(&log.concat(), &mut check), Ok(true));
    assert_eq!(verdicts(check), ABSENT);
}

#[test]
fn a_damaged_batch_is_an_error_and_a_batch_cut_off_is_read_the_next_time() {
    let whole = bytes(0, stamp(3, 0), NOW, &[("a", "")]);
    let mut check = PartitionCheck::new(vec![doubt("a", 3, 0)], TOPIC);
    for end in 0..whole.len() {
        assert_eq!(scan(&whole[..end], &mut check), Ok(false));
    }
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(scan(&damaged, &mut check), Err(ScanError::Checksum(0)));
    assert_eq!(scan(&whole, &mut check), Ok(true));
    assert!(check.is_settled());
    assert_eq!(scan(&whole, &mut check), Ok(false));
}

/// What may happen while a check goes on.
#[derive(Clone, Debug)]
enum Step {
    /// One of the late requests arrives, maybe once more.
    Deliver(usize),
    /// Somebody else writes under this epoch of the same id, with a record of this age.
    Other(i16, i64),
    Read,
    Fence,
    Watermark(i64),
    DeleteTo(i64),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_usize..4).prop_map(Step::Deliver),
        1 => (0_i16..8, prop_oneof![Just(0), Just(2 * DAY)]).prop_map(|(epoch, age)| Step::Other(epoch, age)),
        3 => Just(Step::Read),
        2 => Just(Step::Fence),
        1 => (0_i64..8).prop_map(Step::Watermark),
        1 => (0_i64..4).prop_map(Step::DeleteTo),
        1 => Just(Step::Forget),
    ]
}

/// The late requests: a doubt each, under epochs that others may raise.
fn late() -> Vec<(Stamp, &'static str, Doubt)> {
    let names = ["a", "b", "c", "d"];
    let each = (0..).zip(names).map(|(n, name)| {
        let epoch = 2 + i16::try_from(n).unwrap() % 2;
        let doubt = doubt(name, epoch, n);
        // One of them was in hand of a replay that died.
        let unknown = n == 3;
        let doubt = if unknown { Doubt { producer_epoch: None, sequence: None, ..doubt } } else { doubt };
        (stamp(epoch, n), name, doubt)
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: what is said to have landed is where it is said, and what is said to be absent
    /// is not there and is refused when it comes.
    #[test]
    fn no_schedule_makes_a_verdict_untrue(steps in proptest::collection::vec(step(), 1..24)) {
        let late = late();
        let mut log = ModelLog::default();
        let mut check = log.check(late.iter().map(|(_, _, doubt)| doubt.clone()).collect());
        let mut others = 100;
        for step in steps {
            match step {
                Step::Deliver(n) => drop(log.produce(late[n].0, NOW, &[late[n].1])),
                Step::Other(epoch, age) => {
                    others += 1;
                    log.produce(stamp(epoch, others), NOW - age, &["other"]);
                }
                Step::Read => log.read(&mut check),
                Step::Fence => drop(log.fence(&mut check)),
                // A watermark never goes back.
                Step::Watermark(lag) => log.watermark = Some((log.end() - lag).max(log.watermark.unwrap_or(0))),
                Step::DeleteTo(offset) => log.start = log.start.max(offset.min(log.high_watermark())),
                Step::Forget => log.forget(check.next()),
            }
        }
        for ((stamp, event, _), verdict) in late.iter().zip(verdicts(check)) {
            match verdict {
                Verdict::Landed { offset } => {
                    prop_assert_eq!(log.events[usize::try_from(offset).unwrap()].as_str(), *event);
                }
                Verdict::Absent => {
                    prop_assert!(!log.events.iter().any(|there| there == event), "{} is there", event);
                    log.produce(*stamp, NOW, &[event]);
                    prop_assert!(!log.events.iter().any(|there| there == event), "{} came late", event);
                }
                Verdict::NotFound { .. } => {}
            }
        }
    }
}

#[test]
fn every_verdict_says_what_it_means() {
    assert_eq!(Verdict::Landed { offset: 7 }.to_string(), "landed at offset 7");
    let why = WhyNot::LogStartPast { log_start: 9 };
    assert_eq!(
        Verdict::NotFound { why }.to_string(),
        "not found, but not proved absent: records from where it may be were deleted: the log begins at offset 9"
    );
    assert_eq!(UUID, TOPIC.uuid);
}
