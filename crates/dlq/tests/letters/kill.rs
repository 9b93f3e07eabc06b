//! Kills a process that writes letters 300 times with SIGKILL. Each reported letter is in the file once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use kafka_courier_dlq::{Bytes, DeadLetterStore, FileStore, Letter, LetterId, Selection, Timestamp, letters};

/// Environment of the process that is killed: the path of the file, and a seed.
const PATH: &str = "DEAD_LETTERS_PATH";
const SEED: &str = "DEAD_LETTERS_SEED";
const ROUNDS: u64 = 300;
const THREADS: u64 = 3;

fn letter(random: &mut fastrand::Rng) -> Letter {
    let value = Bytes::from(format!("\"{}\"", "x".repeat(random.usize(..3_000))));
    Letter::new("orders", value, "broker not available", Timestamp::UNIX_EPOCH)
}

/// Appends and removes letters until `letters` were kept. Reports each letter after it is durable.
fn write(store: &FileStore, seed: u64, letters: u64, kept: &AtomicU64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut mine = Vec::new();
    while kept.load(Ordering::Relaxed) < letters {
        let batch: Vec<Letter> = (0..random.usize(1..20)).map(|_| letter(&mut random)).collect();
        store.append(&batch).unwrap();
        kept.fetch_add(batch.len() as u64, Ordering::Relaxed);
        report("kept", batch.iter().map(|letter| letter.id));
        mine.extend(batch.iter().map(|letter| letter.id));
        if random.u8(..4) == 0 {
            let removing: Vec<LetterId> = mine.drain(..mine.len() / 3).collect();
            report("removing", removing.iter().copied());
            let positions: Vec<_> = store.find(&removing).unwrap().into_iter().flatten().collect();
            assert_eq!(store.remove(&positions).unwrap(), removing.len());
        }
    }
}

/// Writes lines to the parent process, if there is one. The first line ends the test runner's own line.
fn report(event: &str, ids: impl Iterator<Item = LetterId>) {
    if std::env::var_os(PATH).is_none() {
        return;
    }
    let lines: String = std::iter::once("\n".into()).chain(ids.map(|id| format!("{event} {id}\n"))).collect();
    std::io::stdout().lock().write_all(lines.as_bytes()).unwrap();
}

/// This test is also the process that is killed: with a path in the environment it runs until then.
#[test]
fn threads_share_a_store() {
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

/// The reports of a killed process.
#[derive(Default)]
struct Reports {
    kept: BTreeSet<LetterId>,
    removing: BTreeSet<LetterId>,
}

impl Reports {
    fn read_line(&mut self, line: &str) {
        // The last line may be incomplete. Its letter was not reported.
        let Some((event, Ok(id))) = line.split_once(' ').map(|(event, id)| (event, id.parse())) else { return };
        match event {
            "kept" => _ = self.kept.insert(id),
            "removing" => _ = self.removing.insert(id),
            _ => (),
        }
    }
}

fn start(path: &Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::threads_share_a_store", "--nocapture", "--test-threads=1"]);
    command.env(PATH, path).env(SEED, seed.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Reads up to 80 lines, waits for a random time, and kills the process.
fn kill_writer(path: &Path, seed: u64, reports: &mut Reports) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut child = start(path, seed);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines_left = if seed.is_multiple_of(10) { 0 } else { random.u32(..80) };
    while lines_left > 0 {
        // The first lines are those of the test runner.
        reports.read_line(&lines.next().unwrap().unwrap());
        lines_left -= 1;
    }
    let most = if seed.is_multiple_of(10) { 20_000_000 } else { 200_000 };
    for _ in 0..random.u32(..most) {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        reports.read_line(&line.unwrap());
    }
}

#[test]
fn kills_lose_no_reported_letter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let (mut reports, mut kept) = (Reports::default(), 0);
    for round in 0..ROUNDS {
        kill_writer(&path, round, &mut reports);
        let store = FileStore::open(&path).unwrap();
        let found: Vec<LetterId> = letters(&store, &Selection::all()).map(|held| held.unwrap().letter.id).collect();
        let once: BTreeSet<LetterId> = found.iter().copied().collect();
        assert_eq!(
            (once.len(), store.len()),
            (found.len(), found.len() as u64),
            "round {round}: each dead letter is there once and counted"
        );
        let missing = reports.kept.iter().filter(|id| !once.contains(id) && !reports.removing.contains(id)).count();
        assert_eq!(missing, 0, "round {round}: of {} reported", reports.kept.len());
        kept += reports.kept.len();
        if round % 5 == 4 {
            clear(&store);
            reports = Reports::default();
        }
        if round % 10 == 9 {
            // The next process is killed while it creates the file, or soon after.
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
fn lock_ends_with_its_process() {
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
