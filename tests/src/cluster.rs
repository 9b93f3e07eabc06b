//! A real Apache Kafka cluster for the length of a test.
//!
//! Rules: one cluster at a time in a process; it is down, and its data gone, when the [`Cluster`] is dropped; a test that
//! panics leaves the brokers' logs behind and says where.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use kafka_courier::KafkaConfig;
use parking_lot::{Mutex, MutexGuard};

use crate::batches::{self, Batch};
use crate::dump::{self, DumpedRecord};

/// Held while a cluster runs: several at once would starve each other on a small machine.
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
    /// When Python 3, a JDK or, for the first fetch, Maven is missing, or Kafka does not start.
    pub fn start(brokers: u8) -> Result<Self> {
        Self::start_with(brokers, &[])
    }

    /// As [`Self::start`], with further arguments for `kafka up`, such as `--set message.max.bytes=1000`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(brokers: u8, arguments: &[&str]) -> Result<Self> {
        let one = ONE_AT_A_TIME.lock();
        let folder = std::env::var_os("KAFKA_COURIER_CLUSTERS").map_or_else(std::env::temp_dir, PathBuf::from);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = folder.join(format!("kafka-courier-{}-{number}", std::process::id()));
        let count = brokers.to_string();
        // From here on a drop cleans up, whatever happens.
        let mut cluster = Self { home, bootstrap: String::new(), _one: one };
        let mut words = vec!["up", "--brokers", &count];
        words.extend_from_slice(arguments);
        let said = cluster.tool(&words)?;
        cluster.bootstrap = said.lines().last().unwrap_or_default().to_owned();
        ensure!(!cluster.bootstrap.is_empty(), "`kafka up` printed no bootstrap servers");
        Ok(cluster)
    }

    /// `host:port,..` of the brokers, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A producer's settings for these brokers; all else is the default.
    ///
    /// # Errors
    /// When an address can't be read.
    pub fn config(&self) -> Result<KafkaConfig> {
        let mut config = KafkaConfig::default();
        let brokers = self.bootstrap().split(',').map(str::parse).collect::<Result<_, String>>();
        config.brokers = brokers.map_err(anyhow::Error::msg)?;
        Ok(config)
    }

    /// A file that the cluster left for clients: `ca.pem`, `client.pem`, `client.key`, `other-client.pem`,
    /// `other-client.key`, `username` or `password`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// `host:port,..` of the listeners on which everybody may do everything, whatever those for clients ask for.
    ///
    /// # Errors
    /// When the cluster's description can't be read.
    pub fn internal_bootstrap(&self) -> Result<String> {
        let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(self.file("cluster.json"))?)?;
        let brokers = plan["brokers"].as_object().context("the cluster's description has no brokers")?;
        let ports = brokers.values().map(|broker| format!("127.0.0.1:{}", broker["internal"]));
        Ok(ports.collect::<Vec<_>>().join(","))
    }

    /// Creates a topic and waits for its leaders. `configs` are topic settings, such as `("max.message.bytes", "1000")`.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub fn create_topic(&self, name: &str, partitions: u32, replication: u32, configs: &[(&str, &str)]) -> Result<()> {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        let mut words = vec!["topic", "create", name, "--partitions", &partitions, "--replication", &replication];
        let settings: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for setting in &settings {
            words.extend_from_slice(&["--config", setting]);
        }
        self.tool(&words).map(drop)
    }

    /// Hands every record of the topic up to its present end to `each`, in the order of offsets within a partition, and
    /// returns how many there were. A Java consumer reads them.
    ///
    /// # Errors
    /// When the topic is not there, a key or value is not UTF-8, or `each` fails.
    pub fn dump(&self, topic: &str, each: impl FnMut(&DumpedRecord<'_>) -> Result<()>) -> Result<u64> {
        dump::read(self.command(&["dump", topic]), each).with_context(|| format!("dump of {topic}"))
    }

    /// The record batches in the leaders' log segments of `topics`, as Kafka's `DumpLogSegments` sees them.
    ///
    /// # Errors
    /// When a topic is not there or a segment can't be read.
    pub fn batches(&self, topics: &[&str]) -> Result<Vec<Batch>> {
        let mut words = vec!["batches"];
        words.extend_from_slice(topics);
        batches::parse(&self.tool(&words)?)
    }

    /// The id (from 1) of the broker that leads a partition.
    ///
    /// # Errors
    /// When it has no leader now.
    pub fn leader(&self, topic: &str, partition: u32) -> Result<u32> {
        let said = self.tool(&["leader", topic, &partition.to_string()])?;
        said.trim().parse().with_context(|| format!("`kafka leader` printed {said:?}"))
    }

    /// SIGKILL to a broker.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&self, broker: u32) -> Result<()> {
        self.to_broker("kill", broker)
    }

    /// An orderly shutdown of a broker.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop(&self, broker: u32) -> Result<()> {
        self.to_broker("stop", broker)
    }

    /// Starts a broker that is down and waits until it is ready.
    ///
    /// # Errors
    /// When it is running, or does not start.
    pub fn restart(&self, broker: u32) -> Result<()> {
        self.to_broker("start", broker)
    }

    /// Starts all brokers that are down and waits until they are ready.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start_all(&self) -> Result<()> {
        self.tool(&["start"]).map(drop)
    }

    /// SIGSTOP to a broker.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self, broker: u32) -> Result<()> {
        self.to_broker("pause", broker)
    }

    /// SIGCONT to a broker.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self, broker: u32) -> Result<()> {
        self.to_broker("resume", broker)
    }

    /// A fault of the proxies (`kafka up --proxied`), such as `["cut"]` or `["1", "drop_response=3", "api=0"]`.
    ///
    /// # Errors
    /// When the cluster has no proxies, or they don't know the fault.
    pub fn fault(&self, words: &[&str]) -> Result<()> {
        let mut all = vec!["fault"];
        all.extend_from_slice(words);
        self.tool(&all).map(drop)
    }

    /// The classpath of Kafka's jars.
    ///
    /// # Errors
    /// When Kafka was not fetched.
    pub fn classpath(&self) -> Result<String> {
        Ok(self.tool(&["classpath"])?.trim().to_owned())
    }

    /// Runs a class on Kafka's classpath with `input` as its standard input, and returns what it printed.
    ///
    /// # Errors
    /// When it exits with anything but 0.
    pub fn java(&self, class: &str, arguments: &[&str], input: Stdio) -> Result<String> {
        let mut words = vec!["java", class];
        words.extend_from_slice(arguments);
        let mut command = self.command(&words);
        command.stdin(input);
        finish(command, class)
    }

    fn to_broker(&self, what: &str, broker: u32) -> Result<()> {
        self.tool(&[what, &broker.to_string()]).map(drop)
    }

    fn tool(&self, words: &[&str]) -> Result<String> {
        finish(self.command(words), &words.join(" "))
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
                Err(error) => eprintln!("the brokers' logs are lost: {error:#}"),
            }
        }
        if let Err(error) = self.tool(&["down"]) {
            eprintln!("{}: the cluster did not come down: {error:#}", self.home.display());
        }
    }
}

fn tool_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/kafka")
}

/// Runs a command to its end; an error carries what it wrote to standard error, which says what to install.
fn finish(mut command: Command, what: &str) -> Result<String> {
    let done = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().context(
        "python3 did not start: install Python 3.8 or newer (Debian/Ubuntu: apt install python3; macOS: brew install python)",
    )?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`kafka {what}` failed with {}: {}", done.status, said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
