//! A real Apache Kafka cluster for the duration of a test.
//!
//! Rules:
//! - A process runs one cluster at a time.
//! - Dropping a [`Cluster`] stops the brokers and deletes their data.
//! - A test that panics keeps the brokers' logs and prints their path.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use kafka_courier::KafkaConfig;
use parking_lot::{Mutex, MutexGuard};

use crate::batches::{self, LoggedBatch};
use crate::dump::{self, DumpedRecord};

/// Held while a cluster runs. Several clusters would overload a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cluster of one or three brokers on loopback, driven through `tests/kafka/kafka`.
pub struct Cluster {
    home: PathBuf,
    bootstrap: String,
    _one: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts `brokers` (1 or 3) brokers and waits until they are ready.
    ///
    /// # Errors
    /// Fails if Python 3, a JDK or (for the first fetch) Maven is missing, or if Kafka does not start.
    pub fn start(brokers: u8) -> Result<Self> {
        Self::start_with(brokers, &[])
    }

    /// Starts a cluster like [`Self::start`], with further arguments for `kafka up`.
    ///
    /// An example of an argument is `--set message.max.bytes=1000`.
    ///
    /// # Errors
    /// Fails for the same reasons as [`Self::start`].
    pub fn start_with(brokers: u8, arguments: &[&str]) -> Result<Self> {
        let one = ONE_AT_A_TIME.lock();
        let folder = std::env::var_os("KAFKA_COURIER_CLUSTERS").map_or_else(std::env::temp_dir, PathBuf::from);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = folder.join(format!("kafka-courier-{}-{number}", std::process::id()));
        let count = brokers.to_string();
        // The value exists before the brokers start, so that its drop always cleans up.
        let mut cluster = Self { home, bootstrap: String::new(), _one: one };
        let mut words = vec!["up", "--brokers", &count];
        words.extend_from_slice(arguments);
        let output = cluster.tool(&words)?;
        cluster.bootstrap = output.lines().last().unwrap_or_default().to_owned();
        ensure!(!cluster.bootstrap.is_empty(), "`kafka up` printed no bootstrap servers");
        Ok(cluster)
    }

    /// Returns the addresses of the brokers for clients, as `host:port,..`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns a producer's default settings with these brokers.
    ///
    /// # Errors
    /// Fails if an address is invalid.
    pub fn config(&self) -> Result<KafkaConfig> {
        let mut config = KafkaConfig::default();
        let brokers = self.bootstrap().split(',').map(str::parse).collect::<Result<_, kafka_courier::EndpointError>>();
        config.brokers = brokers.map_err(anyhow::Error::msg)?;
        Ok(config)
    }

