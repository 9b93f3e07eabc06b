//! The load itself: senders that publish, collectors that await each delivery in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Args, Latencies, Measure, Pacer, keys, latencies, value_index, values};
use kafka_courier::{Compression, Delivery, KafkaConfig, KafkaProducer, ProducerRecord};
use tokio::sync::mpsc;

use crate::typed::Clicks;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Deliveries that are handed to a collector at once.
const HANDFUL: usize = 256;

/// Deliveries of one partition, and when those were sent whose latency is taken.
#[derive(Default)]
struct Handful {
    deliveries: Vec<Delivery>,
    sampled: Vec<(usize, Instant)>,
}

struct Load {
    args: Args,
    producer: KafkaProducer,
    values: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    /// Events instead of raw records.
    clicks: Option<Clicks>,
    note: String,
}

impl Load {
    async fn send(&self, i: u64) -> Result<Delivery, Failure> {
        let value = value_index(i, self.args.pool);
        if let Some(clicks) = &self.clicks {
            return Ok(self.producer.publish_to(&self.args.topic, &clicks.click(i, value)).await?);
        }
        let (key, value) = (&self.keys[(i % self.args.keys as u64) as usize], &self.values[value]);
        let record =
            ProducerRecord { topic: &self.args.topic, key: Some(key), value: Some(value), ..ProducerRecord::default() };
        Ok(self.producer.send(&record).await?)
    }
}

pub async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let load = Arc::new(prepare(args).await.map_err(|error| error.to_string())?);
    let mut partitions = 1;
    let mut warm = Vec::new();
    for i in 0..load.args.warmup {
        warm.push(load.send(i).await.map_err(|error| error.to_string())?);
    }
    for delivery in warm {
        partitions = partitions.max(delivery.await?.partition as usize + 1);
    }
    let (collectors, collected): (Vec<_>, Vec<_>) = (0..partitions).map(|_| collector()).unzip();
    let measure = Measure::start();
    let mut senders = Vec::new();
    for thread in 0..load.args.threads {
        let (load, collectors) = (load.clone(), collectors.clone());
        // A thread of its own: a paced sender sleeps as a thread does, and would hold up a worker's tasks.
        let runtime = tokio::runtime::Handle::current();
        senders.push(tokio::task::spawn_blocking(move || runtime.block_on(send_all(&load, thread, collectors))));
    }
    drop(collectors);
    for sender in senders {
        sender.await?.map_err(|error| error.to_string())?;
    }
    let (mut acked, mut errors, mut all) = (0, 0, latencies());
    for collector in collected {
        let (ok, failed, latencies) = collector.await?.map_err(|error| error.to_string())?;
        acked += ok;
        errors += failed;
        all.add(&latencies)?;
    }
    let client = ("kafka-courier", env!("CARGO_PKG_VERSION"));
    measure.finish(client, &load.args, (acked, errors), &all, &load.note);
    load.producer.close(Duration::from_secs(10)).await;
    Ok(())
}

async fn prepare(args: Args) -> Result<Load, Failure> {
    let mut config = KafkaConfig::default();
    config.brokers = args.bootstrap.split(',').map(str::parse).collect::<Result<_, String>>()?;
    config.flush_messages = args.x("flush-messages", 1_000_000);
    config.flush_bytes = args.batch_bytes;
    config.flush_timeout = Duration::from_millis(args.linger_ms);
    config.buffer_memory = args.x("buffer", 64 << 20);
    config.max_in_flight = u32::try_from(args.inflight)?;
    config.max_request_bytes = args.x("request", config.max_request_bytes);
    config.connections_per_broker = args.x("connections", config.connections_per_broker);
    config.compression = if args.compression == "snappy" { Compression::Snappy } else { Compression::None };
    let (mut values, keys) = (values(args.size, args.pool), keys(args.keys));
    let clicks = match args.x("typed", 0) {
        1 => Some(Clicks::new(args.size, std::mem::take(&mut values), &keys)?),
        _ => None,
    };
    let note = format!(
        "{}, buffer {} MiB, up to {} connections",
        if clicks.is_some() { "typed events" } else { "raw records" },
        config.buffer_memory >> 20,
        config.connections_per_broker,
    );
    Ok(Load { producer: KafkaProducer::build(config)?, values, keys, clicks, note, args })
}

/// Sends this thread's share of the messages, paced if a rate is asked for.
async fn send_all(load: &Load, thread: u64, collectors: Vec<mpsc::UnboundedSender<Handful>>) -> Result<(), Failure> {
    let threads = load.args.threads;
    let share = load.args.messages / threads;
    let pacer = (load.args.rate > 0).then(|| Pacer::new(load.args.rate / threads));
    let mut handfuls: Vec<Handful> = collectors.iter().map(|_| Handful::default()).collect();
    let mut sent = 0;
    while sent < share {
        let due = pacer.as_ref().map_or(share, |pacer| pacer.due(sent, share));
        while sent < due {
            let i = sent * threads + thread;
            let at = load.args.sampled(i).then(Instant::now);
            let delivery = load.send(i).await?;
            let partition = usize::try_from(delivery.partition())?;
            let handful = &mut handfuls[partition];
            handful.sampled.extend(at.map(|at| (handful.deliveries.len(), at)));
            handful.deliveries.push(delivery);
            if handful.deliveries.len() == HANDFUL {
                hand_over(&collectors[partition], &mut handfuls[partition])?;
            }
            sent += 1;
        }
        if pacer.is_some() {
            for (collector, handful) in collectors.iter().zip(&mut handfuls) {
                hand_over(collector, handful)?;
            }
        }
    }
    for (collector, handful) in collectors.iter().zip(&mut handfuls) {
        hand_over(collector, handful)?;
    }
    Ok(())
}

fn hand_over(collector: &mpsc::UnboundedSender<Handful>, handful: &mut Handful) -> Result<(), Failure> {
    if !handful.deliveries.is_empty() {
        collector.send(std::mem::take(handful)).map_err(|_| "the collector is gone")?;
    }
    Ok(())
}

type Collected = tokio::task::JoinHandle<Result<(u64, u64, Latencies), Failure>>;

/// A task that awaits deliveries in order.
fn collector() -> (mpsc::UnboundedSender<Handful>, Collected) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Handful>();
    let task = tokio::spawn(async move {
        let (mut acked, mut errors, mut latencies) = (0, 0, latencies());
        while let Some(handful) = receiver.recv().await {
            let mut sampled = handful.sampled.into_iter().peekable();
            for (index, delivery) in handful.deliveries.into_iter().enumerate() {
                let verdict = delivery.await;
                let at = sampled.next_if(|(sample, _)| *sample == index);
                match verdict {
                    Ok(_) => {
                        acked += 1;
                        if let Some((_, at)) = at {
                            latencies.saturating_record(at.elapsed().as_nanos() as u64);
                        }
                    }
                    Err(error) => {
                        errors += 1;
                        if errors <= 5 {
                            eprintln!("{error}");
                        }
                    }
                }
            }
        }
        Ok((acked, errors, latencies))
    });
    (sender, task)
}
