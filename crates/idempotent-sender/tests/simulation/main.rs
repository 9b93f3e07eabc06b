//! A simulation of the sender's core against a model cluster, in virtual time, under seeded schedules of faults.
//!
//! Rules:
//! - The model follows a real broker's rules, listed in each file. The checker depends on neither model nor sender.
//! - A failing seed prints the command that replays it. `SIM_TRACE=1` prints every step.
//! - `SIM_SCHEDULES` is the number of random schedules, `SIM_FIRST` the first seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod causes;
mod checker;
mod cluster;
mod controller;
mod coverage;
mod failures;
mod faults;
mod hand_over;
mod history;
mod known_leaders;
mod link;
mod lives;
mod log;
mod lookups;
mod machine;
mod plan;
mod produce;
mod random;
mod record;
mod replication;
mod rng;
mod scenarios;
mod sending;
mod stored_log;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coverage::Coverage;
use world::World;

/// The number of schedules from which on every required item must be reached.
const MIN_COVERAGE_SCHEDULES: u64 = 10_000;

/// Returns the number in an environment variable.
fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Runs one schedule, and returns the first violation as an error.
fn simulate(seed: u64, coverage: &mut Coverage, tracing: bool) -> Result<(), String> {
    let mut world = World::new(random::random_plan(seed), tracing)?;
    world.finish()?;
    world.probe()?;
    world.check()?;
    world.check_rejections()?;
    let effective: u64 = world.history.faults.values().sum();
    if effective < faults::MIN_FAULTS {
        return Err(format!("only {effective} faults had an effect"));
    }
    coverage.note(world.sender.counters(), &world.history);
    Ok(())
}

/// Runs one schedule in which the process ends several times.
fn simulate_lives(seed: u64, coverage: &mut Coverage, tracing: bool) -> Result<(), String> {
    let mut world = World::new(random::random_lives(seed), tracing)?;
    world.finish()?;
    world.probe()?;
    world.check()?;
    coverage.note(world.sender.counters(), &world.history);
    if let Some(lives) = &world.lives {
        coverage.note_lives(lives, &world.history, world.plan.rules.reading);
    }
    Ok(())
}

type Simulation = fn(u64, &mut Coverage, bool) -> Result<(), String>;

fn simulate_catching_panics(
    (name, simulation): (&str, Simulation),
    seed: u64,
    coverage: &mut Coverage,
    tracing: bool,
) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| simulation(seed, coverage, tracing)));
    outcome
        .unwrap_or_else(|_| Err("the simulation panicked".into()))
        .map_err(|why| format!("{why}\n{}", replay_command(name, seed)))
}

fn replay_command(name: &str, seed: u64) -> String {
    format!(
        "replay: SIM_SEED={seed} SIM_TRACE=1 cargo test --release -p kafka-courier-idempotent-sender \
         --test simulation {name} -- --nocapture"
    )
}

/// Runs schedules on all cores until all have finished or one has failed.
fn run(simulation: (&str, Simulation), first: u64, schedules: u64) -> (Coverage, Vec<String>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let coverage = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Coverage::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= schedules {
                        break;
                    }
                    if let Err(failure) = simulate_catching_panics(simulation, first + index, &mut own, false) {
                        failures.lock().unwrap().push(failure);
                        next.store(schedules, Ordering::Relaxed);
                    }
                }
                coverage.lock().unwrap().merge(&own);
            });
        }
    });
    (coverage.into_inner().unwrap(), failures.into_inner().unwrap())
}

/// Runs the schedules that the environment names, and prints what they reached.
fn run_schedules(simulation: (&str, Simulation), debug_schedules: u64, missing: fn(&Coverage) -> Vec<String>) {
    if let Some(seed) = env_number("SIM_SEED") {
        let tracing = std::env::var_os("SIM_TRACE").is_some();
        simulate_catching_panics(simulation, seed, &mut Coverage::default(), tracing).unwrap();
        return;
    }
    let default = if cfg!(debug_assertions) { debug_schedules } else { 20_000 };
    let schedules = env_number("SIM_SCHEDULES").unwrap_or(default);
    let started = Instant::now();
    let (coverage, failures) = run(simulation, env_number("SIM_FIRST").unwrap_or(1), schedules);
    coverage.print();
    println!("{:.0} schedules a second", coverage.schedules as f64 / started.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if schedules >= MIN_COVERAGE_SCHEDULES {
        let missing = missing(&coverage);
        assert!(missing.is_empty(), "never reached: {missing:?}");
    }
}

#[test]
fn random_schedules_keep_all_invariants() {
    run_schedules(("random_schedules", simulate), 1_000, Coverage::missing);
}

#[test]
fn random_lives_keep_stored_records() {
    run_schedules(("random_lives", simulate_lives), 300, Coverage::missing_in_lives);
}
