//! Scenarios of requests that are written early, late or never, and their verdicts.

use kafka_courier_batcher::Stamp;
use proptest::prelude::*;

use super::check::{ObservedTopic, PartitionCheck};
use super::model::{DAY, ModelLog, NOW, Q, TOPIC, UUID, bytes, doubt, stamp, verdicts};
use super::scan::{ScanError, scan};
use super::verifier::{FenceOutcome, SentFence, outcome_of};
use super::{Doubt, Verdict, WhyNot};

fn not_found(why: WhyNot) -> Vec<Verdict> {
    vec![Verdict::NotFound { why }]
}

const ABSENT: [Verdict; 1] = [Verdict::Absent];

fn found_at(offset: i64) -> Vec<Verdict> {
    vec![Verdict::Landed { offset }]
}

#[test]
fn scenario_15_earlier_writes_are_found() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["a", "b", "c"]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 1)])), found_at(1));
}

#[test]
fn scenario_15_writes_before_fence_found() {
    let mut log = ModelLog::default();
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    log.produce(stamp(3, 0), NOW, &["b"]);
    assert_eq!(log.fence(&mut check), 1);
    assert_eq!(check.unread_fence(), Some(2));
    log.read(&mut check);
    assert_eq!(verdicts(check), found_at(0));
}

#[test]
fn scenario_15_fences_refuse_late_writes() {
    let mut log = ModelLog::default();
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(log.fence(&mut check), 1);
    log.read(&mut check);
    assert_eq!(verdicts(check), ABSENT);
    assert_eq!(log.produce(stamp(3, 0), NOW, &["b"]), None);
}

#[test]
fn absence_needs_a_fence() {
    let mut log = ModelLog::default();
    log.produce(Stamp { producer_id: 43, epoch: 9, base_sequence: 0 }, NOW, &["x"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
    assert!(log.produce(stamp(3, 0), NOW, &["b"]).is_some());
}

#[test]
fn scenario_15_lagging_watermark_proves_nothing() {
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
fn scenario_15_deleted_offsets_prove_nothing() {
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
fn skipped_offsets_prove_nothing() {
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
fn higher_epochs_in_log_are_fences() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert_eq!(check.wanted_fences(NOW), []);
    assert_eq!(verdicts(check), ABSENT);
    assert_eq!(log.produce(stamp(3, 0), NOW, &["b"]), None);
    // Neither the same epoch nor a lower epoch is a fence.
    for epoch in [4, 5] {
        assert_eq!(verdicts(log.check(vec![doubt("b", epoch, 9)])), not_found(WhyNot::NoFence));
    }
}

/// Returns the verdicts after an expiry: the leader forgot the fence that was read, and accepts a late request. The
/// check needs a new fence, which finds the record.
fn verdicts_after_expiry(mut log: ModelLog) -> Vec<Verdict> {
    let mut check = log.check(vec![doubt("b", 3, 0)]);
    log.forget(check.next());
    assert_eq!(check.wanted_fences(NOW), [stamp(1004, 0)]);
    log.produce(stamp(3, 0), NOW, &["b"]);
    log.fence(&mut check);
    log.read(&mut check);
    verdicts(check)
}

#[test]
fn old_fences_are_replaced() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW - DAY, &["x"]);
    assert_eq!(verdicts_after_expiry(log), found_at(1));
}

#[test]
fn old_batches_end_recent_fences() {
    // A leader expires a producer id by the timestamp of the id's last batch.
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    log.produce(stamp(4, 1), NOW - 2 * DAY, &["y"]);
    assert_eq!(verdicts_after_expiry(log), found_at(2));
}

#[test]
fn lower_epochs_after_expiry_end_fences() {
    let mut log = ModelLog::default();
    log.produce(stamp(5, 0), NOW - 2 * DAY, &["x"]);
    log.forget(1);
    log.produce(stamp(2, 0), NOW, &["y"]);
    let check = log.check(vec![doubt("b", 3, 0)]);
    assert!(log.produce(stamp(3, 0), NOW, &["b"]).is_some());
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
}

#[test]
fn fences_before_gaps_prove_nothing() {
    // The producer id's last batch may be in the gap.
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
fn stamps_match_halves_and_wrapped_sequences() {
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
fn replayed_copies_match_by_ids() {
    let mut log = ModelLog::default();
    let other = Stamp { producer_id: 99, epoch: 0, base_sequence: 0 };
    log.produce_records(other, NOW, &[("x", ""), ("b", "letter-b"), ("", "letter-c")]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 0)])), found_at(1));
    let without_event = Doubt { event_id: None, producer_id: None, ..doubt("c", 3, 0) };
    assert_eq!(verdicts(log.check(vec![without_event])), found_at(2));
}

