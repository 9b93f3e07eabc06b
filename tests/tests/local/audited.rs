//! Tests build producers only through `audited::Producer`, which checks the producer's counts when it is dropped.
use std::path::{Path, PathBuf};

/// Returns the Rust files under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn every_test_producer_is_audited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests", "src", "../crates/kafka-courier/tests"].map(|folder| root.join(folder));
    let files: Vec<_> = folders.iter().flat_map(|folder| sources(folder)).collect();
    assert!(files.len() > 50, "{files:?}");
    let is_ours = |path: &&PathBuf| !path.ends_with("audited.rs");
    let unaudited = files.iter().filter(is_ours).filter(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        // `KafkaProducer::build` is also the beginning of `KafkaProducer::builder`.
        text.contains("KafkaProducer::build") || text.contains("KafkaProducer::connect")
    });
    assert_eq!(unaudited.collect::<Vec<_>>(), [""; 0].map(PathBuf::from).iter().collect::<Vec<_>>());
}