    /// Returns the path of a file in the cluster's folder, such as `ca.pem`, `client.pem`, `client.key`,
    /// `other-client.pem`, `other-client.key`, `username` or `password`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Returns the addresses of the internal listeners, as `host:port,..`. They need no TLS, login or rights.
    ///
    /// # Errors
    /// Fails if the cluster's description can't be read.
    pub fn internal_bootstrap(&self) -> Result<String> {
        let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(self.file("cluster.json"))?)?;
        let brokers = plan["brokers"].as_object().context("the cluster's description has no brokers")?;
        let ports = brokers.values().map(|broker| format!("127.0.0.1:{}", broker["internal"]));
        Ok(ports.collect::<Vec<_>>().join(","))
    }

    /// Creates a topic and waits for its leaders.
    ///
    /// `configs` are topic settings, such as `("max.message.bytes", "1000")`.
    ///
    /// # Errors
    /// Fails if the cluster refuses the topic.
    pub fn create_topic(&self, name: &str, partitions: u32, replication: u32, configs: &[(&str, &str)]) -> Result<()> {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        let mut words = vec!["topic", "create", name, "--partitions", &partitions, "--replication", &replication];
        let settings: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for setting in &settings {
            words.extend_from_slice(&["--config", setting]);
        }
        self.tool(&words).map(drop)
    }

    /// Deletes a topic, and waits until no broker names it.
    ///
    /// # Errors
    /// Fails if the topic does not exist.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.tool(&["topic", "delete", name]).map(drop)
    }

    /// Adds partitions to a topic, up to this number.
    ///
    /// # Errors
    /// Fails if the topic has as many.
    pub fn add_partitions(&self, name: &str, partitions: u32) -> Result<()> {
        let (internal, partitions) = (self.internal_bootstrap()?, partitions.to_string());
        let words = ["--bootstrap-server", &internal, "--alter", "--topic", name, "--partitions", &partitions];
        self.java("org.apache.kafka.tools.TopicCommand", &words, Stdio::null()).map(drop)
    }

    /// Returns the sum of the end offsets of a topic's partitions.
    ///
    /// # Errors
    /// Fails if the topic does not exist, or if a partition has no leader.
    pub fn end_offsets(&self, topic: &str) -> Result<u64> {
        let text = self.tool(&["topic", "describe", topic, "--json"])?;
        let topics: serde_json::Value = serde_json::from_str(&text)?;
        let partitions = topics[topic]["partitions"].as_object().context("the topic has no partitions")?;
        partitions.values().map(|partition| partition["end"].as_u64().context("a partition has no leader")).sum()
    }

    /// Passes every record of the topic up to its current end to `each`, and returns the number of records.
    ///
    /// A Java consumer reads the records. The records of a partition have the order of their offsets.
    ///
    /// # Errors
    /// Fails if the topic does not exist, if a key or value is not UTF-8, or if `each` fails.
    pub fn dump(&self, topic: &str, each: impl FnMut(&DumpedRecord<'_>) -> Result<()>) -> Result<u64> {
        dump::read(self.command(&["dump", topic]), each).with_context(|| format!("dump of {topic}"))
    }

    /// Returns the record batches in the leaders' log segments of `topics`, as read by Kafka's `DumpLogSegments`.
    ///
    /// # Errors
    /// Fails if a topic does not exist, or if a segment can't be read.
    pub fn batches(&self, topics: &[&str]) -> Result<Vec<LoggedBatch>> {
        let mut words = vec!["batches"];
        words.extend_from_slice(topics);
        batches::parse(&self.tool(&words)?)
    }

    /// Returns the id (from 1) of a partition's leader.
    ///
    /// # Errors
    /// Fails if the partition has no leader now.
    pub fn leader(&self, topic: &str, partition: u32) -> Result<u32> {
        let output = self.tool(&["leader", topic, &partition.to_string()])?;
        output.trim().parse().with_context(|| format!("`kafka leader` printed {output:?}"))
    }

    /// Kills a broker (SIGKILL).
    ///
    /// # Errors
    /// Fails if the broker is not running.
    pub fn kill(&self, broker: u32) -> Result<()> {
        self.broker_command("kill", broker)
    }

    /// Shuts a broker down (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// Fails if the broker is not running.
    pub fn stop(&self, broker: u32) -> Result<()> {
        self.broker_command("stop", broker)
    }

    /// Starts a stopped broker and waits until it is ready.
    ///
    /// # Errors
    /// Fails if the broker is running, or if it does not start.
    pub fn restart(&self, broker: u32) -> Result<()> {
        self.broker_command("start", broker)
    }

    /// Starts all stopped brokers and waits until they are ready.
    ///
    /// # Errors
    /// Fails if a broker does not start.
    pub fn start_all(&self) -> Result<()> {
        self.tool(&["start"]).map(drop)
    }

    /// Pauses a broker (SIGSTOP).
    ///
    /// # Errors
    /// Fails if the broker is not running.
    pub fn pause(&self, broker: u32) -> Result<()> {
        self.broker_command("pause", broker)
    }

    /// Resumes a paused broker (SIGCONT).
    ///
    /// # Errors
    /// Fails if the broker is not running.
    pub fn resume(&self, broker: u32) -> Result<()> {
        self.broker_command("resume", broker)
    }

    /// Sets a fault in the proxies (`kafka up --proxied`), such as `["cut"]` or `["1", "drop_response=3", "api=0"]`.
    ///
    /// # Errors
    /// Fails if the cluster has no proxies, or if the proxies refuse the fault.
    pub fn fault(&self, arguments: &[&str]) -> Result<()> {
        let mut words = vec!["fault"];
        words.extend_from_slice(arguments);
        self.tool(&words).map(drop)
    }

    /// Returns the number of responses that the proxies have dropped.
    ///
    /// # Errors
    /// Fails if the cluster has no proxies.
    pub fn dropped_responses(&self) -> Result<u64> {
        let status: serde_json::Value = serde_json::from_str(&self.tool(&["fault", "status"])?)?;
        let brokers = status.as_object().context("the proxies name no brokers")?;
        let counts = brokers.values().map(|broker| broker["dropped_responses"].as_u64());
        counts.map(|count| count.context("no count of dropped responses")).sum()
    }

    /// Returns the classpath of Kafka's jars.
    ///
    /// # Errors
    /// Fails if Kafka was not fetched.
    pub fn classpath(&self) -> Result<String> {
        Ok(self.tool(&["classpath"])?.trim().to_owned())
    }

    /// Runs a class on Kafka's classpath with `input` as its standard input, and returns its standard output.
    ///
    /// # Errors
    /// Fails if the exit code is not 0.
    pub fn java(&self, class: &str, arguments: &[&str], input: Stdio) -> Result<String> {
        let mut words = vec!["java", class];
        words.extend_from_slice(arguments);
        let mut command = self.command(&words);
        command.stdin(input);
        run_to_end(command, class)
    }

    fn broker_command(&self, command: &str, broker: u32) -> Result<()> {
        self.tool(&[command, &broker.to_string()]).map(drop)
    }

    fn tool(&self, words: &[&str]) -> Result<String> {
        run_to_end(self.command(words), &words.join(" "))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("python3");
        command.arg(tool_path()).args(words).env("COURIER_TEST_CLUSTER", &self.home).stdin(Stdio::null());
        command
    }

    fn keep_logs(&self) -> Result<PathBuf> {
        let kept = tempfile::Builder::new().prefix("kafka-courier-logs-").tempdir()?.keep();
        for entry in std::fs::read_dir(&self.home)? {
            let broker = entry?.path();
            let log = broker.join("server.log");
            if let (true, Some(name)) = (log.exists(), broker.file_name().and_then(OsStr::to_str)) {
                std::fs::copy(&log, kept.join(format!("{name}.log")))?;
            }
        }
        Ok(kept)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.keep_logs() {
                Ok(kept) => eprintln!("the brokers' logs are in {}", kept.display()),
                Err(error) => eprintln!("the brokers' logs could not be kept: {error:#}"),
            }
        }
        if let Err(error) = self.tool(&["down"]) {
            eprintln!("the cluster in {} did not stop: {error:#}", self.home.display());
        }
    }
}

fn tool_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/kafka")
}

/// Runs a command to its end and returns its standard output. An error contains standard error, which names missing
/// tools.
fn run_to_end(mut command: Command, arguments: &str) -> Result<String> {
    let done = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().context(
        "python3 did not start: install Python 3.8 or newer (Debian/Ubuntu: apt install python3; macOS: brew install python)",
    )?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`kafka {arguments}` failed with {}: {}", done.status, stderr.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
