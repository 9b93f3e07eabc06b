//! The stages of the hot path, each as a repeatable round of a thousand records.
//!
//! Rules: every round costs the same, keeps no memory, and needs nothing outside the process. Criterion, the counting
//! allocator and callgrind run the same rounds.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use kafka_courier::events::{Event, EventBuilder};
use kafka_courier::{Compression, Delivery, KafkaProducer, ProducerRecord, PublishError};
use kafka_courier_batcher::{
    Accumulator, BufferPool, Compression as Codec, EncodedBatch, Record, Stamp, partition_for_key,
};

use crate::core_stage::CoreStage;
use crate::records::{VALUE_LEN, api_request, keys, limits, values};
use crate::sink::sink;

/// Records per round.
pub const RECORDS: usize = 1000;
/// Records per batch, in rounds of several batches.
const BATCH: u32 = 100;
const TIMESTAMP: i64 = 1_700_000_000_000;

/// One stage.
pub struct Stage {
    /// The stage's name.
    pub name: &'static str,
    /// Bytes of values per round.
    pub bytes: u64,
    /// Runs one round.
    pub run: Box<dyn FnMut()>,
}

impl Stage {
    fn new(name: &'static str, bytes: usize, run: impl FnMut() + 'static) -> Self {
        Self { name, bytes: bytes as u64, run: Box::new(run) }
    }
}

/// Returns every stage, in the order of a record's path.
///
/// # Errors
/// Returns an error if a producer cannot be built.
pub fn all() -> Result<Vec<Stage>, Box<dyn Error>> {
    Ok(vec![
        build(),
        encode(),
        partition(),
        append("append", Codec::None),
        append("append_snappy", Codec::Snappy),
        stamp(),
        core()?,
        send("send", Compression::None)?,
        send("send_snappy", Compression::Snappy)?,
        publish()?,
    ])
}

/// Builds a typed event: id, time and fields.
fn build() -> Stage {
    let builder = EventBuilder::new("bench", "1.0");
    Stage::new("event_build", bytes_of_events(), move || {
        for n in 0..RECORDS {
            black_box(api_request(&builder, n));
        }
    })
}

/// Encodes a typed event as JSON.
fn encode() -> Stage {
    let builder = EventBuilder::new("bench", "1.0");
    let events: Vec<_> = (0..RECORDS).map(|n| api_request(&builder, n)).collect();
    let mut json = Vec::with_capacity(4096);
    Stage::new("event_encode", bytes_of_events(), move || {
        for event in &events {
            json.clear();
            // The encoding of strings and numbers cannot fail.
            let _ = black_box(event).encode_into(&mut json);
            black_box(&json);
        }
    })
}

fn bytes_of_events() -> usize {
    let builder = EventBuilder::new("bench", "1.0");
    let mut json = Vec::new();
    for n in 0..RECORDS {
        let _ = api_request(&builder, n).encode_into(&mut json);
    }
    json.len()
}

/// Chooses the partition of a key.
fn partition() -> Stage {
    let keys = keys(RECORDS);
    let bytes = keys.iter().map(Vec::len).sum();
    Stage::new("partition", bytes, move || {
        for key in &keys {
            black_box(partition_for_key(black_box(key), 6));
        }
    })
}

/// Appends records to a batch and encodes the batch.
fn append(name: &'static str, codec: Codec) -> Stage {
    let (keys, values, pool) = (keys(RECORDS), values(RECORDS), BufferPool::new(8 << 20));
    let mut accumulator = Accumulator::new(limits(RECORDS as u32), codec);
    let now = Instant::now();
    Stage::new(name, RECORDS * VALUE_LEN, move || {
        for (key, value) in keys.iter().zip(&values) {
            let record = Record { key: Some(key), value: Some(value), headers: &[], timestamp: TIMESTAMP };
            if let Ok(pushed) = accumulator.push(now, black_box(&record), &mut |_| true, &pool, || ()) {
                for filled in pushed.sealed.into_iter().flatten() {
                    pool.put(filled.encode(&pool).batch.into_buffer());
                }
            }
        }
    })
}

