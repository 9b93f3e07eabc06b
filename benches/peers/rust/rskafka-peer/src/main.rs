//! rskafka: a BatchProducer with a RecordAggregator for each partition. rskafka has no idempotence.
//!
//! The generator chooses the partition by murmur2 of the key, as Java does. One task per partition keeps up to
//! `--x-window` produce() futures running. The tasks share the runtime's two threads, so `--threads` has no effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use common::*;
use futures::stream::{self, BoxStream, StreamExt};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::producer::aggregator::RecordAggregator;
use rskafka::client::producer::{BatchProducer, BatchProducerBuilder};
use rskafka::record::Record;
use tokio::sync::mpsc;

type PartitionProducer = Arc<BatchProducer<RecordAggregator>>;

struct Load {
    args: Args,
    values: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    /// The partition of each key.
    partition_of: Vec<usize>,
    producers: Vec<PartitionProducer>,
    clock: Clock,
    /// Records of a partition that may be queued or in flight.
    window: usize,
}

impl Load {
    fn partition(&self, i: u64) -> usize {
        self.partition_of[(i % self.args.keys as u64) as usize]
    }

    fn record(&self, i: u64) -> Record {
        Record {
            key: Some(self.keys[(i % self.args.keys as u64) as usize].clone()),
            value: Some(self.values[value_index(i, self.args.pool)].clone()),
            headers: BTreeMap::new(),
            timestamp: Utc::now(),
        }
    }

    /// Produces one partition's messages: at full rate, or those from `paced` with the times of their sends.
    async fn produce(
        self: Arc<Self>,
        partition: usize,
        paced: mpsc::UnboundedReceiver<(u64, u64)>,
    ) -> (u64, u64, Latencies) {
        let source: BoxStream<'_, (u64, Option<u64>)> = if self.args.rate == 0 {
            let own = (0..self.args.messages).filter(|i| self.partition(*i) == partition);
            stream::iter(own.map(|i| (i, None))).boxed()
        } else {
            stream::unfold(paced, |mut paced| async move {
                let (i, at) = paced.recv().await?;
                Some(((i, Some(at)), paced))
            })
            .boxed()
        };
        let producing = source.map(|(i, at)| {
            let at = at.or_else(|| self.args.sampled(i).then(|| self.clock.ns()));
            let future = self.producers[partition].produce(self.record(i));
            async move { future.await.map(|_| at) }
        });
        let mut producing = producing.buffer_unordered(self.window);
        let (mut acked, mut errors, mut latencies) = (0, 0, latencies());
        while let Some(result) = producing.next().await {
            match result {
                Ok(at) => {
                    acked += 1;
                    at.into_iter().for_each(|at| latencies.saturating_record(self.clock.ns() - at));
                }
                Err(error) => {
                    errors += 1;
                    if errors < 5 {
                        eprintln!("delivery: {error}");
                    }
                }
            }
        }
        (acked, errors, latencies)
    }

    fn pace(&self, partitions: &[mpsc::UnboundedSender<(u64, u64)>]) {
        let pacer = Pacer::new(self.args.rate);
        let mut i = 0;
        while i < self.args.messages {
            let due = pacer.due(i, self.args.messages);
            while i < due {
                partitions[self.partition(i)].send((i, self.clock.ns())).expect("the task is there");
                i += 1;
            }
        }
    }
}

async fn prepare(args: Args) -> Load {
    let client = ClientBuilder::new(vec![args.bootstrap.clone()]).build().await.expect("a broker");
    let topics = client.list_topics().await.expect("topics");
    let count = topics.iter().find(|topic| topic.name == args.topic).expect("the topic").partitions.len();
    let codec = if args.compression == "snappy" { Compression::Snappy } else { Compression::NoCompression };
    let mut producers = Vec::new();
    for index in 0..count as i32 {
        let partition = client.partition_client(args.topic.clone(), index, UnknownTopicHandling::Retry).await;
        let builder = BatchProducerBuilder::new(Arc::new(partition.expect("a partition")))
            .with_linger(Duration::from_millis(args.linger_ms))
            .with_compression(codec);
        producers.push(Arc::new(builder.build(RecordAggregator::new(args.x("batch", args.batch_bytes)))));
    }
    let keys = keys(args.keys);
    Load {
        partition_of: keys.iter().map(|key| (murmur2(key) & 0x7fff_ffff) as usize % count).collect(),
        values: values(args.size, args.pool),
        keys,
        producers,
        clock: Clock::new(),
        window: args.x("window", ((64 << 20) / count / (args.size + 40)).clamp(100, 10_000)),
        args,
    }
}

fn main() {
    let args = Args::parse();
    let workers = args.x("workers", 2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("a runtime").block_on(run(args));
}

async fn run(args: Args) {
    let load = Arc::new(prepare(args).await);
    stream::iter(0..load.args.warmup)
        .map(|i| load.producers[load.partition(i)].produce(load.record(i)))
        .buffer_unordered(1000)
        .for_each(|result| async {
            result.expect("warm-up");
        })
        .await;
    let measure = Measure::start();
    let (senders, tasks): (Vec<_>, Vec<_>) = (0..load.producers.len())
        .map(|partition| {
            let (sender, paced) = mpsc::unbounded_channel();
            (sender, tokio::spawn(load.clone().produce(partition, paced)))
        })
        .unzip();
    if load.args.rate > 0 {
        let load = load.clone();
        tokio::task::spawn_blocking(move || load.pace(&senders)).await.expect("a pacer");
    } else {
        drop(senders);
    }
    let (mut acked, mut errors, mut all) = (0, 0, latencies());
    for task in tasks {
        let (ok, failed, latencies) = task.await.expect("a task");
        (acked, errors) = (acked + ok, errors + failed);
        all.add(&latencies).expect("the same bounds");
    }
    let note = format!("not idempotent, {} records a partition", load.window);
    measure.finish(("rskafka", "0.6.0"), &load.args, (acked, errors), &all, &note);
}
