//! Named scenarios on a cluster without random faults.
//!
//! Rule: a scenario advances virtual time in steps. Its end passes the same checks as random schedules.

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
use crate::history::RecordVerdict;
use crate::log::FOREIGN;
use crate::plan::{BatchPlan, Plan, Rules};
use crate::world::World;

/// Returns a cluster without faults whose topics the sender knows.
fn ready_world(config: Config, rules: Rules) -> World {
    let plan = Plan {
        seed: 1,
        config,
        rules,
        batches: Vec::new(),
        faults: Vec::new(),
        heal_at: 1 << 40,
        close_at: None,
        lives: Vec::new(),
        suspensions: Vec::new(),
        starts_with_wrong_clock: false,
        renumbers: false,
    };
    let mut world = World::new(plan, std::env::var_os("SIM_TRACE").is_some()).unwrap();
    world.run_for(SECOND).unwrap();
    assert!(world.submitting, "the topics are known after a second");
    world
}

/// Returns settings under which the first lost answer fails a batch.
fn no_retries() -> Config {
    Config { retry_max: 0, ..Config::default() }
}

/// Returns settings with a `delivery_timeout` of this number of seconds.
fn with_delivery_timeout(seconds: u64) -> Config {
    Config { delivery_timeout: Duration::from_secs(seconds), ..Config::default() }
}

/// Returns rules under which every written request arrives, however late.
fn late_requests_arrive() -> Rules {
    Rules { late_arrival_percent: 100, ..Rules::default() }
}

impl World {
    /// Submits batches of two records each.
    fn publish(&mut self, partition: usize, batches: usize) {
        for _ in 0..batches {
            self.submit(&BatchPlan::of(partition, 2)).unwrap();
        }
    }

    /// Publishes one batch of two records and waits for its delivery. The leader knows the producer id from then on.
    fn prime(&mut self, partition: usize) {
        self.publish(partition, 1);
        self.advance_time(SECOND);
        assert_eq!(self.sender.unsettled(), 0, "the first batch is delivered within a second");
    }

    fn advance_time(&mut self, time: Micros) {
        self.run_for(time).unwrap();
    }

    /// Runs until all records have verdicts.
    fn settle_all(&mut self) {
        let until = self.now + 120 * SECOND;
        assert!(
            self.run_while(until, |world| world.sender.unsettled() > 0).unwrap(),
            "a record has no verdict after 120 s"
        );
    }

    /// Ends all faults and runs all checks. One more batch for each partition must be delivered.
    fn heal_and_check(&mut self) {
        self.heal();
        self.settle_all();
        self.advance_time(60 * SECOND);
        self.probe().unwrap();
        self.check().unwrap();
        self.check_rejections().unwrap();
    }

    /// Ends the broker's connections. Requests in transit may be lost.
    fn cut_connections(&mut self, broker: usize) {
        self.inject(Fault::CutConnections { broker });
    }

    fn lose_answers(&mut self, broker: usize, time: Micros) {
        self.inject(Fault::LoseAnswers { broker, time });
    }

    /// Returns the numbers of the records in the log of the partition's leader.
    fn leader_log(&self, partition: usize) -> Vec<u32> {
        let model = &self.partitions[partition];
        let log = &model.replicas[model.truth.leader.unwrap()].log;
        log.iter().flat_map(|entry| entry.records.iter().copied()).filter(|number| *number != FOREIGN).collect()
    }

    /// Loses the partition's next answer, or makes that answer a refusal.
    fn disturb_next_answer(&mut self, partition: usize, lost: bool) {
        if lost {
            self.lose_answers(self.partitions[partition].truth.leader.unwrap(), 10 * MS);
        } else {
            self.partitions[partition].forced.push_back(Forced { code: 6, appended: None });
        }
    }

    fn verdict(&self, record: usize) -> Option<RecordVerdict> {
        self.history.records[record].verdict
    }

    fn assert_delivered(&self, records: std::ops::Range<usize>) {
        for record in records {
            assert!(
                matches!(self.verdict(record), Some(RecordVerdict::Delivered(_))),
                "record {record}: {:?}",
                self.verdict(record)
            );
        }
    }

    fn assert_unknown(&self, records: std::ops::Range<usize>) {
        for record in records {
            assert!(
                matches!(self.verdict(record), Some(RecordVerdict::Unknown(_))),
                "record {record}: {:?}",
                self.verdict(record)
            );
        }
    }
}
