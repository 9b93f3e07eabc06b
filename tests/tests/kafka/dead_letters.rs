//! Dead letters on a real Kafka: an outage under load, killed replays, lost answers, and a dead-letter topic.
//!
//! Rules: The tests run only `courier`, like its users. At the end of each test the log has each event exactly once. A
//! Java consumer reads the log.
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::{Courier, FinishedRun};
use serde_json::Value;

const TOPIC: &str = "outage";
/// The time between two events.
const PACE: Duration = Duration::from_millis(2);
/// Settings with which failed events soon become dead letters.
const SHORT_TIMEOUTS: [(&str, &str); 4] = [
    ("KAFKA_DELIVERY_TIMEOUT", "5s"),
    ("KAFKA_REQUEST_TIMEOUT", "3s"),
    ("KAFKA_FLUSH_TIMEOUT", "20ms"),
    ("KAFKA_METADATA_TIMEOUT", "5s"),
];

/// A dead-letter file, and the commands on the file.
struct LetterFile<'a> {
    cluster: &'a Cluster,
    folder: tempfile::TempDir,
}

impl<'a> LetterFile<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        Ok(Self { cluster, folder: tempfile::tempdir()? })
    }

    fn file(&self) -> String {
        self.folder.path().join("letters").display().to_string()
    }

    /// Returns `courier publish` with this dead-letter file, and with receipts as its output.
    fn publisher(&self, arguments: &[&str]) -> Result<Courier> {
        let file = self.file();
        let words = ["publish", "--brokers", self.cluster.bootstrap(), "--dlq-file", &file, "--receipts", "-"];
        let courier = Courier::new(&[&words, arguments].concat())?.within(Duration::from_secs(300));
        Ok(SHORT_TIMEOUTS.iter().fold(courier, |courier, (name, value)| courier.env(name, value)))
    }

    fn dlq(&self, arguments: &[&str]) -> Result<Courier> {
        let file = self.file();
        let words = [&["dlq"], arguments, &["--brokers", self.cluster.bootstrap(), "--file", &file]].concat();
        Ok(Courier::new(&words)?.within(Duration::from_secs(300)))
    }

    fn list(&self) -> Result<Vec<Value>> {
        lines(&self.dlq(&["list", "--json"])?.run()?.expect_code(0)?.stdout)
    }

    /// Runs `dlq replay --all --verify`, and returns its report.
    fn replay(&self) -> Result<Value> {
        self.replay_with(&[])
    }

    /// Runs `dlq replay --all --verify` with more arguments, and returns its report.
    fn replay_with(&self, more: &[&str]) -> Result<Value> {
        let run = self.dlq(&[&["replay", "--all", "--verify", "--json"], more].concat())?.run()?;
        let report = run.stdout.lines().last().with_context(|| run.stderr.clone())?;
        println!("{report}");
        Ok(serde_json::from_str(report)?)
    }
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn event(number: u64) -> String {
    let key = number % 100;
    format!(r#"{{"id":"e-{number}","type":"user.logged_in","data":{{"user_id":"u-{key}"}},"padding":"{:0100}"}}"#, 0)
        + "\n"
}

/// Returns the ids of the events whose receipts have this outcome.
fn ids_with_outcome(receipts: &[Value], outcome: Option<&str>) -> BTreeSet<String> {
    let wanted = |receipt: &&Value| receipt["outcome"].as_str() == outcome;
    receipts.iter().filter(wanted).filter_map(|receipt| receipt["id"].as_str().map(str::to_owned)).collect()
}

fn ids(letters: &[Value]) -> BTreeSet<String> {
    letters.iter().filter_map(|letter| letter["event_id"].as_str().map(str::to_owned)).collect()
}

/// Returns how often each event is in the topic.
fn copies_in_log(cluster: &Cluster, topic: &str) -> Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    cluster.dump(topic, |record| {
        *found.entry(record.header("event_id").context("a record has no event id")?.to_owned()).or_default() += 1;
        Ok(())
    })?;
    Ok(found)
}

fn check_exactly_once(cluster: &Cluster, topic: &str, count: u64) -> Result<()> {
    let found = copies_in_log(cluster, topic)?;
    let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(
        twice.is_empty(),
        "{} of {count} events are in the log more than once: {:?}",
        twice.len(),
        &twice[..twice.len().min(5)]
    );
    ensure!(found.len() as u64 == count, "{} of {count} events are in the log", found.len());
    Ok(())
}

/// Writes events at a steady pace while `until` returns false, and returns the number of events.
fn write_events(mut input: impl Write, until: impl Fn(u64) -> bool) -> Result<u64> {
    let mut number = 0;
    while !until(number) {
        input.write_all(event(number).as_bytes())?;
        number += 1;
        std::thread::sleep(PACE);
    }
    Ok(number)
}

