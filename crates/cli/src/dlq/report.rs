//! The progress and the report of a replay.
//!
//! Rules: a report names only counts above zero, each with its remedy.

use std::time::Duration;

use indicatif::HumanCount;
use kafka_courier::ReplayReport;

use crate::terminal::printable;

/// Returns the lines of the report for a terminal.
pub(super) fn lines(report: &ReplayReport, dry_run: bool, took: Duration) -> Vec<String> {
    if report.selected == 0 {
        return vec!["no dead letter is selected".to_owned()];
    }
    let mut text = format!("{} selected", super::dead_letters(report.selected));
    let counts = [
        (if dry_run { report.would_be_sent() } else { 0 }, "would be sent"),
        (report.delivered, "delivered"),
        (report.landed, "found in the log and removed"),
        (report.failed, "failed again and kept"),
        (
            report.left_out,
            "left out with unknown outcome (--verify searches the log, --include-unknown sends without a search)",
        ),
        (report.not_found, "neither found in the log nor proved absent (--force sends them)"),
        (report.too_often, "left out after too many replays (--max-replays)"),
        (report.held_back, "held back behind an earlier dead letter of their key (--out-of-order sends them)"),
    ];
    for (count, what) in counts {
        if count > 0 {
            text.push_str(&format!(", {} {what}", HumanCount(count)));
        }
    }
    let mut lines = vec![format!("{text}, in {:.1} s", took.as_secs_f64())];
    if dry_run {
        for (topic, count) in &report.by_topic {
            lines.push(format!("  {:>9} to {topic}", HumanCount(*count).to_string()));
        }
    }
    let mut reasons: Vec<_> = report.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    lines.extend(reasons.into_iter().map(|(reason, count)| {
        let times = if *count == 1 { "once" } else { "times" };
        match count {
            1 => format!("  {times}: {}", printable(reason)),
            _ => format!("  {} {times}: {}", HumanCount(*count), printable(reason)),
        }
    }));
    lines
}

/// Returns the progress line of a running replay.
pub(super) fn progress(report: &ReplayReport, elapsed: Duration) -> String {
    let done = report.delivered + report.landed;
    let stay = report.failed + report.left_out + report.not_found + report.too_often + report.held_back;
    format!(
        "replaying: {} dead letters, {} delivered, {} found in the log, {} stay, {}/s",
        HumanCount(report.selected),
        HumanCount(report.delivered),
        HumanCount(report.landed),
        HumanCount(stay),
        HumanCount((done as f64 / elapsed.as_secs_f64().max(1e-3)) as u64)
    )
}
