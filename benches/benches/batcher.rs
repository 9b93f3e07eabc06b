//! The batcher's cost per record: push, encode, stamp, decode, partition.
//!
//! Rule: figures are per record (criterion's element throughput) for 100-byte JSON values in batches of 1000.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking and has no users")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka_courier_batcher::{
    Accumulator, BatchView, BufferPool, Compression, Header, Limits, Record, SealedBatch, Stamp, murmur2,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RECORDS: usize = 1000;
const LIMITS: Limits = Limits { max_records: RECORDS as u32, max_bytes: 1 << 20, linger: Duration::from_millis(5) };
const STAMP: Stamp = Stamp { producer_id: 4000, epoch: 0, base_sequence: 0 };

struct Event {
    key: String,
    value: String,
}

fn events() -> Vec<Event> {
    let event = |n: usize| {
        let user = n.wrapping_mul(2_654_435_761) % 100_000;
        let value =
            format!(r#"{{"user_id":"user-{user:05}","session":"{:016x}","method":"GET","path":"/api/v1/items"#, n * n);
        Event { key: format!("user-{user:05}"), value: format!("{value:~<98}\"}}") }
    };
    (0..RECORDS).map(event).collect()
}

fn record(event: &Event) -> Record<'_> {
    Record {
        key: Some(event.key.as_bytes()),
        value: Some(event.value.as_bytes()),
        headers: &[],
        timestamp: 1_700_000_000_000,
    }
}

/// Fills one batch with all events. The last event seals it.
fn filled(events: &[Event], compression: Compression, pool: &BufferPool) -> SealedBatch<()> {
    let mut accumulator = Accumulator::new(LIMITS, compression);
    let now = Instant::now();
    let mut sealed = None;
    for event in events {
        let pushed = accumulator.push(now, &record(event), &mut |_| true, pool, || ()).unwrap();
        let [_, own] = pushed.sealed;
        sealed = own;
    }
    *sealed.unwrap()
}

/// Pushes a thousand records per iteration. Full batches return their buffers to the pool.
fn push(criterion: &mut Criterion, name: &str, headers: &[Header<'_>]) {
    let (events, pool, now) = (events(), BufferPool::new(8 << 20), Instant::now());
    let token = Arc::new(());
    let mut accumulator = Accumulator::new(LIMITS, Compression::None);
    let mut budget = 0_usize;
    let mut group = criterion.benchmark_group("push");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            for event in &events {
                let record = Record { headers, ..record(event) };
                let mut reserve = |bytes| {
                    budget = budget.wrapping_add(bytes);
                    true
                };
                let pushed = accumulator.push(now, black_box(&record), &mut reserve, &pool, || token.clone()).unwrap();
                black_box((&pushed.token, pushed.index));
                for filled in pushed.sealed.into_iter().flatten() {
                    pool.put(filled.encode(&pool).batch.into_buffer());
                }
            }
        });
    });
    group.finish();
}

fn pushes(criterion: &mut Criterion) {
    push(criterion, "100B", &[]);
    push(
        criterion,
        "100B_two_headers",
        &[
            Header { key: "content-type", value: Some(b"application/json") },
            Header { key: "event-type", value: Some(b"api.request") },
        ],
    );
}

fn encode(criterion: &mut Criterion) {
    let (events, pool) = (events(), BufferPool::new(8 << 20));
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, compression) in [("none", Compression::None), ("snappy", Compression::Snappy)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || filled(&events, compression, &pool),
                |filled| pool.put(filled.encode(&pool).batch.into_buffer()),
                BatchSize::SmallInput,
            );
        });
    }
    let mut batch = filled(&events, Compression::None, &pool).encode(&pool).batch;
    group.bench_function("stamp", |bencher| bencher.iter(|| black_box(&mut batch).stamp(STAMP)));
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let (events, pool) = (events(), BufferPool::new(8 << 20));
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, compression) in [("none", Compression::None), ("snappy", Compression::Snappy)] {
        let batch = filled(&events, compression, &pool).encode(&pool).batch;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (view, _) = BatchView::parse(black_box(batch.as_bytes())).unwrap();
                let records = view.records(1 << 20).unwrap();
                records.iter().map(|record| record.unwrap().value.map_or(0, <[u8]>::len)).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn partition(criterion: &mut Criterion) {
    let key = b"0b0f7a4e-7d0c-7c7e-8c43-8d1ad4cf1e6d";
    let mut group = criterion.benchmark_group("murmur2");
    group.throughput(Throughput::Elements(1));
    group.bench_function("36B", |bencher| bencher.iter(|| murmur2(black_box(key))));
    group.finish();
}

criterion_group!(benches, pushes, encode, decode, partition);
criterion_main!(benches);
