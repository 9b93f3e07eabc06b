//! Batches in doubt: late answers, lost attempts and looks, each meeting what has become of its batch since.

use kafka_courier_idempotent_sender::core::Config;

use super::{impatient, quiet, reads_on};
use crate::cluster::{Forced, MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::log::{Producers, SequenceRules};
use crate::plan::{BatchPlan, Reading, Rules};
use crate::world::{Event, World};

/// The controller names the partition's leader and epoch again, and the sender hears of it from broker 2.
fn name_leader(world: &mut World, leader: usize) {
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(leader), truth.epoch + 1));
    world.learn_news(2, 0);
    let cluster = world.metadata_of(2);
    world.tell_metadata(cluster);
}

#[test]
fn late_success_corrects_each_half() {
    let mut world = quiet(impatient(), reads_on());
    world.prime(0);
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.pass(0);
    world.strike(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.pass(30 * MS);
    assert_eq!(world.log_of(0), (0..10).collect::<Vec<_>>(), "the whole is written, its answer under way");
    // The next leader calls it too large, and fails to write each of the halves.
    let forced = [10, -1, -1].map(|code| Forced { code, appended: None });
    world.partitions[0].forced.extend(forced);
    name_leader(&mut world, 1);
    world.learn_news(1, 0);
    world.settle_all();
    world.assert_unknown(2..10);
    world.pass(6 * SECOND);
    for record in 2..10 {
        assert_eq!(world.history.records[record].corrected, Some(Some(record as i64)), "record {record}");
    }
    world.judge();
}

#[test]
fn lost_attempt_keeps_doubt() {
    let mut world = quiet(Config::default(), reads_on());
    world.prime(0);
    world.publish(0, 1);
    world.pass(0);
    world.strike(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.pass(30 * MS);
    world.partitions[0].forced.push_back(Forced { code: 45, appended: None });
    name_leader(&mut world, 1);
    world.learn_news(1, 0);
    let looks = |world: &World| world.sender.counters().looks == 0;
    assert!(world.run_while(world.now + SECOND, looks).unwrap(), "the next leader's state is looked at");
    // The look finds the batch. Its only attempt is then lost with the former leader's connection.
    world.pass(5 * MS);
    world.cut_connections(0);
    world.pass(25 * MS);
    assert_eq!(world.told(2), None, "it is not confirmed yet");
    world.at(world.now, Event::Close);
    world.pass(0);
    world.assert_unknown(2..4);
    world.judge();
}

#[test]
fn look_answers_its_batch_alone() {
    let mut world = quiet(Config { max_in_flight: 1, ..Config::default() }, Rules::default());
    world.prime(0);
    // Both batches are written, and not acknowledged, and found out of sequence when they are sent again.
    let (written, refused) = (Forced { code: 7, appended: Some(false) }, Forced { code: 45, appended: None });
    world.partitions[0].forced.extend([written, refused, written, refused]);
    world.publish(0, 2);
    let looks = |world: &World| world.sender.counters().looks < 2;
    assert!(world.run_while(world.now + 5 * SECOND, looks).unwrap(), "each is looked for");
    // While the second look is under way the same broker leads under another epoch, of which it has not heard, and the
    // right to read is gone. The first batch is the head again, and this look is none of its.
    world.plan.rules.reading = Reading::Forbidden;
    world.brokers[0].news_delay = 20 * SECOND;
    name_leader(&mut world, 0);
    world.settle_all();
    world.assert_delivered(2..6);
    world.judge();
}

#[test]
fn old_records_travel_alone() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..Rules::default() };
    let mut world = quiet(Config::default(), rules);
    world.prime(0);
    // Once the old batch is written the leader forgets the id, and takes any sequence number. The next batch is too large.
    world.strike(Fault::LimitMessage { partition: 0, bytes: 220, time: 2 * SECOND });
    world.publish(0, 1);
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.publish(0, 2);
    world.settle_all();
    world.assert_delivered(2..18);
    assert_eq!(world.log_of(0), (0..18).collect::<Vec<_>>(), "in order");
    assert!(world.partitions[0].expiries > 0 && world.sender.counters().splits > 0);
    world.judge();
}

