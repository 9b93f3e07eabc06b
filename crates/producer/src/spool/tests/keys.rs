//! The keys of records are in the round of their batch.

use super::*;

/// Returns a batch of two records, the second of which has a key with this time.
fn keyed(number: u64, at_ms: u64) -> Submission<u64> {
    Submission { token: at_ms, ..submission(0, number, 2) }
}

/// Returns the time before which a round forgets keys, and the records of its keys with their times.
fn keys(entries: &[Entry]) -> Option<(u64, Vec<(u64, u64)>)> {
    let mut keys = entries.iter().filter_map(|entry| match entry {
        Entry::Keys { forget_before_ms, keys } => {
            Some((*forget_before_ms, keys.iter().map(|key| (key.ordinal.0, key.at_ms)).collect()))
        }
        _ => None,
    });
    let only = keys.next();
    assert_eq!(keys.next(), None, "a round has one entry");
    only
}

fn batches(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| matches!(entry, Entry::Batch(_))).count()
}

#[test]
fn keys_ride_with_their_batch() {
    let mut stage = ready_stage();
    stage.submit(keyed(0, 5000));
    stage.submit(submission(0, 1, 2));
    stage.submit(keyed(2, 7000));
    stage.submit(keyed(3, 6000));
    assert_eq!(keys(&stage.round(1, u64::MAX)), Some((4000, vec![(1, 5000)])), "one batch fits");
    stage.committed();
    assert_eq!(keys(&commit(&mut stage)), Some((6000, vec![(5, 7000), (7, 6000)])));
    stage.submit(submission(0, 4, 2));
    assert_eq!(keys(&commit(&mut stage)), None);
}

#[test]
fn refused_round_keeps_keys_with_batches() {
    let mut stage = ready_stage();
    commit(&mut stage);
    stage.handle(SpoolCommand::Input { input: InputNumber(1), name: "a".into() });
    stage.submit(keyed(0, 5000));
    let mut rounds = Vec::new();
    for is_refused in [true, false, true, false] {
        let entries = stage.round(u64::MAX, u64::MAX);
        rounds.push((batches(&entries), keys(&entries).map_or(0, |(_, keys)| keys.len())));
        if is_refused { stage.refused() } else { stage.committed() }
    }
    assert_eq!(rounds, [(1, 1), (0, 0), (1, 1), (1, 1)], "the second round has the facts alone");
}

#[test]
fn forgetting_needs_no_batch() {
    let mut stage = ready_stage();
    commit(&mut stage);
    stage.handle(SpoolCommand::ForgetKeys { before_ms: 9 });
    assert!(stage.has_changes() && !stage.is_round_due());
    stage.round(u64::MAX, u64::MAX);
    stage.refused();
    assert_eq!(keys(&commit(&mut stage)), Some((9, Vec::new())));
    assert!(!stage.has_changes());
}
