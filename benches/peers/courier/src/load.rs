//! The load: senders that publish, and a collector that awaits the deliveries.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{Args, Latencies, Measure, Pacer, keys, latencies, value_index, values};
use kafka_courier::{Compression, Delivery, KafkaConfig, KafkaProducer, ProducerRecord};
use tokio::sync::mpsc;

use crate::typed::Clicks;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Deliveries per message to the collector.
const HANDFUL: usize = 256;

/// A delivery, and the time of its send if its latency is measured.
type Sent = (Delivery, Option<Instant>);

struct Load {
    args: Args,
    producer: KafkaProducer,
    values: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    /// Typed events, if they replace the raw records.
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
    let (deliveries, collector) = Collector::new(partitions);
    let collector = tokio::spawn(collector);
    let measure = Measure::start();
    let mut senders = Vec::new();
    for thread in 0..load.args.threads {
        let (load, deliveries) = (load.clone(), deliveries.clone());
        // A separate thread: a paced sender blocks its thread, and would delay a worker's tasks.
        let runtime = tokio::runtime::Handle::current();
        senders.push(tokio::task::spawn_blocking(move || runtime.block_on(send_all(&load, thread, deliveries))));
    }
    drop(deliveries);
    for sender in senders {
        sender.await?.map_err(|error| error.to_string())?;
    }
    let (acked, errors, all) = collector.await?;
    let client = ("kafka-courier", env!("CARGO_PKG_VERSION"));
    measure.finish(client, &load.args, (acked, errors), &all, &load.note);
    load.producer.close(Duration::from_secs(10)).await;
    Ok(())
}

async fn prepare(args: Args) -> Result<Load, Failure> {
    let mut config = KafkaConfig::default();
    config.brokers = args.bootstrap.split(',').map(str::parse).collect::<Result<_, _>>()?;
    config.flush_messages = args.x("flush-messages", 1_000_000);
    config.flush_bytes = args.batch_bytes;
    config.flush_timeout = Duration::from_millis(args.linger_ms);
    config.buffer_memory = args.x("buffer", 64 << 20);
    config.max_in_flight = u32::try_from(args.inflight)?;
    config.max_request_bytes = args.x("request", config.max_request_bytes);
    config.connections_per_broker = args.x("connections", config.connections_per_broker);
    config.expedite = args.x("expedite", 1) == 1;
    config.compression = if args.compression == "snappy" { Compression::Snappy } else { Compression::None };
    let (mut values, keys) = (values(args.size, args.pool), keys(args.keys));
    let clicks = match args.x("typed", 0) {
        1 => Some(Clicks::new(args.size, std::mem::take(&mut values), &keys)?),
        _ => None,
    };
    let note = format!(
        "{}, buffer {} MiB, up to {} connections{}",
        if clicks.is_some() { "typed events" } else { "raw records" },
        config.buffer_memory >> 20,
        config.connections_per_broker,
        if config.expedite { "" } else { ", expedite off" },
    );
    Ok(Load { producer: KafkaProducer::build(config)?, values, keys, clicks, note, args })
}

/// Sends this thread's share of the messages, paced if a rate is set.
async fn send_all(load: &Load, thread: u64, deliveries: mpsc::UnboundedSender<Vec<Sent>>) -> Result<(), Failure> {
    let threads = load.args.threads;
    let share = load.args.messages / threads;
    let pacer = (load.args.rate > 0).then(|| Pacer::new(load.args.rate / threads));
    let (mut handful, mut sent) = (Vec::with_capacity(HANDFUL), 0);
    while sent < share {
        let due = pacer.as_ref().map_or(share, |pacer| pacer.due(sent, share));
        while sent < due {
            let i = sent * threads + thread;
            let at = load.args.sampled(i).then(Instant::now);
            handful.push((load.send(i).await?, at));
            if handful.len() == HANDFUL {
                deliveries.send(std::mem::replace(&mut handful, Vec::with_capacity(HANDFUL)))?;
            }
            sent += 1;
        }
        if pacer.is_some() {
            deliveries.send(std::mem::take(&mut handful))?;
        }
    }
    deliveries.send(handful)?;
    Ok(())
}

/// Awaits the oldest delivery of each partition in one task, because a partition's deliveries settle in order. The cost
/// compares to the callbacks of other clients, which need no task per delivery either.
struct Collector {
    receiver: mpsc::UnboundedReceiver<Vec<Sent>>,
    waiting: Vec<VecDeque<Sent>>,
    acked: u64,
    errors: u64,
    latencies: Latencies,
}

impl Collector {
    fn new(partitions: usize) -> (mpsc::UnboundedSender<Vec<Sent>>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = (0..partitions).map(|_| VecDeque::new()).collect();
        (sender, Self { receiver, waiting, acked: 0, errors: 0, latencies: latencies() })
    }

    fn take(&mut self, sent: Sent) {
        let partition = usize::try_from(sent.0.partition()).unwrap_or(0);
        if self.waiting.len() <= partition {
            self.waiting.resize_with(partition + 1, VecDeque::new);
        }
        self.waiting[partition].push_back(sent);
    }
}

impl Future for Collector {
    type Output = (u64, u64, Latencies);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let closed = loop {
            match this.receiver.poll_recv(cx) {
                Poll::Ready(Some(handful)) => handful.into_iter().for_each(|sent| this.take(sent)),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        for waiting in &mut this.waiting {
            while let Some((delivery, at)) = waiting.front_mut() {
                match Pin::new(delivery).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(_)) => {
                        this.acked += 1;
                        if let Some(at) = at {
                            this.latencies.saturating_record(at.elapsed().as_nanos() as u64);
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        this.errors += 1;
                        if this.errors <= 5 {
                            eprintln!("{error}");
                        }
                    }
                }
                waiting.pop_front();
            }
        }
        match closed && this.waiting.iter().all(VecDeque::is_empty) {
            true => Poll::Ready((this.acked, this.errors, std::mem::replace(&mut this.latencies, latencies()))),
            false => Poll::Pending,
        }
    }
}
