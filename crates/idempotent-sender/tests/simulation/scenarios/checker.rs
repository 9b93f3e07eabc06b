//! The checker itself: what it must find, also where something else has an excuse.
//!
//! Rule: each test has a true history first, which is judged well, and then one that lies.

use kafka_courier_idempotent_sender::core::Config;

use super::quiet;
use crate::cluster::MS;
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::Rules;
use crate::world::World;

/// A topic that was made anew and is written to by name: what was meant for its former life has excuses.
fn made_anew() -> World {
    let mut world = quiet(Config::default(), Rules { by_id: false, ..Rules::default() });
    world.prime(0);
    world.strike(Fault::DeleteTopic { topic: 0 });
    world.pass(300 * MS);
    world.strike(Fault::CreateTopic { topic: 0, partitions: 3 });
    world.publish(0, 1);
    world.settle_all();
    world.check().unwrap();
    world
}

#[test]
fn a_record_that_was_delivered_at_an_offset_has_no_excuse_for_not_being_in_the_log() {
    let mut world = made_anew();
    world.partitions[0].committed.clear();
    let record = &mut world.history.records[0];
    assert!(matches!(record.verdict, Some(Told::Delivered(Some(_)))));
    // As if it had been told in the topic's second life.
    record.when_told.1 = 2;
    let found = world.check().unwrap_err();
    assert!(found.contains("p0 record 0") && found.contains("not in the log"), "{found}");
}

#[test]
fn an_excused_record_hides_no_disorder_around_it() {
    let mut world = quiet(Config::default(), Rules::default());
    world.publish(0, 3);
    world.settle_all();
    world.check().unwrap();
    for replica in &mut world.partitions[0].replicas {
        replica.log.swap(0, 2);
        // The one between them was appended after producers had been forgotten.
        replica.log[1].forgets = 1;
        replica.log[1].records = std::rc::Rc::from([9_u32, 9]);
    }
    world.history.records.resize(10, world.history.records[0].clone());
    let found = world.check().unwrap_err();
    assert!(found.contains("record 0 follows 5 in the log"), "{found}");
}
