//! Tests of the chain of stores.

use kafka_courier_dlq::{FileStore, Limits, MemoryStore, Overflow, Timestamp};

use super::*;

fn letter(replay_count: u32) -> Letter {
    let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
    letter.replay_count = replay_count;
    letter
}

fn pending(letters: &[Letter], is_cluster_absent: bool) -> Vec<PendingLetter> {
    let pending = |letter: &Letter| PendingLetter {
        letter: letter.clone(),
        is_replayed: letter.replay_count > 0,
        is_cluster_absent,
    };
    letters.iter().map(pending).collect()
}

fn store(letters: u64) -> Arc<MemoryStore> {
    let limits = Limits { max_letters: Some(letters), overflow: Overflow::Refuse, ..Limits::default() };
    Arc::new(MemoryStore::with_limits(limits))
}

#[test]
fn refused_letters_move_to_next_store() {
    let (first, second) = (store(2), store(1));
    let chain = StoreChain::new(vec![
        StoreLink::local(first.clone(), StoreKind::Memory),
        StoreLink::local(second.clone(), StoreKind::Memory),
    ]);
    for _ in 0..4 {
        chain.keep(pending(&[letter(0)], false));
    }
    assert_eq!((first.len(), second.len(), chain.logged.load(Ordering::Relaxed)), (2, 1, 1));
}

#[test]
fn letters_in_memory_are_volatile() {
    let (file, memory) = (store(1), store(1));
    let chain =
        StoreChain::new(vec![StoreLink::local(file, StoreKind::File), StoreLink::local(memory, StoreKind::Memory)]);
    let letters = [letter(0), letter(0), letter(0)];
    let kept = |letter: &Letter| chain.keep(pending(std::slice::from_ref(letter), false));
    assert_eq!(kept(&letters[0]), HashSet::new());
    assert_eq!(kept(&letters[1]), HashSet::from([letters[1].id]), "only memory has it");
    assert_eq!(kept(&letters[2]), HashSet::from([letters[2].id]), "only the log has it");
    let mut again = letters[1].clone();
    again.replay_count = 1;
    assert_eq!(kept(&again), HashSet::from([again.id]), "memory has the new version, too");
}

#[test]
fn absent_cluster_skips_topic() {
    let (topic, file) = (store(9), store(9));
    let chain = StoreChain::new(vec![
        StoreLink::new(topic.clone(), StoreKind::Topic, true),
        StoreLink::local(file.clone(), StoreKind::Memory),
    ]);
    chain.keep(pending(&[letter(0)], true));
    chain.keep(pending(&[letter(0), letter(0)], false));
    assert_eq!((topic.len(), file.len()), (2, 1));
}

#[test]
fn replayed_letters_are_replaced() {
    let file = store(9);
    let chain = StoreChain::new(vec![StoreLink::local(file.clone(), StoreKind::Memory)]);
    let (a, b) = (letter(0), letter(0));
    chain.keep(pending(&[a.clone(), b.clone()], false));
    let mut again = a.clone();
    (again.replay_count, again.outcome) = (1, Outcome::NotWritten);
    chain.keep(pending(std::slice::from_ref(&again), true));
    let held: Vec<Letter> = file.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
    assert_eq!(held, [again, b]);
}

#[test]
fn replayed_letters_without_store_are_kept() {
    let file = store(9);
    StoreChain::new(vec![StoreLink::local(file.clone(), StoreKind::Memory)]).keep(pending(&[letter(1)], false));
    assert_eq!(file.len(), 1);
}

/// Returns a file store whose folder is deleted.
fn deleted_store() -> Arc<FileStore> {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
    file.append(&[letter(0)]).unwrap();
    drop(folder);
    file
}

#[test]
fn unreadable_stores_hide_no_other() {
    let (file, memory) = (deleted_store(), store(9));
    let chain = StoreChain::new(vec![
        StoreLink::local(file, StoreKind::File),
        StoreLink::local(memory.clone(), StoreKind::Memory),
    ]);
    chain.keep(pending(&[letter(0)], false));
    let listed = chain.list(&Selection::all(), 9);
    assert_eq!((listed.letters.len(), listed.unread.len()), (1, 1), "{listed:?}");
    let stats: Vec<_> = chain.links.iter().map(StoreLink::stats).collect();
    assert!(stats[0].error.is_some() && stats[1].stats.letters == 1, "{stats:?}");
    chain.purge(&Selection::all()).unwrap_err();
    assert_eq!(memory.len(), 0);
}

#[test]
fn letters_of_deleted_stores_move() {
    let (file, memory) = (deleted_store(), store(9));
    let chain = StoreChain::new(vec![
        StoreLink::local(file, StoreKind::File),
        StoreLink::local(memory.clone(), StoreKind::Memory),
    ]);
    // The store notices the deletion at its next write.
    chain.keep(pending(&[letter(0)], false));
    let mut again = letter(1);
    again.outcome = Outcome::NotWritten;
    chain.keep(pending(std::slice::from_ref(&again), false));
    let held = memory.scan(None, 9).unwrap().pop().unwrap().letter;
    assert_eq!((held.id, held.outcome), (again.id, Outcome::Unknown));
}

#[test]
fn written_letters_leave_every_store() {
    let (first, second) = (store(1), store(9));
    let chain = StoreChain::new(vec![
        StoreLink::local(first.clone(), StoreKind::Memory),
        StoreLink::local(second.clone(), StoreKind::Memory),
    ]);
    let letters = [letter(0), letter(0), letter(0)];
    letters.iter().for_each(|letter| _ = chain.keep(pending(std::slice::from_ref(letter), false)));
    assert_eq!(chain.remove_written(&[letters[0].id, letters[2].id]), 2);
    assert_eq!((first.len(), second.len()), (0, 1));
}

#[test]
fn mixed_causes_keep_their_order() {
    let (topic, file) = (store(0), store(9));
    let chain = StoreChain::new(vec![
        StoreLink::new(topic.clone(), StoreKind::Topic, true),
        StoreLink::local(file.clone(), StoreKind::Memory),
    ]);
    let letters = [letter(0), letter(0), letter(0)];
    let pending = |(letter, is_cluster_absent): (&Letter, bool)| PendingLetter {
        letter: letter.clone(),
        is_replayed: false,
        is_cluster_absent,
    };
    chain.keep(letters.iter().zip([true, false, true]).map(pending).collect());
    let held: Vec<Letter> = file.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
    assert_eq!(held, letters);
}
