//! Writes `DIR/ours/*.bin`: the golden cases as this crate encodes them, for the Java client to verify.
//!
//! See tests/golden/README.md.
#![allow(clippy::unwrap_used, reason = "a tool for developers: a failure is a panic")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/batches/cases.rs"]
mod cases;

use std::path::PathBuf;

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    std::fs::create_dir_all(directory.join("ours")).unwrap();
    for case in cases::load(&directory) {
        let file = directory.join("ours").join(format!("{}.bin", case.name));
        std::fs::write(file, case.encode().as_bytes()).unwrap();
    }
}
