//! The flags.

use std::str::FromStr;

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
    pub inflight: usize,
    /// Messages per second, 0 for the full rate.
    pub rate: u64,
    pub warmup: u64,
    /// Number of different values.
    pub pool: usize,
    /// Publishing threads.
    pub threads: u64,
    /// Flags of one client alone, as `--x-NAME VALUE`.
    pub extra: Vec<(String, String)>,
}

impl Args {
    pub fn parse() -> Self {
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
            threads: 1,
            extra: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{flag} wants a value"));
            args.set(&flag, value);
        }
        assert!(["none", "snappy"].contains(&&*args.compression), "--compression is none or snappy");
        args
    }

    fn set(&mut self, flag: &str, value: String) {
        match flag {
            "--bootstrap" => self.bootstrap = value,
            "--topic" => self.topic = value,
            "--messages" => self.messages = read(flag, &value),
            "--size" => self.size = read(flag, &value),
            "--keys" => self.keys = read(flag, &value),
            "--compression" => self.compression = value,
            "--linger-ms" => self.linger_ms = read(flag, &value),
            "--batch-bytes" => self.batch_bytes = read(flag, &value),
            "--inflight" => self.inflight = read(flag, &value),
            "--rate" => self.rate = read(flag, &value),
            "--warmup" => self.warmup = read(flag, &value),
            "--pool" => self.pool = read(flag, &value),
            "--threads" => self.threads = read(flag, &value),
            _ => match flag.strip_prefix("--x-") {
                Some(name) => self.extra.push((name.into(), value)),
                None => panic!("unknown flag {flag}"),
            },
        }
    }

    /// Returns the value of a client's own flag.
    pub fn x<T: FromStr>(&self, name: &str, default: T) -> T {
        let found = self.extra.iter().rev().find(|(n, _)| n == name);
        found.map_or(default, |(_, value)| read(name, value))
    }

    /// Returns whether the latency of message `i` is measured.
    pub fn sampled(&self, i: u64) -> bool {
        self.rate > 0 || i.is_multiple_of(100)
    }
}

fn read<T: FromStr>(flag: &str, value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("{flag} {value}: not a number"))
}
