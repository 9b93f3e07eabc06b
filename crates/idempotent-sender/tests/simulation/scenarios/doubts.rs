//! Scenarios of batches in doubt: late answers, lost attempts and looks, after the state of their batch has changed.

use kafka_courier_idempotent_sender::core::Config;

use super::{late_requests_arrive, no_retries, ready_world};
use crate::cluster::{Forced, MS, SECOND};
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::log::{Producers, SequenceRules};
use crate::plan::{BatchPlan, Reading, Rules};
use crate::world::{Event, World};

/// Changes the leader and epoch of partition 0. Broker 2 reports the change to the sender.
fn announce_leader(world: &mut World, leader: usize) {
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(leader), truth.epoch + 1));
    world.apply_update(2, 0);
    let cluster = world.metadata_of(2);
    world.deliver_metadata(cluster);
}

#[test]
fn late_success_corrects_each_half() {
    let mut world = ready_world(no_retries(), late_requests_arrive());
    world.prime(0);
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.advance_time(0);
    world.inject(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.advance_time(30 * MS);
    assert_eq!(
        world.leader_log(0),
        (0..10).collect::<Vec<_>>(),
        "the whole batch is written, and its answer is in transit"
    );
    // The next leader answers the batch as too large, and fails to write each half.
    let forced = [10, -1, -1].map(|code| Forced { code, appended: None });
    world.partitions[0].forced.extend(forced);
    announce_leader(&mut world, 1);
    world.apply_update(1, 0);
    world.settle_all();
    world.assert_unknown(2..10);
    world.advance_time(6 * SECOND);
    for record in 2..10 {
        assert_eq!(world.history.records[record].corrected, Some(Some(record as i64)), "record {record}");
    }
    world.heal_and_check();
}

#[test]
fn lost_attempt_keeps_doubt() {
    let mut world = ready_world(Config::default(), late_requests_arrive());
    world.prime(0);
    world.publish(0, 1);
    world.advance_time(0);
    world.inject(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.advance_time(30 * MS);
    world.partitions[0].forced.push_back(Forced { code: 45, appended: None });
    announce_leader(&mut world, 1);
    world.apply_update(1, 0);
    let looks = |world: &World| world.sender.counters().state_lookups == 0;
    assert!(world.run_while(world.now + SECOND, looks).unwrap(), "the sender looks at the next leader's state");
    // The look finds the batch. The batch's only attempt is then lost with the former leader's connection.
    world.advance_time(5 * MS);
    world.cut_connections(0);
    world.advance_time(25 * MS);
    assert_eq!(world.verdict(2), None, "the batch is not confirmed yet");
    world.schedule_at(world.now, Event::Close);
    world.advance_time(0);
    world.assert_unknown(2..4);
    world.heal_and_check();
}

#[test]
fn lookup_applies_to_its_batch() {
    let mut world = ready_world(Config { max_in_flight: 1, ..Config::default() }, Rules::default());
    world.prime(0);
    // Both batches are written and not acknowledged. Their retries are refused as out of sequence.
    let (written, refused) = (Forced { code: 7, appended: Some(false) }, Forced { code: 45, appended: None });
    world.partitions[0].forced.extend([written, refused, written, refused]);
    world.publish(0, 2);
    let looks = |world: &World| world.sender.counters().state_lookups < 2;
    assert!(world.run_while(world.now + 5 * SECOND, looks).unwrap(), "the sender looks for each batch");
    // The same broker becomes leader under another epoch during the second look, without knowing that epoch, and the
    // sender loses the right to read. The first batch is the head again, and the second look does not belong to it.
    world.plan.rules.reading = Reading::Forbidden;
    world.brokers[0].update_delay = 20 * SECOND;
    announce_leader(&mut world, 0);
    world.settle_all();
    world.assert_delivered(2..6);
    world.heal_and_check();
}

#[test]
fn old_records_travel_alone() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..Rules::default() };
    let mut world = ready_world(Config::default(), rules);
    world.prime(0);
    // The leader forgets the id after the append of the old batch, and accepts any sequence number. The next batch is
    // too large.
    world.inject(Fault::LimitMessage { partition: 0, bytes: 220, time: 2 * SECOND });
    world.publish(0, 1);
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.publish(0, 2);
    world.settle_all();
    world.assert_delivered(2..18);
    assert_eq!(world.leader_log(0), (0..18).collect::<Vec<_>>(), "in order");
    assert!(world.partitions[0].expiries > 0 && world.sender.counters().splits > 0);
    world.heal_and_check();
}

