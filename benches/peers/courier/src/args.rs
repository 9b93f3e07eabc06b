//! The flags.

use std::str::FromStr;

use kafka_courier::KafkaConfig;

/// What is to be sent, and how.
#[derive(Clone, Debug)]
pub struct Args {
    pub bootstrap: String,
    pub topic: String,
    pub messages: u64,
    pub size: usize,
    pub keys: usize,
    pub compression: String,
    pub linger_ms: u64,
    pub batch_bytes: usize,
    pub inflight: u32,
    /// Messages a second; 0 is as many as go.
    pub rate: u64,
    pub warmup: u64,
    /// How many different values there are.
    pub pool: usize,
    /// Threads that publish.
    pub threads: usize,
    /// Our own flags, as `--x-NAME VALUE`.
    pub workers: usize,
    pub flush_messages: u32,
    pub buffer: usize,
    pub request: usize,
    pub connections: u32,
    /// Typed events, JSON encoding included, instead of raw records.
    pub typed: bool,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let defaults = KafkaConfig::default();
        let mut args = Self {
            bootstrap: "127.0.0.1:19092".into(),
            topic: "bench".into(),
            messages: 100_000,
            size: 100,
            keys: 1000,
            compression: "none".into(),
            linger_ms: 5,
            batch_bytes: 1 << 20,
            inflight: 5,
            rate: 0,
            warmup: 1000,
            pool: 1000,
            workers: 2,
            threads: 1,
            flush_messages: 1_000_000,
            buffer: 64 << 20,
            request: defaults.max_request_bytes,
            connections: defaults.connections_per_broker,
            typed: false,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} wants a value"))?;
            args.set(&flag, &value)?;
        }
        Ok(args)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        match flag {
            "--bootstrap" => self.bootstrap = value.into(),
            "--topic" => self.topic = value.into(),
            "--messages" => self.messages = read(flag, value)?,
            "--size" => self.size = read(flag, value)?,
            "--keys" => self.keys = read(flag, value)?,
            "--compression" => self.compression = value.into(),
            "--linger-ms" => self.linger_ms = read(flag, value)?,
            "--batch-bytes" => self.batch_bytes = read(flag, value)?,
            "--inflight" => self.inflight = read(flag, value)?,
            "--rate" => self.rate = read(flag, value)?,
            "--warmup" => self.warmup = read(flag, value)?,
            "--pool" => self.pool = read(flag, value)?,
            "--x-workers" => self.workers = read(flag, value)?,
            "--threads" => self.threads = read(flag, value)?,
            "--x-flush-messages" => self.flush_messages = read(flag, value)?,
            "--x-buffer" => self.buffer = read(flag, value)?,
            "--x-request" => self.request = read(flag, value)?,
            "--x-connections" => self.connections = read(flag, value)?,
            "--x-typed" => self.typed = value == "1",
            _ => return Err(format!("unknown flag {flag}")),
        }
        Ok(())
    }

    /// Whether message `i`'s latency is taken.
    pub fn sampled(&self, i: u64) -> bool {
        self.rate > 0 || i.is_multiple_of(100)
    }
}

fn read<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag}: {value} is no such number"))
}
