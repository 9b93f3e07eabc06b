//! The same traffic through Kafka's own Java producer, to compare how long a fault stops acknowledgements.
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::faults::AcknowledgedTraffic;
use crate::traffic::longest_gaps;

/// Traffic of the Java producer.
pub struct JavaTraffic {
    child: Child,
    input: Option<ChildStdin>,
    seen: Arc<Mutex<Acknowledgements>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Acknowledgements {
    acknowledged: Vec<(i32, Instant)>,
    errors: u64,
}

/// Starts a Java producer from a source file in `tests/kafka`, with pipes for its standard input and output.
///
/// # Errors
/// Fails if there is no JDK, or if Kafka was not fetched.
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
    /// Starts the producer.
    ///
    /// # Errors
    /// Fails if there is no JDK, or if Kafka was not fetched.
    pub fn start(cluster: &Cluster, topic: &str) -> Result<Self> {
        let mut child = spawn(cluster, "Traffic.java", topic)?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the Java producer has no output")?;
        let seen: Arc<Mutex<Acknowledgements>> = Arc::default();
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

    /// Ends the producer.
    ///
    /// Returns the longest time without an acknowledgement, over all partitions together and within one partition, and
    /// the number of failed records.
    ///
    /// # Errors
    /// Fails if the producer's exit code is not 0.
    pub fn end(mut self) -> Result<(Duration, Duration, u64)> {
        drop(self.input.take());
        ensure!(self.child.wait()?.success(), "the Java producer failed");
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "the reader of the producer's output panicked");
        }
        let seen = self.seen.lock();
        let (longest, worst) = longest_gaps(seen.acknowledged.iter().copied());
        Ok((longest, worst, seen.errors))
    }
}

impl AcknowledgedTraffic for JavaTraffic {
    async fn wait_for_acknowledgements(&self, count: u64) -> Result<()> {
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
        // Both calls fail if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
