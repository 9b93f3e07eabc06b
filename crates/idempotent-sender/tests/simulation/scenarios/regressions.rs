//! What the simulation found, each as its own short story.

use kafka_courier_idempotent_sender::core::Config;

use super::quiet;
use crate::cluster::SECOND;
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::Rules;

#[test]
fn a_connection_that_falls_silent_after_being_idle_is_cut_at_the_request_timeout() {
    let mut world = quiet(Config::default(), Rules::default());
    world.publish(0, 1);
    world.pass(5 * SECOND);
    world.strike(Fault::LoseAnswers { broker: 0, time: SECOND });
    world.publish(0, 1);
    world.pass(12 * SECOND);
    assert!(matches!(world.told(2), Some(Told::Delivered(Some(2)))), "{:?}", world.told(2));
    world.judge();
}