#[test]
fn earlier_copies_are_other_records() {
    let mut log = ModelLog::default();
    log.produce(stamp(2, 0), NOW, &["b"]);
    log.produce(stamp(4, 0), NOW, &["x"]);
    // The second doubt makes the check read from the start.
    let check = log.check(vec![Doubt { search_from: Some(1), ..doubt("b", 3, 0) }, doubt("y", 3, 1)]);
    assert_eq!(verdicts(check), [Verdict::Absent, Verdict::Absent]);
}

#[test]
fn interrupted_replays_need_a_sent_fence() {
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
    assert_eq!(verdicts(log.check(vec![Doubt { event_id: None, ..in_hand() }])), found_at(2));
}

#[test]
fn exhausted_epochs_leave_no_fence() {
    let mut log = ModelLog::default();
    let check = log.check(vec![doubt("b", i16::MAX - 1, 0)]);
    assert_eq!(check.wanted_fences(NOW), [stamp(i16::MAX, 0)]);
    log.produce(stamp(i16::MAX, 0), NOW - DAY, &["x"]);
    let check = log.check(vec![doubt("b", i16::MAX, 1)]);
    assert_eq!(check.wanted_fences(NOW), []);
    assert_eq!(verdicts(check), not_found(WhyNot::NoFence));
}

#[test]
fn unprovable_topics_have_a_reason() {
    let mut log = ModelLog::default();
    log.produce(stamp(4, 0), NOW, &["x"]);
    let recreated = ObservedTopic { uuid: Some([8; 16]), ..TOPIC };
    let unnamed = ObservedTopic { uuid: None, ..TOPIC };
    let compacted = ObservedTopic { compacted: Some(true), ..TOPIC };
    let unknown = ObservedTopic { compacted: None, ..TOPIC };
    for (topic, why) in [
        (recreated, WhyNot::TopicRecreated),
        (unnamed, WhyNot::TopicIdUnknown),
        (compacted, WhyNot::Compacted),
        (unknown, WhyNot::CleanupPolicyUnknown),
    ] {
        assert_eq!(verdicts(log.check_of(topic, vec![doubt("b", 3, 0)])), not_found(why));
        // A record that is in the log is found. Its offsets in a former topic are ignored.
        let there = Doubt { search_from: Some(0), ..doubt("x", 4, 0) };
        assert_eq!(verdicts(log.check_of(topic, vec![there])), found_at(0));
    }
    let unnamed_then = Doubt { topic_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check(vec![unnamed_then])), not_found(WhyNot::TopicIdUnknown));
    let unsent = Doubt { producer_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check(vec![unsent])), not_found(WhyNot::NoStamp));
}

