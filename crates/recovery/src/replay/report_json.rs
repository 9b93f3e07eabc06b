//! The report of a replay as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::ReplayReport;

#[derive(Serialize)]
struct ReportJson<'a> {
    dry_run: bool,
    selected: u64,
    /// Present only in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_be_sent: Option<u64>,
    delivered: u64,
    landed: u64,
    failed: u64,
    left_out: u64,
    not_found: u64,
    too_often: u64,
    held_back: u64,
    seconds: f64,
    by_topic: &'a BTreeMap<String, u64>,
    reasons: &'a BTreeMap<String, u64>,
}

impl ReplayReport {
    /// Returns the number of letters that a dry run would send.
    pub fn would_be_sent(&self) -> u64 {
        self.by_topic.values().sum()
    }

    /// Returns the report as it is in JSON: that of `courier dlq replay --json` and of the service. `took` is the time of the replay.
    pub fn as_json(&self, dry_run: bool, took: Duration) -> impl Serialize {
        ReportJson {
            dry_run,
            selected: self.selected,
            would_be_sent: dry_run.then(|| self.would_be_sent()),
            delivered: self.delivered,
            landed: self.landed,
            failed: self.failed,
            left_out: self.left_out,
            not_found: self.not_found,
            too_often: self.too_often,
            held_back: self.held_back,
            seconds: took.as_secs_f64(),
            by_topic: &self.by_topic,
            reasons: &self.reasons,
        }
    }
}
