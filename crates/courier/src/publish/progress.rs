//! The progress line: on a terminal only, and never on standard output.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::tally::Tally;

/// Between two looks at the clock's worth of news.
const EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// A line that is drawn only if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, started: now, shown: now }
    }

    /// Prints a line above the progress line, or as it is where there is none.
    pub(crate) fn printer(&self) -> Box<dyn Fn(&str) + Send> {
        let bar = self.bar.clone();
        Box::new(
            move |line| {
                if bar.is_hidden() { eprintln!("courier: {line}") } else { bar.println(format!("courier: {line}")) }
            },
        )
    }

    /// Shows where things are, at most ten times a second.
    pub(crate) fn show(&mut self, tally: &Tally, doing: &str) {
        if self.shown.elapsed() < EVERY {
            return;
        }
        self.shown = Instant::now();
        let counts = tally.counts();
        let failed = counts.not_written + counts.unknown + counts.bad;
        let done = counts.delivered + failed;
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!(
            "{doing}: {} events, {}/s, {} in flight, {} failed",
            HumanCount(done),
            HumanCount(rate as u64),
            HumanCount(tally.in_flight() as u64),
            HumanCount(failed)
        ));
        self.bar.tick();
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
