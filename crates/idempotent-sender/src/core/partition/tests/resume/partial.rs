//! Batches of an earlier process that are submitted a few at a time.

use super::*;

impl PartitionBench {
    /// Submits the batch of one record with this number, and the same sequence number.
    fn inherit_one(&mut self, number: u64, follows_unknown: bool) {
        let stamp = inherited(number as i32);
        let inherited = Some(InheritedStamp {
            stamp,
            search_from: None,
            is_acknowledged: false,
            follows_unknown,
            leader_epoch: None,
        });
        self.submit_stored(number, 1, Some(StoredBatch { first: number, topic: 0, life: 1, inherited }));
    }

    /// Returns whether the partition has asked for more batches since the last call.
    fn asked_for_more(&mut self) -> bool {
        let before = self.out.actions.len();
        self.out.actions.retain(|action| !matches!(action, Action::More(_)));
        self.out.actions.len() < before
    }
}

#[test]
fn leader_ahead_asks_for_more() {
    let mut bench = PartitionBench::new(Config::default());
    (0..2).for_each(|number| bench.inherit_one(number, false));
    bench.ask(state(2, 4));
    assert!(bench.asked_for_more(), "the leader recognizes no repeat of batch 1 but that of batch 4");
    (2..6).for_each(|number| bench.inherit_one(number, false));
    bench.now += Duration::from_secs(1);
    bench.ask(state(2, 4));
    assert!(!bench.asked_for_more());
    let repeated = bench.send().unwrap();
    assert_eq!(repeated.1, inherited(4));
    bench.accept(repeated, 54);
    let verdicts = bench.verdicts();
    assert_eq!((verdicts.len(), verdicts.last()), (5, Some(&(4, delivered(54)))));
}

#[test]
fn requests_for_lost_batches_end() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit_one(0, false);
    let mut asked = 0;
    for _ in 0..20 {
        bench.ask(state(2, 4));
        match bench.asked_for_more() {
            true => asked += 1,
            false => break,
        }
        bench.now += Duration::from_secs(60);
    }
    assert!((2..20).contains(&asked), "{asked}");
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.send().unwrap().1, inherited(0), "the batch is repeated as the last one");
}

#[test]
fn later_batches_share_the_answer() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit_one(0, false);
    bench.ask_without_log();
    let first = bench.send().unwrap();
    bench.inherit_one(1, false);
    bench.accept(first, 50);
    assert_eq!(bench.send().map(|(_, stamp)| stamp), Some(inherited(1)), "the leader lacks all of them");
}

#[test]
fn batch_behind_restamped_ones_keeps_order() {
    let mut bench = PartitionBench::new(Config::default());
    (4..6).for_each(|number| bench.submit_at(number - 4, number));
    bench.ask(state(2, 1));
    bench.submit_at(2, 6);
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((4, own(0, 0))));
    for expected in 0..4 {
        if expected == 3 {
            // The durable log gives the batch a stamp of the same run.
            bench.submit_at(3, 7);
        }
        let sent = bench.send().unwrap();
        assert_eq!(sent.1, own(0, expected), "in order, under this process's id");
        bench.accept(sent, 50 + i64::from(expected));
    }
}

impl PartitionBench {
    /// Submits the batch of one record with this sequence number.
    fn submit_at(&mut self, ordinal: u64, number: u64) {
        let stamp = inherited(number as i32);
        let (search_from, is_acknowledged, follows_unknown) = (None, false, false);
        let inherited =
            Some(InheritedStamp { stamp, search_from, is_acknowledged, follows_unknown, leader_epoch: None });
        self.submit_stored(ordinal, 1, Some(StoredBatch { first: number, topic: 0, life: 1, inherited }));
    }
}

#[test]
fn doubt_reaches_batches_submitted_later() {
    let may_arrive = |bench: &PartitionBench| -> Vec<bool> {
        bench.partition.window.iter().map(|flight| flight.may_arrive).collect()
    };
    let mut whole = PartitionBench::new(Config::default());
    (0..8).for_each(|number| whole.inherit_one(number, true));
    assert_eq!(may_arrive(&whole), [true, true, true, true, true, false, false, false]);
    let mut partial = PartitionBench::new(Config::default());
    for number in 0..8 {
        partial.inherit_one(number, true);
        if number == 2 {
            partial.ask_without_log();
            let sent = partial.send().unwrap();
            partial.accept(sent, 50);
        }
    }
    let left = may_arrive(&partial);
    assert_eq!(left.iter().filter(|may_arrive| **may_arrive).count(), 4, "{left:?}");
}
