//! Lookups: batches that are sent again, and batches that are settled from the log instead.

use super::*;
use crate::core::effects::LookupTarget;
use crate::core::lookup::{LoggedBatch, SearchAnswer};

const HOUR: Duration = Duration::from_secs(60 * 60);

impl PartitionBench {
    /// A partition with one batch acknowledged at offset 40, and one in flight at sequence 1 whose answer is lost.
    fn with_lost_answer() -> Self {
        let mut bench = Self::new(Config::default());
        bench.submit(0, 1);
        let first = bench.send().unwrap();
        bench.accept(first, 40);
        bench.submit(1, 2);
        let lost = bench.send().unwrap();
        bench.lose(lost);
        bench.verdicts();
        bench
    }

    /// Sends the head again and answers it with `code`.
    fn repeat(&mut self, code: ErrorCode) {
        self.now += Duration::from_secs(1);
        let again = self.send().unwrap();
        self.fail(again, code, -1);
    }

    fn finish_state_lookup(&mut self, last_sequence: i32, age: Duration) {
        let look = self.partition.retry.pending_lookup().unwrap();
        let answer = StateLookupAnswer::Producer { epoch: 0, last_sequence, age };
        self.decide(|partition, cx| partition.on_state_lookup(look, answer, cx));
    }

    pub(super) fn finish_search(&mut self, answer: &SearchAnswer) {
        let look = self.partition.retry.pending_lookup().unwrap();
        self.decide(|partition, cx| partition.on_log_search(look, answer, cx));
    }

    /// Returns the offset at which the last requested log search starts. `None` if the last lookup is no log search.
    fn search_from(&mut self) -> Option<Option<i64>> {
        match self.out.lookups.pop().map(|request| request.target) {
            Some(LookupTarget::Log(wanted)) => Some(wanted.from),
            Some(LookupTarget::Producer(_)) | None => None,
        }
    }

    pub(super) fn outcomes(&mut self) -> Vec<FailedOutcome> {
        let failed = self.verdicts().into_iter().map(|(token, verdict)| match verdict {
            Verdict::Failed(failure) => failure.outcome,
            verdict => panic!("{token} has {verdict:?}"),
        });
        failed.collect()
    }
}

pub(super) fn logged(base_sequence: i32, records: u32, base_offset: i64) -> SearchAnswer {
    SearchAnswer::Read(vec![LoggedBatch { base_sequence, records, base_offset, log_append_time: None }])
}

#[test]
fn refused_repeat_settles_from_log() {
    for code in [
        ErrorCode::MESSAGE_TOO_LARGE,
        ErrorCode::RECORD_LIST_TOO_LARGE,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::INVALID_RECORD,
    ] {
        let is_split = matches!(code, ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE);
        let mut bench = PartitionBench::with_lost_answer();
        if is_split {
            // The two records are split first. Each half is then refused alone.
            bench.repeat(code);
        }
        bench.repeat(code);
        bench.finish_state_lookup(2, Duration::ZERO);
        assert_eq!(bench.search_from(), Some(Some(41)), "{code}: after the acknowledged records");
        let sent = bench.requests;
        bench.finish_search(&logged(1, 2, 57));
        let at: Vec<_> = bench.verdicts().into_iter().map(|(_, verdict)| verdict).collect();
        let expected = if is_split { vec![delivered(57), delivered(58)] } else { vec![delivered(57)] };
        assert_eq!((at, bench.requests), (expected, sent), "{code}: nothing is sent again");
        assert!(bench.partition.is_idle());
    }
}

#[test]
fn unreplicated_batch_is_looked_up_again() {
    let mut bench = PartitionBench::with_lost_answer();
    bench.repeat(ErrorCode::INVALID_TIMESTAMP);
    for _ in 0..3 {
        bench.finish_state_lookup(2, Duration::ZERO);
        bench.finish_search(&SearchAnswer::Read(vec![]));
        assert!(bench.verdicts().is_empty(), "the leader has the batch, its replicas may not");
        bench.now += Duration::from_secs(1);
        assert!(bench.send().is_none(), "it is not sent again");
    }
    bench.finish_state_lookup(2, Duration::ZERO);
    bench.finish_search(&logged(1, 2, 41));
    assert_eq!(bench.verdicts(), [(1, delivered(41))]);
}

