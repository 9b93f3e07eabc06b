//! Spools that die at every operation of a disk that loses unsynced bytes.
//!
//! `SIM_SEED=n` runs one schedule, `SIM_SCHEDULES=n` that many from `SIM_FIRST` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod history;
#[path = "../../../idempotent-sender/tests/simulation/rng.rs"]
mod rng;
mod world;

use std::collections::BTreeMap;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_lives_keep_every_round() {
    let seeds = match variable("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = variable("SIM_FIRST").unwrap_or(1);
            first..first + variable("SIM_SCHEDULES").unwrap_or(500)
        }
    };
    let mut seen = BTreeMap::new();
    for seed in seeds.clone() {
        if let Err(error) = world::run(seed, &mut seen) {
            panic!(
                "{error}\nreplay: SIM_SEED={seed} cargo test -p kafka-courier-spool --test simulation -- --nocapture"
            );
        }
    }
    for (name, count) in &seen {
        println!("{count:>12}  {name}");
    }
    if seeds.end - seeds.start >= 2_000 {
        for name in world::MUST_OCCUR {
            assert!(seen.contains_key(name), "no schedule has: {name}");
        }
    }
}
