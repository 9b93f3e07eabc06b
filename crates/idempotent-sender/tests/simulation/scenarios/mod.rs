//! Scenarios by name: a cluster that does nothing of itself, and one story each.
//!
//! Rule: a story is told in steps of virtual time; the checker judges its end as it judges random schedules.

mod checker;
mod doubts;
mod errors;
mod leaders;
mod regressions;
mod security;
mod silence;

use std::time::Duration;

use kafka_courier_idempotent_sender::core::Config;

use crate::cluster::{Forced, MS, Micros, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::log::FOREIGN;
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

/// Batches are given up at their first lost answer.
fn impatient() -> Config {
    Config { retry_max: 0, ..Config::default() }
}

/// Waiting ends after this many seconds.
fn waits(seconds: u64) -> Config {
    Config { delivery_timeout: Duration::from_secs(seconds), ..Config::default() }
}

/// Everything that was written arrives, however late.
fn reads_on() -> Rules {
    Rules { reads_on: 100, ..Rules::default() }
}

impl World {
    /// Hands in so many batches of two records each.
    fn publish(&mut self, partition: usize, batches: usize) {
        for _ in 0..batches {
            self.submit(&BatchPlan::of(partition, 2)).unwrap();
        }
    }

    /// One batch of two records, delivered: from here on the leader knows the stamp.
    fn prime(&mut self, partition: usize) {
        self.publish(partition, 1);
        self.pass(SECOND);
        assert_eq!(self.sender.unsettled(), 0, "the first batch is delivered at once");
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
        self.check_guilt().unwrap();
    }

    /// From now on what the broker is sent under way is lost, and its connections end.
    fn cut_connections(&mut self, broker: usize) {
        self.strike(Fault::CutConnections { broker });
    }

    fn lose_answers(&mut self, broker: usize, time: Micros) {
        self.strike(Fault::LoseAnswers { broker, time });
    }

    /// The numbers of the records in the partition, as its leader has them.
    fn log_of(&self, partition: usize) -> Vec<u32> {
        let model = &self.partitions[partition];
        let log = &model.replicas[model.truth.leader.unwrap()].log;
        log.iter().flat_map(|entry| entry.records.iter().copied()).filter(|number| *number != FOREIGN).collect()
    }

    /// The next answer of the partition comes too late, or is a refusal.
    fn disturb(&mut self, partition: usize, lost: bool) {
        if lost {
            self.lose_answers(self.partitions[partition].truth.leader.unwrap(), 10 * MS);
        } else {
            self.partitions[partition].forced.push_back(Forced { code: 6, appended: None });
        }
    }

    fn told(&self, record: usize) -> Option<Told> {
        self.history.records[record].verdict
    }

    fn assert_delivered(&self, records: std::ops::Range<usize>) {
        for record in records {
            assert!(matches!(self.told(record), Some(Told::Delivered(_))), "record {record}: {:?}", self.told(record));
        }
    }

    fn assert_unknown(&self, records: std::ops::Range<usize>) {
        for record in records {
            assert!(matches!(self.told(record), Some(Told::Unknown(_))), "record {record}: {:?}", self.told(record));
        }
    }
}
