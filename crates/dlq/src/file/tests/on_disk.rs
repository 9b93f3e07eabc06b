//! The file store on a real disk: opening, locks, limits and replaced files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redb::{Database, TableDefinition};

use super::{all, at, letter};
use crate::file::{FileKind, FileStore, FileStoreOptions, OpenError};
use crate::held::{Held, Position};
use crate::letter::Letter;
use crate::limits::{Limits, Overflow};
use crate::selection::Selection;
use crate::store::{DeadLetterStore, purge};
use crate::store_error::AppendError;

fn open(path: &Path, limits: Limits) -> FileStore {
    FileStore::open_with(path, FileStoreOptions { limits, retry_pause: Duration::ZERO }).unwrap()
}

#[test]
fn restart_keeps_letters_and_totals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let letters = [letter("a", 10), letter("b", 100_000)];
    let store = FileStore::open(&path).unwrap();
    store.append_at(&letters, at(5)).unwrap();
    let before = store.stats().unwrap();
    drop(store);
    let store = FileStore::open(&path).unwrap();
    assert_eq!(all(&store), letters);
    let after = store.stats().unwrap();
    assert_eq!((after.letters, after.bytes, after.oldest), (2, before.bytes, Some(at(5))));
}

#[test]
fn position_is_never_reused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    store.append(&[letter("a", 10), letter("b", 10)]).unwrap();
    assert_eq!(store.remove(&[Position(0), Position(1), Position(2)]).unwrap(), 2);
    drop(store);
    let store = FileStore::open(&path).unwrap();
    store.append(&[letter("c", 10)]).unwrap();
    assert_eq!(store.scan(None, 10).unwrap()[0].position, Position(2));
}

#[test]
fn update_never_inserts() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().join("letters")).unwrap();
    store.append(&[letter("a", 10), letter("b", 10)]).unwrap();
    let mut held = store.scan(None, 2).unwrap();
    held[0].letter.replay_count = 7;
    let other = Held::new(held[1].position, letter("another id", 10));
    assert_eq!(store.update(&[held[0].clone(), other]).unwrap(), 1);
    assert_eq!(store.scan(None, 2).unwrap(), held);
    store.remove(&[held[0].position]).unwrap();
    assert_eq!(store.update(&held).unwrap(), 1);
    assert_eq!(store.scan(None, 2).unwrap(), held[1..]);
    assert_eq!(store.find(&[held[0].letter.id, held[1].letter.id]).unwrap(), [None, Some(held[1].position)]);
}

#[test]
fn emptied_file_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    let large = || fs::metadata(&path).unwrap().len() > 4 * 1024 * 1024;
    let many = || (0..250).map(|n| letter(n, 80_000)).collect::<Vec<_>>();
    store.append(&many()).unwrap();
    assert!(large());
    purge(&store, &Selection::all()).unwrap();
    assert!(store.is_empty() && !large(), "immediately");
    let (many, kept) = (many(), letter("kept", 10));
    store.append(&many).unwrap();
    store.append(std::slice::from_ref(&kept)).unwrap();
    let until = Some(store.find(&[kept.id]).unwrap()[0].unwrap());
    purge_before(&store, until);
    assert!(large(), "the file is in use");
    // The state after a kill.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let store = FileStore::open(&copy).unwrap();
    assert!(fs::metadata(&copy).unwrap().len() < 4 * 1024 * 1024, "opened again");
    assert_eq!(all(&store), [kept]);
}

fn purge_before(store: &FileStore, until: Option<Position>) {
    while let Some(page) = Some(store.scan(None, 1000).unwrap()).filter(|page| page.len() > 1) {
        let removed: Vec<_> = page.iter().map(|held| held.position).filter(|at| Some(*at) != until).collect();
        store.remove(&removed).unwrap();
    }
}

