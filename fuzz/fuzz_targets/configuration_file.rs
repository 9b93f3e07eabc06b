//! Reads arbitrary bytes as a configuration file: JSON if the first byte is `J`, else TOML.
//!
//! Rules: no input panics. An accepted configuration is valid, and an error names the file.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use kafka_courier::KafkaConfig;
use libfuzzer_sys::fuzz_target;

/// The files of this process, one for each format, in memory if the system supports that.
static FILES: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    ["toml", "json"].map(|format| folder.join(format!("kafka-courier-fuzz-{}.{format}", std::process::id())))
});

fuzz_target!(|data: &[u8]| {
    let (is_json, text) = match data.split_first() {
        Some((b'J', rest)) => (true, rest),
        _ => (false, data),
    };
    let path = &FILES[usize::from(is_json)];
    std::fs::write(path, text).expect("the file is writable");
    match KafkaConfig::from_file(path) {
        Ok(config) => assert_eq!(config.validate(), Ok(())),
        Err(problems) => {
            let name = path.display().to_string();
            assert!(!problems.problems().is_empty());
            assert!(problems.problems().iter().any(|problem| problem.to_string().contains(&name)), "{problems}");
        }
    }
});