#[test]
fn missing_replicas_cost_no_retry() {
    let config = Config { retry_max: 0, delivery_timeout: std::time::Duration::from_secs(60), ..Config::default() };
    let mut world = quiet(config, Rules { replica_lag_max: SECOND, session_timeout: SECOND, ..Rules::default() });
    world.prime(0);
    world.strike(Fault::Kill { broker: 1, down: 25 * SECOND });
    world.strike(Fault::Kill { broker: 2, down: 25 * SECOND });
    world.publish(0, 1);
    world.pass(12 * SECOND);
    assert!(world.history.records[2].codes.contains(&7), "{:?}", world.history.records[2].codes);
    assert_eq!(world.told(2), None, "it is waited for");
    world.settle_all();
    assert!(matches!(world.told(2), Some(Told::Delivered(Some(2)))), "{:?}", world.told(2));
    world.judge();
}

#[test]
fn search_begins_at_first_attempt() {
    let rules =
        Rules { id_expiration_ms: Some(120_000), id_check: MS, reading: Reading::Forbidden, ..Rules::default() };
    let mut world = quiet(Config::default(), rules);
    world.prime(0);
    // The batch is written, its answer says nothing, and the leader forgets the id. Then it calls the batch too large.
    world.partitions[0].forced.push_back(Forced { code: 7, appended: Some(false) });
    world.partitions[0].forced.push_back(Forced { code: 10, appended: None });
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 4) }).unwrap();
    let waits = |world: &World| world.told(2).is_none();
    assert!(world.run_while(world.now + 5 * SECOND, waits).unwrap(), "the first half is delivered");
    assert_eq!(world.told(2), Some(Told::Delivered(Some(6))), "a second time");
    // The second half is in the log once, before the first half's second copy.
    world.partitions[0].forced.push_back(Forced { code: 29, appended: None });
    world.settle_all();
    world.assert_unknown(4..6);
    world.judge();
}

#[test]
fn lost_log_bounds_no_search() {
    let rules = Rules { replica_lag_max: SECOND, reading: Reading::Forbidden, ..Rules::default() };
    let mut world = quiet(Config::default(), rules);
    world.strike(Fault::Kill { broker: 1, down: 20 * SECOND });
    world.pass(12 * SECOND);
    (0..3).for_each(|_| world.prime(0));
    world.pass(10 * SECOND);
    // An election that is not clean loses all that was acknowledged: the next leader's log is empty.
    world.partitions[0].replicas[1] = crate::cluster::Replica { incarnation: 1, ..Default::default() };
    world.change(0, |truth| truth.isr &= !(1 << 1));
    world.strike(Fault::ElectUncleanly { partition: 0, to: 1 });
    (0..3).for_each(|broker| world.learn_news(broker, 0));
    let cluster = world.metadata_of(1);
    world.tell_metadata(cluster);
    // It does not know the sequence. Under the next epoch the batch is written, which its answer does not say.
    let written = Forced { code: 7, appended: Some(false) };
    let refused = [45, 29].map(|code| Forced { code, appended: None });
    world.partitions[0].forced.extend([refused[0], written, refused[1]]);
    world.publish(0, 1);
    world.settle_all();
    world.assert_unknown(6..8);
    assert_eq!(world.log_of(0), [6, 7], "before what was acknowledged");
    assert_eq!(world.history.records[6].search.as_ref().map(|search| search.from), Some(0), "it is looked for there");
    world.judge();
}

#[test]
fn failed_ids_doubt_no_leader() {
    let mut world = quiet(Config::default(), Rules { failing_ids: 6, ..Rules::default() });
    world.brokers[2].news_delay = 60 * SECOND;
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(1), truth.epoch + 1));
    (0..2).for_each(|broker| world.learn_news(broker, 0));
    let cluster = world.metadata_of(1);
    world.tell_metadata(cluster);
    world.publish(0, 1);
    let fail = |world: &World| world.plan.rules.failing_ids > 0;
    assert!(world.run_while(world.now + 20 * SECOND, fail).unwrap());
    world.pass(10 * MS);
    // No producer id is available, which is not the leader's fault. Broker 2 has not heard of it yet.
    let stale = world.metadata_of(2);
    world.tell_metadata(stale);
    world.settle_all();
    world.assert_delivered(0..2);
    world.judge();
}

#[test]
fn old_records_wait_for_earlier_answers() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..Rules::default() };
    let mut world = quiet(Config::default(), rules);
    world.prime(0);
    // Both are written and their answers lost. The old batch makes the leader forget the id, and with it the first batch.
    world.lose_answers(0, 20 * MS);
    world.publish(0, 1);
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.settle_all();
    world.assert_delivered(2..6);
    assert_eq!(world.log_of(0)[..4], [0, 1, 2, 3], "the first batch is there once");
    world.judge();
}

