//! Wall time, CPU, memory and latency of a run, as one JSON line.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::Args;

pub type Latencies = Histogram<u64>;

pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("these bounds are valid")
}

/// Nanoseconds since the start of the clock.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    #[allow(clippy::new_without_default, reason = "it reads the clock")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Returns how many messages are due. Sleeps about a millisecond at a time until at least one is.
pub struct Pacer {
    start: Instant,
    rate: u64,
}

impl Pacer {
    pub fn new(rate: u64) -> Self {
        Self { start: Instant::now(), rate }
    }

    pub fn due(&self, sent: u64, total: u64) -> u64 {
        loop {
            let elapsed = self.start.elapsed();
            let due = (elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000) as u64 + 1;
            if due.min(total) > sent {
                return due.min(total);
            }
            let next = Duration::from_nanos((u128::from(sent) * 1_000_000_000 / u128::from(self.rate)) as u64);
            std::thread::sleep(next.saturating_sub(elapsed).max(Duration::from_millis(1)));
        }
    }
}

struct Usage {
    user: f64,
    sys: f64,
    rss_mb: f64,
}

fn usage() -> Usage {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Usage {
        user: seconds(usage.user_time()),
        sys: seconds(usage.system_time()),
        rss_mb: usage.max_rss() as f64 / 1024.0,
    }
}

fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

pub struct Measure {
    began: Instant,
    usage: Usage,
    unix: f64,
}

impl Measure {
    #[allow(clippy::new_without_default, reason = "it reads the clock")]
    pub fn start() -> Self {
        Self { unix: unix(), usage: usage(), began: Instant::now() }
    }

    /// Ends the measurement and prints the line. `client` is name and version.
    pub fn finish(self, client: (&str, &str), args: &Args, told: (u64, u64), latencies: &Latencies, note: &str) {
        let wall = self.began.elapsed().as_secs_f64();
        let now = usage();
        let (user, sys) = (now.user - self.usage.user, now.sys - self.usage.sys);
        let ((peer, version), (acked, errors)) = (client, told);
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e6;
        println!(
            "{{\"peer\":\"{peer}\",\"version\":\"{version}\",\"messages\":{},\"acked\":{acked},\"errors\":{errors},\
             \"size\":{},\"compression\":\"{}\",\"wall_s\":{wall:.4},\"msgs_per_s\":{:.0},\"user_s\":{user:.3},\
             \"sys_s\":{sys:.3},\"cpu_us_per_msg\":{:.4},\"max_rss_mb\":{:.1},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\
             \"p999_ms\":{:.3},\"max_ms\":{:.3},\"samples\":{},\"warmup\":{},\"t_start\":{:.4},\"t_end\":{:.4},\
             \"note\":\"{note}\"}}",
            args.messages,
            args.size,
            args.compression,
            acked as f64 / wall,
            (user + sys) * 1e6 / args.messages as f64,
            now.rss_mb,
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.max() as f64 / 1e6,
            latencies.len(),
            args.warmup,
            self.unix,
            unix(),
        );
    }
}