/// Builds a batch of `records` records.
fn batch(records: u32) -> Option<EncodedBatch> {
    let (pool, mut accumulator) = (BufferPool::new(0), Accumulator::new(limits(records), Codec::None));
    let (keys, values, now) = (keys(records as usize), values(records as usize), Instant::now());
    let mut sealed = None;
    for (key, value) in keys.iter().zip(&values) {
        let record = Record { key: Some(key), value: Some(value), headers: &[], timestamp: TIMESTAMP };
        let pushed = accumulator.push(now, &record, &mut |_| true, &pool, || ()).ok()?;
        sealed = pushed.sealed.into_iter().flatten().last();
    }
    sealed.map(|filled| filled.encode(&pool).batch)
}

/// Stamps batches, which includes the CRC.
fn stamp() -> Stage {
    let mut batches: Vec<_> = (0..RECORDS as u32 / BATCH).filter_map(|_| batch(BATCH)).collect();
    Stage::new("stamp_crc", RECORDS * VALUE_LEN, move || {
        for batch in &mut batches {
            batch.stamp(Stamp { producer_id: 4000, epoch: 0, base_sequence: 0 });
            black_box(batch);
        }
    })
}

/// Runs batches through the sender's core, with stamp and CRC.
fn core() -> Result<Stage, Box<dyn Error>> {
    let batches: Vec<_> = (0..RECORDS as u32 / BATCH).filter_map(|_| batch(BATCH)).collect();
    let mut stage = CoreStage::new(batches).ok_or("the core refuses its defaults")?;
    let delivered = stage.round();
    if delivered != RECORDS / BATCH as usize {
        return Err(format!("{delivered} batches were delivered").into());
    }
    Ok(Stage::new("core", RECORDS * VALUE_LEN, move || {
        black_box(stage.round());
    }))
}

/// A producer that discards its batches, and the runtime that awaits its deliveries.
struct Sink {
    runtime: tokio::runtime::Runtime,
    producer: KafkaProducer,
    deliveries: Vec<Delivery>,
}

impl Sink {
    /// Creates a producer for a topic of one partition. A round fills ten batches and leaves none open.
    fn new(compression: Compression) -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let builder = KafkaProducer::builder().flush_messages(BATCH).compression(compression);
        let producer = runtime.block_on(async { sink(builder, "t", 1) })?;
        Ok(Self { runtime, producer, deliveries: Vec::with_capacity(RECORDS) })
    }

    /// Keeps the delivery of a publish. A refused record shows up in `settle` as a missing delivery.
    fn took(&mut self, offered: Result<Delivery, PublishError>) {
        self.deliveries.extend(offered.ok());
    }

    fn settle(&mut self) {
        assert_eq!(self.deliveries.len(), RECORDS, "some records were refused");
        self.runtime.block_on(async {
            for delivery in self.deliveries.drain(..) {
                black_box(delivery.await).ok();
            }
        });
    }
}

/// Publishes raw records with `try_send` and awaits their verdicts.
fn send(name: &'static str, compression: Compression) -> Result<Stage, Box<dyn Error>> {
    let (mut sink, keys, values) = (Sink::new(compression)?, keys(RECORDS), values(RECORDS));
    Ok(Stage::new(name, RECORDS * VALUE_LEN, move || {
        for (key, value) in keys.iter().zip(&values) {
            let record = ProducerRecord { topic: "t", key: Some(key), value: Some(value), ..ProducerRecord::default() };
            let offered = sink.producer.try_send(&record);
            sink.took(offered);
        }
        sink.settle();
    }))
}

/// Publishes typed events with `try_publish_to` and awaits their verdicts, JSON included.
fn publish() -> Result<Stage, Box<dyn Error>> {
    let mut sink = Sink::new(Compression::Snappy)?;
    let builder = EventBuilder::new("bench", "1.0");
    let events: Vec<_> = (0..RECORDS).map(|n| api_request(&builder, n)).collect();
    Ok(Stage::new("publish_snappy", bytes_of_events(), move || {
        for event in &events {
            let offered = sink.producer.try_publish_to("t", event);
            sink.took(offered);
        }
        sink.settle();
    }))
}
