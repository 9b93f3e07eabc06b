//! New timestamps for stored batches that have waited for long.

use super::*;
use crate::core::types::InheritedStamp;

const HALF_A_DAY: Duration = Duration::from_secs(12 * 60 * 60);
const HALF_A_DAY_MS: i64 = 12 * 60 * 60 * 1000;

/// Records are published at 1 by the wall clock.
fn renewing() -> PartitionBench {
    let mut bench = PartitionBench::new(Config { renews_timestamps: true, ..Config::default() });
    bench.wall_clock = Some(1);
    bench
}

impl PartitionBench {
    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.wall_clock = self.wall_clock.map(|before| before + time.as_millis() as i64);
    }

    fn submit_waiting(&mut self, ordinal: u64, inherited: Option<InheritedStamp>) {
        self.submit_stored(ordinal, 1, Some(StoredBatch { first: ordinal, topic: 0, life: 1, inherited }));
    }

    /// Makes all requested stamps durable.
    fn persist_all(&mut self) {
        for action in std::mem::take(&mut self.out.actions) {
            if let Action::Persist(stamps) = action {
                self.partition.on_persisted(stamps.id);
            }
        }
    }

    /// Returns the timestamps of the sent batches. A batch is submitted with the timestamp 1.
    fn sent_times(&self) -> Vec<i64> {
        self.partition.window.iter().map(|flight| flight.batch.max_timestamp()).collect()
    }
}

#[test]
fn waiting_batches_are_renewed_and_pipelined() {
    let mut bench = renewing();
    (0..3).for_each(|ordinal| bench.submit_waiting(ordinal, None));
    bench.wait(HALF_A_DAY);
    bench.send();
    bench.persist_all();
    let first = bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1 + HALF_A_DAY_MS]);
    bench.accept(first, 0);
    assert_eq!(bench.send_all().len(), 2, "renewed records make no leader forget the producer id");
    assert_eq!(bench.sent_times(), [1 + HALF_A_DAY_MS; 2]);
}

#[test]
fn kept_timestamps_go_one_by_one() {
    let mut bench = PartitionBench::new(Config::default());
    (0..3).for_each(|ordinal| bench.submit_waiting(ordinal, None));
    bench.wait(HALF_A_DAY);
    bench.send();
    bench.persist_all();
    let first = bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1]);
    bench.accept(first, 0);
    assert_eq!(bench.send_all().len(), 1);
}

#[test]
fn young_batches_keep_their_timestamps() {
    let mut bench = renewing();
    bench.submit_waiting(0, None);
    bench.wait(HALF_A_DAY - Duration::from_secs(1));
    bench.send();
    bench.persist_all();
    bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1]);
}

/// The application published records with old timestamps, which have not waited.
#[test]
fn chosen_timestamps_are_kept() {
    let mut bench = renewing();
    bench.aged = true;
    bench.submit_waiting(0, None);
    bench.send();
    bench.persist_all();
    bench.wait(Duration::from_secs(1));
    bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1]);
    assert!(bench.partition.window[0].aged);
}

#[test]
fn inherited_batch_is_renewed_once_absent() {
    let mut bench = renewing();
    let stamp = Stamp { producer_id: 3, epoch: 2, base_sequence: 0 };
    let inherited =
        InheritedStamp { stamp, search_from: None, is_acknowledged: false, follows_unknown: false, leader_epoch: None };
    bench.submit_waiting(0, Some(inherited));
    bench.wait(HALF_A_DAY);
    assert!(bench.send().is_none());
    let look = bench.partition.retry.pending_lookup().unwrap();
    bench.decide(|partition, cx| partition.on_state_lookup(look, StateLookupAnswer::NotKnown { log_start: 0 }, cx));
    let look = bench.partition.retry.pending_lookup().unwrap();
    let empty = crate::core::lookup::SearchAnswer::Read(Vec::new());
    bench.decide(|partition, cx| partition.on_log_search(look, &empty, cx));
    assert_eq!(bench.send().map(|(_, stamp)| stamp), Some(stamp));
    assert_eq!(bench.sent_times(), [1 + HALF_A_DAY_MS]);
    let head = &bench.partition.window[0];
    assert!(head.aged, "a request of the dead process may still bring the former timestamps");
    assert_eq!(head.earliest_timestamp(), 1, "a search finds either");
}

#[test]
fn refused_timestamps_are_renewed() {
    let mut bench = renewing();
    bench.submit_waiting(0, None);
    bench.send();
    bench.persist_all();
    bench.wait(Duration::from_secs(120));
    let refused = bench.send().unwrap();
    bench.fail(refused, ErrorCode::INVALID_TIMESTAMP, -1);
    bench.wait(Duration::from_secs(1));
    let again = bench.send().unwrap();
    assert_eq!((again.1, bench.sent_times()), (refused.1, vec![121_001]));
    bench.accept(again, 0);
    assert_eq!(bench.verdicts(), [(0, delivered(0))]);
}

/// The clock of the producer is ahead. The leader takes the records once its own clock has caught up.
#[test]
fn fresh_refused_timestamps_are_kept() {
    let mut bench = renewing();
    bench.submit_waiting(0, None);
    bench.send();
    bench.persist_all();
    for _ in 0..3 {
        let refused = bench.send().unwrap();
        bench.fail(refused, ErrorCode::INVALID_TIMESTAMP, -1);
        assert_eq!((bench.sent_times(), bench.verdicts().len()), (vec![1], 0));
        bench.wait(HALF_A_DAY);
    }
}

/// The clock of the process was a day ahead when it took over the batch, and was corrected then.
#[test]
fn wrong_clock_moves_times_back() {
    let mut bench = renewing();
    bench.submit_waiting(0, None);
    bench.send();
    bench.persist_all();
    bench.wall_clock = Some(1 + 2 * HALF_A_DAY_MS);
    let refused = bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1 + 2 * HALF_A_DAY_MS]);
    bench.fail(refused, ErrorCode::INVALID_TIMESTAMP, -1);
    bench.wall_clock = Some(5_000);
    for _ in 0..2 {
        bench.now += Duration::from_secs(1);
        let again = bench.send().unwrap();
        bench.fail(again, ErrorCode::INVALID_TIMESTAMP, -1);
    }
    assert_eq!(bench.sent_times(), [5_000]);
}

/// The clock of the process that published the batch was a day ahead, and is right now.
#[test]
fn refused_future_timestamps_move_back() {
    let mut bench = renewing();
    bench.wall_clock = Some(1 - 2 * HALF_A_DAY_MS);
    bench.submit_waiting(0, None);
    bench.send();
    bench.persist_all();
    let refused = bench.send().unwrap();
    assert_eq!(bench.sent_times(), [1]);
    bench.fail(refused, ErrorCode::INVALID_TIMESTAMP, -1);
    bench.now += Duration::from_secs(1);
    let again = bench.send().unwrap();
    assert_eq!((again.1, bench.sent_times()), (refused.1, vec![1 - 2 * HALF_A_DAY_MS]));
    bench.accept(again, 0);
    assert_eq!(bench.verdicts(), [(0, delivered(0))]);
}
