//! The ledger: what the library said of each event, against what the brokers' logs hold.
//!
//! Rules: drawn up from the logs alone; an event counts as right only if its verdict, its place and its order are.

use std::collections::HashMap;
use std::fmt;

use indicatif::HumanCount;
use kafka_courier::{DeliveryError, FailedOutcome, RecordMetadata, headers};
use kafka_courier_test_broker::{Record, TestCluster};

/// What the library said of an event.
pub(super) struct Receipt {
    pub(super) id: String,
    pub(super) result: Result<RecordMetadata, DeliveryError>,
    /// It was given up, and its dead letter was sent again and delivered.
    pub(super) replayed: bool,
}

/// What the ledger says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    events: u64,
    delivered: u64,
    not_written: u64,
    replayed: u64,
    unknown: u64,
    /// Reported delivered and not in the log where that was said, or reported not written and in it.
    untrue: u64,
    doubled: u64,
    /// Behind a later event of the same key.
    disordered: u64,
    /// The verdicts that are not true.
    contradictions: Vec<String>,
}

impl Balance {
    pub(super) fn is_even(&self) -> bool {
        self.untrue == 0 && self.doubled == 0 && self.disordered == 0
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, delivered, not_written, replayed, unknown, untrue, doubled, disordered, .. } = self;
        writeln!(f, "the ledger, from the brokers' logs:")?;
        for (count, what) in [
            (events, "events published"),
            (delivered, "reported delivered, each in the log where it was said"),
            (not_written, "reported not written, none of them in the log"),
            (replayed, "refused, and in the log since their dead letters were sent again"),
            (unknown, "reported unknown"),
            (untrue, "verdicts that are not true"),
            (doubled, "in the log twice"),
            (disordered, "out of order among those of their key"),
        ] {
            writeln!(f, "{:>8} {what}", HumanCount(*count).to_string())?;
        }
        for contradiction in &self.contradictions {
            writeln!(f, "         {contradiction}")?;
        }
        f.write_str(if self.is_even() { "it balances" } else { "IT DOES NOT BALANCE" })
    }
}

/// Draws it up.
pub(super) fn balance(cluster: &TestCluster, topics: &[&str], receipts: &[Receipt]) -> Balance {
    let mut balance = Balance { events: receipts.len() as u64, ..Balance::default() };
    let mut places: HashMap<String, Vec<(i32, i64)>> = HashMap::new();
    for topic in topics {
        let mut last: HashMap<Vec<u8>, u64> = HashMap::new();
        for record in cluster.records(topic) {
            if let Some(number) = running_number(&record) {
                let before = last.insert(record.key.as_deref().unwrap_or_default().to_vec(), number);
                balance.disordered += u64::from(before.is_some_and(|before| before >= number));
            }
            let id = record.header(headers::EVENT_ID).map(|id| String::from_utf8_lossy(id).into_owned());
            places.entry(id.unwrap_or_default()).or_default().push((record.partition, record.offset));
        }
    }
    for receipt in receipts {
        let found = places.get(&receipt.id).map_or(&[][..], Vec::as_slice);
        balance.doubled += u64::from(found.len() > 1);
        balance.enter(receipt, found);
    }
    balance
}

impl Balance {
    fn enter(&mut self, receipt: &Receipt, found: &[(i32, i64)]) {
        let before = self.untrue;
        self.compare(receipt, found);
        if self.untrue > before {
            let said = match &receipt.result {
                Ok(placed) => format!("{placed:?}"),
                Err(error) => format!("{error}, {}", if receipt.replayed { "replayed" } else { "not replayed" }),
            };
            self.contradictions.push(format!("{}: {said}; in the log at {found:?}", receipt.id));
        }
    }

    fn compare(&mut self, receipt: &Receipt, found: &[(i32, i64)]) {
        match &receipt.result {
            Ok(placed) => {
                self.delivered += 1;
                let there = |(partition, offset): &(i32, i64)| {
                    *partition == placed.partition && placed.offset.is_none_or(|said| said == *offset)
                };
                self.untrue += u64::from(!found.iter().any(there));
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

/// The sample's number of the event among those of its key.
fn running_number(record: &Record) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    event.get("sample")?.get("seq")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_the_log_contradicts_does_not_balance() {
        let mut balance = Balance { untrue: 1, ..Balance::default() };
        assert!(!balance.is_even() && balance.to_string().ends_with("IT DOES NOT BALANCE"));
        balance.untrue = 0;
        assert!(balance.is_even() && balance.to_string().ends_with("it balances"));
    }
}
