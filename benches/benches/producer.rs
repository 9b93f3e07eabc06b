//! The producer's cost: awaiting verdicts, and the whole path to the test broker in this process.
//!
//! Rule: the whole path includes the broker's work, because the broker runs in the same process.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking and has no users")]

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka_courier::{Compression, Delivery, KafkaProducer, ProducerRecord};
use kafka_courier_benches::{RECORDS, keys, sink, values};
use kafka_courier_test_broker::{TestCluster, TopicSpec};
use tokio::runtime::{Builder, Runtime};

const PARTITIONS: i32 = 6;
/// Records per iteration of the whole path.
const MANY: usize = 10_000;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn record<'a>(key: &'a [u8], value: &'a [u8]) -> ProducerRecord<'a> {
    ProducerRecord { topic: "t", key: Some(key), value: Some(value), ..ProducerRecord::default() }
}

/// Awaits verdicts that are already known.
fn completion(criterion: &mut Criterion) {
    let (runtime, keys, values) = (runtime(), keys(RECORDS), values(RECORDS));
    let builder = KafkaProducer::builder().flush_messages(100);
    let producer = runtime.block_on(async { sink(builder, "t", 1) }).unwrap();
    let publish = || {
        let sent = keys.iter().zip(&values).map(|(key, value)| producer.try_send(&record(key, value)).unwrap());
        let deliveries: Vec<Delivery> = sent.collect();
        runtime.block_on(deliveries.last().unwrap().clone()).unwrap();
        deliveries
    };
    let mut group = criterion.benchmark_group("completion");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("await", |bencher| {
        let take = |deliveries: Vec<Delivery>| {
            runtime.block_on(async {
                for delivery in deliveries {
                    delivery.await.unwrap();
                }
            });
        };
        bencher.iter_batched(publish, take, BatchSize::LargeInput);
    });
    group.finish();
}

/// Measures from `send` to the verdict, over a loopback socket.
fn whole_path(criterion: &mut Criterion) {
    let (runtime, keys, values) = (runtime(), keys(RECORDS), values(RECORDS));
    let mut group = criterion.benchmark_group("whole_path");
    group.throughput(Throughput::Elements(MANY as u64)).sample_size(30).measurement_time(Duration::from_secs(5));
    for (name, compression) in [("none", Compression::None), ("snappy", Compression::Snappy)] {
        let topic = TopicSpec::new("t", PARTITIONS).config("retention.bytes", "1048576");
        let cluster = runtime.block_on(TestCluster::builder().topic_spec(topic).start()).unwrap();
        let builder = KafkaProducer::builder().brokers(cluster.bootstrap().as_str()).compression(compression);
        let producer = runtime.block_on(async { builder.flush_messages(1000).build() }).unwrap();
        let publish = async || {
            let mut deliveries = Vec::with_capacity(MANY);
            for i in 0..MANY {
                let record = record(&keys[i % RECORDS], &values[i % RECORDS]);
                deliveries.push(producer.send(&record).await.unwrap());
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
        };
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(publish())));
        runtime.block_on(producer.close(Duration::from_secs(5)));
    }
    group.finish();
}

criterion_group!(benches, completion, whole_path);
criterion_main!(benches);