#[test]
fn missing_replicas_cost_no_retry() {
    let config = Config { retry_max: 0, delivery_timeout: std::time::Duration::from_secs(60), ..Config::default() };
    let mut world = ready_world(config, Rules { replica_lag_max: SECOND, session_timeout: SECOND, ..Rules::default() });
    world.prime(0);
    world.inject(Fault::Kill { broker: 1, down: 25 * SECOND });
    world.inject(Fault::Kill { broker: 2, down: 25 * SECOND });
    world.publish(0, 1);
    world.advance_time(12 * SECOND);
    assert!(world.history.records[2].codes.contains(&7), "{:?}", world.history.records[2].codes);
    assert_eq!(world.verdict(2), None, "the sender waits for the replicas");
    world.settle_all();
    assert!(matches!(world.verdict(2), Some(RecordVerdict::Delivered(Some(2)))), "{:?}", world.verdict(2));
    world.heal_and_check();
}

#[test]
fn search_begins_at_first_attempt() {
    let rules =
        Rules { id_expiration_ms: Some(120_000), id_check: MS, reading: Reading::Forbidden, ..Rules::default() };
    let mut world = ready_world(Config::default(), rules);
    world.prime(0);
    // The batch is written, its answer has no offset, and the leader forgets the id. The retry is answered as too
    // large.
    world.partitions[0].forced.push_back(Forced { code: 7, appended: Some(false) });
    world.partitions[0].forced.push_back(Forced { code: 10, appended: None });
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 4) }).unwrap();
    let waits = |world: &World| world.verdict(2).is_none();
    assert!(world.run_while(world.now + 5 * SECOND, waits).unwrap(), "the first half is delivered");
    assert_eq!(world.verdict(2), Some(RecordVerdict::Delivered(Some(6))), "the first half is written a second time");
    // The second half is in the log once, before the first half's second copy.
    world.partitions[0].forced.push_back(Forced { code: 29, appended: None });
    world.settle_all();
    world.assert_unknown(4..6);
    world.heal_and_check();
}

#[test]
fn lost_log_bounds_no_search() {
    let rules = Rules { replica_lag_max: SECOND, reading: Reading::Forbidden, ..Rules::default() };
    let mut world = ready_world(Config::default(), rules);
    world.inject(Fault::Kill { broker: 1, down: 20 * SECOND });
    world.advance_time(12 * SECOND);
    (0..3).for_each(|_| world.prime(0));
    world.advance_time(10 * SECOND);
    // An unclean election loses all acknowledged records: the next leader's log is empty.
    world.partitions[0].replicas[1] = crate::cluster::Replica { incarnation: 1, ..Default::default() };
    world.change(0, |truth| truth.isr &= !(1 << 1));
    world.inject(Fault::ElectUncleanly { partition: 0, to: 1 });
    (0..3).for_each(|broker| world.apply_update(broker, 0));
    let cluster = world.metadata_of(1);
    world.deliver_metadata(cluster);
    // The next leader does not know the sequence. The batch is written under the next epoch, and its answer has no
    // offset.
    let written = Forced { code: 7, appended: Some(false) };
    let refused = [45, 29].map(|code| Forced { code, appended: None });
    world.partitions[0].forced.extend([refused[0], written, refused[1]]);
    world.publish(0, 1);
    world.settle_all();
    world.assert_unknown(6..8);
    assert_eq!(world.leader_log(0), [6, 7], "the records are before the acknowledged offset");
    assert_eq!(
        world.history.records[6].search.as_ref().map(|search| search.from),
        Some(0),
        "the search begins at the log's start"
    );
    world.heal_and_check();
}

#[test]
fn failed_ids_doubt_no_leader() {
    let mut world = ready_world(Config::default(), Rules { failing_ids: 6, ..Rules::default() });
    world.brokers[2].update_delay = 60 * SECOND;
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(1), truth.epoch + 1));
    (0..2).for_each(|broker| world.apply_update(broker, 0));
    let cluster = world.metadata_of(1);
    world.deliver_metadata(cluster);
    world.publish(0, 1);
    let fail = |world: &World| world.plan.rules.failing_ids > 0;
    assert!(world.run_while(world.now + 20 * SECOND, fail).unwrap());
    world.advance_time(10 * MS);
    // No producer id is available, and the leader is not the cause. Broker 2 does not know the leader yet.
    let stale = world.metadata_of(2);
    world.deliver_metadata(stale);
    world.settle_all();
    world.assert_delivered(0..2);
    world.heal_and_check();
}

#[test]
fn old_records_wait_for_earlier_answers() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..Rules::default() };
    let mut world = ready_world(Config::default(), rules);
    world.prime(0);
    // Both batches are written, and their answers are lost. The old batch makes the leader forget the id and the first
    // batch.
    world.lose_answers(0, 20 * MS);
    world.publish(0, 1);
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.settle_all();
    world.assert_delivered(2..6);
    assert_eq!(world.leader_log(0)[..4], [0, 1, 2, 3], "the first batch is there once");
    world.heal_and_check();
}