#[test]
fn batch_missing_in_log_is_unknown() {
    let mut bench = PartitionBench::with_lost_answer();
    bench.repeat(ErrorCode::INVALID_TIMESTAMP);
    bench.finish_state_lookup(9, Duration::ZERO);
    bench.finish_search(&logged(5, 5, 60));
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown]);
}

#[test]
fn old_id_is_searched_not_resent() {
    for (age, is_searched) in [(11 * HOUR, false), (12 * HOUR, true), (30 * HOUR, true)] {
        let mut bench = PartitionBench::with_lost_answer();
        bench.repeat(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        bench.finish_state_lookup(2, age);
        assert_eq!(bench.search_from().is_some(), is_searched, "{age:?}");
        assert_eq!(bench.partition.unconfirmed.len(), usize::from(!is_searched), "{age:?}");
    }
}

#[test]
fn log_proves_more_than_state() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 3);
    let lost = bench.send().unwrap();
    bench.lose(lost);
    bench.repeat(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    bench.finish_state_lookup(2, Duration::ZERO);
    assert_eq!(bench.search_from(), Some(None), "nothing was acknowledged, so the id may have been forgotten");
    bench.finish_search(&logged(0, 3, 7));
    assert_eq!(bench.verdicts(), [(0, delivered(7))]);
}

#[test]
fn unreadable_log_leaves_the_batch_unconfirmed() {
    let mut bench = PartitionBench::with_lost_answer();
    bench.repeat(ErrorCode::INVALID_TIMESTAMP);
    bench.finish_state_lookup(2, Duration::ZERO);
    bench.finish_search(&SearchAnswer::Unreadable);
    assert_eq!(bench.partition.unconfirmed.len(), 1);
    assert!(bench.verdicts().is_empty());
}

#[test]
fn uncovered_batch_is_unknown() {
    let mut bench = PartitionBench::with_lost_answer();
    bench.repeat(ErrorCode::INVALID_TIMESTAMP);
    bench.finish_state_lookup(0, Duration::ZERO);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown]);
}

#[test]
fn duplicate_keeps_record_times() {
    let times = |answered: Option<i64>| {
        let mut bench = PartitionBench::with_lost_answer();
        bench.now += Duration::from_secs(1);
        let (request, _) = bench.send().unwrap();
        let answer = PartAnswer { code: 0, base_offset: Some(41), log_append_time: answered, ..PartAnswer::default() };
        bench.decide(|partition, cx| partition.on_answer(request, &answer, cx));
        match bench.verdicts().pop() {
            Some((_, Verdict::Delivered { log_append_time, .. })) => log_append_time,
            other => panic!("{other:?}"),
        }
    };
    // The timestamp of the records in these tests is 1.
    assert_eq!((times(None), times(Some(1)), times(Some(1234))), (None, None, Some(1234)));
}

#[test]
fn late_duplicate_keeps_times_of_halves() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 2);
    let (whole, _) = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::MESSAGE_TOO_LARGE, -1);
    for half in &mut bench.partition.window {
        half.abandoned[0].newest = 9;
    }
    let answer = PartAnswer { code: 0, base_offset: Some(40), log_append_time: Some(9), ..PartAnswer::default() };
    bench.decide(|partition, cx| partition.on_answer(whole, &answer, cx));
    assert_eq!(bench.verdicts(), [(0, delivered(40)), (0, delivered(41))]);
}

#[test]
fn missing_replicas_cost_no_retry() {
    let mut bench = PartitionBench::new(Config { retry_max: 0, ..Config::default() });
    bench.submit(0, 1);
    for _ in 0..5 {
        let sent = bench.send().unwrap();
        bench.fail(sent, ErrorCode::REQUEST_TIMED_OUT, 40);
        assert!(bench.verdicts().is_empty(), "a wait, like NOT_ENOUGH_REPLICAS_AFTER_APPEND");
        bench.now += Duration::from_secs(1);
    }
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::REQUEST_TIMED_OUT, -1);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown], "without an offset the write itself failed");
}

#[test]
fn refusal_with_an_offset_is_certain() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::TOPIC_AUTHORIZATION_FAILED, 0);
    assert_eq!(bench.outcomes(), [FailedOutcome::NotWritten]);
}
