//! Measures a backlog on the disk: memory and rate while it grows in an outage, the time to open it, and its drain.
//!
//! Rules:
//!  - The broker is in this process, and each producer in a separate one, so that the memory is that of a producer.
//!  - The events are JSON of about 1 KiB, half of it random digits.
//!
//! `cargo run --release -p kafka-courier-benches --bin backlog -- FOLDER MIB`
use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_courier::{KafkaConfig, KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::TestCluster;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Duration = Duration::from_secs(3600);
const PARTITIONS: i32 = 12;

/// Returns a line of `/proc/self/status`, in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

fn print_memory(when: &str) {
    println!("{when}: {} MiB now, {} MiB at most", memory("VmRSS") / 1024, memory("VmHWM") / 1024);
}

/// Returns an event, half of it random digits.
fn event(number: u64, state: &mut u64) -> String {
    let mut digits = String::with_capacity(512);
    while digits.len() < 500 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        digits.push_str(&format!("{:016x}", *state >> 1));
    }
    let fields = r#""source":"checkout-service","version":"1.0","environment":"production","region":"eu-central-1""#;
    let text = r#""description":"an order was placed by a customer who had been shown a recommendation before","currency":"EUR""#;
    format!(
        r#"{{"event_id":"{number:016x}","event_type":"order.placed","timestamp":"2026-08-01T10:00:00.000Z",{fields},{text},"tags":["a","b","c"],"customer":{{"country":"DE","segment":"returning","consent":true}},"signature":"{digits}"}}"#
    )
}

fn producer(folder: &str, brokers: &str) -> Outcome<KafkaProducer> {
    let mut config = KafkaConfig::from_variables([("KAFKA_BROKERS".to_owned(), brokers.to_owned())])?;
    (config.spool_dir, config.spool_any_filesystem) = (folder.to_owned(), true);
    (config.spool_max_bytes, config.max_block) = (64 << 30, LONG);
    Ok(KafkaProducer::build(config)?)
}

fn wait_for_parent() -> Outcome<()> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

async fn fill(folder: &str, brokers: &str, bytes: u64) -> Outcome<()> {
    let producer = producer(folder, brokers)?;
    let first = ProducerRecord { topic: "t", key: Some(b"k"), value: Some(b"v"), ..ProducerRecord::default() };
    producer.send(&first).await?.await?;
    wait_for_parent()?;
    print_memory("start");
    let (mut published, mut state, mut number, since) = (0, 1, 0, Instant::now());
    let mut last = None;
    while published < bytes {
        let value = event(number, &mut state);
        let key = format!("customer-{}", number % 10_000);
        let record = ProducerRecord { topic: "t", key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..first };
        last = Some(producer.send(&record).await?);
        (published, number) = (published + value.len() as u64, number + 1);
    }
    if let Some(last) = last {
        last.stored().await?;
    }
    let rate = number as f64 / since.elapsed().as_secs_f64();
    println!("filled: {number} events of {} bytes, {rate:.0}/s", published / number.max(1));
    println!("spool: {:?}", producer.stats().spool);
    print_memory("filled");
    producer.close(Duration::ZERO).await;
    Ok(())
}

async fn drain(folder: &str, brokers: &str) -> Outcome<()> {
    let since = Instant::now();
    let producer = producer(folder, brokers)?;
    println!("opened in {:?}", since.elapsed());
    print_memory("opened");
    wait_for_parent()?;
    let (events, since) = (producer.stats().in_flight, Instant::now());
    producer.flush(LONG).await;
    println!("drained {events} events, {:.0}/s", events as f64 / since.elapsed().as_secs_f64());
    print_memory("drained");
    producer.close(LONG).await;
    Ok(())
}

/// Starts a producer's process, and shows its lines until it waits.
fn start(arguments: &[&str]) -> Outcome<(Child, BufReader<std::process::ChildStdout>)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 && line != "ready\n" {
        print!("{line}");
        line.clear();
    }
    Ok((child, lines))
}

/// Lets a producer's process continue, and shows its lines until it ends.
fn finish((mut child, lines): (Child, BufReader<std::process::ChildStdout>)) -> Outcome<()> {
    child.stdin.take().ok_or("no input")?.write_all(b"\n")?;
    for line in lines.lines() {
        println!("{}", line?);
    }
    child.wait()?;
    Ok(())
}

fn bytes_of(folder: &Path) -> Outcome<u64> {
    let sizes = std::fs::read_dir(folder)?.map(|file| Ok(file?.metadata()?.len()));
    sizes.sum::<Result<u64, std::io::Error>>().map_err(Into::into)
}

async fn measure(folder: &str, mib: &str) -> Outcome<()> {
    let cluster = TestCluster::builder().topic("t", PARTITIONS).start().await?;
    let brokers = cluster.bootstrap();
    let filling = start(&["fill", folder, &brokers, mib])?;
    cluster.kill(1).await;
    tokio::task::block_in_place(|| finish(filling))?;
    println!("files: {} MiB", bytes_of(Path::new(folder))? >> 20);
    let draining = tokio::task::block_in_place(|| start(&["drain", folder, &brokers]))?;
    cluster.restart(1)?;
    tokio::task::block_in_place(|| finish(draining))?;
    println!("in the log: {}", cluster.record_count("t"));
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["fill", folder, brokers, mib] => fill(folder, brokers, mib.parse::<u64>()? << 20).await,
        ["drain", folder, brokers] => drain(folder, brokers).await,
        [folder, mib] => measure(folder, mib).await,
        _ => Err("usage: backlog FOLDER MIB".into()),
    }
}