#[test]
fn halves_of_written_batch_are_found() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    // The whole is written and its answer says nothing. Then it is too large, and the leader recognizes none of its halves.
    world.partitions[0].forced.push_back(Forced { code: 7, appended: Some(false) });
    world.partitions[0].forced.push_back(Forced { code: 10, appended: None });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.settle_all();
    world.assert_delivered(2..10);
    assert_eq!(world.log_of(0), (0..10).collect::<Vec<_>>());
    world.judge();
}

#[test]
fn old_records_wait_for_unconfirmed() {
    let rules = Rules { id_expiration_ms: Some(120_000), id_check: MS, ..reads_on() };
    let mut world = quiet(Config::default(), rules);
    world.prime(0);
    world.publish(0, 1);
    world.pass(0);
    world.strike(Fault::Slow { broker: 0, time: SECOND, by: 4 * SECOND });
    world.pass(30 * MS);
    world.partitions[0].forced.push_back(Forced { code: 45, appended: None });
    name_leader(&mut world, 1);
    world.learn_news(1, 0);
    let looks = |world: &World| world.sender.counters().looks == 0;
    assert!(world.run_while(world.now + SECOND, looks).unwrap(), "the next leader's state is looked at");
    // The look finds the batch. Old records behind it would make each leader forget the id. A third one leads then, and the
    // first answer is lost.
    world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
    world.pass(20 * MS);
    world.cut_connections(0);
    name_leader(&mut world, 2);
    (0..2).for_each(|broker| world.learn_news(broker, 0));
    world.settle_all();
    world.assert_delivered(2..6);
    assert_eq!(world.log_of(0)[..4], [0, 1, 2, 3], "the first batch is there once");
    world.judge();
}

#[test]
fn passed_batch_goes_to_new_topic() {
    let sequence = SequenceRules { old_codes: true, ..SequenceRules::default() };
    let mut world = quiet(Config::default(), Rules { by_id: false, sequence, ..reads_on() });
    world.prime(0);
    world.partitions[0].forced.push_back(Forced { code: 3, appended: None });
    world.publish(0, 1);
    world.pass(0);
    // The second batch arrives late. The first is refused before that, and is sent again behind the second.
    world.strike(Fault::Slow { broker: 0, time: MS / 2, by: 600 * MS });
    world.publish(0, 1);
    let sent = |world: &World| world.history.records[2].sends.count < 2;
    assert!(world.run_while(world.now + 400 * MS, sent).unwrap(), "the first batch goes again");
    world.strike(Fault::DeleteTopic { topic: 0 });
    world.strike(Fault::CreateTopic { topic: 0, partitions: 3 });
    name_leader(&mut world, 0);
    (0..2).for_each(|broker| world.learn_news(broker, 0));
    // The new topic takes the second batch. The first one's sequence number is too low there.
    world.settle_all();
    assert!(world.history.records[2].codes.contains(&46), "{:?}", world.history.records[2].codes);
    world.assert_delivered(2..6);
    world.judge();
}

#[test]
fn unexpected_duplicate_is_looked_for() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    // The leader calls the only attempt of each batch a duplicate. The first batch is written, the second is not.
    world.partitions[0].forced.push_back(Forced { code: 46, appended: Some(false) });
    world.publish(0, 1);
    world.settle_all();
    assert_eq!(world.told(2), Some(Told::Delivered(Some(2))), "the log shows it");
    world.partitions[0].forced.push_back(Forced { code: 46, appended: None });
    world.publish(0, 1);
    world.settle_all();
    world.assert_unknown(4..6);
    assert_eq!(world.sender.counters().looks, 2);
    world.judge();
}

#[test]
fn unexpected_duplicate_proves_nothing() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    // The leader calls a batch a duplicate that it has not written, and a look is impossible. Then the leader forgets the id
    // and takes the next batch.
    world.partitions[0].forced.extend([46, 46].map(|code| Forced { code, appended: None }));
    world.brokers[0].news_delay = 5 * SECOND;
    name_leader(&mut world, 0);
    world.publish(0, 2);
    let forced = |world: &World| !world.partitions[0].forced.is_empty();
    assert!(world.run_while(world.now + 2 * SECOND, forced).unwrap(), "it is sent again");
    world.partitions[0].replicas[0].producers = Producers::default();
    world.settle_all();
    assert_eq!(world.log_of(0), [0, 1, 4, 5], "the next batch alone is written");
    world.assert_unknown(2..4);
    world.assert_delivered(4..6);
    world.judge();
}
