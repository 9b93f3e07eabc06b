//! Spools that die at every operation of a disk that loses unsynced bytes.
//!
//! `SIM_SEED=n` runs one schedule, `SIM_SCHEDULES=n` that many from `SIM_FIRST` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod disk;
mod history;
#[path = "../../../idempotent-sender/tests/simulation/rng.rs"]
mod rng;
mod rounds;
mod world;

use std::collections::BTreeMap;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

type Seen = BTreeMap<String, u64>;

/// Runs these schedules on all cores, each core every n-th one.
fn run_all(seeds: std::ops::Range<u64>) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run_some = |offset: usize| {
        let mut seen = Seen::new();
        for seed in seeds.clone().skip(offset).step_by(threads) {
            if let Err(error) = world::run(seed, &mut seen) {
                panic!(
                    "{error}\nreplay: SIM_SEED={seed} cargo test -p kafka-courier-spool --test simulation -- --nocapture"
                );
            }
        }
        seen
    };
    let mut all = Seen::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|offset| {
                scope.spawn({
                    let run_some = &run_some;
                    move || run_some(offset)
                })
            })
            .collect();
        for seen in running.into_iter().map(|thread| thread.join().unwrap()) {
            seen.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
        }
    });
    all
}

#[test]
fn random_lives_keep_every_round() {
    let default = if cfg!(debug_assertions) { 40 } else { 500 };
    let seeds = match variable("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = variable("SIM_FIRST").unwrap_or(1);
            first..first + variable("SIM_SCHEDULES").unwrap_or(default)
        }
    };
    let seen = run_all(seeds.clone());
    for (name, count) in &seen {
        println!("{count:>12}  {name}");
    }
    if seeds.end - seeds.start >= 2_000 {
        for name in world::MUST_OCCUR {
            assert!(seen.contains_key(*name), "no schedule has: {name}");
        }
    }
}
