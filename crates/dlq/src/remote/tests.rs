//! A store through its service behaves like the store. Holder and clients may end at any time.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::file::{FileStore, FileStoreOptions, OpenError};
use crate::held::{Held, Position};
use crate::letter::{Letter, LetterId};
use crate::limits::Limits;
use crate::replay_guard::BeginReplayError;
use crate::store::{Appended, DeadLetterStore};
use crate::store_error::{AppendError, StoreError};
use crate::{Selection, Timestamp, letters, open_or_reach};

struct Served {
    folder: tempfile::TempDir,
    file: Arc<FileStore>,
    service: Service,
}

fn served(limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let options = FileStoreOptions { limits, ..FileStoreOptions::default() };
    let file = Arc::new(FileStore::open_with(folder.path().join("letters"), options).unwrap());
    let service = file.serve().unwrap();
    Served { folder, file, service }
}

impl Served {
    fn path(&self) -> PathBuf {
        self.folder.path().join("letters")
    }

    fn client(&self) -> RemoteStore {
        RemoteStore::connect(self.service.path()).unwrap()
    }
}

fn letter(reason: &str) -> Letter {
    let value = bytes::Bytes::from_static(b"{\n \"a\": 1.0e5}");
    let mut letter = Letter::new("t", value, reason, Timestamp::UNIX_EPOCH);
    letter.key = Some(bytes::Bytes::from_static(b"\xff\n"));
    letter
}

#[test]
fn remote_store_behaves_like_the_file() {
    let served = served(Limits::default());
    let client = served.client();
    assert_eq!(client.name(), served.file.name());
    let mut all = ["a", "b", "c"].map(letter);
    all[1].value = Some(bytes::Bytes::from_static(b"{\"b\": 2.50}"));
    assert_eq!(client.append(&all).unwrap(), Appended { taken: 3, known: 0, dropped: 0 });
    assert_eq!(client.append(&all[..1]).unwrap(), Appended { taken: 0, known: 1, dropped: 0 });
    let mut page = client.scan(None, 2).unwrap();
    assert_eq!(page, served.file.scan(None, 2).unwrap());
    assert_eq!(page[1].letter, all[1]);
    assert_eq!(client.scan(Some(page[1].position), 10).unwrap().len(), 1);
    page[0].letter.replay_count = 9;
    assert_eq!(client.update(&page).unwrap(), 2);
    assert_eq!(served.file.scan(None, 1).unwrap()[0].letter.replay_count, 9);
    assert_eq!(client.find(&[all[2].id, LetterId::new()]).unwrap(), [Some(Position(2)), None]);
    assert_eq!(client.remove(&[Position(0), Position(7)]).unwrap(), 1);
    assert_eq!(client.expire().unwrap(), 0);
    assert_eq!(client.stats().unwrap(), served.file.stats().unwrap());
    let left: Vec<Held> = letters(&client, &Selection::all()).map(Result::unwrap).collect();
    assert_eq!(left.iter().map(|held| &held.letter).collect::<Vec<_>>(), [&all[1], &all[2]]);
}

#[test]
fn remote_import_compares() {
    let served = served(Limits::default());
    let client = served.client();
    let stored = letter("a");
    client.import(std::slice::from_ref(&stored)).unwrap();
    let edited = Letter { failure_reason: "edited".into(), ..stored.clone() };
    let left = client.import(&[stored.clone(), edited.clone()]).unwrap();
    assert_eq!((left.known, left.different), (1, vec![stored.id]));
    let put = client.import_with(std::slice::from_ref(&edited), crate::Edited::Replace).unwrap();
    assert_eq!((put.replaced, client.scan(None, 9).unwrap()[0].letter.clone()), (1, edited));
}

#[test]
fn remote_limits_are_the_same_errors() {
    let served = served(Limits { max_letters: Some(1), max_bytes: Some(2_000), ..Limits::default() });
    let client = served.client();
    client.append(&[letter("a")]).unwrap();
    assert!(matches!(client.append(&[letter("b")]).unwrap_err(), AppendError::Full { letters: 1, .. }));
    let large = letter(&"x".repeat(3_000));
    let error = client.append(std::slice::from_ref(&large)).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { id, limit: 2_000, .. } if id == large.id), "{error}");
}

#[test]
fn one_claim_for_all_processes() {
    let served = served(Limits::default());
    let (one, two) = (served.client(), served.client());
    let claim = one.begin_replay().unwrap();
    assert!(matches!(two.begin_replay(), Err(BeginReplayError::Busy { .. })));
    assert!(matches!(served.file.begin_replay(), Err(BeginReplayError::Busy { .. })));
    drop(claim);
    let claim = served.file.begin_replay().unwrap();
    assert!(matches!(one.begin_replay(), Err(BeginReplayError::Busy { .. })));
    drop(claim);
    drop(two.begin_replay().unwrap());
}

