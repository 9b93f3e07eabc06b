//! Dependencies within the workspace point one way, so that each crate without I/O stays usable by itself.
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

/// The packages of the workspace that each shipped package may depend on, without the prefix `kafka-courier-`. A package
/// depends only on packages above it. `kafka-courier` is the facade.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("event-model", &[]),
    ("batcher", &[]),
    ("spool", &["batcher"]),
    ("dlq", &["event-model"]),
    ("test-broker", &["batcher"]),
    ("client", &["batcher"]),
    ("idempotent-sender", &["batcher", "client"]),
    ("producer", &["event-model", "batcher", "spool", "client", "idempotent-sender"]),
    ("recovery", &["event-model", "batcher", "dlq", "client", "idempotent-sender", "producer"]),
    ("facade", &["event-model", "batcher", "dlq", "client", "idempotent-sender", "producer", "recovery"]),
    ("gateway", &["facade"]),
    // `courier demo` runs on the test broker.
    ("cli", &["facade", "event-model", "gateway", "test-broker"]),
];

fn package(name: &str) -> String {
    if name == "facade" { "kafka-courier".to_owned() } else { format!("kafka-courier-{name}") }
}

#[test]
fn dependencies_point_one_way() {
    let found = shipped_dependencies();
    for (name, allowed) in DIRECTIONS {
        let known = &found[&package(name)];
        let allowed: BTreeSet<String> = allowed.iter().map(|name| package(name)).collect();
        let forbidden: Vec<&String> = known.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{name} depends on {forbidden:?}");
    }
    let unshipped = ["tests", "power-cut", "benches", "examples"].map(package);
    let listed: BTreeSet<String> = DIRECTIONS.iter().map(|(name, _)| package(name)).chain(unshipped).collect();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), listed, "the table lists every package");
}

#[test]
fn shipped_packages_exclude_tests_and_benches() {
    for (package, known) in shipped_dependencies() {
        for unshipped in ["kafka-courier-tests", "kafka-courier-power-cut", "kafka-courier-benches"] {
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
