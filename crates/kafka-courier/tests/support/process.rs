//! Tests that run in a separate process, because they change or measure what all tests of a process share: environment
//! variables, memory, the recorder of metrics, the subscriber of `tracing`.
#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// The variable that names the only test of a process.
const ONLY_TEST: &str = "KAFKA_COURIER_ONLY_TEST";

/// Returns a test's name as the test runner knows it. `path` is `concat!(module_path!(), "::name")`.
fn name(path: &str) -> &str {
    path.split_once("::").unwrap().1
}

/// Returns whether this process runs only the test at `path`.
pub(crate) fn runs_only(path: &str) -> bool {
    std::env::var_os(ONLY_TEST).is_some_and(|only| only == *name(path))
}

/// Returns a command that runs only the test at `path`, and shows its output.
pub(crate) fn only(path: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name(path), "--test-threads", "1", "--nocapture"]).env(ONLY_TEST, name(path));
    command
}

/// Runs the command of [`only`], and asserts that its test passes.
pub(crate) fn assert_passes(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Returns whether this process runs only the test at `path`. Any other process first runs the test in one that does,
/// and asserts that it passes.
pub(crate) fn is_separate(path: &str) -> bool {
    let separate = runs_only(path);
    if !separate {
        assert_passes(&mut only(path));
    }
    separate
}
