//! Dead letters on a real Kafka: an outage under load, replays that are killed, answers that are lost, and a topic of
//! letters that others read.
//!
//! Rules: `courier` alone does the work, as its users have it; in the end the log holds each event exactly once, as a Java
//! consumer reads it.
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::{Courier, FinishedRun};
use serde_json::Value;

const TOPIC: &str = "outage";
/// Between two events.
const PACE: Duration = Duration::from_millis(2);
/// Letters appear soon.
const IMPATIENT: [(&str, &str); 4] = [
    ("KAFKA_DELIVERY_TIMEOUT", "5s"),
    ("KAFKA_REQUEST_TIMEOUT", "3s"),
    ("KAFKA_FLUSH_TIMEOUT", "20ms"),
    ("KAFKA_METADATA_TIMEOUT", "5s"),
];

/// A file of letters, and the commands on it.
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

    /// `courier publish` into the topic, with receipts as its output.
    fn publisher(&self, arguments: &[&str]) -> Result<Courier> {
        let file = self.file();
        let words = ["publish", "--brokers", self.cluster.bootstrap(), "--dlq-file", &file, "--receipts", "-"];
        let courier = Courier::new(&[&words, arguments].concat())?.within(Duration::from_secs(300));
        Ok(IMPATIENT.iter().fold(courier, |courier, (name, value)| courier.env(name, value)))
    }

    fn dlq(&self, arguments: &[&str]) -> Result<Courier> {
        let file = self.file();
        let words = [&["dlq"], arguments, &["--brokers", self.cluster.bootstrap(), "--file", &file]].concat();
        Ok(Courier::new(&words)?.within(Duration::from_secs(300)))
    }

    fn list(&self) -> Result<Vec<Value>> {
        lines(&self.dlq(&["list", "--json"])?.run()?.expect_code(0)?.stdout)
    }

    /// The report of `dlq replay --all --verify`.
    fn replay(&self) -> Result<Value> {
        self.replay_with(&[])
    }

    /// The same, with more arguments.
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

/// The ids of the events whose receipts say this of `outcome`.
fn ids_with_outcome(receipts: &[Value], outcome: Option<&str>) -> BTreeSet<String> {
    let wanted = |receipt: &&Value| receipt["outcome"].as_str() == outcome;
    receipts.iter().filter(wanted).filter_map(|receipt| receipt["id"].as_str().map(str::to_owned)).collect()
}

fn ids(letters: &[Value]) -> BTreeSet<String> {
    letters.iter().filter_map(|letter| letter["event_id"].as_str().map(str::to_owned)).collect()
}

/// How often each event is in the topic.
fn copies_in_log(cluster: &Cluster, topic: &str) -> Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    cluster.dump(topic, |record| {
        *found.entry(record.header("event_id").context("a record that is not ours")?.to_owned()).or_default() += 1;
        Ok(())
    })?;
    Ok(found)
}

fn check_exactly_once(cluster: &Cluster, topic: &str, count: u64) -> Result<()> {
    let found = copies_in_log(cluster, topic)?;
    let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(
        twice.is_empty(),
        "{} of {count} are in the log more than once: {:?}",
        twice.len(),
        &twice[..twice.len().min(5)]
    );
    ensure!(found.len() as u64 == count, "{} of {count} events are in the log", found.len());
    Ok(())
}

/// Feeds events at a steady pace until told how many there were.
fn write_events(mut input: impl Write, until: impl Fn(u64) -> bool) -> Result<u64> {
    let mut number = 0;
    while !until(number) {
        input.write_all(event(number).as_bytes())?;
        number += 1;
        std::thread::sleep(PACE); // the load
    }
    Ok(number)
}

/// Publishes at a steady pace while `fault` does its work; returns the number of events and how it ended.
fn publish_under(letters: &LetterFile<'_>, fault: impl FnOnce() -> Result<()> + Send) -> Result<(u64, FinishedRun)> {
    let (reader, writer) = std::io::pipe()?;
    let courier = letters.publisher(&["--topic", TOPIC])?.input(Stdio::from(reader));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| write_events(writer, |_| over.load(std::sync::atomic::Ordering::Relaxed)));
        let running = scope.spawn(|| courier.run());
        let done = fault();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let count = feeder.join().map_err(|_| anyhow::anyhow!("the feeder failed"))??;
        let run = running.join().map_err(|_| anyhow::anyhow!("the run failed"))??;
        done?;
        Ok((count, run))
    })
}

