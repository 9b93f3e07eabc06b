//! Measures how many durable letters a file store takes per second, and how long it opens after a crash.
//!
//!     cargo run --release -p kafka-courier-dlq --example letters_per_second -- [FOLDER]
//!
//! FOLDER is the folder of the file. The example measures the disk of this folder.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use kafka_courier_dlq::{Bytes, DeadLetterStore, FileStore, Header, Letter, Timestamp};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SPAN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Error> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("letters-per-second-{}", std::process::id()));
    let json = letter(0).to_json()?;
    println!("dead letters of {} bytes of JSON", json.len());
    let result = [1, 10, 100, 1000].into_iter().try_for_each(|size| one_producer(&folder, size));
    let result = result.and_then(|()| grouped(&folder, 64)).and_then(|()| opening(&folder));
    std::fs::remove_dir_all(&folder)?;
    result
}

/// Measures one append after the other.
fn one_producer(folder: &Path, size: usize) -> Result<(), Error> {
    let store = FileStore::open(folder.join(format!("one-{size}.redb")))?;
    let (begun, mut letters) = (Instant::now(), 0);
    while begun.elapsed() < SPAN {
        store.append(&(0..size).map(letter).collect::<Vec<_>>())?;
        letters += size;
    }
    print_rate(&format!("appends of {size}"), letters, begun.elapsed());
    Ok(())
}

/// Measures callers that each wait for one letter. A writer appends all waiting letters together.
fn grouped(folder: &Path, callers: usize) -> Result<(), Error> {
    let store = FileStore::open(folder.join("waiting.redb"))?;
    let (send, receive) = mpsc::sync_channel::<(Letter, SyncSender<()>)>(callers);
    let begun = Instant::now();
    let letters = std::thread::scope(|scope| {
        let ran: Vec<_> = (0..callers).map(|_| send.clone()).map(|send| scope.spawn(move || call(&send))).collect();
        drop(send);
        write(&store, &receive)?;
        Ok::<usize, Error>(ran.into_iter().filter_map(|caller| caller.join().ok()).sum())
    })?;
    print_rate(&format!("{callers} callers with one dead letter each, grouped"), letters, begun.elapsed());
    Ok(())
}

fn call(send: &SyncSender<(Letter, SyncSender<()>)>) -> usize {
    let (begun, mut letters) = (Instant::now(), 0);
    while begun.elapsed() < SPAN {
        let (done, wait) = mpsc::sync_channel(1);
        if send.send((letter(letters), done)).is_err() || wait.recv().is_err() {
            break;
        }
        letters += 1;
    }
    letters
}

fn write(store: &FileStore, receive: &Receiver<(Letter, SyncSender<()>)>) -> Result<(), Error> {
    while let Ok(first) = receive.recv() {
        let (letters, waiting): (Vec<_>, Vec<_>) = std::iter::once(first).chain(receive.try_iter()).unzip();
        store.append(&letters)?;
        for done in waiting {
            let _ = done.send(()); // a caller that has ended needs no answer
        }
    }
    Ok(())
}

/// Measures opening after a crash. A copy of an open file is in the state after a kill.
fn opening(folder: &Path) -> Result<(), Error> {
    for count in [10_000, 100_000, 1_000_000] {
        let (path, copy) = (folder.join("opening.redb"), folder.join("killed.redb"));
        let store = FileStore::open(&path)?;
        while store.len() < count {
            store.append(&(0..10_000).map(letter).collect::<Vec<_>>())?;
        }
        std::fs::copy(&path, &copy)?;
        let bytes = std::fs::metadata(&copy)?.len();
        let begun = Instant::now();
        let killed = FileStore::open(&copy)?;
        println!("{count:>9} dead letters, {} MB: open after a crash {:?}", bytes / 1_000_000, begun.elapsed());
        assert_eq!(killed.len(), count);
        drop((killed, store));
        let begun = Instant::now();
        drop(FileStore::open(&path)?);
        println!("{:>9}         open and close after an orderly end {:?}", "", begun.elapsed());
    }
    Ok(())
}

fn print_rate(case: &str, letters: usize, took: Duration) {
    println!("{:>9.0} letters/s durable, {case}", letters as f64 / took.as_secs_f64());
}

fn letter(number: usize) -> Letter {
    let event = format!(
        r#"{{"id":"0190163d-8694-739b-aea5-{number:012}","type":"user.logged_in","source":"auth-service","version":"1.0","timestamp":"2024-01-15T10:00:00Z","data":{{"user_id":"u-{number}","login_time":"2024-01-15T10:00:00Z","login_method":"password"}}}}"#
    );
    let mut letter =
        Letter::new("user-events", Bytes::from(event), "broker not available: connection refused", Timestamp::now());
    letter.key = Some(Bytes::from(format!("u-{number}")));
    letter.partition = Some(3);
    letter.event_type = Some("user.logged_in".into());
    letter.headers = vec![Header { name: "event-type".into(), value: Some(Bytes::from_static(b"user.logged_in")) }];
    letter
}
