//! The load itself: senders that publish, collectors that await each delivery in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::events::{EventBuilder, event_data};
use kafka_courier::{Compression, Delivery, KafkaConfig, KafkaProducer, ProducerRecord};
use tokio::sync::mpsc;

use crate::args::Args;
use crate::data;
use crate::measure::{Latencies, Measure, Pacer, latencies};

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A delivery, and when it was sent if its latency is taken.
type Sent = (Delivery, Option<Instant>);

/// Deliveries that are handed to a collector at once.
const HANDFUL: usize = 256;

/// A typed event about as large as `--size` asks.
#[derive(serde::Serialize)]
struct Click {
    id: u64,
    user_id: String,
    data: String,
}
event_data!(Click, "bench.click", key = user_id);

struct Load {
    args: Args,
    producer: KafkaProducer,
    values: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    builder: EventBuilder,
}

impl Load {
    async fn send(&self, i: u64) -> Result<Delivery, Failure> {
        let key = &self.keys[(i % self.args.keys as u64) as usize];
        let value = &self.values[data::value_index(i, self.values.len())];
        if self.args.typed {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let event = self.builder.custom(Click { id: i, user_id: text(key), data: text(value) });
            return Ok(self.producer.publish_to(&self.args.topic, &event).await?);
        }
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
    let measure = Measure::start()?;
    let mut senders = Vec::new();
    for thread in 0..load.args.threads as u64 {
        let (load, collectors) = (load.clone(), collectors.clone());
        // A thread of its own: a paced sender sleeps as a thread does, and would hold up a worker's tasks.
        let runtime = tokio::runtime::Handle::current();
        senders.push(tokio::task::spawn_blocking(move || runtime.block_on(send_all(&load, thread, collectors))));
    }
    drop(collectors);
    for sender in senders {
        sender.await?.map_err(|error| error.to_string())?;
    }
    let (mut acked, mut errors, mut all) = (0, 0, latencies().map_err(|error| error.to_string())?);
    for collector in collected {
        let (ok, failed, latencies) = collector.await?.map_err(|error| error.to_string())?;
        acked += ok;
        errors += failed;
        all.add(&latencies)?;
    }
    measure.finish(&load.args, acked, errors, &all)?;
    load.producer.close(Duration::from_secs(10)).await;
    Ok(())
}

async fn prepare(args: Args) -> Result<Load, Failure> {
    let mut config = KafkaConfig::default();
    config.brokers = args.bootstrap.split(',').map(str::parse).collect::<Result<_, String>>()?;
    config.flush_messages = args.flush_messages;
    config.flush_bytes = args.batch_bytes;
    config.flush_timeout = Duration::from_millis(args.linger_ms);
    config.buffer_memory = args.buffer;
    config.max_in_flight = args.inflight;
    config.max_request_bytes = args.request;
    config.connections_per_broker = args.connections;
    config.compression = if args.compression == "snappy" { Compression::Snappy } else { Compression::None };
    Ok(Load {
        producer: KafkaProducer::build(config)?,
        values: data::values(args.size, args.pool),
        keys: data::keys(args.keys),
        builder: EventBuilder::new("bench", "1"),
        args,
    })
}

/// Sends this thread's share of the messages, paced if a rate is asked for.
async fn send_all(load: &Load, thread: u64, collectors: Vec<mpsc::UnboundedSender<Vec<Sent>>>) -> Result<(), Failure> {
    let threads = load.args.threads as u64;
    let share = load.args.messages / threads;
    let pacer = (load.args.rate > 0).then(|| Pacer::new(load.args.rate / threads));
    let mut handfuls: Vec<Vec<Sent>> = collectors.iter().map(|_| Vec::with_capacity(HANDFUL)).collect();
    let mut sent = 0;
    while sent < share {
        let due = pacer.as_ref().map_or(share, |pacer| pacer.due(sent, share));
        while sent < due {
            let i = sent * threads + thread;
            let at = load.args.sampled(i).then(Instant::now);
            let delivery = load.send(i).await?;
            let partition = usize::try_from(delivery.partition())?;
            handfuls[partition].push((delivery, at));
            if handfuls[partition].len() == HANDFUL {
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

fn hand_over(collector: &mpsc::UnboundedSender<Vec<Sent>>, handful: &mut Vec<Sent>) -> Result<(), Failure> {
    if !handful.is_empty() {
        collector.send(std::mem::replace(handful, Vec::with_capacity(HANDFUL))).map_err(|_| "the collector is gone")?;
    }
    Ok(())
}

type Collected = tokio::task::JoinHandle<Result<(u64, u64, Latencies), Failure>>;

/// A task that awaits deliveries in order.
fn collector() -> (mpsc::UnboundedSender<Vec<Sent>>, Collected) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Vec<Sent>>();
    let task = tokio::spawn(async move {
        let (mut acked, mut errors, mut latencies) = (0, 0, latencies()?);
        while let Some(handful) = receiver.recv().await {
            for (delivery, at) in handful {
                match delivery.await {
                    Ok(_) => {
                        acked += 1;
                        if let Some(at) = at {
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
