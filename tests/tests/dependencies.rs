//! Dependencies within the workspace point one way, so that the pure crates stay pure and each can be used by itself.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The workspace's packages that a package's users compile with it: normal and build dependencies by name.
fn shipped() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let ours = |package: &Value| -> BTreeSet<String> {
        let all = package["dependencies"].as_array().unwrap();
        let kept = all.iter().filter(|d| d["kind"] != "dev").map(name);
        kept.filter(|dependency| members.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), ours(package))).collect()
}

/// Asserts that `package` knows nobody of the workspace but `allowed`.
fn knows_only(package: &str, allowed: &[&str]) {
    let shipped = shipped();
    let known = shipped.get(package).unwrap_or_else(|| panic!("no package {package}"));
    let strangers: Vec<&String> = known.iter().filter(|k| !allowed.contains(&k.as_str())).collect();
    assert!(strangers.is_empty(), "{package} depends on {strangers:?}");
}

#[test]
fn event_model_and_batcher_know_nobody() {
    knows_only("kafka-courier-event-model", &[]);
    knows_only("kafka-courier-batcher", &[]);
}

#[test]
fn the_sender_knows_the_batcher_alone() {
    knows_only("kafka-courier-idempotent-sender", &["kafka-courier-batcher"]);
}

#[test]
fn dead_letters_know_the_event_model_at_most() {
    knows_only("kafka-courier-dlq", &["kafka-courier-event-model"]);
}

#[test]
fn the_test_broker_knows_the_batcher_alone() {
    knows_only("kafka-courier-test-broker", &["kafka-courier-batcher"]);
}

#[test]
fn the_producer_joins_events_batches_sender_and_dead_letters() {
    let parts =
        ["kafka-courier-event-model", "kafka-courier-batcher", "kafka-courier-idempotent-sender", "kafka-courier-dlq"];
    knows_only("kafka-courier", &parts);
    let known = &shipped()["kafka-courier"];
    assert!(parts.iter().all(|part| known.contains(*part)), "{known:?}");
}

#[test]
fn the_binary_reaches_kafka_through_the_producer_alone() {
    // The test broker is the demo's cluster.
    knows_only("kafka-courier-cli", &["kafka-courier", "kafka-courier-event-model", "kafka-courier-test-broker"]);
    assert!(shipped()["kafka-courier-cli"].contains("kafka-courier"));
}

#[test]
fn no_shipped_package_depends_on_tests_or_benchmarks() {
    for (package, known) in shipped() {
        for unshipped in ["kafka-courier-tests", "kafka-courier-benches"] {
            assert!(!known.contains(unshipped), "{package} depends on {unshipped}");
        }
    }
}

#[test]
fn what_ships_by_default_has_its_cryptography_without_c_and_ring_only_where_it_is_asked_for() {
    let graph = |features: &[&str]| -> BTreeSet<String> {
        let mut command = Command::new(env!("CARGO"));
        // Not offline: the graph of all targets and features holds crates that no build here has had to download.
        command.args(["tree", "--locked", "-p", "kafka-courier", "-e", "normal,build", "--target", "all"]);
        command.args(["--prefix", "none", "--format", "{p}"]).args(features).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let default = graph(&[]);
    assert!(default.contains("rustls") && default.contains("graviola"));
    for crate_of_c in ["ring", "aws-lc-rs", "aws-lc-sys", "openssl-sys", "cc", "cmake"] {
        assert!(!default.contains(crate_of_c), "{crate_of_c}");
    }
    assert!(graph(&["--features", "tls-ring"]).contains("ring"));
    let without_tls = graph(&["--no-default-features"]);
    assert!(!without_tls.contains("rustls") && !without_tls.contains("graviola"));
}
