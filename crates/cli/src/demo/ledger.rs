//! The ledger: the library's verdict on each event, checked against the brokers' logs.
//!
//! Rules:
//! - The logs alone decide.
//! - An event is correct only if its verdict, its offset and its order are.

use std::collections::HashMap;
use std::fmt;

use indicatif::HumanCount;
use kafka_courier::{DeliveryError, FailedOutcome, RecordMetadata, headers};
use kafka_courier_test_broker::{Record, TestCluster};

/// The library's verdict on an event.
pub(super) struct EventVerdict {
    pub(super) id: String,
    pub(super) result: Result<RecordMetadata, DeliveryError>,
    /// The event failed, and a replay delivered its dead letter.
    pub(super) replayed: bool,
}

/// The result of the check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DemoLedger {
    events: u64,
    delivered: u64,
    not_written: u64,
    replayed: u64,
    unknown: u64,
    /// Verdicts that the log contradicts: delivered, but not at the reported offset, or not written, but in the log.
    untrue: u64,
    duplicates: u64,
    /// Events after a later event of the same key.
    out_of_order: u64,
    /// A line for each contradicted verdict.
    contradictions: Vec<String>,
}

impl DemoLedger {
    pub(super) fn is_ok(&self) -> bool {
        self.untrue == 0 && self.duplicates == 0 && self.out_of_order == 0
    }
}

impl fmt::Display for DemoLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, delivered, not_written, replayed, unknown, untrue, duplicates, out_of_order, .. } = self;
        writeln!(f, "verdicts checked against the brokers' logs:")?;
        for (count, text) in [
            (events, "events published"),
            (delivered, "delivered"),
            (not_written, "not written"),
            (replayed, "rejected first, then delivered by the replay"),
            (unknown, "unknown"),
            (untrue, "verdicts that a log contradicts"),
            (duplicates, "events that a log holds twice"),
            (out_of_order, "events out of order within their key"),
        ] {
            writeln!(f, "{:>8} {text}", HumanCount(*count).to_string())?;
        }
        for contradiction in &self.contradictions {
            writeln!(f, "         {contradiction}")?;
        }
        f.write_str(if self.is_ok() { "ledger: ok" } else { "ledger: FAILED" })
    }
}

/// Checks the verdicts against the logs of these topics.
pub(super) fn check(cluster: &TestCluster, topics: &[&str], receipts: &[EventVerdict]) -> DemoLedger {
    let mut ledger = DemoLedger { events: receipts.len() as u64, ..DemoLedger::default() };
    let mut places: HashMap<String, Vec<(i32, i64)>> = HashMap::new();
    for topic in topics {
        let mut last: HashMap<Vec<u8>, u64> = HashMap::new();
        for record in cluster.records(topic) {
            if let Some(number) = running_number(&record) {
                let before = last.insert(record.key.as_deref().unwrap_or_default().to_vec(), number);
                ledger.out_of_order += u64::from(before.is_some_and(|before| before >= number));
            }
            let id = record.header(headers::EVENT_ID).map(|id| String::from_utf8_lossy(id).into_owned());
            places.entry(id.unwrap_or_default()).or_default().push((record.partition, record.offset));
        }
    }
    for receipt in receipts {
        let found = places.get(&receipt.id).map_or(&[][..], Vec::as_slice);
        ledger.duplicates += u64::from(found.len() > 1);
        ledger.enter(receipt, found);
    }
    ledger
}

impl DemoLedger {
    fn enter(&mut self, receipt: &EventVerdict, found: &[(i32, i64)]) {
        let before = self.untrue;
        self.compare(receipt, found);
        if self.untrue > before {
            let verdict = match &receipt.result {
                Ok(placed) => format!("{placed:?}"),
                Err(error) => format!("{error}, {}", if receipt.replayed { "replayed" } else { "not replayed" }),
            };
            self.contradictions.push(format!("{}: {verdict}, but in the log at {found:?}", receipt.id));
        }
    }

    fn compare(&mut self, receipt: &EventVerdict, found: &[(i32, i64)]) {
        match &receipt.result {
            Ok(placed) => {
                self.delivered += 1;
                let is_reported = |(partition, offset): &(i32, i64)| {
                    *partition == placed.partition && placed.offset.is_none_or(|reported| reported == *offset)
                };
                self.untrue += u64::from(!found.iter().any(is_reported));
            }
            Err(_) if receipt.replayed => {
                self.replayed += 1;
                self.untrue += u64::from(found.is_empty());
            }
            Err(error) if error.outcome() == FailedOutcome::NotWritten => {
                self.not_written += 1;
                self.untrue += u64::from(!found.is_empty());
            }
            Err(_) => self.unknown += 1,
        }
    }
}

/// Returns the event's number within its key, which `courier sample` assigns.
fn running_number(record: &Record) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    event.get("sample")?.get("seq")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradicted_verdict_fails_ledger() {
        let mut ledger = DemoLedger { untrue: 1, ..DemoLedger::default() };
        assert!(!ledger.is_ok() && ledger.to_string().ends_with("ledger: FAILED"));
        ledger.untrue = 0;
        assert!(ledger.is_ok() && ledger.to_string().ends_with("ledger: ok"));
    }
}
