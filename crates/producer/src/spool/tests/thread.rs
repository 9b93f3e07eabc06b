//! The thread on a disk that fails.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kafka_courier_spool::core::entry::{Ordinal as RecordOrdinal, TopicNumber};
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::disk::{Disk, Folder};
use kafka_courier_spool::journal::{Journal, Settings};

use super::super::command::{SpoolHost, SpoolLevel, SpoolSender};
use super::super::status::SpoolStatus;
use super::super::thread::{SpoolThread, start};
use super::*;

/// How long a test waits for an effect that may never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder whose writes fail on demand.
#[derive(Debug)]
struct FailingDisk {
    folder: Folder,
    fails: Arc<AtomicBool>,
    /// Whether the disk has no room for further files.
    is_full: Arc<AtomicBool>,
}

impl FailingDisk {
    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for FailingDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.folder.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.folder.read_at(name, offset, length)
    }

    fn free(&self) -> io::Result<u64> {
        self.folder.free()
    }

    fn create(&self, name: &str, size: u64) -> io::Result<File> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.check().and_then(|()| self.folder.create(name, size))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.folder.open(name)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.folder.write_at(file, offset, bytes))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check().and_then(|()| self.folder.sync(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_folder()
    }
}

/// Passes effects to the test, and seals a batch of partition 1 on request.
struct TestHost(Sender<Effect<u64>>);

impl BatchSource<u64> for TestHost {
    fn token(&self, batch: &ReadBatch<'_>) -> u64 {
        batch.place.first.0
    }

    fn charge(&self, _: PartitionId, _: usize) {}
}

impl SpoolHost<u64> for TestHost {
    fn seal(&self, partition: PartitionId, batch: u64) -> Option<Submission<u64>> {
        Some(submission(partition.index, batch, 1))
    }

    fn apply(&self, effect: Effect<u64>) {
        self.0.send(effect).unwrap();
    }

    fn wall_clock_ms(&self) -> i64 {
        7
    }

    fn round_durable(&self, _: Duration) {}

    fn note_level(&self, _: SpoolLevel) {}
}

struct RunningThread {
    sender: SpoolSender<u64>,
    effects: Receiver<Effect<u64>>,
    fails: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
    ended: tokio::sync::oneshot::Receiver<()>,
    _folder: tempfile::TempDir,
}

fn run(idle_sync: Duration) -> RunningThread {
    run_with(idle_sync, 8)
}

/// Runs a thread whose journal copies batches beyond `segments_kept` segments.
fn run_with(idle_sync: Duration, segments_kept: usize) -> RunningThread {
    let (folder, fails) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let is_full = Arc::new(AtomicBool::new(false));
    let folder_of = Folder::open(folder.path()).unwrap();
    let disk = FailingDisk { folder: folder_of, fails: fails.clone(), is_full: is_full.clone() };
    let settings = Settings {
        segment_bytes: 1 << 16,
        segments_kept,
        max_bytes: 1 << 24,
        keep_free: 0,
        new_spool: SpoolId([7; 16]),
    };
    let (journal, _) = Journal::open(disk, settings).unwrap();
    let ((commands, received), (host, effects)) = (channel(), channel());
    let status = Arc::new(SpoolStatus::new(false));
    let sender = SpoolSender { commands, status: status.clone() };
    let (stage, host) = (ready_stage(), TestHost(host));
    let ended = start(SpoolThread { journal, stage, host, commands: received, status, idle_sync }).unwrap();
    RunningThread { sender, effects, fails, is_full, ended, _folder: folder }
}

#[test]
fn latched_thread_refuses_batches() {
    let thread = run(Duration::from_millis(1));
    thread.sender.send(SpoolCommand::Sealed(submission(0, 0, 1)));
    assert!(matches!(thread.effects.recv().unwrap(), Effect::Durable { token: 0, .. }));
    assert!(matches!(thread.effects.recv().unwrap(), Effect::Release(_)));
    thread.fails.store(true, Ordering::SeqCst);
    for number in 1..3 {
        thread.sender.send(SpoolCommand::Sealed(submission(0, number, 1)));
        assert!(matches!(thread.effects.recv().unwrap(), Effect::NotStored(batch, _) if batch.token == number));
        assert!(matches!(thread.sender.status.fault(), Some(SpoolFault::Write(_))));
    }
    thread.fails.store(false, Ordering::SeqCst);
    thread.sender.send(SpoolCommand::Sealed(submission(0, 3, 1)));
    assert!(matches!(thread.effects.recv().unwrap(), Effect::NotStored(..)), "a latched spool stays latched");
    thread.sender.send(SpoolCommand::Finish);
    thread.ended.blocking_recv().unwrap();
}