/// Publishes at a steady pace while `fault` runs. Returns the number of events and the ended run.
fn publish_under(letters: &LetterFile<'_>, fault: impl FnOnce() -> Result<()> + Send) -> Result<(u64, FinishedRun)> {
    let (reader, writer) = std::io::pipe()?;
    let courier = letters.publisher(&["--topic", TOPIC])?.input(Stdio::from(reader));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| write_events(writer, |_| is_over.load(std::sync::atomic::Ordering::Relaxed)));
        let running = scope.spawn(|| courier.run());
        let done = fault();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        let count = feeder.join().map_err(|_| anyhow::anyhow!("the feeder failed"))??;
        let run = running.join().map_err(|_| anyhow::anyhow!("the run failed"))??;
        done?;
        Ok((count, run))
    })
}

/// Starts a replay, and kills it (SIGKILL) after this time.
fn killed_replay(letters: &LetterFile<'_>, after: Duration) -> Result<()> {
    // At this rate three killed replays send fewer letters than there are.
    let mut child = letters.dlq(&["replay", "--all", "--verify", "--rate", "10"])?.pipe()?;
    std::thread::sleep(after);
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[test]
fn killed_replays_deliver_each_event_once() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(3)?;
        cluster.create_topic(TOPIC, 6, 3, &[])?;
        let letters = LetterFile::new(&cluster)?;
        let (count, run) = publish_under(&letters, || {
            std::thread::sleep(Duration::from_secs(5)); // delivery without a fault
            for broker in 1..=3 {
                cluster.kill(broker)?;
            }
            std::thread::sleep(Duration::from_secs(60)); // the outage
            cluster.start_all()?;
            std::thread::sleep(Duration::from_secs(5)); // delivery without a fault
            Ok(())
        })?;
        let run = run.expect_code(1)?;
        let receipts = lines(&run.stdout)?;
        let (delivered, unknown) = (ids_with_outcome(&receipts, None), ids_with_outcome(&receipts, Some("unknown")));
        let not_written = ids_with_outcome(&receipts, Some("not_written"));
        let held = letters.list()?;
        println!(
            "{}",
            run.stderr
                .lines()
                .filter(|line| line.contains("read,") || line.contains("dead letter"))
                .collect::<Vec<_>>()
                .join("\n")
        );
        println!(
            "{count} events: {} delivered, {} dead letters, {} receipts with outcome unknown",
            delivered.len(),
            held.len(),
            unknown.len()
        );
        ensure!(
            receipts.len() as u64 == count && delivered.len() + unknown.len() + not_written.len() == receipts.len()
        );
        ensure!(not_written.len() > 100, "too few events failed in the outage");
        let failed: BTreeSet<String> = unknown.union(&not_written).cloned().collect();
        ensure!(ids(&held).len() == held.len(), "an event has two dead letters");
        ensure!(
            ids(&held).is_subset(&failed) && ids(&held).is_superset(&not_written),
            "the dead letters do not match the failed events"
        );
        // Later acknowledgements have shown that the other unknown events are in the log. The last check confirms that.
        println!("{} unknown events were settled by later acknowledgements", failed.len() - held.len());

        for after in [1500, 3000, 4500] {
            killed_replay(&letters, Duration::from_millis(after))?;
        }
        let left = letters.list()?;
        println!("{} dead letters are left after three killed replays", left.len());
        ensure!(left.len() < held.len() && !left.is_empty(), "the replays were not killed during their work");
        let began = Instant::now();
        let report = letters.replay()?;
        println!("replayed in {:.1} s", began.elapsed().as_secs_f64());
        ensure!(report["not_found"] == 0 && report["failed"] == 0, "{report}");
        ensure!(letters.list()?.is_empty(), "dead letters are left");
        check_exactly_once(&cluster, TOPIC, count)
    }
    run().unwrap();
}

#[test]
fn verify_finds_writes_without_answers() {
    /// All events are accepted before the first verdict.
    const EVENTS: u64 = 200;
    fn run() -> Result<()> {
        let cluster = Cluster::start_with(3, &["--proxied"])?;
        cluster.create_topic(TOPIC, 6, 3, &[])?;
        let letters = LetterFile::new(&cluster)?;
        cluster.fault(&["drop_response=1000000", "api=0"])?;
        let input: String = (0..EVENTS).map(event).collect();
        let run = letters.publisher(&["--topic", TOPIC])?.input_bytes(input.as_bytes())?.run()?.expect_code(1)?;
        let unknown = ids_with_outcome(&lines(&run.stdout)?, Some("unknown"));
        cluster.fault(&["clear"])?;
        let held = letters.list()?;
        let written = copies_in_log(&cluster, TOPIC)?.len();
        println!("{EVENTS} events: {} dead letters, {} unknown, {written} in the log", held.len(), unknown.len());
        ensure!(held.len() as u64 == EVENTS && unknown.len() >= written && written > 0);
        // The first dead letter of each key has the outcome unknown. Only a replay out of order can publish another
        // record of the partition as the fence.
        let report = letters.replay_with(&["--out-of-order"])?;
        let left = letters.list()?;
        ensure!(report["landed"] == written && report["not_found"] == left.len(), "{report}");
        ensure!(report["delivered"] == EVENTS as usize - written - left.len(), "{report}");
        // A partition without a `not_written` dead letter has no record that could be the fence.
        let partition = |letter: &Value| letter["partition"].as_i64();
        let certain: BTreeSet<_> =
            held.iter().filter(|letter| letter["outcome"] == "not_written").map(partition).collect();
        ensure!(
            left.iter().all(|letter| !certain.contains(&partition(letter))),
            "a fence was possible for some dead letters: {report}"
        );
        if !left.is_empty() {
            // The proxy holds back no request, so that a forced replay can't write a duplicate.
            let report = letters.replay_with(&["--force"])?;
            ensure!(report["delivered"] == left.len(), "{report}");
        }
        ensure!(letters.list()?.is_empty(), "dead letters are left");
        check_exactly_once(&cluster, TOPIC, EVENTS)
    }
    run().unwrap();
}

