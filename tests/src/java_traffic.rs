//! The same traffic through Kafka's own Java producer, to compare how long a fault is felt.
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::faults::Flow;
use crate::traffic::longest_gaps;

/// Traffic of the Java producer.
pub struct JavaTraffic {
    child: Child,
    input: Option<ChildStdin>,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    acknowledged: Vec<(i32, Instant)>,
    errors: u64,
}

/// Starts a Java producer, a file of `tests/kafka`; it talks over its standard input and output.
///
/// # Errors
/// When there is no JDK, or Kafka was not fetched.
pub fn spawn(cluster: &Cluster, source: &str, topic: &str) -> Result<Child> {
    let source = format!("{}/kafka/{source}", env!("CARGO_MANIFEST_DIR"));
    Command::new("java")
        .args(["-cp", &cluster.classpath()?, &source, cluster.bootstrap(), topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("java did not start: install a JDK, 17 or newer")
}

impl JavaTraffic {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no JDK, or Kafka was not fetched.
    pub fn start(cluster: &Cluster, topic: &str) -> Result<Self> {
        let mut child = spawn(cluster, "Traffic.java", topic)?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no output")?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let reader = std::thread::spawn({
            let seen = seen.clone();
            move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut seen = seen.lock();
                    match line.parse() {
                        Ok(partition) => seen.acknowledged.push((partition, Instant::now())),
                        Err(_) => seen.errors += 1,
                    }
                }
            }
        });
        Ok(Self { child, input, seen, reader: Some(reader) })
    }

    /// Ends it; the longest time without an acknowledgement, of all and of the worst partition, and how many records failed.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn end(mut self) -> Result<(Duration, Duration, u64)> {
        drop(self.input.take());
        ensure!(self.child.wait()?.success(), "the Java producer failed");
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "its reader panicked");
        }
        let seen = self.seen.lock();
        let (longest, worst) = longest_gaps(seen.acknowledged.iter().copied());
        Ok((longest, worst, seen.errors))
    }
}

impl Flow for JavaTraffic {
    async fn flows(&self, count: u64) -> Result<()> {
        let now = || self.seen.lock().acknowledged.len() as u64;
        let (wanted, begun) = (now() + count, Instant::now());
        while now() < wanted {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no {count} records were acknowledged within a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for JavaTraffic {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