/// Starts a replay and kills it (SIGKILL) after a while.
fn killed_replay(letters: &LetterFile<'_>, after: Duration) -> Result<()> {
    let mut child = letters.dlq(&["replay", "--all", "--verify", "--rate", "30"])?.pipe()?;
    std::thread::sleep(after); // anywhere in its work
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
            std::thread::sleep(Duration::from_secs(5)); // all is well
            for broker in 1..=3 {
                cluster.kill(broker)?;
            }
            std::thread::sleep(Duration::from_secs(60)); // the outage itself
            cluster.start_all()?;
            std::thread::sleep(Duration::from_secs(5)); // all is well again
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
            "{count} events: {} delivered, {} letters, {} of them unknown",
            delivered.len(),
            held.len(),
            unknown.len()
        );
        ensure!(
            receipts.len() as u64 == count && delivered.len() + unknown.len() + not_written.len() == receipts.len()
        );
        ensure!(not_written.len() > 100, "the outage was not felt");
        let failed: BTreeSet<String> = unknown.union(&not_written).cloned().collect();
        ensure!(ids(&held).len() == held.len(), "an event has two letters");
        ensure!(
            ids(&held).is_subset(&failed) && ids(&held).is_superset(&not_written),
            "what failed is not what is kept"
        );
        // Of the others a later acceptance has shown that they are in the log: the last check holds that true.
        println!("{} of the unknown were settled by a later acceptance", failed.len() - held.len());

        for after in [1500, 3000, 4500] {
            killed_replay(&letters, Duration::from_millis(after))?;
        }
        let left = letters.list()?;
        println!("{} letters after three replays that were killed", left.len());
        ensure!(left.len() < held.len() && !left.is_empty(), "the replays were not killed half-way");
        let began = Instant::now();
        let report = letters.replay()?;
        println!("replayed in {:.1} s", began.elapsed().as_secs_f64());
        ensure!(report["not_found"] == 0 && report["failed"] == 0, "{report}");
        ensure!(letters.list()?.is_empty(), "letters are left");
        check_exactly_once(&cluster, TOPIC, count)
    }
    run().unwrap();
}

#[test]
fn verify_finds_writes_without_answers() {
    /// As many as are handed over before the first verdict.
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
        let landed = copies_in_log(&cluster, TOPIC)?.len();
        println!("{EVENTS} events: {} letters, {} unknown, {landed} in the log", held.len(), unknown.len());
        ensure!(held.len() as u64 == EVENTS && unknown.len() >= landed && landed > 0);
        // No key's letter is certain before another one of its key is in doubt: only out of order one can be the proof.
        let report = letters.replay_with(&["--out-of-order"])?;
        let left = letters.list()?;
        ensure!(report["landed"] == landed && report["not_found"] == left.len(), "{report}");
        ensure!(report["delivered"] == EVENTS as usize - landed - left.len(), "{report}");
        // Where no letter of a partition is certain nothing can go ahead to prove what became of the others.
        let partition = |letter: &Value| letter["partition"].as_i64();
        let certain: BTreeSet<_> =
            held.iter().filter(|letter| letter["outcome"] == "not_written").map(partition).collect();
        ensure!(
            left.iter().all(|letter| !certain.contains(&partition(letter))),
            "some could have been proved: {report}"
        );
        if !left.is_empty() {
            // The proxy holds no request any more, so that here it is known.
            let report = letters.replay_with(&["--force"])?;
            ensure!(report["delivered"] == left.len(), "{report}");
        }
        ensure!(letters.list()?.is_empty(), "letters are left");
        check_exactly_once(&cluster, TOPIC, EVENTS)
    }
    run().unwrap();
}

/// Publishes so many events that are refused into the topic `dead`, and then lifts what they were refused for.
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

/// `courier dlq` on the topic `dead`.
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
                let of = |name: &str| record.header(name);
                ensure!(of("__connect.errors.topic") == Some(TOPIC), "{record:?}");
                ensure!(of("__connect.errors.exception.class.name") == Some("MESSAGE_TOO_LARGE"), "{record:?}");
                ensure!(of("__connect.errors.partition") == Some("-1") && of("__connect.errors.offset") == Some("-1"));
                ensure!(of("dlq.possibly-written") == Some("false") && of("dlq.topic") == Some(TOPIC));
                ensure!(record.key.is_some() && record.value.as_deref().is_some_and(|value| value.contains("padding")));
                Ok(())
            })?;
            ensure!(seen == 50, "{seen} letters in the topic");
            Ok(())
        };
        store_letters_in_topic(&cluster, 50, look)?;
        let dlq = |words: &[&str]| dlq_of_topic(&cluster, words)?.run()?.expect_code(0);
        ensure!(lines(&dlq(&["list", "--json"])?.stdout)?.len() == 50);
        let report: Value = serde_json::from_str(&dlq(&["replay", "--all", "--json"])?.stdout)?;
        ensure!(report["delivered"] == 50, "{report}");
        ensure!(dlq(&["list", "--json"])?.stdout.is_empty(), "letters are left");
        check_exactly_once(&cluster, TOPIC, 50)
    }
    run().unwrap();
}

#[test]
fn next_replay_takes_over_killed_one()
{
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        store_letters_in_topic(&cluster, 8, || Ok(()))?;
        let mut first = dlq_of_topic(&cluster, &["replay", "--all", "--rate", "1"])?.pipe()?;
        while copies_in_log(&cluster, TOPIC)?.len() < 2 {
            ensure!(first.try_wait()?.is_none(), "the first replay has ended");
        }
        let second = || dlq_of_topic(&cluster, &["replay", "--all", "--json"])?.within(Duration::from_secs(150)).run();
        let ids_with_outcome = format!("are being replayed by process {}", first.id());
        second()?.expect_code(75)?.expect_stderr(&[&ids_with_outcome])?;
        first.kill()?;
        first.wait()?;
        let killed = Instant::now();
        let done = loop {
            let run = second()?;
            if run.code != Some(75) {
                break run.expect_code(0)?;
            }
            ensure!(killed.elapsed() < Duration::from_secs(60), "the claim of a killed replay does not run out");
        };
        println!("taken over {:.0} s after the kill: {}", killed.elapsed().as_secs_f64(), done.stdout.trim());
        ensure!(
            dlq_of_topic(&cluster, &["list", "--json"])?.run()?.expect_code(0)?.stdout.is_empty(),
            "letters are left"
        );
        check_exactly_once(&cluster, TOPIC, 8)
    }
    run().unwrap();
}