/// Publishes `count` refused events, stores their dead letters in the topic `dead`, and then raises the limit that
/// refused the events.
fn store_letters_in_topic(cluster: &Cluster, count: u64, look: impl FnOnce() -> Result<()>) -> Result<()> {
    cluster.create_topic(TOPIC, 1, 1, &[("max.message.bytes", "200")])?;
    cluster.create_topic("dead", 2, 1, &[])?;
    let letters = LetterFile::new(cluster)?;
    let input: String = (0..count).map(event).collect();
    let publisher = letters.publisher(&["--topic", TOPIC])?.env("KAFKA_DLQ_TOPIC", "dead");
    let run = publisher.input_bytes(input.as_bytes())?.run()?.expect_code(1)?;
    run.expect_stderr(&[&format!("{count} dead letters were kept in dead")])?;
    look()?;
    let server = ["--bootstrap-server", cluster.bootstrap(), "--alter", "--entity-type", "topics", "--entity-name"];
    let raised = [&server[..], &[TOPIC, "--add-config", "max.message.bytes=1048588"]].concat();
    cluster.java("kafka.admin.ConfigCommand", &raised, Stdio::null())?;
    Ok(())
}

/// Returns `courier dlq` on the topic `dead`.
fn dlq_of_topic(cluster: &Cluster, words: &[&str]) -> Result<Courier> {
    Courier::new(&[&["dlq"], words, &["--brokers", cluster.bootstrap(), "--store-topic", "dead"]].concat())
}

#[test]
fn letters_carry_kafka_connect_headers() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        let look = || {
            let mut seen = 0;
            cluster.dump("dead", |record| {
                seen += 1;
                let header = |name: &str| record.header(name);
                ensure!(header("__connect.errors.topic") == Some(TOPIC), "{record:?}");
                ensure!(header("__connect.errors.exception.class.name") == Some("MESSAGE_TOO_LARGE"), "{record:?}");
                let (partition, offset) = (header("__connect.errors.partition"), header("__connect.errors.offset"));
                ensure!(partition == Some("-1") && offset == Some("-1"));
                ensure!(header("dlq.possibly-written") == Some("false") && header("dlq.topic") == Some(TOPIC));
                ensure!(record.key.is_some() && record.value.as_deref().is_some_and(|value| value.contains("padding")));
                Ok(())
            })?;
            ensure!(seen == 50, "{seen} dead letters in the topic");
            Ok(())
        };
        store_letters_in_topic(&cluster, 50, look)?;
        let dlq = |words: &[&str]| dlq_of_topic(&cluster, words)?.run()?.expect_code(0);
        ensure!(lines(&dlq(&["list", "--json"])?.stdout)?.len() == 50);
        let report: Value = serde_json::from_str(&dlq(&["replay", "--all", "--json"])?.stdout)?;
        ensure!(report["delivered"] == 50, "{report}");
        ensure!(dlq(&["list", "--json"])?.stdout.is_empty(), "dead letters are left");
        check_exactly_once(&cluster, TOPIC, 50)
    }
    run().unwrap();
}

/// A second replay of the topic is refused while the first one runs, and takes over when the first one is killed.
#[test]
fn next_replay_takes_over_killed_one() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        store_letters_in_topic(&cluster, 8, || Ok(()))?;
        let mut first = dlq_of_topic(&cluster, &["replay", "--all", "--rate", "1"])?.pipe()?;
        while copies_in_log(&cluster, TOPIC)?.len() < 2 {
            ensure!(first.try_wait()?.is_none(), "the first replay has ended");
        }
        let second = || dlq_of_topic(&cluster, &["replay", "--all", "--json"])?.within(Duration::from_secs(150)).run();
        let refusal = format!("are being replayed by process {}", first.id());
        second()?.expect_code(75)?.expect_stderr(&[&refusal])?;
        first.kill()?;
        first.wait()?;
        let killed = Instant::now();
        let done = loop {
            let run = second()?;
            if run.code != Some(75) {
                break run.expect_code(0)?;
            }
            ensure!(killed.elapsed() < Duration::from_secs(60), "the claim of the killed replay does not expire");
        };
        println!("taken over {:.0} s after the kill: {}", killed.elapsed().as_secs_f64(), done.stdout.trim());
        ensure!(
            dlq_of_topic(&cluster, &["list", "--json"])?.run()?.expect_code(0)?.stdout.is_empty(),
            "dead letters are left"
        );
        check_exactly_once(&cluster, TOPIC, 8)
    }
    run().unwrap();
}
