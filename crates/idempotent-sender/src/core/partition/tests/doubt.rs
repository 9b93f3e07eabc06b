//! Stored batches of which nothing shows whether they are written.

use super::*;
use crate::core::config::DoubtPolicy;
use crate::core::types::InheritedStamp;

const OLD: Duration = Duration::from_secs(12 * 60 * 60);

/// Returns a partition with two old batches of an earlier process, whose leader shows no state.
fn in_doubt(doubt: DoubtPolicy) -> PartitionBench {
    let mut bench = PartitionBench::new(Config { doubt, ..Config::default() });
    for ordinal in 0..2 {
        let stamp = Stamp { producer_id: 3, epoch: 2, base_sequence: ordinal as i32 };
        let inherited = InheritedStamp {
            stamp,
            search_from: None,
            is_acknowledged: true,
            follows_unknown: false,
            leader_epoch: None,
        };
        let stored = StoredBatch { first: ordinal, topic: 0, life: 1, inherited: Some(inherited) };
        bench.submit_stored(ordinal, 1, Some(stored));
    }
    bench.now += OLD;
    assert!(bench.send().is_none());
    bench.answer_lookup(StateLookupAnswer::Unreadable { log_start: None });
    bench
}

impl PartitionBench {
    fn answer_lookup(&mut self, answer: StateLookupAnswer) {
        let look = self.partition.retry.pending_lookup().unwrap();
        self.decide(|partition, cx| partition.on_state_lookup(look, answer, cx));
    }

    /// Returns how often the partition reported that it waits, and forgets that.
    fn waits(&mut self) -> usize {
        let actions = std::mem::take(&mut self.out.actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Settle(_))));
        actions.iter().filter(|action| matches!(action, Action::Waits { .. })).count()
    }

    /// Sends after the backoff, and makes requested stamps durable first.
    fn send_durable(&mut self) -> Option<(RequestId, Stamp)> {
        self.now += Duration::from_secs(1);
        let sent = self.send();
        let moves = self.out.actions.iter().filter_map(|action| match action {
            Action::Persist(stamps) => Some(stamps.id),
            _ => None,
        });
        let moves: Vec<_> = moves.collect();
        moves.iter().for_each(|id| self.partition.on_persisted(*id));
        sent.or_else(|| self.send())
    }
}

#[test]
fn doubtful_batch_fails_by_default() {
    let mut bench = in_doubt(DoubtPolicy::Fail);
    let verdicts = bench.verdicts();
    let [(0, Verdict::Failed(failure))] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!(failure.outcome, FailedOutcome::Unknown);
}

#[test]
fn held_batch_is_looked_up_again() {
    let mut bench = in_doubt(DoubtPolicy::Hold);
    assert_eq!(bench.waits(), 1);
    for _ in 0..3 {
        bench.now += Duration::from_secs(1);
        assert!(bench.send().is_none(), "nothing is sent while the head is held");
        bench.answer_lookup(StateLookupAnswer::Unreadable { log_start: None });
        assert_eq!(bench.waits(), 1);
    }
    bench.now += Duration::from_secs(1);
    assert!(bench.send().is_none());
    // The right to read was granted, and the leader has everything.
    bench.answer_lookup(StateLookupAnswer::Producer { epoch: 2, last_sequence: 1, age: OLD });
    assert_eq!(bench.waits(), 0);
    assert!(bench.partition.retry.is_looking_up(), "the log decides about old batches");
}

#[test]
fn resent_batches_keep_their_order() {
    let mut bench = in_doubt(DoubtPolicy::Resend);
    assert_eq!(bench.out.counters.resent_in_doubt, 2);
    for (ordinal, sequence) in [(0, 0), (1, 1)] {
        let sent = bench.send_durable().unwrap();
        assert_eq!(sent.1, Stamp { producer_id: 7, epoch: 0, base_sequence: sequence });
        bench.accept(sent, 40 + i64::from(sequence));
        let verdicts = bench.verdicts();
        assert!(matches!(verdicts[..], [(token, Verdict::Delivered { .. })] if token == ordinal), "{verdicts:?}");
    }
}

/// The batch may be in the log under its former stamp.
#[test]
fn resent_rejected_batch_is_unknown() {
    let mut bench = in_doubt(DoubtPolicy::Resend);
    let sent = bench.send_durable().unwrap();
    bench.fail(sent, ErrorCode::INVALID_RECORD, -1);
    let verdicts = bench.verdicts();
    let [(0, Verdict::Failed(failure))] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((failure.outcome, failure.stamp), (FailedOutcome::Unknown, None));
}
