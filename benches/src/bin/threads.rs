//! Publishes from one thread and from two into a producer that discards its batches, to measure contention.
//!
//! Rules:
//!  - Rounds of one and of two threads alternate, and the medians count.
//!  - The scheduler reports the CPU time of a record. It depends less on other load than the rate does, and excludes
//!    waiting for a lock.
//!  - Two threads with a producer each share nothing, which shows the limit of the machine.
//!
//! `cargo run --release -p kafka-courier-benches --bin threads`
use std::error::Error;
use std::time::Instant;

use kafka_courier::{KafkaProducer, ProducerRecord};

const ROUNDS: usize = 15;
const RECORDS: usize = 1_000_000;
const PARTITIONS: usize = 12;
const KEYS: usize = 1000;

/// Returns the CPU time of this thread, in nanoseconds.
fn on_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Publishes one thread's share. Returns the thread's CPU time in nanoseconds.
fn publish(producer: &KafkaProducer, keys: Option<&[Vec<u8>]>, thread: usize) -> f64 {
    let value = [b'x'; 100];
    let began = on_cpu();
    for i in 0..RECORDS {
        let key = keys.map(|keys| &*keys[(i * 7 + thread * 501) % KEYS]);
        let record = ProducerRecord { topic: "t", key, value: Some(&value), ..ProducerRecord::default() };
        while let Err(error) = producer.try_send(&record).map(kafka_courier::Delivery::detach) {
            assert!(error.is_retriable(), "{error}");
            std::thread::yield_now();
        }
    }
    on_cpu() - began
}

/// Returns records per second, and CPU nanoseconds per record.
fn round(producers: &[&KafkaProducer], keys: Option<&[Vec<u8>]>) -> (f64, f64) {
    let began = Instant::now();
    let cpu: f64 = std::thread::scope(|scope| {
        let start = |(thread, producer)| scope.spawn(move || publish(producer, keys, thread));
        let running: Vec<_> = producers.iter().copied().enumerate().map(start).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    let records = (producers.len() * RECORDS) as f64;
    (records / began.elapsed().as_secs_f64(), cpu / records)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sink = || -> Result<KafkaProducer, Box<dyn Error>> {
        let builder = KafkaProducer::builder().flush_messages(1000).buffer_memory(256 << 20);
        Ok(kafka_courier_benches::sink(builder, "t", PARTITIONS)?)
    };
    let (one, other) = (sink()?, sink()?);
    let ways = [("1", vec![&one]), ("2", vec![&one, &one]), ("2, a producer each", vec![&one, &other])];
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|i| format!("key-{i}").into_bytes()).collect();
    println!(
        "| records | threads | million/s | CPU ns per record | rate against one thread | by CPU |\n|---|---|---|---|---|---|"
    );
    for (name, keys) in [("with keys", Some(&*keys)), ("without", None)] {
        let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((_, producers), rounds) in ways.iter().zip(&mut rounds) {
                rounds.push(round(producers, keys));
            }
        }
        let medians = rounds.map(|rounds| {
            let (rates, cpu): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
            (median(rates), median(cpu))
        });
        for ((threads, producers), (rate, cpu)) in ways.iter().zip(medians) {
            let (against, by_cpu) = (rate / medians[0].0, producers.len() as f64 * medians[0].1 / cpu);
            println!("| {name} | {threads} | {:.2} | {cpu:.0} | {against:.2} | {by_cpu:.2} |", rate / 1e6);
        }
    }
    Ok(())
}