#[test]
fn ended_service_loses_the_claim() {
    let served = served(Limits::default());
    let claim = served.client().begin_replay().unwrap();
    claim.holds().unwrap();
    drop(served.service);
    assert!(matches!(claim.holds(), Err(StoreError::Service { .. })));
}

#[test]
fn claim_ends_with_its_connection() {
    let served = served(Limits::default());
    let mut stream = UnixStream::connect(served.service.path()).unwrap();
    stream.write_all(b"\"claim_replay\"\n").unwrap();
    let mut answers = std::io::BufReader::new(stream.try_clone().unwrap());
    for expected in ["{\"hello\"", "\"done\""] {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut answers, &mut line).unwrap();
        assert!(line.starts_with(expected), "{line}");
    }
    assert!(served.file.begin_replay().is_err());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // The service closes its end after it has seen the end of ours.
    assert_eq!(answers.read_to_end(&mut Vec::new()).unwrap(), 0);
    let mut claimed = served.file.begin_replay();
    while claimed.is_err() {
        std::thread::yield_now();
        claimed = served.file.begin_replay();
    }
}

#[test]
fn path_opens_file_or_service() {
    let served = served(Limits::default());
    let error = FileStore::open(served.path()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Held { service: Some(path), .. } if path == served.service.path()),
        "{error:?}"
    );
    let through = open_or_reach(served.path(), FileStoreOptions::default()).unwrap();
    through.append(&[letter("a")]).unwrap();
    let Served { folder, file, service } = served;
    let socket = service.path().to_owned();
    drop(service);
    assert!(!socket.exists());
    assert!(matches!(through.stats(), Err(StoreError::Service { .. })));
    let error = open_or_reach(folder.path().join("letters"), FileStoreOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Held { service: None, .. }), "{error}");
    drop(file);
    let alone = open_or_reach(folder.path().join("letters"), FileStoreOptions::default()).unwrap();
    assert_eq!(alone.stats().unwrap().letters, 1);
}

#[test]
fn client_finds_a_restarted_service() {
    let served = served(Limits::default());
    let client = served.client();
    let Served { folder: _folder, file, service } = served;
    drop(service);
    client.stats().unwrap_err();
    let _service = file.serve().unwrap();
    assert_eq!(client.stats().unwrap().letters, 0);
}

#[test]
fn socket_and_lock_are_private() {
    let served = served(Limits::default());
    for path in [served.service.path(), &served.folder.path().join("letters.lock")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert!(!served.folder.path().join("letters.s").exists());
}

#[test]
fn long_path_uses_a_temporary_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long".repeat(40)).join("letters");
    let file = Arc::new(FileStore::open(&path).unwrap());
    let service = file.serve().unwrap();
    let through = open_or_reach(&path, FileStoreOptions::default()).unwrap();
    through.append(&[letter("a")]).unwrap();
    assert_eq!(file.len(), 1);
    let socket = service.path().to_owned();
    drop(service);
    assert!(!socket.parent().unwrap().exists());
}

#[test]
fn invalid_request_ends_the_connection() {
    let served = served(Limits::default());
    for nonsense in [&b"GET / HTTP/1.1\r\n"[..], b"{\"append\":{\"letters\":[{}]}}\n", b"\xff\xff\n", b"{\"scan\":\n"] {
        let mut stream = UnixStream::connect(served.service.path()).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("not a request"), "{answer}");
    }
    assert_eq!(served.client().stats().unwrap().letters, 0);
}

#[test]
fn excess_connection_is_refused() {
    let served = served(Limits::default());
    let clients: Vec<RemoteStore> = (0..16).map(|_| served.client()).collect();
    let error = RemoteStore::connect(served.service.path()).unwrap_err().to_string();
    assert!(error.contains("16 connections are open already"), "{error}");
    assert!(clients.iter().all(|client| client.stats().is_ok()));
}

#[test]
fn service_without_socket_ends() {
    let Served { folder, file, service } = served(Limits::default());
    let client = RemoteStore::connect(service.path()).unwrap();
    drop(folder);
    drop(service);
    client.stats().unwrap_err();
    drop(file);
}

#[test]
fn leftovers_of_killed_service_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("letters.sock")).unwrap());
    std::fs::create_dir(folder.path().join("letters.s")).unwrap();
    let file = Arc::new(FileStore::open(&path).unwrap());
    let service = file.serve().unwrap();
    RemoteStore::connect(service.path()).unwrap().stats().unwrap();
}

#[test]
fn remote_append_counts_as_publisher() {
    let served = served(Limits::default());
    let client = served.client();
    client.import(&[letter("theirs")]).unwrap();
    assert!(served.file.is_exclusive() && client.scan(None, 9).unwrap()[0].imported);
    client.append(&[letter("own")]).unwrap();
    assert!(!served.file.is_exclusive() && !client.scan(None, 9).unwrap()[1].imported);
    drop(client);
    assert!(served.file.is_exclusive());
}