/// Stores `rounds` rounds of one block, then lets the disk have no room for further files. The first segment has 16 blocks, and
/// four of them are no rounds.
fn run_on_full_disk(rounds: u64) -> RunningThread {
    let thread = run(Duration::from_secs(600));
    for number in 0..rounds {
        thread.sender.send(SpoolCommand::Sealed(submission(0, number, 1)));
        assert!(matches!(thread.effects.recv().unwrap(), Effect::Durable { .. }));
        assert!(matches!(thread.effects.recv().unwrap(), Effect::Release(_)));
    }
    thread.is_full.store(true, Ordering::SeqCst);
    thread
}

fn first_place() -> StoredPlace {
    StoredPlace { partition: Partition { topic: TopicNumber(0), index: 0 }, first: RecordOrdinal(0) }
}

#[test]
fn facts_precede_a_batch_without_room() {
    let thread = run_on_full_disk(11);
    thread.sender.send(SpoolCommand::Sealed(submission(0, 11, 1000)));
    thread.sender.send(SpoolCommand::Persist(move_of(0, 5, 0)));
    let effect = thread.effects.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(effect, Effect::Persisted { id: MoveId(5), .. }), "{effect:?}");
    thread.is_full.store(false, Ordering::SeqCst);
    let effect = thread.effects.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(effect, Effect::Durable { token: 11, .. }), "{effect:?}");
}

#[test]
fn thread_ends_without_room() {
    let mut thread = run_on_full_disk(12);
    thread.sender.send(SpoolCommand::Sealed(submission(0, 12, 1)));
    let (place, records, base_offset) = (first_place(), RecordSet::Range(0..1), Some(0));
    thread.sender.send(SpoolCommand::Delivered { place, records, base_offset });
    thread.sender.send(SpoolCommand::Finish);
    let effect = thread.effects.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(&effect, Effect::NotStored(batch, SpoolFault::Full) if batch.token == 12), "{effect:?}");
    let deadline = Instant::now() + PATIENCE;
    while thread.ended.try_recv().is_err() {
        assert!(Instant::now() < deadline, "the thread does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A round that has no room lets the thread copy batches out of the oldest segment. The copy fails, and so does every later
/// round.
#[test]
fn failed_copy_refuses_batches() {
    let thread = run_with(Duration::from_secs(600), 1);
    let seal = |number: u64, blocks: usize| {
        // A record has nine bytes, and a round takes whole blocks of 4,096.
        let records = blocks * 4096 / 9 - 60;
        thread.sender.send(SpoolCommand::Sealed(submission(0, number, records)));
    };
    // The first segment has 16 blocks: header, two checkpoints, proof, and these rounds. The next one begins with 9 blocks.
    for (number, blocks) in [1, 5, 7].into_iter().enumerate() {
        seal(number as u64, blocks);
        assert!(matches!(thread.effects.recv().unwrap(), Effect::Durable { .. }));
        assert!(matches!(thread.effects.recv().unwrap(), Effect::Release(_)));
    }
    thread.fails.store(true, Ordering::SeqCst);
    seal(3, 8);
    let effect = thread.effects.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(&effect, Effect::NotStored(batch, _) if batch.token == 3), "{effect:?}");
    assert!(matches!(thread.sender.status.fault(), Some(SpoolFault::Write(_))));
    thread.sender.send(SpoolCommand::Finish);
    thread.ended.blocking_recv().unwrap();
}

#[test]
fn awaited_batch_is_sealed_and_stored() {
    let thread = run(Duration::from_secs(600));
    thread.sender.send(SpoolCommand::Awaited { partition: partition(1), batch: 0 });
    assert!(matches!(thread.effects.recv().unwrap(), Effect::Durable { .. }));
    thread.sender.send(SpoolCommand::Finish);
    thread.ended.blocking_recv().unwrap();
}

#[test]
fn finishing_thread_stores_waiting_batches() {
    let thread = run(Duration::from_secs(600));
    (0..50).for_each(|number| _ = thread.sender.send(SpoolCommand::Sealed(submission(0, number, 1))));
    thread.sender.send(SpoolCommand::Finish);
    thread.ended.blocking_recv().unwrap();
    let effects: Vec<_> = thread.effects.iter().collect();
    assert_eq!(places(&effects).len(), 50);
    let left = effects.iter().filter(|effect| matches!(effect, Effect::LeftStored(_) | Effect::Release(_)));
    assert_eq!(left.count(), 50);
    assert!(thread.sender.send(SpoolCommand::Sealed(submission(0, 50, 1))).is_some(), "the thread has ended");
}
