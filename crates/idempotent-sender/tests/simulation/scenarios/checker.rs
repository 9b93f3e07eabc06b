//! Tests of the checker: violations that it must find, also next to excused records.
//!
//! Rule: each test has a valid history first, which passes the checks, and then falsifies that history.

use kafka_courier_idempotent_sender::core::Config;

use super::ready_world;
use crate::cluster::MS;
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::plan::Rules;
use crate::world::World;

/// Returns a world with a recreated topic that is written by name. Records for the former incarnation are excused.
fn recreated_topic() -> World {
    let mut world = ready_world(Config::default(), Rules { by_id: false, ..Rules::default() });
    world.prime(0);
    world.inject(Fault::DeleteTopic { topic: 0 });
    world.advance_time(300 * MS);
    world.inject(Fault::CreateTopic { topic: 0, partitions: 3 });
    world.publish(0, 1);
    world.settle_all();
    world.check().unwrap();
    world
}

#[test]
fn missing_delivery_has_no_excuse() {
    let mut world = recreated_topic();
    world.partitions[0].committed.clear();
    let record = &mut world.history.records[0];
    assert!(matches!(record.verdict, Some(RecordVerdict::Delivered(Some(_)))));
    // The falsified verdict belongs to the topic's second incarnation.
    record.settled_in.1 = 2;
    let found = world.check().unwrap_err();
    assert!(found.contains("p0 record 0") && found.contains("not in the log"), "{found}");
}

#[test]
fn excused_record_hides_no_disorder() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.publish(0, 3);
    world.settle_all();
    world.check().unwrap();
    for replica in &mut world.partitions[0].replicas {
        replica.log.swap(0, 2);
        // The batch between the swapped ones was appended after the leader forgot its producers.
        replica.log[1].forgets = 1;
        replica.log[1].records = std::rc::Rc::from([9_u32, 9]);
    }
    world.history.records.resize(10, world.history.records[0].clone());
    let found = world.check().unwrap_err();
    assert!(found.contains("record 0 follows 5 in the log"), "{found}");
}
