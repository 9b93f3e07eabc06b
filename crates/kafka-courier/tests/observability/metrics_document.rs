//! The code, the documentation and the dashboard have the same metrics. `just config-docs` writes the table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use kafka_courier::{METRICS, MetricKind};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/grafana/kafka-courier.json");
/// Labels that Prometheus adds.
const ADDED_LABELS: &[&str] = &["le", "job", "instance"];
const BEGIN: &str = "<!-- made by `just config-docs` -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn documented_metrics_match_the_code() {
    let mut table = String::from("| metric | kind | labels | what it tells |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {} | {} | {} |", metric.name, metric.kind.as_str(), labels.join(", "), metric.help)
            .unwrap();
    }
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "docs/OPERATIONS.md is out of date: run `just config-docs`");
    }
}

/// Every metric is on the dashboard, and every expression uses labels of its metric.
#[test]
fn dashboard_shows_exactly_the_metrics() {
    let text = std::fs::read_to_string(DASHBOARD).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let shown: BTreeSet<_> = targets.flat_map(|target| metrics_of(target["expr"].as_str().unwrap())).collect();
    let all: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
}

#[test]
fn alerts_use_existing_metrics() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (_, rest) = document.split_once("```yaml\n").unwrap();
    let (rules, rest) = rest.split_once("```\n").unwrap();
    let values = |key: &'static str| rules.lines().filter_map(move |line| line.trim().strip_prefix(key));
    assert!(values("expr: ").all(|expression| !metrics_of(expression).is_empty()));
    assert_eq!(values("expr: ").count(), values("- alert: ").count());
    for alert in values("- alert: ") {
        assert!(rest.contains(&format!("| `{alert}` |")), "{alert} has no row");
    }
}

/// Returns the metrics of an expression. Panics on a name or label that does not exist.
fn metrics_of(expression: &str) -> Vec<&'static str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: Vec<_> = words.filter(|word| word.starts_with("kafka_")).collect();
    assert!(!names.is_empty(), "{expression}");
    let metric = |name: &str| {
        let found = METRICS.iter().find(|metric| {
            let suffixes: &[&str] = match metric.kind {
                MetricKind::Histogram => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            name.strip_prefix(metric.name).is_some_and(|rest| suffixes.contains(&rest))
        });
        let metric = found.unwrap_or_else(|| panic!("{name} in {expression} is not a metric"));
        check_labels(expression, metric.labels);
        metric.name
    };
    names.into_iter().map(metric).collect()
}

/// Asserts that an expression groups by and selects labels of the metric or [`ADDED_LABELS`].
fn check_labels(expression: &str, labels: &[&str]) {
    for group in expression.split("by (").skip(1) {
        let names = group.split_once(')').unwrap().0.split(", ");
        for name in names {
            assert!(labels.contains(&name) || ADDED_LABELS.contains(&name), "{name} in {expression}");
        }
    }
    for selector in expression.split('{').skip(1) {
        let (name, _) = selector.split_once('=').unwrap();
        assert!(labels.contains(&name) || ADDED_LABELS.contains(&name), "{name} in {expression}");
    }
}
