//! How often each thing that matters was reached, over all schedules.
//!
//! Rule: what must be reached is listed; a zero fails, so that a simulation that has become blind is seen.

use std::collections::BTreeMap;

use kafka_courier_idempotent_sender::core::Counters;

use crate::history::{History, Told};

/// Every treatment of the outcome table, and every move of stamps.
const REQUIRED: &[&str] = &[
    "treatment delivered",
    "treatment duplicate",
    "treatment wait",
    "treatment wait_for_leader",
    "treatment retry",
    "treatment split",
    "treatment sequence",
    "treatment new_topic_id",
    "treatment reject",
    "epoch raised",
    "id exhausted",
    "split",
    "sequence wrapped",
    "acknowledged data lost",
    "guilty singled out",
    "look",
    "several connections to a broker",
    "correction",
    "record delivered",
    "record delivered, offset unknown",
    "record not written",
    "record unknown",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<String, u64>,
    pub(crate) schedules: u64,
}

impl Coverage {
    pub(crate) fn note(&mut self, counters: &Counters, history: &History) {
        self.schedules += 1;
        for (name, count) in &counters.treatments {
            self.add(&format!("treatment {name}"), *count);
        }
        for (name, count) in &history.faults {
            self.add(&format!("fault {name}"), *count);
        }
        self.add("epoch raised", counters.epoch_raises);
        self.add("id exhausted", counters.ids_exhausted);
        self.add("split", counters.splits);
        self.add("sequence wrapped", counters.sequence_wraps);
        self.add("acknowledged data lost", counters.acknowledged_lost);
        self.add("guilty singled out", counters.singled_out);
        self.add("look", counters.looks);
        self.add("correction", counters.corrections);
        self.add("several connections to a broker", u64::from(history.parallel_connections > 1));
        self.add("request", counters.requests);
        self.add("batch sent again", counters.batch_retries);
        for record in &history.records {
            self.add(
                match record.verdict {
                    Some(Told::Delivered(Some(_))) => "record delivered",
                    Some(Told::Delivered(None)) => "record delivered, offset unknown",
                    Some(Told::NotWritten(_)) => "record not written",
                    Some(Told::Unknown(_)) => "record unknown",
                    None => "record without verdict",
                },
                1,
            );
        }
    }

    fn add(&mut self, name: &str, count: u64) {
        match self.counts.get_mut(name) {
            Some(sum) => *sum += count,
            None => {
                self.counts.insert(name.to_owned(), count);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.schedules += other.schedules;
        for (name, count) in &other.counts {
            self.add(name, *count);
        }
    }

    /// What was never reached and must be.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        REQUIRED.iter().filter(|name| self.counts.get(**name).is_none_or(|count| *count == 0)).copied().collect()
    }

    pub(crate) fn print(&self) {
        println!("{} schedules", self.schedules);
        for (name, count) in &self.counts {
            println!("{count:>14}  {name}");
        }
    }
}
