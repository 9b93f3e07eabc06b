//! The progress line: on a terminal only, and never on standard output.
//!
//! Rules: nothing of it is drawn before there is something to show, and lines that stay are written as they are.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;

/// Between two looks at the clock's worth of news.
const EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// A line that is drawn only if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), shown: None }
    }

    /// Prints a line above the progress line, or as it is where there is none.
    pub(crate) fn printer(&self) -> Box<dyn Fn(&str) + Send> {
        let bar = self.bar.clone();
        Box::new(move |line| bar.suspend(|| crate::say(line)))
    }

    /// Prints a line likewise.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| crate::say(line));
    }

    /// Shows where things are, at most ten times a second.
    pub(crate) fn show(&mut self, tally: &Tally, doing: &str) {
        match self.shown {
            Some(shown) if shown.elapsed() < EVERY => return,
            Some(_) => {}
            None => self.bar.set_draw_target(ProgressDrawTarget::stderr()),
        }
        self.shown = Some(Instant::now());
        let counts = tally.counts();
        let (done, failed) = (counts.total(), counts.total() - counts.delivered);
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
