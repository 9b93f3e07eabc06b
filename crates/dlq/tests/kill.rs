//! A process that keeps letters under load is killed with -9, hundreds of times: what it reported is there, once.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use kafka_courier_dlq::{Bytes, DeadLetterStore, FileStore, Letter, LetterId, Selection, Timestamp, letters};

/// Set in the process that is to be killed: the file's path, and a seed.
const PATH: &str = "DEAD_LETTERS_PATH";
const SEED: &str = "DEAD_LETTERS_SEED";
const ROUNDS: u64 = 300;
const THREADS: u64 = 3;

fn letter(random: &mut fastrand::Rng) -> Letter {
    let value = Bytes::from(format!("\"{}\"", "x".repeat(random.usize(..3_000))));
    Letter::new("orders", value, "broker not available", Timestamp::UNIX_EPOCH)
}

/// Appends and removes until `letters` were kept, saying each once it is durable.
fn write(store: &FileStore, seed: u64, letters: u64, kept: &AtomicU64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut mine = Vec::new();
    while kept.load(Ordering::Relaxed) < letters {
        let batch: Vec<Letter> = (0..random.usize(1..20)).map(|_| letter(&mut random)).collect();
        store.append(&batch).unwrap();
        kept.fetch_add(batch.len() as u64, Ordering::Relaxed);
        say("kept", batch.iter().map(|letter| letter.id));
        mine.extend(batch.iter().map(|letter| letter.id));
        if random.u8(..4) == 0 {
            let going: Vec<LetterId> = mine.drain(..mine.len() / 3).collect();
            say("going", going.iter().copied());
            let positions: Vec<_> = store.find(&going).unwrap().into_iter().flatten().collect();
            assert_eq!(store.remove(&positions).unwrap(), going.len());
        }
    }
}

/// To the parent, if there is one. The runner's own line has no end yet when the first comes.
fn say(what: &str, ids: impl Iterator<Item = LetterId>) {
    if std::env::var_os(PATH).is_none() {
        return;
    }
    let lines: String = std::iter::once("\n".into()).chain(ids.map(|id| format!("{what} {id}\n"))).collect();
    std::io::stdout().lock().write_all(lines.as_bytes()).unwrap();
}

/// Also what is killed: with a path in the environment it goes on until then.
#[test]
fn what_several_threads_keep_at_once_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let given = std::env::var_os(PATH);
    let path = given.as_ref().map_or_else(|| folder.path().join("letters"), Into::into);
    let letters = if given.is_some() { u64::MAX } else { 200 };
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().unwrap());
    let (store, kept) = (FileStore::open(path).unwrap(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, kept) = (&store, &kept);
            scope.spawn(move || write(store, seed * THREADS + thread, letters, kept));
        }
    });
    let stats = store.stats().unwrap();
    assert_eq!(stats.appended, kept.into_inner());
    assert_eq!(stats.letters, stats.appended - stats.removed);
}

/// What a killed process had said.
#[derive(Default)]
struct Said {
    kept: BTreeSet<LetterId>,
    going: BTreeSet<LetterId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The last line may be cut off: what it was about to announce was not done.
        let Some((what, Ok(id))) = line.split_once(' ').map(|(what, id)| (what, id.parse())) else { return };
        match what {
            "kept" => _ = self.kept.insert(id),
            "going" => _ = self.going.insert(id),
            _ => (),
        }
    }
}

fn start(path: &Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "what_several_threads_keep_at_once_is_there", "--nocapture", "--test-threads=1"]);
    command.env(PATH, path).env(SEED, seed.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Hears so many lines, lets a little time go by, and kills.
fn killed(path: &Path, seed: u64, said: &mut Said) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut child = start(path, seed);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut patience = if seed.is_multiple_of(10) { 0 } else { random.u32(..80) };
    while patience > 0 {
        // The first lines are the test runner's own.
        said.hear(&lines.next().unwrap().unwrap());
        patience -= 1;
    }
    let most = if seed.is_multiple_of(10) { 20_000_000 } else { 200_000 };
    for _ in 0..random.u32(..most) {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        said.hear(&line.unwrap());
    }
}

#[test]
fn what_was_reported_is_there_once_after_hundreds_of_kills() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let (mut said, mut kept) = (Said::default(), 0);
    for round in 0..ROUNDS {
        killed(&path, round, &mut said);
        let store = FileStore::open(&path).unwrap();
        let found: Vec<LetterId> = letters(&store, &Selection::all()).map(|held| held.unwrap().letter.id).collect();
        let once: BTreeSet<LetterId> = found.iter().copied().collect();
        assert_eq!(
            (once.len(), store.len()),
            (found.len(), found.len() as u64),
            "round {round}: each once, and counted"
        );
        let missing = said.kept.iter().filter(|id| !once.contains(id) && !said.going.contains(id)).count();
        assert_eq!(missing, 0, "round {round}: of {} reported", said.kept.len());
        kept += said.kept.len();
        if round % 5 == 4 {
            clear(&store);
            said = Said::default();
        }
        if round % 10 == 9 {
            // The next one is killed while it makes the file anew, or soon after.
            drop(store);
            std::fs::remove_file(&path).unwrap();
        }
    }
    assert!(kept > 1_000, "{kept} letters reported");
}

fn clear(store: &FileStore) {
    let all: Vec<_> = letters(store, &Selection::all()).map(|held| held.unwrap().position).collect();
    assert_eq!(store.remove(&all).unwrap(), all.len());
}

#[test]
fn the_lock_of_a_killed_process_does_not_hold_but_that_of_a_living_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let mut child = start(&path, 1);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("kept ")).unwrap().unwrap();
    let error = FileStore::open(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("held by process {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();

    assert!(!FileStore::open(&path).unwrap().is_empty());
}
