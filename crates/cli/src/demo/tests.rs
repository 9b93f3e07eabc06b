//! The ledger of a demo is correct, even with few events.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

/// Concurrent runs. A run mostly waits.
const CONCURRENT: usize = 12;

/// Runs demos with these numbers of events and seeds, and returns the output of each failed run.
fn play_all(runs: impl Iterator<Item = (u64, u64)>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut playing, seats) = (JoinSet::new(), Arc::new(Semaphore::new(CONCURRENT)));
        for (events, seed) in runs {
            let seats = seats.clone();
            playing.spawn(async move {
                let _seat = seats.acquire().await.unwrap();
                let wait = Duration::from_millis(10);
                let lines = Arc::new(Mutex::new(format!("{events} events of seed {seed}\n")));
                let output = lines.clone();
                let print = move |line: fmt::Arguments<'_>| writeln!(output.lock().unwrap(), "{line}").unwrap();
                let stage = Stage { downtime: wait, retry_backoff: wait, print: Box::new(print) };
                let played = play(&DemoArgs { events, seed }, &stage).await;
                let lines = lines.lock().unwrap().clone();
                match played {
                    Ok(ledger) if ledger.is_ok() => None,
                    Ok(_) => Some(lines),
                    Err(error) => Some(format!("{lines}{error:#}")),
                }
            });
        }
        playing.join_all().await.into_iter().flatten().collect()
    })
}

#[test]
fn small_demos_are_ok() {
    let wrong = play_all((1..=64).map(|events| (events, 1)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_seeds_are_ok() {
    let wrong = play_all((1..=200).map(|seed| (1 + seed % 64, seed)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