#[test]
fn stamps_need_the_same_topic() {
    let mut log = ModelLog::default();
    // Producer ids start again in a rebuilt cluster, so the batch is from another producer.
    log.produce(stamp(3, 0), NOW, &["foreign"]);
    let recreated = ObservedTopic { uuid: Some([8; 16]), ..TOPIC };
    let unnamed = ObservedTopic { uuid: None, ..TOPIC };
    let anonymous = Doubt { event_id: None, ..doubt("b", 3, 0) };
    assert_eq!(verdicts(log.check_of(TOPIC, vec![anonymous.clone()])), found_at(0));
    assert_eq!(verdicts(log.check_of(recreated, vec![anonymous.clone()])), not_found(WhyNot::TopicRecreated));
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
fn taken_stamps_prove_nothing() {
    let mut log = ModelLog::default();
    log.produce(stamp(3, 0), NOW, &["other"]);
    log.produce(stamp(4, 0), NOW, &["x"]);
    assert_eq!(verdicts(log.check(vec![doubt("b", 3, 0)])), not_found(WhyNot::StampTaken { offset: 0 }));
    assert_eq!(verdicts(log.check(vec![Doubt { event_id: None, ..doubt("b", 3, 0) }])), found_at(0));
}

/// Sets the codec bits of a batch to gzip, which is unsupported, and fixes the checksum.
fn as_gzip(mut batch: Vec<u8>) -> Vec<u8> {
    batch[22] = 1;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[test]
fn undecodable_batches_count_by_header() {
    let log = [as_gzip(bytes(0, stamp(3, 0), NOW, &[("a", ""), ("b", "")])), bytes(2, stamp(4, 0), NOW, &[("x", "")])];
    let in_hand = Doubt { producer_epoch: None, sequence: None, ..doubt("z", 0, 0) };
    let mut check = PartitionCheck::new(vec![doubt("b", 3, 1), doubt("c", 3, 2), in_hand], TOPIC);
    check.begin_at(0);
    assert_eq!(scan(&log.concat(), &mut check), Ok(true));
    let unreadable = Verdict::NotFound { why: WhyNot::UnreadableBatch { offset: 0 } };
    assert_eq!(verdicts(check), [Verdict::Landed { offset: 1 }, Verdict::Absent, unreadable]);
}

/// Returns the outcome of the fence `letter-f`, which was acknowledged under epoch 1003 at `offset`, after a read of
/// this log.
fn fence_outcome(log: &[Vec<u8>], offset: i64) -> FenceOutcome {
    let mut check = PartitionCheck::new(vec![doubt("b", 3, 0)], TOPIC);
    check.begin_at(0);
    check.watch("letter-f");
    check.on_fenced(stamp(1003, 0), offset);
    assert_eq!(scan(&log.concat(), &mut check), Ok(true));
    let sent = SentFence { letter_id: "letter-f".into(), stamp: stamp(1003, 0), result: Ok(Some(offset)) };
    outcome_of(sent, &check).1
}

#[test]
fn recompressed_fences_match_by_stamp() {
    let first = || bytes(0, stamp(3, 5), NOW, &[("x", ""), ("y", "")]);
    let fence = |stamp, letter| bytes(2, stamp, NOW, &[("f", letter)]);
    let ours = fence(stamp(1003, 0), "letter-f");
    assert_eq!(fence_outcome(&[first(), ours.clone()], 2), FenceOutcome::Written { offset: 2 });
    assert_eq!(fence_outcome(&[first(), as_gzip(ours.clone())], 2), FenceOutcome::Written { offset: 2 });
    assert_eq!(fence_outcome(&[as_gzip(first()), as_gzip(ours.clone())], 2), FenceOutcome::Written { offset: 2 });
    // Undecodable batches of other producers at the offset.
    let two = bytes(2, stamp(1003, 0), NOW, &[("f", "letter-f"), ("g", "")]);
    let other_id = fence(Stamp { producer_id: Q + 1, epoch: 1003, base_sequence: 0 }, "letter-f");
    for other in [two, other_id, fence(stamp(1004, 0), "letter-f"), fence(stamp(1003, 1), "letter-f")] {
        let outcome = fence_outcome(&[first(), as_gzip(other)], 2);
        assert!(matches!(outcome, FenceOutcome::Unknown(_)), "{outcome:?}");
    }
    let outcome = fence_outcome(&[as_gzip(first()), ours], 1);
    assert_eq!(outcome, FenceOutcome::Written { offset: 2 }, "the read offset, not the acknowledged one");
    // A decodable batch of another producer.
    for log in [[first(), fence(stamp(1003, 0), "letter-g")], [as_gzip(first()), fence(stamp(1003, 0), "letter-g")]] {
        let outcome = fence_outcome(&log, 2);
        assert!(matches!(outcome, FenceOutcome::NotWritten(_)), "{outcome:?}");
    }
    let outcome = fence_outcome(&[as_gzip(first())], 2);
    assert!(matches!(outcome, FenceOutcome::Unknown(_)), "{outcome:?}");
}

#[test]
fn transactional_records_are_no_copies() {
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
fn corrupt_batches_are_errors() {
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

/// A step of a random schedule during a check.
#[derive(Clone, Debug)]
enum ScheduleStep {
    /// One of the late requests arrives, possibly again.
    Deliver(usize),
    /// Another producer writes under this epoch of the same id, with a record of this age.
    Other(i16, i64),
    Read,
    Fence,
    Watermark(i64),
    DeleteTo(i64),
    Forget,
}

fn step() -> impl Strategy<Value = ScheduleStep> {
    prop_oneof![
        3 => (0_usize..4).prop_map(ScheduleStep::Deliver),
        1 => (0_i16..8, prop_oneof![Just(0), Just(2 * DAY)]).prop_map(|(epoch, age)| ScheduleStep::Other(epoch, age)),
        3 => Just(ScheduleStep::Read),
        2 => Just(ScheduleStep::Fence),
        1 => (0_i64..8).prop_map(ScheduleStep::Watermark),
        1 => (0_i64..4).prop_map(ScheduleStep::DeleteTo),
        1 => Just(ScheduleStep::Forget),
    ]
}

/// Returns the late requests, each with its doubt. Other producers may raise the epochs.
fn late() -> Vec<(Stamp, &'static str, Doubt)> {
    let names = ["a", "b", "c", "d"];
    let each = (0..).zip(names).map(|(n, name)| {
        let epoch = 2 + i16::try_from(n).unwrap() % 2;
        let doubt = doubt(name, epoch, n);
        // A crash interrupted the replay of one of them.
        let unknown = n == 3;
        let doubt = if unknown { Doubt { producer_epoch: None, sequence: None, ..doubt } } else { doubt };
        (stamp(epoch, n), name, doubt)
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Verdicts are true after any schedule: a found record is at its offset, and an absent record is not in the log,
    /// and is refused when its request arrives.
    #[test]
    fn every_schedule_has_true_verdicts(steps in proptest::collection::vec(step(), 1..24)) {
        let late = late();
        let mut log = ModelLog::default();
        let mut check = log.check(late.iter().map(|(_, _, doubt)| doubt.clone()).collect());
        let mut others = 100;
        for step in steps {
            match step {
                ScheduleStep::Deliver(n) => drop(log.produce(late[n].0, NOW, &[late[n].1])),
                ScheduleStep::Other(epoch, age) => {
                    others += 1;
                    log.produce(stamp(epoch, others), NOW - age, &["other"]);
                }
                ScheduleStep::Read => log.read(&mut check),
                ScheduleStep::Fence => drop(log.fence(&mut check)),
                // A high watermark never decreases.
                ScheduleStep::Watermark(lag) => log.watermark = Some((log.end() - lag).max(log.watermark.unwrap_or(0))),
                ScheduleStep::DeleteTo(offset) => log.start = log.start.max(offset.min(log.high_watermark())),
                ScheduleStep::Forget => log.forget(check.next()),
            }
        }
        for ((stamp, event, _), verdict) in late.iter().zip(verdicts(check)) {
            match verdict {
                Verdict::Landed { offset } => {
                    prop_assert_eq!(log.events[usize::try_from(offset).unwrap()].as_str(), *event);
                }
                Verdict::Absent => {
                    prop_assert!(!log.events.iter().any(|there| there == event), "{} is in the log", event);
                    log.produce(*stamp, NOW, &[event]);
                    prop_assert!(!log.events.iter().any(|there| there == event), "{} was written late", event);
                }
                Verdict::NotFound { .. } => {}
            }
        }
    }
}

#[test]
fn verdicts_have_texts() {
    assert_eq!(Verdict::Landed { offset: 7 }.to_string(), "found in the log at offset 7");
    let why = WhyNot::LogStartPast { log_start: 9 };
    assert_eq!(
        Verdict::NotFound { why }.to_string(),
        "neither found nor proved absent: offsets where it may have been were deleted: the log begins at offset 9"
    );
    assert_eq!(Some(UUID), TOPIC.uuid);
}
