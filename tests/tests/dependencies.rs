//! Dependencies within the workspace point one way, so that each crate without I/O stays usable by itself.
#![allow(clippy::unwrap_used, clippy::panic)] // test helpers unwrap, as tests do
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Returns the normal and build dependencies within the workspace, by the name of each package.
fn shipped_dependencies() -> BTreeMap<String, BTreeSet<String>> {
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
    let dependencies = |package: &Value| -> BTreeSet<String> {
        let all = package["dependencies"].as_array().unwrap();
        let kept = all.iter().filter(|d| d["kind"] != "dev").map(name);
        kept.filter(|dependency| members.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), dependencies(package))).collect()
}

/// Asserts that `package` depends on no package of the workspace outside `allowed`.
fn assert_depends_only_on(package: &str, allowed: &[&str]) {
    let shipped_dependencies = shipped_dependencies();
    let known = shipped_dependencies.get(package).unwrap_or_else(|| panic!("the workspace has no package {package}"));
    let forbidden: Vec<&String> = known.iter().filter(|k| !allowed.contains(&k.as_str())).collect();
    assert!(forbidden.is_empty(), "{package} depends on {forbidden:?}");
}

#[test]
fn event_model_and_batcher_are_independent() {
    assert_depends_only_on("kafka-courier-event-model", &[]);
    assert_depends_only_on("kafka-courier-batcher", &[]);
}

#[test]
fn client_depends_on_batcher_only() {
    assert_depends_only_on("kafka-courier-client", &["kafka-courier-batcher"]);
}

#[test]
fn sender_depends_on_batcher_and_client() {
    assert_depends_only_on("kafka-courier-idempotent-sender", &["kafka-courier-batcher", "kafka-courier-client"]);
}

#[test]
fn spool_depends_on_batcher_only() {
    assert_depends_only_on("kafka-courier-spool", &["kafka-courier-batcher"]);
}

#[test]
fn dlq_depends_on_event_model_only() {
    assert_depends_only_on("kafka-courier-dlq", &["kafka-courier-event-model"]);
}

#[test]
fn test_broker_depends_on_batcher_only() {
    assert_depends_only_on("kafka-courier-test-broker", &["kafka-courier-batcher"]);
}

#[test]
fn producer_depends_on_its_five_parts() {
    let parts = [
        "kafka-courier-event-model",
        "kafka-courier-batcher",
        "kafka-courier-client",
        "kafka-courier-idempotent-sender",
        "kafka-courier-dlq",
    ];
    assert_depends_only_on("kafka-courier", &parts);
    let known = &shipped_dependencies()["kafka-courier"];
    assert!(parts.iter().all(|part| known.contains(*part)), "{known:?}");
}

#[test]
fn binary_uses_kafka_through_producer() {
    // `courier demo` runs on the test broker.
    assert_depends_only_on(
        "kafka-courier-cli",
        &["kafka-courier", "kafka-courier-event-model", "kafka-courier-test-broker"],
    );
    assert!(shipped_dependencies()["kafka-courier-cli"].contains("kafka-courier"));
}

#[test]
fn shipped_packages_exclude_tests_and_benches() {
    for (package, known) in shipped_dependencies() {
        for unshipped in ["kafka-courier-tests", "kafka-courier-benches"] {
            assert!(!known.contains(unshipped), "{package} depends on {unshipped}");
        }
    }
}

/// The default features use Graviola. `ring` is compiled only with the feature `tls-ring`.
#[test]
fn default_tls_has_no_c_code() {
    let graph = |features: &[&str]| -> BTreeSet<String> {
        let mut command = Command::new(env!("CARGO"));
        // Not offline: the graph of all targets and features contains crates that no build has downloaded.
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
