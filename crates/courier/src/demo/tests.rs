//! The demo tells the truth, however few events it has.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

/// Runs at a time: most of a run is waiting.
const AT_ONCE: usize = 12;

/// Plays each of these, a number of events and a seed, and returns those that went wrong.
fn play_all(runs: impl Iterator<Item = (u64, u64)>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut playing, seats) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        for (events, seed) in runs {
            let seats = seats.clone();
            playing.spawn(async move {
                let _seat = seats.acquire().await.unwrap();
                let wait = Duration::from_millis(10);
                let lines = Arc::new(Mutex::new(format!("{events} events of seed {seed}\n")));
                let told = lines.clone();
                let tell = move |line: fmt::Arguments<'_>| writeln!(told.lock().unwrap(), "{line}").unwrap();
                let stage = Stage { away: wait, retry_backoff: wait, tell: Box::new(tell) };
                let played = play(&DemoArgs { events, seed }, &stage).await;
                let lines = lines.lock().unwrap().clone();
                match played {
                    Ok(balance) if balance.is_even() => None,
                    Ok(_) => Some(lines),
                    Err(error) => Some(format!("{lines}{error:#}")),
                }
            });
        }
        playing.join_all().await.into_iter().flatten().collect()
    })
}

#[test]
fn every_small_demo_balances() {
    let wrong = play_all((1..=64).map(|events| (events, 1)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_seed_balances() {
    let wrong = play_all((1..=200).map(|seed| (1 + seed % 64, seed)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
