//! Each stage of the hot path in rounds of a thousand records: per record (`records/..`) and per byte of values
//! (`bytes/..`).
//!
//! Rule: the counting allocator and callgrind measure the same stages.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking and has no users")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kafka_courier_benches::{RECORDS, all};

fn stages(criterion: &mut Criterion) {
    let mut stages = all().unwrap();
    for unit in ["records", "bytes"] {
        let mut group = criterion.benchmark_group(unit);
        for stage in &mut stages {
            group.throughput(match unit {
                "bytes" => Throughput::Bytes(stage.bytes),
                _ => Throughput::Elements(RECORDS as u64),
            });
            group.bench_function(stage.name, |bencher| bencher.iter(&mut stage.run));
        }
        group.finish();
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