#[test]
fn limits_drop_and_count_letters() {
    let folder = tempfile::tempdir().unwrap();
    let max_age = Some(Duration::from_secs(60));
    let limits = Limits { max_letters: Some(3), max_age, overflow: Overflow::DropOldest, ..Limits::default() };
    let path = folder.path().join("letters");
    let store = open(&path, limits.clone());
    let letters: Vec<_> = (0..5).map(|n| letter(n, 10)).collect();
    assert_eq!(store.append_at(&letters, at(0)).unwrap().dropped, 2);
    assert_eq!(all(&store), letters[2..]);
    assert_eq!(store.append_at(&letters[..1], at(60)).unwrap().dropped, 3, "too old");
    assert_eq!(store.expire_at(at(119)).unwrap(), 0);
    assert_eq!(store.expire_at(at(120)).unwrap(), 1);
    let stats = store.stats().unwrap();
    assert_eq!((stats.letters, stats.bytes, stats.dropped, stats.expired), (0, 0, 2, 4));
    drop(store);
    let store = open(&path, Limits { overflow: Overflow::Refuse, ..limits });
    store.append(&letters[..3]).unwrap();
    let error = store.append(&letters[3..]).unwrap_err();
    assert!(matches!(error, AppendError::Full { letters: 3, .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn file_and_folder_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/courier/letters");
    let store = FileStore::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_file_name("letters.lock")), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(store.path(), fs::canonicalize(&path).unwrap());
}

#[test]
fn second_opener_learns_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    assert!(store.is_exclusive());
    let error = FileStore::open(&path).unwrap_err();
    let pid = std::process::id();
    assert!(matches!(&error, OpenError::Held { pid: Some(held), service: None, .. } if *held == pid), "{error:?}");
    assert!(error.to_string().contains(&format!("held by process {pid}")), "{error}");
    drop(store);
    FileStore::open(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn links_share_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("letters"), folder.path().join("link"));
    let _store = FileStore::open(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(FileStore::open(&link).unwrap_err(), OpenError::Held { pid: Some(_), .. }));
    let hard = folder.path().join("hard");
    fs::hard_link(&path, &hard).unwrap();
    assert!(matches!(FileStore::open(&hard).unwrap_err(), OpenError::Held { pid: None, .. }));
}

#[test]
fn other_files_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "precious").unwrap();
    assert!(matches!(FileStore::open(&text).unwrap_err(), OpenError::NotAStore { .. }));
    assert_eq!(fs::read(&text).unwrap(), b"precious");
    let foreign = folder.path().join("foreign");
    let database = Database::create(&foreign).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("numbers")).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(FileStore::open(&foreign).unwrap_err(), OpenError::NotAStore { .. }));
    let error = FileStore::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn sockets_and_pipes_are_refused_untouched() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let (socket, pipe) = (folder.path().join("socket"), folder.path().join("pipe"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, kind) in [(&socket, FileKind::Socket), (&pipe, FileKind::Pipe)] {
        for opened in [FileStore::open(path), FileStore::open_read_only(path)] {
            assert!(matches!(opened, Err(OpenError::NotRegular { kind: found, .. }) if found == kind), "{opened:?}");
        }
    }
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn pipe_in_place_stays() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = open(&path, Limits::default());
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // The first append finds that the file was replaced, the second opens it again.
    for _ in 0..2 {
        store.append(&[letter("a", 1)]).unwrap_err();
    }
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
}

#[cfg(unix)]
#[test]
fn pipe_as_lock_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    drop(FileStore::open(&path).unwrap());
    let lock = folder.path().join("letters.lock");
    fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    for opened in [FileStore::open(&path), FileStore::open_read_only(&path)] {
        assert!(
            matches!(&opened, Err(OpenError::NotRegular { path, .. }) if path.ends_with("letters.lock")),
            "{opened:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn dangling_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink("second", at("first")).unwrap();
    std::os::unix::fs::symlink(at("real/letters"), at("second")).unwrap();
    let store = FileStore::open(at("first")).unwrap();
    store.append(&[letter("a", 1)]).unwrap();
    assert_eq!(store.path(), fs::canonicalize(at("real/letters")).unwrap());
    assert!(at("first").is_symlink() && at("second").is_symlink() && at("real/letters.lock").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    assert!(matches!(FileStore::open(at("loop")), Err(OpenError::Io { .. })));
}

#[test]
fn other_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    drop(FileStore::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = FileStore::open(&path).unwrap_err().to_string();
    assert!(error.contains("has format 2, and this version reads 1"), "{error}");
}

#[test]
fn empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    fs::write(&path, "").unwrap();
    fs::write(path.with_file_name("letters.new"), "killed while it was made").unwrap();
    let store = FileStore::open(&path).unwrap();
    store.append(&[letter("a", 10)]).unwrap();
    assert!(!path.with_file_name("letters.new").exists());
}

#[cfg(unix)]
#[test]
fn removed_file_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = open(&path, Limits::default());
    store.append(&[letter("a", 10)]).unwrap();
    fs::remove_file(&path).unwrap();
    let error = store.append(&[letter("b", 10)]).unwrap_err();
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    store.append(&[letter("c", 10)]).unwrap();
    drop(store);
    let reasons: Vec<_> = all(&FileStore::open(&path).unwrap()).into_iter().map(|l| l.failure_reason).collect();
    assert_eq!(reasons, ["c"]);
}

/// Returns `n` letters with numbered reasons.
fn letters_named(names: &str, n: usize) -> Vec<Letter> {
    (0..n).map(|n| letter(format!("{names}{n}"), 10)).collect()
}

