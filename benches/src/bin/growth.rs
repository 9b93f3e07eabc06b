//! Measures how CPU time and memory grow with partitions, records and threads, against the test broker.
//!
//! Rules:
//!  - The broker is a separate process, so that its work does not count.
//!  - Each row is a separate process, so that its peak memory is its own.
//!  - The start of the producer and its first metadata do not count.
//!
//! `cargo run --release -p kafka-courier-benches --bin growth`
use std::error::Error;
use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Write};
use std::iter::StepBy;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_courier::dlq::Selection;
use kafka_courier::{Compression, KafkaProducer, ProducerRecord, PublishError};
use kafka_courier_benches::{keys, values};
use kafka_courier_test_broker::{TestCluster, TopicSpec};
use tokio::runtime::Handle;

type Failure = Box<dyn Error + Send + Sync>;

/// Partitions of the topic, one row each. The last is the test broker's maximum.
const PARTITIONS: [i32; 5] = [1, 10, 100, 1000, 10_000];
/// Records in each row of partitions. Every partition fills several batches of a hundred.
const SPREAD: u64 = 5_000_000;
const RECORDS: [u64; 5] = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match arguments[..] {
        [] => tables(),
        ["broker", partitions] => runtime()?.block_on(serve(partitions.parse()?)),
        ["row", broker, records, threads] => {
            let (records, threads) = (records.parse()?, threads.parse()?);
            runtime()?.block_on(row(broker, records, threads))
        }
        _ => Err("growth takes no arguments".into()),
    }
}

/// Starts this program again with these arguments.
fn again(arguments: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

fn line(child: &mut Child) -> Result<String, Failure> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("the child's output is not piped")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn tables() -> Result<(), Failure> {
    let rows = PARTITIONS.map(|partitions| (partitions, SPREAD, 1));
    let rows = rows.into_iter().chain(RECORDS.map(|records| (10, records, 1))).chain([(10, 10_000_000, 2)]);
    println!(
        "| partitions | records | threads | CPU us per record | records/s | peak memory |\n|---|---|---|---|---|---|"
    );
    for (partitions, records, threads) in rows {
        let row = [partitions.to_string(), records.to_string(), threads.to_string()];
        let mut broker = again(&["broker", &row[0]])?;
        let address = line(&mut broker)?;
        let mut child = again(&["row", &address, &row[1], &row[2]])?;
        let figures = line(&mut child)?;
        let status = child.wait()?;
        drop(broker.stdin.take());
        broker.wait()?;
        if !status.success() {
            return Err(format!("{partitions} partitions, {records} records: no figures").into());
        }
        println!("| {} | {figures} |", row.join(" | "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Runs the broker until standard input ends. The logs keep few batches.
async fn serve(partitions: i32) -> Result<(), Failure> {
    let topic = TopicSpec::new("t", partitions).config("retention.bytes", "65536");
    let cluster = TestCluster::builder().topic_spec(topic).max_log_bytes(4 << 30).start().await?;
    println!("{}", cluster.bootstrap());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// Publishes the records and prints the row's figures.
async fn row(broker: &str, records: u64, threads: u64) -> Result<(), Failure> {
    let topic = "t";
    let builder = KafkaProducer::builder().brokers(broker).compression(Compression::Snappy).flush_messages(100);
    let producer = builder.flush_timeout("1s").buffer_memory(256 << 20).build()?;
    producer.send(&ProducerRecord { topic, value: Some(b"first"), ..ProducerRecord::default() }).await?.await?;
    let (cpu, began) = (on_cpu()?, Instant::now());
    let publishing: Vec<_> = (0..threads)
        .map(|thread| {
            let (producer, runtime) = (producer.clone(), Handle::current());
            let share = (thread..records).step_by(threads as usize);
            // The runtime's worker threads must still exist when their CPU times are read.
            tokio::task::spawn_blocking(move || runtime.block_on(publish(&producer, topic, share)))
        })
        .collect();
    for thread in publishing {
        thread.await??;
    }
    if !producer.flush(Duration::from_secs(60)).await {
        return Err("some records have no verdict".into());
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), on_cpu()? - cpu);
    producer.close(Duration::from_secs(10)).await;
    let stats = producer.stats();
    if stats.sent != records + 1 {
        let letter = producer.dead_letters().list(&Selection::default(), 1).await?;
        return Err(format!("{} records were delivered, {} failed: {letter:?}", stats.sent, stats.failed).into());
    }
    println!("{:.2} | {:.0} | {} MB", cpu * 1e6 / records as f64, records as f64 / seconds, peak_kb()? / 1024);
    Ok(())
}

/// Publishes a share of the records and detaches their deliveries. The producer counts the verdicts.
async fn publish(producer: &KafkaProducer, topic: &str, share: StepBy<Range<u64>>) -> Result<(), PublishError> {
    let (keys, values) = (keys(100_000), values(1000));
    for i in share {
        let (key, value) = (&keys[i as usize % keys.len()], &values[i as usize % values.len()]);
        let record = ProducerRecord { topic, key: Some(key), value: Some(value), ..ProducerRecord::default() };
        producer.send(&record).await?.detach();
    }
    Ok(())
}

/// Returns the CPU seconds of this process.
fn on_cpu() -> Result<f64, Failure> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += stat.split_whitespace().next().ok_or("schedstat is empty")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Returns the peak memory of this process, in KiB.
fn peak_kb() -> Result<u64, Failure> {
    let status = read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
