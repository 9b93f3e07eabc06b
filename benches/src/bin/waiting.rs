//! Measures the cost of awaiting each event, with and without expedite: latencies, rates, and events per batch.
//!
//! Rules:
//!  - Every case publishes the same events.
//!  - Both settings alternate, and the medians of five rounds count, because machines are shared.
//!  - Only the test broker in this process counts batches. Any broker serves for the times.
//!
//! `cargo run --release -p kafka-courier-benches --bin waiting -- [HOST:PORT TOPIC]` (default: the test broker)
use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kafka_courier::{Delivery, KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::TestCluster;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: usize = 5;
const PARTITIONS: usize = 6;
const LONG: Duration = Duration::from_secs(600);
const CASES: [Case; 5] = [Case::OneAtATime, Case::Paced, Case::Concurrent, Case::JoinAll, Case::Unawaited];

#[derive(Clone, Copy)]
enum Case {
    /// Each event is published after the previous one is acknowledged.
    OneAtATime,
    /// A thousand events per second, each awaited by a separate task.
    Paced,
    /// 64 tasks that each await one event at a time.
    Concurrent,
    /// Ten thousand events are published, then all are awaited.
    JoinAll,
    /// No event is awaited. A flush ends the round.
    Unawaited,
}

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "one at a time",
            Self::Paced => "1,000/s, each awaited",
            Self::Concurrent => "64 tasks, each one at a time",
            Self::JoinAll => "10,000, then all awaited",
            Self::Unawaited => "unawaited, at full rate",
        }
    }

    /// Events per round. Some cases need a whole flush_timeout per event without expedite.
    const fn events(self, expedite: bool) -> usize {
        match (self, expedite) {
            (Self::OneAtATime, true) => 1000,
            (Self::OneAtATime, false) => 3,
            (Self::Paced, _) => 3000,
            (Self::Concurrent, true) => 64 * 200,
            (Self::Concurrent, false) => 64 * 3,
            (Self::JoinAll, _) => 10_000,
            (Self::Unawaited, _) => 200_000,
        }
    }
}

/// One round: the latency of each awaited event and the duration of the round, in seconds.
struct Round {
    latencies: Vec<f64>,
    seconds: f64,
    events: usize,
    /// Batches that the test broker received.
    batches: Option<usize>,
}

struct Bench {
    bootstrap: String,
    topic: String,
    cluster: Option<TestCluster>,
}

async fn send(producer: &KafkaProducer, topic: &str, i: usize) -> Outcome<Delivery> {
    let (key, value) = (format!("key-{}", i % 1000), [b'x'; 300]);
    let record = ProducerRecord { topic, key: Some(key.as_bytes()), value: Some(&value), ..ProducerRecord::default() };
    Ok(producer.send(&record).await?)
}

async fn timed(producer: KafkaProducer, topic: String, i: usize) -> f64 {
    let began = Instant::now();
    if let Ok(delivery) = send(&producer, &topic, i).await {
        let _ = delivery.await;
    }
    began.elapsed().as_secs_f64()
}

impl Bench {
    fn batches(&self) -> Option<usize> {
        self.cluster.as_ref().map(|cluster| cluster.batches(&self.topic).len())
    }

    async fn round(&self, case: Case, expedite: bool) -> Outcome<Round> {
        let builder = KafkaProducer::builder().brokers(self.bootstrap.as_str()).expedite(expedite);
        let producer = builder.flush_messages(1000).build()?;
        for i in 0..PARTITIONS * 4 {
            send(&producer, &self.topic, i).await?.detach();
        }
        producer.flush(LONG).await;
        let (before, began, events) = (self.batches(), Instant::now(), case.events(expedite));
        let latencies = self.run(case, &producer, events).await?;
        let seconds = began.elapsed().as_secs_f64();
        let report = producer.close(LONG).await;
        if report.failed > 0 {
            return Err(format!("{} events failed", report.failed).into());
        }
        let batches = self.batches().zip(before).map(|(after, before)| after - before);
        Ok(Round { latencies, seconds, events, batches })
    }

    async fn run(&self, case: Case, producer: &KafkaProducer, events: usize) -> Outcome<Vec<f64>> {
        let one = |i| timed(producer.clone(), self.topic.clone(), i);
        let mut latencies = Vec::new();
        match case {
            Case::OneAtATime => {
                for i in 0..events {
                    latencies.push(one(i).await);
                }
            }
            Case::Paced => {
                let mut tick = tokio::time::interval(Duration::from_millis(1));
                let mut tasks = Vec::new();
                for i in 0..events {
                    tick.tick().await;
                    tasks.push(tokio::spawn(one(i)));
                }
                for task in tasks {
                    latencies.push(task.await?);
                }
            }
            Case::Concurrent => {
                let tasks = (0..64).map(|task| {
                    let (producer, topic) = (producer.clone(), self.topic.clone());
                    tokio::spawn(async move {
                        let mut own = Vec::new();
                        for i in 0..events / 64 {
                            own.push(timed(producer.clone(), topic.clone(), i * 64 + task).await);
                        }
                        own
                    })
                });
                for own in join_all(tasks).await {
                    latencies.extend(own?);
                }
            }
            Case::JoinAll => {
                let mut deliveries = Vec::with_capacity(events);
                for i in 0..events {
                    deliveries.push(send(producer, &self.topic, i).await?);
                }
                for verdict in join_all(deliveries).await {
                    verdict?;
                }
            }
            Case::Unawaited => {
                for i in 0..events {
                    send(producer, &self.topic, i).await?.detach();
                }
                producer.flush(LONG).await;
            }
        }
        Ok(latencies)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}

fn print(case: Case, expedite: bool, mut rounds: Vec<Round>) {
    let rate = median(rounds.iter().map(|round| round.events as f64 / round.seconds).collect());
    let ms = |part: f64, rounds: &mut Vec<Round>| {
        1000.0 * median(rounds.iter_mut().map(|round| percentile(&mut round.latencies, part)).collect())
    };
    let (p50, p99) = (ms(0.5, &mut rounds), ms(0.99, &mut rounds));
    let sizes = rounds.iter().filter_map(|round| Some(round.events as f64 / round.batches? as f64));
    let size = median(sizes.collect());
    println!(
        "| {} | {} | {rate:.0} | {p50:.2} / {p99:.2} | {size:.1} |",
        case.name(),
        if expedite { "on" } else { "off" }
    );
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let bench = match (args.next(), args.next()) {
        (Some(bootstrap), Some(topic)) => Bench { bootstrap, topic, cluster: None },
        _ => {
            let cluster = TestCluster::builder().topic("t", PARTITIONS as i32).start().await?;
            Bench { bootstrap: cluster.bootstrap(), topic: "t".to_owned(), cluster: Some(cluster) }
        }
    };
    println!("| load | expedite | events/s | p50 / p99 ms | events per batch |\n|---|---|---|---|---|");
    for case in CASES {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            with.push(bench.round(case, true).await?);
            without.push(bench.round(case, false).await?);
        }
        print(case, true, with);
        print(case, false, without);
    }
    Ok(())
}