#[cfg(unix)]
#[test]
fn replacing_file_keeps_its_letters() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("letters"), folder.path().join("backup"));
    let theirs = letters_named("theirs", 50);
    FileStore::open(&backup).unwrap().append(&theirs).unwrap();
    let store = open(&path, Limits::default());
    store.append(&letters_named("ours", 10)).unwrap();
    let old = store.scan(None, 100).unwrap();
    fs::rename(&backup, &path).unwrap();
    let error = store.append(&[letter("refused", 10)]).unwrap_err();
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    assert_eq!(all(&store), theirs);
    assert_eq!(store.len(), 50);
    let positions: Vec<Position> = old.iter().map(|held| held.position).collect();
    assert_eq!(store.remove(&positions).unwrap(), 0);
    assert_eq!(store.update(&old).unwrap(), 0);
    let new = letter("new", 10);
    store.append(std::slice::from_ref(&new)).unwrap();
    let check = |store: &FileStore| {
        let held = store.scan(None, 100).unwrap();
        assert!(held.iter().all(|held| !positions.contains(&held.position)), "{held:?}");
        let ids: Vec<_> = held.iter().map(|held| held.letter.id).collect();
        let found: Vec<_> = held.iter().map(|held| Some(held.position)).collect();
        assert_eq!(store.find(&ids).unwrap(), found);
        assert_eq!((held.len(), store.len()), (51, 51));
    };
    check(&store);
    drop(store);
    let store = FileStore::open(&path).unwrap();
    check(&store);
    let held = store.scan(None, 100).unwrap();
    assert_eq!(store.remove(&[held[0].position, held[50].position]).unwrap(), 2);
    assert_eq!(all(&store), theirs[1..]);
}

#[cfg(unix)]
#[test]
fn new_file_reuses_no_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = open(&path, Limits::default());
    store.append(&letters_named("old", 3)).unwrap();
    fs::remove_file(&path).unwrap();
    store.append(&[letter("refused", 10)]).unwrap_err();
    store.append(&[letter("new", 10)]).unwrap();
    assert_eq!(store.remove(&[Position(0), Position(1), Position(2)]).unwrap(), 0);
    assert_eq!(store.scan(None, 10).unwrap()[0].position, Position(3));
}

#[cfg(unix)]
#[test]
fn older_copy_reuses_no_position() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("letters"), folder.path().join("copy"));
    let store = open(&path, Limits::default());
    store.append(&letters_named("early", 2)).unwrap();
    drop(store);
    fs::copy(&path, &copy).unwrap();
    let store = open(&path, Limits::default());
    store.append(&letters_named("late", 3)).unwrap();
    fs::rename(&copy, &path).unwrap();
    store.append(&[letter("refused", 10)]).unwrap_err();
    store.append(&[letter("new", 10)]).unwrap();
    let positions: Vec<_> = store.scan(None, 10).unwrap().into_iter().map(|held| held.position.0).collect();
    assert_eq!(positions, [0, 1, 5]);
}

#[cfg(unix)]
#[test]
fn damaged_entry_of_replacement_is_removable() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("letters"), folder.path().join("backup"));
    FileStore::open(&backup).unwrap().append(&letters_named("theirs", 3)).unwrap();
    damage_entry(&backup, 1);
    let store = open(&path, Limits::default());
    store.append(&letters_named("ours", 2)).unwrap();
    fs::rename(&backup, &path).unwrap();
    store.append(&[letter("refused", 10)]).unwrap_err();
    let positions: Vec<_> = store.scan(None, 10).unwrap().into_iter().map(|held| held.position.0).collect();
    assert_eq!((positions, store.len()), (vec![2, 4], 3));
    assert_eq!(store.remove(&[Position(3)]).unwrap(), 1);
    assert_eq!(store.len(), 2);
}

/// Damages the entry at this position.
fn damage_entry(path: &Path, position: u64) {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    let letters = TableDefinition::<u64, &[u8]>::new("letters");
    write.open_table(letters).unwrap().insert(position, &b"\x01rot"[..]).unwrap();
    write.commit().unwrap();
}

#[test]
fn damaged_letter_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    store.append(&[letter("a", 10), letter("b", 10), letter("c", 10)]).unwrap();
    drop(store);
    damage_entry(&path, 1);
    let store = FileStore::open(&path).unwrap();
    let reasons: Vec<_> = all(&store).into_iter().map(|letter| letter.failure_reason).collect();
    assert_eq!(reasons, ["a", "c"]);
    assert_eq!(store.len(), 3);
    assert_eq!(store.remove(&[Position(1)]).unwrap(), 1);
    assert_eq!(store.len(), 2);
}

#[test]
fn update_ends_the_imported_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    store.append(&[letter("own", 10)]).unwrap();
    let imported = letter("theirs", 10);
    assert_eq!(store.import(std::slice::from_ref(&imported)).unwrap().taken, 1);
    assert_eq!(
        (store.import(std::slice::from_ref(&imported)).unwrap().known, store.append(&[imported]).unwrap().known),
        (1, 1)
    );
    drop(store);
    let store = FileStore::open(&path).unwrap();
    let held = store.scan(None, 9).unwrap();
    assert_eq!(held.iter().map(|held| held.imported).collect::<Vec<_>>(), [false, true]);
    store.update(&held).unwrap();
    assert_eq!(store.scan(None, 9).unwrap(), held);
    store.update(&[Held::new(held[1].position, held[1].letter.clone())]).unwrap();
    assert!(!store.scan(None, 9).unwrap()[1].imported);
}

#[test]
fn publishers_end_exclusiveness() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let store = FileStore::open(&path).unwrap();
    let (one, other) = (crate::Publishing::beside(&path).unwrap(), crate::Publishing::beside(&path).unwrap());
    assert!(!store.is_exclusive());
    drop(one);
    assert!(!store.is_exclusive());
    drop(other);
    assert!(store.is_exclusive());
}
