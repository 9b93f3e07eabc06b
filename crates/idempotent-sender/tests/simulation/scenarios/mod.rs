//! Scenarios by name: a cluster that does nothing of itself, and one story each.
//!
//! Rule: a story is told in steps of virtual time; the checker judges its end as it judges random schedules.

mod regressions;

use kafka_courier_idempotent_sender::core::Config;

use crate::cluster::{Micros, SECOND};
use crate::history::Told;
use crate::plan::{BatchPlan, Plan, Rules};
use crate::world::World;

/// A quiet cluster whose topics the sender knows.
fn quiet(config: Config, rules: Rules) -> World {
    let plan =
        Plan { seed: 1, config, rules, batches: Vec::new(), faults: Vec::new(), heal_at: 1 << 40, close_at: None };
    let mut world = World::new(plan, std::env::var_os("SIM_TRACE").is_some()).unwrap();
    world.run_for(SECOND).unwrap();
    assert!(world.submitting, "the topics are known after a second");
    world
}

impl World {
    /// Hands in so many batches of two records each.
    fn publish(&mut self, partition: usize, batches: usize) {
        for _ in 0..batches {
            self.submit(&BatchPlan::of(partition, 2)).unwrap();
        }
    }

    fn pass(&mut self, time: Micros) {
        self.run_for(time).unwrap();
    }

    /// Runs until everything has a verdict.
    fn settle_all(&mut self) {
        let until = self.now + 120 * SECOND;
        assert!(self.run_while(until, |world| world.sender.unsettled() > 0).unwrap(), "something has no verdict");
    }

    /// Lifts all faults and lets the checker judge, and one more batch for each partition must go through.
    fn judge(&mut self) {
        self.heal();
        self.settle_all();
        self.pass(60 * SECOND);
        self.probe().unwrap();
        self.check().unwrap();
    }

    fn told(&self, record: usize) -> Option<Told> {
        self.history.records[record].verdict
    }
}