#[test]
fn halves_of_written_batch_are_found() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    // The whole batch is written, and its answer has no offset. The retry is too large, and the leader recognizes
    // neither half.
    world.partitions[0].forced.push_back(Forced { code: 7, appended: Some(false) });
    world.partitions[0].forced.push_back(Forced { code: 10, appended: None });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.settle_all();
    world.assert_delivered(2..10);
    assert_eq!(world.leader_log(0), (0..10).collect::<Vec<_>>());
    world.heal_and_check();
}

#[test]
fn old_records_wait_for_unconfirmed() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..late_requests_arrive() };
    let mut world = ready_world(Config::default(), rules);
    world.prime(0);
    world.publish(0, 1);
    world.advance_time(0);
    world.inject(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.advance_time(30 * MS);
    world.partitions[0].forced.push_back(Forced { code: 45, appended: None });
    announce_leader(&mut world, 1);
    world.apply_update(1, 0);
    let looks = |world: &World| world.sender.counters().state_lookups == 0;
    assert!(world.run_while(world.now + SECOND, looks).unwrap(), "the sender looks at the next leader's state");
    // The look finds the batch. Old records after this batch would make each leader forget the id. Then a third broker
    // leads, and the first answer is lost.
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.advance_time(20 * MS);
    world.cut_connections(0);
    announce_leader(&mut world, 2);
    (0..2).for_each(|broker| world.apply_update(broker, 0));
    world.settle_all();
    world.assert_delivered(2..6);
    assert_eq!(world.leader_log(0)[..4], [0, 1, 2, 3], "the first batch is there once");
    world.heal_and_check();
}

#[test]
fn overtaken_batch_reaches_new_topic() {
    let sequence = SequenceRules { old_codes: true, ..SequenceRules::default() };
    let mut world = ready_world(Config::default(), Rules { by_id: false, sequence, ..late_requests_arrive() });
    world.prime(0);
    world.partitions[0].forced.push_back(Forced { code: 3, appended: None });
    world.publish(0, 1);
    world.advance_time(0);
    // The second batch arrives late. The first batch is refused before, and is sent again after the second.
    world.inject(Fault::Slow { broker: 0, time: MS / 2, by: 600 * MS });
    world.publish(0, 1);
    let sent = |world: &World| world.history.records[2].attempts.count < 2;
    assert!(world.run_while(world.now + 400 * MS, sent).unwrap(), "the first batch is sent again");
    world.inject(Fault::DeleteTopic { topic: 0 });
    world.inject(Fault::CreateTopic { topic: 0, partitions: 3 });
    announce_leader(&mut world, 0);
    (0..2).for_each(|broker| world.apply_update(broker, 0));
    // The new topic accepts the second batch. The first batch's sequence number is too low there.
    world.settle_all();
    assert!(world.history.records[2].codes.contains(&46), "{:?}", world.history.records[2].codes);
    world.assert_delivered(2..6);
    world.heal_and_check();
}

#[test]
fn unexpected_duplicate_is_looked_for() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    // The leader answers the only attempt of each batch as a duplicate. The first batch is written, the second is not.
    world.partitions[0].forced.push_back(Forced { code: 46, appended: Some(false) });
    world.publish(0, 1);
    world.settle_all();
    assert_eq!(world.verdict(2), Some(RecordVerdict::Delivered(Some(2))), "the log contains the batch");
    world.partitions[0].forced.push_back(Forced { code: 46, appended: None });
    world.publish(0, 1);
    world.settle_all();
    world.assert_unknown(4..6);
    assert_eq!(world.sender.counters().state_lookups, 2);
    world.heal_and_check();
}

#[test]
fn unexpected_duplicate_proves_nothing() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    // The leader answers an unwritten batch as a duplicate, and a look is impossible. Then the leader forgets the id
    // and accepts the next batch.
    world.partitions[0].forced.extend([46, 46].map(|code| Forced { code, appended: None }));
    world.brokers[0].update_delay = 5 * SECOND;
    announce_leader(&mut world, 0);
    world.publish(0, 2);
    let forced = |world: &World| !world.partitions[0].forced.is_empty();
    assert!(world.run_while(world.now + 2 * SECOND, forced).unwrap(), "the batch is sent again");
    world.partitions[0].replicas[0].producers = Producers::default();
    world.settle_all();
    assert_eq!(world.leader_log(0), [0, 1, 4, 5], "only the next batch is written");
    world.assert_unknown(2..4);
    world.assert_delivered(4..6);
    world.heal_and_check();
}
