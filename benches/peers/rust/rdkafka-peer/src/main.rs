//! librdkafka through rdkafka: BaseProducer, and a thread that polls it for deliveries, as in its ThreadedProducer.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::*;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

struct Told {
    acked: AtomicU64,
    errors: AtomicU64,
    clock: Clock,
    latencies: Mutex<Latencies>,
}

#[derive(Clone)]
struct Context(Arc<Told>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    /// Time of the send in nanoseconds of the clock, 0 if the latency is not measured.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        match result {
            Ok(_) => {
                self.0.acked.fetch_add(1, Relaxed);
                if sent != 0 {
                    self.0.latencies.lock().unwrap().saturating_record(self.0.clock.ns() - sent as u64);
                }
            }
            Err((error, _)) => {
                if self.0.errors.fetch_add(1, Relaxed) < 5 {
                    eprintln!("delivery: {error}");
                }
            }
        }
    }
}

struct Load {
    args: Args,
    values: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    told: Arc<Told>,
    producer: BaseProducer<Context>,
}

impl Load {
    fn send(&self, i: u64, sent: usize) {
        let mut record = BaseRecord::with_opaque_to(&self.args.topic, sent)
            .key(&self.keys[(i % self.args.keys as u64) as usize])
            .payload(&self.values[value_index(i, self.args.pool)]);
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => panic!("send: {error}"),
            }
        }
    }

    fn send_share(&self, thread: u64) {
        let (threads, share) = (self.args.threads, self.args.messages / self.args.threads);
        let pacer = (self.args.rate > 0).then(|| Pacer::new(self.args.rate / threads));
        let mut sent = 0;
        while sent < share {
            let due = pacer.as_ref().map_or(share, |pacer| pacer.due(sent, share));
            while sent < due {
                let i = sent * threads + thread;
                self.send(i, if self.args.sampled(i) { self.told.clock.ns() as usize } else { 0 });
                sent += 1;
            }
        }
    }

    fn settle(&self, n: u64) {
        while self.told.acked.load(Relaxed) + self.told.errors.load(Relaxed) < n {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn config(args: &Args, buffer_kib: u64) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", args.inflight.min(5).to_string())
        .set("linger.ms", args.linger_ms.to_string())
        .set("batch.size", args.batch_bytes.to_string())
        .set("batch.num.messages", "1000000")
        .set("message.max.bytes", args.batch_bytes.max(1_000_000).to_string())
        .set("queue.buffering.max.messages", "10000000")
        .set("queue.buffering.max.kbytes", buffer_kib.to_string())
        .set("compression.type", &args.compression)
        .set("partitioner", "murmur2_random");
    for (name, value) in &args.extra {
        if let Some(name) = name.strip_prefix("conf.") {
            config.set(name, value);
        }
    }
    config
}

fn main() {
    let args = Args::parse();
    let buffer_kib = args.x("buffer-kib", 65_536);
    let told =
        Arc::new(Told { acked: 0.into(), errors: 0.into(), clock: Clock::new(), latencies: Mutex::new(latencies()) });
    let producer = config(&args, buffer_kib).create_with_context(Context(told.clone())).expect("a producer");
    let (values, keys) = (values(args.size, args.pool), keys(args.keys));
    let load = Load { args, values, keys, told, producer };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                load.producer.poll(Duration::from_millis(100));
            }
        });
        (0..load.args.warmup).for_each(|i| load.send(i, 0));
        load.settle(load.args.warmup);
        assert_eq!(load.told.errors.load(Relaxed), 0, "warm-up failed");
        load.told.acked.store(0, Relaxed);
        let measure = Measure::start();
        std::thread::scope(|senders| {
            let load = &load;
            for thread in 1..load.args.threads {
                senders.spawn(move || load.send_share(thread));
            }
            load.send_share(0);
        });
        load.settle(load.args.messages);
        let counts = (load.told.acked.load(Relaxed), load.told.errors.load(Relaxed));
        let latencies = load.told.latencies.lock().unwrap().clone();
        let version = format!("{} (rdkafka 0.39)", rdkafka::util::get_rdkafka_version().1);
        let note = format!("buffer {} MiB", buffer_kib >> 10);
        measure.finish(("librdkafka", &version), &load.args, counts, &latencies, &note);
        stop.store(true, Relaxed);
    });
    let _ = load.producer.flush(Duration::from_secs(5));
}
