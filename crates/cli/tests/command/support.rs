//! Running of the `courier` binary with pipes and signals, on a cluster inside the test's process.
//!
//! Rules: a test waits for a state. A wait that times out fails the test with the command's output.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test helpers

use std::process::Stdio;
use std::time::Duration;

use kafka_courier_test_broker::{Record, TestCluster};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Timeout of every wait.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) const LOGIN: &str = r#"{"id":"login","type":"user.logged_in","data":{"user_id":"u-1"}}"#;
pub(crate) const ORDER: &str = r#"{"id":"order","type":"order.placed"}"#;

/// One broker with the topic of [`LOGIN`], and none for [`ORDER`].
pub(crate) async fn cluster() -> TestCluster {
    TestCluster::builder().topic("user-events", 1).start().await.unwrap()
}

/// Waits until the topic has `count` records.
pub(crate) async fn wait_for_records(cluster: &TestCluster, topic: &str, count: u64) {
    let records = cluster.wait_for_records(topic, count);
    tokio::time::timeout(LONG, records).await.expect("the records arrive in time");
}

/// Waits until the condition holds for the cluster.
pub(crate) async fn wait_until(cluster: &TestCluster, condition: impl Fn(&TestCluster) -> bool) {
    tokio::time::timeout(LONG, cluster.wait_until(condition)).await.expect("the condition holds in time");
}

pub(crate) fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.header("event_id").unwrap().to_vec()).unwrap()).collect()
}

/// A running `courier`.
pub(crate) struct CourierProcess {
    child: Child,
    input: Option<ChildStdin>,
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
    /// The part of standard error that was read.
    stderr: String,
}

/// The output and the exit code of a `courier` that has ended.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Returns the command with a short flush timeout, and with `settings` as its only other environment variables.
pub(crate) fn command(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_courier"));
    command.args(arguments).env_clear().env("KAFKA_FLUSH_TIMEOUT", "1ms").envs(settings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Returns [`command`], started by another program with its own arguments before the command.
pub(crate) fn command_in(program: &str, its_own: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(its_own).arg(env!("CARGO_BIN_EXE_courier")).args(arguments).env_clear();
    command.env("KAFKA_FLUSH_TIMEOUT", "1ms");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits until a file exists.
pub(crate) async fn wait_for_file(path: &std::path::Path) {
    let exists = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, exists).await.expect("the file exists in time");
}

impl CourierProcess {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            input: child.stdin.take(),
            out: child.stdout.take().map(BufReader::new),
            err: BufReader::new(child.stderr.take().unwrap()),
            child,
            stderr: String::new(),
        }
    }

    /// Starts `courier publish` on this cluster.
    pub(crate) fn publish(cluster: &TestCluster, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let brokers = cluster.bootstrap();
        let arguments: Vec<_> =
            ["publish", "--brokers", &brokers].into_iter().chain(arguments.iter().copied()).collect();
        Self::start(command(&arguments, settings))
    }

    /// Writes to standard input, which stays open.
    pub(crate) async fn write(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        input.flush().await.unwrap();
    }

    /// Returns the pipes of standard input and output.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, BufReader<ChildStdout>) {
        (self.input.take().unwrap(), self.out.take().unwrap())
    }

    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for a line with this text on standard error, and returns the line.
    pub(crate) async fn wait_for_line(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = tokio::time::timeout(LONG, self.err.read_line(&mut line)).await;
            assert!(matches!(read, Ok(Ok(1..))), "no line with {text:?} in:\n{}", self.stderr);
            self.stderr.push_str(&line);
        }
        line
    }

    /// Returns the next line of standard output.
    pub(crate) async fn line(&mut self) -> String {
        read_line(self.out.as_mut().unwrap()).await
    }

    /// Waits for the end of the command. Standard input stays as it is.
    pub(crate) async fn output(mut self) -> CommandOutput {
        let mut out = String::new();
        let all = async {
            let output = async {
                if let Some(pipe) = &mut self.out {
                    pipe.read_to_string(&mut out).await.unwrap();
                }
            };
            let ((), err) = tokio::join!(output, self.err.read_to_string(&mut self.stderr));
            err.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(LONG, all).await.expect("the command ends in time");
        CommandOutput { code: status.code(), out, err: self.stderr }
    }

    /// Writes the input, closes standard input, and waits for the end of the command.
    pub(crate) async fn output_with_input(mut self, input: &str) -> CommandOutput {
        self.write(input).await;
        self.end_input();
        self.output().await
    }
}

/// Returns the next line of an output.
pub(crate) async fn read_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    tokio::time::timeout(LONG, output.read_line(&mut line)).await.expect("a line arrives in time").unwrap();
    line
}

/// Returns the rest of an output.
pub(crate) async fn read_all(output: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    tokio::time::timeout(LONG, output.read_to_string(&mut text)).await.expect("the output ends in time").unwrap();
    text
}

/// Returns the exit code of a command whose outputs are redirected, after this input. `open` keeps standard input open.
pub(crate) async fn code_after(mut command: Command, text: &str, open: bool) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take();
    input.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    let _open = input.filter(|_| open);
    tokio::time::timeout(LONG, child.wait()).await.expect("the command ends in time").unwrap().code()
}

impl CommandOutput {
    /// Asserts the exit code, and that standard error has these texts.
    pub(crate) fn expect(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "no {text:?} in:\n{}", self.err);
        }
    }
}

/// Parses lines of JSON, such as receipts.
pub(crate) fn receipts(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
