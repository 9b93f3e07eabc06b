//! The leader epoch that a durable log has: no stored batch is sent under another one, and no process adopts an earlier one.

use super::*;

/// The epoch of the bench's leader.
const PRESENT: i32 = 5;

impl PartitionBench {
    /// Submits a batch of an earlier process that knew this leader epoch.
    fn inherit_epoch(&mut self, leader_epoch: Option<i32>) {
        let (is_acknowledged, follows_unknown) = (false, false);
        let inherited =
            InheritedStamp { stamp: inherited(4), search_from: None, is_acknowledged, follows_unknown, leader_epoch };
        self.submit_stored(0, 1, Some(StoredBatch { first: 0, topic: 0, life: 1, inherited: Some(inherited) }));
    }

    fn has_corrected(&self) -> bool {
        self.out.actions.iter().any(|action| matches!(action, Action::Correct { .. }))
    }

    fn adopt(&mut self, leader: i32, epoch: i32) -> bool {
        self.partition.adopt_leader(Some(BrokerId(leader)), Some(epoch))
    }
}

#[test]
fn stamps_carry_the_leader_epoch() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit_new(0, 1);
    assert!(bench.send_now().is_none());
    let epochs = bench.out.actions.iter().map(|action| match action {
        Action::Persist(stamps) => stamps.leader_epoch,
        _ => None,
    });
    assert_eq!(epochs.collect::<Vec<_>>(), [Some(PRESENT)]);
    bench.persist();
    assert!(bench.send_now().is_some(), "one round makes both durable");
}

#[test]
fn new_leader_epoch_is_persisted() {
    for is_sent_before in [false, true] {
        let mut bench = PartitionBench::new(Config::default());
        (0..2).for_each(|ordinal| bench.submit_new(ordinal, 1));
        bench.send_now();
        bench.persist();
        if is_sent_before {
            bench.send_now();
        }
        assert!(bench.adopt(2, PRESENT + 1));
        assert!(bench.send_now().is_none() && bench.send_now().is_none());
        assert_eq!((bench.persist_leader(), bench.persist_leader()), (Some(PRESENT + 1), None), "requested once");
        assert!(bench.send_now().is_some());
    }
}

#[test]
fn last_leader_epoch_counts() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit_new(0, 1);
    bench.send_now();
    bench.persist();
    bench.adopt(2, PRESENT + 1);
    bench.send_now();
    bench.adopt(1, PRESENT + 2);
    assert!(bench.send_now().is_none());
    assert_eq!(bench.persist_leader(), Some(PRESENT + 1));
    assert!(bench.send_now().is_none(), "the log has only the epoch before");
    assert_eq!(bench.persist_leader(), Some(PRESENT + 2));
    assert!(bench.send_now().is_some());
}

#[test]
fn former_leader_is_not_adopted() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit_epoch(Some(PRESENT + 2));
    assert_eq!(bench.partition.leader(), None, "metadata named a former leader");
    for _ in 0..9 {
        assert!(!bench.adopt(1, PRESENT + 1));
        bench.partition.doubt_leader();
    }
    assert!(bench.adopt(2, PRESENT + 2));
    bench.ask_without_log();
    assert_eq!(bench.send_now().map(|(_, stamp)| stamp), Some(inherited(4)), "the log has the epoch");
}

#[test]
fn former_leader_shows_no_loss() {
    for (leader_epoch, is_restamped) in [(Some(PRESENT + 1), false), (Some(PRESENT), true), (None, true)] {
        let mut bench = PartitionBench::new(Config::default());
        bench.inherit_epoch(leader_epoch);
        if bench.partition.leader().is_some() {
            bench.ask(state(1, 9));
        }
        bench.send_later();
        assert_eq!(bench.persist().is_some(), is_restamped, "{leader_epoch:?}");
    }
}

#[test]
fn shown_state_ends_with_its_leader() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2, 1], 0, false);
    bench.ask(state(2, 1));
    bench.adopt(2, PRESENT + 1);
    bench.ask_without_log();
    let first = bench.send().unwrap();
    bench.fail(first, ErrorCode::INVALID_RECORD, -1);
    bench.answer_state(NOT_KNOWN);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown]);
    let second = bench.send().unwrap();
    bench.accept(second, 40);
    assert!(!bench.has_corrected(), "the new leader takes any number of an id that it does not know");
}

#[test]
fn shown_state_corrects_nothing() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[1, 1, 1], 4, false);
    bench.ask_without_log();
    let first = bench.send().unwrap();
    bench.fail(first, ErrorCode::INVALID_RECORD, -1);
    bench.answer_state(NOT_KNOWN);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown]);
    bench.send().unwrap();
    bench.adopt(2, PRESENT + 1);
    bench.ask(state(2, 5));
    bench.now += Duration::from_secs(1);
    let third = bench.send().unwrap();
    bench.accept(third, 40);
    assert!(!bench.has_corrected(), "the former leader may have begun with the second batch");
}
