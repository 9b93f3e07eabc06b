//! The progress line on standard error, if that is a terminal.
//!
//! Rules:
//! - The line is not drawn before the first update.
//! - Printed lines stay above the progress line.
//! - An outage is shown as long as it lasts.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::{BrokerStats, Reachability};

use super::counts::InputCounts;
use crate::terminal::printable;

/// Shortest interval between two updates.
const EVERY: Duration = Duration::from_millis(100);
/// Time between two lines about an outage, where standard error is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(60);

pub(super) struct ProgressLine {
    bar: ProgressBar,
    started: Instant,
    shown: Option<Instant>,
    /// When a line about an outage was last printed without a terminal.
    reported: Instant,
}

/// Events without a verdict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) events: u64,
    /// Time until the oldest of them fails.
    pub(super) until_failure: Option<Duration>,
    /// Whether the events are in a spool, and do not fail.
    pub(super) is_stored: bool,
}

impl ProgressLine {
    /// Returns a progress line that is drawn only if standard error is a terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let started = Instant::now();
        Self { bar, started, shown: None, reported: started }
    }

    /// Returns a function that prints a line above the progress line.
    pub(super) fn printer(&self) -> Box<dyn Fn(&str) + Send> {
        let bar = self.bar.clone();
        Box::new(move |line| bar.suspend(|| crate::say(line)))
    }

    /// Prints a line above the progress line.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| crate::say(line));
    }

    /// Whether the line is due for an update.
    pub(super) fn is_due(&self) -> bool {
        self.shown.is_none_or(|shown| shown.elapsed() >= EVERY)
    }

    /// Draws the line.
    pub(super) fn show(&mut self, counts: &InputCounts, waiting: Backlog, brokers: &[BrokerStats], doing: &str) {
        if self.shown.is_none() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.shown = Some(Instant::now());
        let mut line = line(counts, waiting.events, self.started.elapsed(), doing);
        let away: Vec<_> = brokers
            .iter()
            .filter(|broker| broker.outage.is_some() || broker.state == Reachability::Unreachable)
            .collect();
        let outage = outage(&away, waiting);
        let is_outage = outage.is_some();
        line.extend(outage);
        if is_report_due(self.bar.is_hidden(), is_outage, self.reported.elapsed()) {
            self.reported = Instant::now();
            crate::say(&line);
        }
        self.bar.set_message(line);
        self.bar.tick();
    }

    /// Removes the line.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Whether a line about an outage is due. A terminal shows the progress line instead.
fn is_report_due(is_hidden: bool, is_outage: bool, since_last: Duration) -> bool {
    is_hidden && is_outage && since_last >= REPORT_EVERY
}

fn line(counts: &InputCounts, in_flight: u64, took: Duration, doing: &str) -> String {
    let (done, failed) = (counts.total(), counts.total() - counts.delivered - counts.stored);
    let rate = done as f64 / took.as_secs_f64().max(1e-3);
    format!(
        "{doing}: {} events, {}/s, {} in flight, {} failed",
        HumanCount(done),
        HumanCount(rate as u64),
        HumanCount(in_flight),
        HumanCount(failed)
    )
}

/// Returns the text about an outage, if events wait for unreachable brokers.
fn outage(away: &[&BrokerStats], waiting: Backlog) -> Option<String> {
    if away.is_empty() || (waiting.until_failure.is_none() && !waiting.is_stored) {
        return None;
    }
    let brokers: Vec<_> = away.iter().map(|broker| format!("{} ({})", broker.id, printable(&broker.address))).collect();
    let (what, are) = if away.len() == 1 { ("broker", "is") } else { ("brokers", "are") };
    let end = match waiting.until_failure {
        Some(until_failure) => format!("wait, the first fails in {} s", until_failure.as_secs()),
        None => "wait in the spool".to_owned(),
    };
    Some(format!("; {what} {} {are} unreachable: {} events {end}", brokers.join(", "), HumanCount(waiting.events)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kafka_courier::KafkaProducer;
    use kafka_courier_test_broker::TestCluster;

    use super::*;

    #[tokio::test]
    async fn outage_names_brokers_and_deadline() {
        let cluster = TestCluster::builder().brokers(2).topic("t", 1).start().await.unwrap();
        let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build().unwrap();
        producer.health_check_topics(&["t"], Duration::from_secs(60)).await.unwrap();
        let brokers = producer.stats().brokers;
        let addresses: BTreeMap<_, _> = brokers.iter().map(|broker| (broker.id, broker.address.clone())).collect();
        let waiting = Backlog { events: 1204, until_failure: Some(Duration::from_millis(12_900)), is_stored: false };
        let away: Vec<_> = brokers.iter().collect();
        let text = outage(&away, waiting).unwrap();
        let expected = format!(
            "; brokers 1 ({}), 2 ({}) are unreachable: 1,204 events wait, the first fails in 12 s",
            addresses[&1], addresses[&2]
        );
        assert_eq!(text, expected);
        assert!(outage(&away[..1], waiting).unwrap().starts_with("; broker 1 ("));
        assert_eq!(outage(&[], waiting), None);
        let unlimited = Backlog { until_failure: None, ..waiting };
        assert_eq!(outage(&away, unlimited), None);
        let stored = outage(&away[..1], Backlog { is_stored: true, ..unlimited }).unwrap();
        assert!(stored.ends_with(" is unreachable: 1,204 events wait in the spool"), "{stored}");
    }

    #[test]
    fn long_outages_are_reported_without_terminal() {
        assert!(is_report_due(true, true, REPORT_EVERY));
        assert!(!is_report_due(true, true, REPORT_EVERY / 2), "the last report is recent");
        assert!(!is_report_due(false, true, REPORT_EVERY), "the terminal shows the line");
        assert!(!is_report_due(true, false, REPORT_EVERY), "all brokers answer");
    }

    #[test]
    fn line_counts_all_items() {
        let counts = InputCounts { delivered: 1500, not_written: 2, ..InputCounts::default() };
        let text = line(&counts, 7, Duration::from_secs(2), "publishing");
        assert_eq!(text, "publishing: 1,502 events, 751/s, 7 in flight, 2 failed");
    }
}
