//! krafka: `enqueue` returns once a record is queued, and a handle reports its result. Idempotent by default.
//! One collector per partition awaits the handles in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use krafka::producer::{Acks, DeliveryHandle, Producer};
use krafka::{Compression, Kafka, Record};
use tokio::sync::mpsc;

/// A handle, and the time of its record's send, 0 if the latency is not measured.
type Sent = (DeliveryHandle, u64);

/// Handles per message to a collector.
const HANDFUL: usize = 256;

struct Load {
    args: Args,
    values: Vec<Bytes>,
    keys: Vec<Bytes>,
    producer: Producer,
    clock: Clock,
}

impl Load {
    async fn send(&self, i: u64) -> DeliveryHandle {
        let value = self.values[value_index(i, self.args.pool)].clone();
        let key = self.keys[(i % self.args.keys as u64) as usize].clone();
        self.producer.enqueue(Record::new(self.args.topic.as_str(), value).key(key)).await.expect("enqueue")
    }

    async fn send_share(&self, thread: u64, collectors: Vec<mpsc::UnboundedSender<Vec<Sent>>>) {
        let (threads, share) = (self.args.threads, self.args.messages / self.args.threads);
        let pacer = (self.args.rate > 0).then(|| Pacer::new(self.args.rate / threads));
        let mut handfuls: Vec<Vec<Sent>> = collectors.iter().map(|_| Vec::with_capacity(HANDFUL)).collect();
        let mut sent = 0;
        while sent < share {
            let due = pacer.as_ref().map_or(share, |pacer| pacer.due(sent, share));
            while sent < due {
                let i = sent * threads + thread;
                let at = if self.args.sampled(i) { self.clock.ns() } else { 0 };
                let handle = self.send(i).await;
                let partition = handle.partition() as usize;
                handfuls[partition].push((handle, at));
                if handfuls[partition].len() == HANDFUL {
                    hand_over(&collectors[partition], &mut handfuls[partition]);
                }
                sent += 1;
            }
            if pacer.is_some() {
                collectors.iter().zip(&mut handfuls).for_each(|(collector, handful)| hand_over(collector, handful));
            }
        }
        collectors.iter().zip(&mut handfuls).for_each(|(collector, handful)| hand_over(collector, handful));
    }
}

fn hand_over(collector: &mpsc::UnboundedSender<Vec<Sent>>, handful: &mut Vec<Sent>) {
    if !handful.is_empty() {
        let full = std::mem::replace(handful, Vec::with_capacity(HANDFUL));
        collector.send(full).expect("the collector is there");
    }
}

async fn collect(mut received: mpsc::UnboundedReceiver<Vec<Sent>>, clock: Clock) -> (u64, u64, Latencies) {
    let (mut acked, mut errors, mut latencies) = (0, 0, latencies());
    while let Some(handful) = received.recv().await {
        for (handle, at) in handful {
            match handle.await {
                Ok(_) => {
                    acked += 1;
                    if at != 0 {
                        latencies.saturating_record(clock.ns() - at);
                    }
                }
                Err(error) => {
                    errors += 1;
                    if errors < 5 {
                        eprintln!("delivery: {error}");
                    }
                }
            }
        }
    }
    (acked, errors, latencies)
}

fn main() {
    let args = Args::parse();
    let workers = args.x("workers", 2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("a runtime").block_on(run(args));
}

async fn run(args: Args) {
    let buffer = args.x("buffer", 64 << 20);
    let kafka = Kafka::builder(args.bootstrap.clone()).client_id("bench").connect().await.expect("a broker");
    let producer = kafka
        .producer()
        .acks(Acks::All)
        .idempotent(true)
        .compression(if args.compression == "snappy" { Compression::Snappy } else { Compression::None })
        .batch_size(args.batch_bytes)
        .linger(Duration::from_millis(args.linger_ms))
        .buffer_memory(buffer)
        .build()
        .await
        .expect("a producer");
    let load = Arc::new(Load {
        values: values(args.size, args.pool).into_iter().map(Bytes::from).collect(),
        keys: keys(args.keys).into_iter().map(Bytes::from).collect(),
        producer,
        clock: Clock::new(),
        args,
    });
    let mut warm = Vec::new();
    for i in 0..load.args.warmup {
        warm.push(load.send(i).await);
    }
    let mut partitions = 1;
    for handle in warm {
        partitions = partitions.max(handle.await.expect("warm-up").partition as usize + 1);
    }
    let (collectors, received): (Vec<_>, Vec<_>) = (0..partitions).map(|_| mpsc::unbounded_channel()).unzip();
    let collected: Vec<_> = received.into_iter().map(|received| tokio::spawn(collect(received, load.clock))).collect();
    let measure = Measure::start();
    let mut senders = Vec::new();
    for thread in 0..load.args.threads {
        let (load, collectors) = (load.clone(), collectors.clone());
        // A paced sender blocks its thread, and would delay a worker's tasks.
        let runtime = tokio::runtime::Handle::current();
        senders.push(tokio::task::spawn_blocking(move || runtime.block_on(load.send_share(thread, collectors))));
    }
    drop(collectors);
    for sender in senders {
        sender.await.expect("a sender");
    }
    let (mut acked, mut errors, mut all) = (0, 0, latencies());
    for collector in collected {
        let (ok, failed, latencies) = collector.await.expect("a collector");
        (acked, errors) = (acked + ok, errors + failed);
        all.add(&latencies).expect("the same bounds");
    }
    let note = format!("buffer {} MiB", buffer >> 20);
    measure.finish(("krafka", "0.28.1"), &load.args, (acked, errors), &all, &note);
    let _ = load.producer.close().await;
}
