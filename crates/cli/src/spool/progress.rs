//! The progress lines of `courier spool drain` on standard error.
//!
//! Rules: without a terminal, a line is printed once a minute.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::spool::SpoolHolder;
use kafka_courier::{BrokerStats, Reachability, Stats};

use crate::terminal::printable;

/// Time between two lines without a terminal.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The progress line.
pub(super) struct DrainProgress {
    bar: ProgressBar,
    began: Instant,
    reported: Instant,
}

impl DrainProgress {
    /// Returns a progress line that is drawn only if standard error is a terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let began = Instant::now();
        Self { bar, began, reported: began }
    }

    /// Draws the line.
    pub(super) fn show(&mut self, stats: &Stats) {
        let line = line(stats, self.began.elapsed());
        if self.bar.is_hidden() && self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            crate::say(&line);
        }
        self.bar.set_message(line);
        self.bar.tick();
    }

    /// Prints a line above the progress line.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| crate::say(line));
    }

    /// Removes the line.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The line while another process delivers.
pub(super) struct WatchProgress {
    bar: ProgressBar,
    holder: SpoolHolder,
    reported: Instant,
}

impl WatchProgress {
    /// Says that another process delivers the events, and returns a progress line.
    pub(super) fn new(holder: SpoolHolder, dir: &str, left: u64) -> Self {
        if left > 0 {
            let events = super::events(left);
            crate::say(&format!("{holder} has the spool {dir}, and delivers its {events}: waiting until that is done"));
        }
        let drain = DrainProgress::new();
        Self { bar: drain.bar, holder, reported: drain.began }
    }

    /// Draws the line.
    pub(super) fn show(&mut self, left: u64) {
        let line = format!("{} delivers: {} left", self.holder, super::events(left));
        if self.bar.is_hidden() && self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            crate::say(&line);
        }
        self.bar.set_message(line);
        self.bar.tick();
    }
}

impl Drop for WatchProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(stats: &Stats, took: Duration) -> String {
    let rate = stats.sent as f64 / took.as_secs_f64().max(1e-3);
    let mut line = format!(
        "draining: {} delivered, {}/s, {} to deliver, {} failed",
        super::events(stats.sent),
        HumanCount(rate as u64),
        HumanCount(stats.in_flight),
        HumanCount(stats.failed)
    );
    let is_away = |broker: &&BrokerStats| broker.outage.is_some() || broker.state == Reachability::Unreachable;
    let away: Vec<_> = stats.brokers.iter().filter(is_away).collect();
    if !away.is_empty() {
        let names: Vec<_> =
            away.iter().map(|broker| format!("{} ({})", broker.id, printable(&broker.address))).collect();
        let (what, are) = if away.len() == 1 { ("broker", "is") } else { ("brokers", "are") };
        line.push_str(&format!("; {what} {} {are} unreachable", names.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_counts_delivered_events() {
        let mut stats = Stats::default();
        (stats.sent, stats.in_flight, stats.failed) = (3000, 1200, 1);
        let text = line(&stats, Duration::from_secs(2));
        assert_eq!(text, "draining: 3,000 events delivered, 1,500/s, 1,200 to deliver, 1 failed");
    }
}
