//! The counts of all reached code paths and faults, over all schedules.
//!
//! Rule: every required item is listed, and a count of 0 fails. A simulation that no longer reaches an item is noticed.

use std::collections::BTreeMap;

use kafka_courier_client::ErrorCode;
use kafka_courier_idempotent_sender::core::Counters;

use crate::history::{History, RecordVerdict};
use crate::lives::Lives;
use crate::plan::Reading;
use crate::record::RecordHistory;

/// Every code of the outcome table and of the refusals, one other code that Kafka calls retriable, and one unknown
/// code.
const CODES: &[i16] = &[
    -1, 0, 2, 3, 5, 6, 7, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 29, 31, 32, 35, 42, 43, 44, 45, 46, 47, 48, 56, 59,
    74, 75, 76, 87, 89, 100, 103, 999,
];

/// Every treatment of the outcome table, every cause of an epoch move, every cause of a failure, every fault.
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
    "epoch move blocked",
    "epoch move singled_out",
    "epoch move gap_ended",
    "epoch move gap_blocked",
    "epoch move acknowledged_lost",
    "epoch move topic_recreated",
    "epoch move all_failed",
    "failed: time ran out",
    "failed: closed",
    "failed: topic recreated",
    "failed: partition removed",
    "failed: final code",
    "failed: too large",
    "failed: sequence",
    "failed: write errors",
    "failed: not confirmed",
    "failed: credentials refused",
    "failed: credentials refused for metadata or id",
    "fault kill",
    "fault clean_restart",
    "fault pause",
    "fault election",
    "fault cut_connections",
    "fault lost_answers",
    "fault stalled_requests",
    "fault slow_link",
    "fault refused_connections",
    "fault refused_credentials",
    "fault fence",
    "fault throttle",
    "fault late_updates",
    "fault omitted_parts",
    "fault forced_error",
    "fault refusal",
    "fault message_limit",
    "fault segment_limit",
    "fault slow_replication",
    "fault disk_failure",
    "fault compaction",
    "fault age_limit",
    "fault topic_deleted",
    "fault topic_recreated",
    "fault topic_grown",
    "fault unclean_election",
    "older hint",
    "idle connection closed by its broker",
    "id exhausted",
    "split",
    "sequence wrapped",
    "acknowledged data lost",
    "rejected record singled out",
    "look",
    "search of a log",
    "batch found in a log",
    "look answered by a follower",
    "several connections to a broker",
    "session replaced",
    "session outlived",
    "fenced id left",
    "correction",
    "record delivered",
    "record delivered, offset unknown",
    "record not written",
    "record unknown",
];

const REQUIRED_IN_LIVES: &[&str] = &[
    "fault records_deleted",
    "death",
    "inherited batch",
    "batch resumed",
    "batch with new timestamps",
    "search of a log",
    "batch found in a log",
    "acknowledged data lost",
    "split",
    "record delivered",
    "record not written",
    "record unknown",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<String, u64>,
    pub(crate) schedules: u64,
}

/// Returns the item name of an answer with this code that decided about a batch.
fn code_name(code: i16) -> String {
    match code {
        0 => "answer 0".to_owned(),
        code => format!("answer {}", ErrorCode(code)),
    }
}

impl Coverage {
    pub(crate) fn note(&mut self, counters: &Counters, history: &History) {
        self.schedules += 1;
        for (name, count) in &counters.treatments {
            self.add(&format!("treatment {name}"), *count);
        }
        for (code, count) in &counters.answers {
            self.add(&code_name(*code), *count);
        }
        for (name, count) in &counters.epoch_moves {
            self.add(&format!("epoch move {name}"), *count);
        }
        for (name, count) in &history.causes {
            self.add(&format!("failed: {name}"), *count);
        }
        self.add("older hint", history.older_hints);
        self.add("idle connection closed by its broker", history.idle_closed);
        for (name, count) in &history.faults {
            self.add(&format!("fault {name}"), *count);
        }
        self.add("epoch raised", counters.epoch_raises);
        self.add("id exhausted", counters.ids_exhausted);
        self.add("split", counters.splits);
        self.add("sequence wrapped", counters.sequence_wraps);
        self.add("acknowledged data lost", counters.acknowledged_lost);
        self.add("rejected record singled out", counters.singled_out);
        self.add("look", counters.state_lookups);
        self.add("search of a log", counters.searches);
        self.add("batch found in a log", counters.found_in_log);
        self.add("look answered by a follower", history.follower_looks);
        self.add("correction", counters.corrections);
        self.add("session replaced", counters.sessions_replaced);
        self.add("session outlived", history.sessions_outlived);
        self.add("fenced id left", counters.fenced_ids_left);
        self.add("several connections to a broker", u64::from(history.parallel_connections > 1));
        self.add("request", counters.requests);
        self.add("batch sent again", counters.batch_retries);
        self.add("batch resumed", counters.resumed);
        for record in &history.records {
            self.add(
                match record.verdict {
                    Some(RecordVerdict::Delivered(Some(_))) => "record delivered",
                    Some(RecordVerdict::Delivered(None)) => "record delivered, offset unknown",
                    Some(RecordVerdict::NotWritten(_)) => "record not written",
                    Some(RecordVerdict::Unknown(_)) => "record unknown",
                    Some(RecordVerdict::Stored) => "record stored",
                    None => "record without verdict",
                },
                1,
            );
        }
    }

    pub(crate) fn note_lives(&mut self, lives: &Lives, history: &History, reading: Reading) {
        self.add("death", lives.deaths);
        self.add("inherited batch", lives.inherited);
        self.add("batch with new timestamps", lives.renewed);
        self.add("batch resumed", lives.counters.resumed);
        self.add("search of a log", lives.counters.searches);
        self.add("batch found in a log", lives.counters.found_in_log);
        self.add("acknowledged data lost", lives.counters.acknowledged_lost);
        self.add("split", lives.counters.splits);
        if reading == Reading::Allowed {
            let unknown = |record: &&RecordHistory| matches!(record.verdict, Some(RecordVerdict::Unknown(_)));
            self.add(
                "record unknown though the log is readable",
                history.records.iter().filter(unknown).count() as u64,
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

    /// Returns the required items of schedules with several lives that were never reached.
    pub(crate) fn missing_in_lives(&self) -> Vec<String> {
        let all = REQUIRED_IN_LIVES.iter().map(|name| (*name).to_owned());
        all.filter(|name| self.counts.get(name).is_none_or(|count| *count == 0)).collect()
    }

    /// Returns the required items that were never reached.
    pub(crate) fn missing(&self) -> Vec<String> {
        let codes = CODES.iter().map(|code| code_name(*code));
        let all = REQUIRED.iter().map(|name| (*name).to_owned()).chain(codes);
        all.filter(|name| self.counts.get(name).is_none_or(|count| *count == 0)).collect()
    }

    pub(crate) fn print(&self) {
        println!("{} schedules", self.schedules);
        for (name, count) in &self.counts {
            println!("{count:>14}  {name}");
        }
    }
}
