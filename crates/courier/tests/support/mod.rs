//! The command as its users have it: the binary, its pipes, its signals, on a cluster inside the test's process.
//!
//! Rules: a test waits for what it needs, and says what the command had said if that never comes.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests may, as tests do

use std::process::Stdio;
use std::time::Duration;

use kafka_courier_test_broker::{Record, TestCluster};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Beyond any that the machine may need.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) const LOGIN: &str = r#"{"id":"login","type":"user.logged_in","data":{"user_id":"u-1"}}"#;
pub(crate) const ORDER: &str = r#"{"id":"order","type":"order.placed"}"#;

/// One broker with the topic of [`LOGIN`], and none for [`ORDER`].
pub(crate) async fn cluster() -> TestCluster {
    TestCluster::builder().topic("user-events", 1).start().await.unwrap()
}

/// Waits until so many records are in that topic.
pub(crate) async fn arrived(cluster: &TestCluster, topic: &str, count: u64) {
    let arrived = cluster.wait_for_records(topic, count);
    tokio::time::timeout(LONG, arrived).await.expect("the records in time");
}

/// Waits until something is so of the cluster.
pub(crate) async fn until(cluster: &TestCluster, is_so: impl Fn(&TestCluster) -> bool) {
    tokio::time::timeout(LONG, cluster.wait_until(is_so)).await.expect("it in time");
}

pub(crate) fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.header("event_id").unwrap().to_vec()).unwrap()).collect()
}

/// A courier under way.
pub(crate) struct Courier {
    child: Child,
    input: Option<ChildStdin>,
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
    said: String,
}

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary with a quick producer's settings and no others, `settings` among them as `NAME=value`.
pub(crate) fn command(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_courier"));
    command.args(arguments).env_clear().env("KAFKA_FLUSH_TIMEOUT", "1ms").envs(settings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// As [`command`], started by another program that runs what its own arguments are followed by.
pub(crate) fn command_in(program: &str, its_own: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(its_own).arg(env!("CARGO_BIN_EXE_courier")).args(arguments).env_clear();
    command.env("KAFKA_FLUSH_TIMEOUT", "1ms");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits until a file is there.
pub(crate) async fn until_exists(path: &std::path::Path) {
    let exists = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, exists).await.expect("the file in time");
}

impl Courier {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            input: child.stdin.take(),
            out: child.stdout.take().map(BufReader::new),
            err: BufReader::new(child.stderr.take().unwrap()),
            child,
            said: String::new(),
        }
    }

    /// `courier publish` on this cluster.
    pub(crate) fn publish(cluster: &TestCluster, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let brokers = cluster.bootstrap();
        let arguments: Vec<_> =
            ["publish", "--brokers", &brokers].into_iter().chain(arguments.iter().copied()).collect();
        Self::start(command(&arguments, settings))
    }

    /// Writes to its standard input, which stays open.
    pub(crate) async fn write(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        input.flush().await.unwrap();
    }

    /// Its standard input and output, for another to use.
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

    /// Waits until it has said a line with this text on standard error.
    pub(crate) async fn until_said(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = tokio::time::timeout(LONG, self.err.read_line(&mut line)).await;
            assert!(matches!(read, Ok(Ok(1..))), "it never said {text:?}, but:\n{}", self.said);
            self.said.push_str(&line);
        }
    }

    /// The next line of its standard output.
    pub(crate) async fn line(&mut self) -> String {
        read_line(self.out.as_mut().unwrap()).await
    }

    /// Waits until it has ended. Its standard input stays as it is.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut out = String::new();
        let all = async {
            let output = async {
                if let Some(pipe) = &mut self.out {
                    pipe.read_to_string(&mut out).await.unwrap();
                }
            };
            let ((), err) = tokio::join!(output, self.err.read_to_string(&mut self.said));
            err.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(LONG, all).await.expect("it ends");
        Ended { code: status.code(), out, err: self.said }
    }

    /// Gives it this input and waits until it has ended.
    pub(crate) async fn ended_with(mut self, input: &str) -> Ended {
        self.write(input).await;
        self.end_input();
        self.ended().await
    }
}

/// The next line of an output.
pub(crate) async fn read_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    tokio::time::timeout(LONG, output.read_line(&mut line)).await.expect("a line in time").unwrap();
    line
}

/// The rest of an output.
pub(crate) async fn read_all(output: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    tokio::time::timeout(LONG, output.read_to_string(&mut text)).await.expect("its end in time").unwrap();
    text
}

/// The exit code of one whose outputs go elsewhere, after this input, which stays open if it is `open`.
pub(crate) async fn code_after(mut command: Command, text: &str, open: bool) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take();
    input.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    let _open = input.filter(|_| open);
    tokio::time::timeout(LONG, child.wait()).await.expect("it ends").unwrap().code()
}

impl Ended {
    /// Its exit code and texts that it must have said on standard error.
    pub(crate) fn expect(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for text in said {
            assert!(self.err.contains(text), "not said: {text:?}, but:\n{}", self.err);
        }
    }
}

/// The lines of a receipts file as JSON.
pub(crate) fn receipts(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
