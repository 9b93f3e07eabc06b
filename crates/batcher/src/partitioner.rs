//! Which partition a record goes to.
//!
//! Rules: a key goes where Kafka's Java client sends it, for ever; an empty key is a key, a null one is none; randomness
//! and the partitions that have a leader are handed in.

/// Murmur2 as in Kafka's `Utils.murmur2`: 32 bits, seed 0x9747b28c.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        h = (h ^ last).wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

/// The partition of a key among `partitions`, as in the Java client's `BuiltInPartitioner.partitionForKey`. Fewer than
/// one partition count as one.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

/// Partitions for records without key: one partition until a batch's worth has gone there, then another (KIP-480,
/// KIP-794).
#[derive(Clone, Debug)]
pub struct Sticky {
    batch_bytes: usize,
    current: Option<i32>,
    sent: usize,
}

impl Sticky {
    /// `batch_bytes` is what a partition gets before it is another's turn.
    #[must_use]
    pub fn new(batch_bytes: usize) -> Self {
        Self { batch_bytes, current: None, sent: 0 }
    }

    /// The partition for the next record, which takes `bytes`. `available` are the partitions that have a leader, in
    /// rising order; if it is empty all `partitions` count. `random` is asked for one number when the partition changes.
    /// `None`: there are no partitions.
    pub fn pick(
        &mut self,
        bytes: usize,
        partitions: i32,
        available: &[i32],
        random: impl FnOnce() -> u64,
    ) -> Option<i32> {
        let stays =
            self.current.filter(|&current| self.sent < self.batch_bytes && is_choice(current, partitions, available));
        if stays.is_none() {
            self.current = another(self.current, partitions, available, random());
            self.sent = 0;
        }
        self.sent = self.sent.saturating_add(bytes);
        self.current
    }

    /// The batch of `partition` was sealed: the next record goes to another, so that none is left behind alone in a batch.
    pub fn batch_sealed(&mut self, partition: i32) {
        if self.current == Some(partition) {
            self.sent = self.batch_bytes;
        }
    }
}

fn is_choice(partition: i32, partitions: i32, available: &[i32]) -> bool {
    match available {
        [] => (0..partitions).contains(&partition),
        some => some.binary_search(&partition).is_ok(),
    }
}

/// One of the choices at random, the old one only if there is no other.
fn another(old: Option<i32>, partitions: i32, available: &[i32], random: u64) -> Option<i32> {
    let old_place = old.and_then(|old| match available {
        [] => usize::try_from(old).ok().filter(|_| old < partitions),
        some => some.binary_search(&old).ok(),
    });
    let choices = match available {
        [] => usize::try_from(partitions).unwrap_or(0),
        some => some.len(),
    };
    let others = choices - usize::from(old_place.is_some() && choices > 1);
    let drawn = random.checked_rem(others as u64)? as usize;
    let skip = old_place.is_some_and(|place| choices > 1 && drawn >= place);
    let place = drawn + usize::from(skip);
    match available {
        [] => i32::try_from(place).ok(),
        some => some.get(place).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_matches_the_vectors_in_kafkas_own_tests() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        assert_eq!(murmur2(b"21"), -973_932_308);
        assert_eq!(murmur2(b"foobar"), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971);
        assert_eq!(murmur2(b"abc"), 479_470_107);
    }

    #[test]
    fn an_impossible_number_of_partitions_is_one() {
        assert_eq!(partition_for_key(b"k", 0), 0);
        assert_eq!(partition_for_key(b"k", -3), 0);
        assert_eq!(partition_for_key(b"k", 1), 0);
    }

    #[test]
    fn records_stay_until_a_batchs_worth_has_gone() {
        let mut sticky = Sticky::new(300);
        let first = sticky.pick(100, 3, &[], || 1);
        assert_eq!(first, Some(1));
        assert_eq!(sticky.pick(100, 3, &[], || panic!("no number is needed")), first);
        assert_eq!(sticky.pick(100, 3, &[], || panic!("no number is needed")), first);
        assert_eq!(sticky.pick(100, 3, &[], || 0), Some(0));
    }

    #[test]
    fn the_next_partition_is_another_one_whatever_is_drawn() {
        for random in 0..12 {
            let mut sticky = Sticky::new(1);
            let first = sticky.pick(1, 4, &[], || random);
            let second = sticky.pick(1, 4, &[], || random);
            assert!(first.is_some() && second.is_some() && first != second, "{random}");
        }
    }

    #[test]
    fn every_other_partition_can_be_drawn() {
        for available in [&[][..], &[1, 3, 4, 9]] {
            let mut drawn: Vec<_> = (0..3).filter_map(|random| another(Some(1), 4, available, random)).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, if available.is_empty() { [0, 2, 3] } else { [3, 4, 9] });
        }
    }

    #[test]
    fn a_partition_without_leader_is_left_at_once_and_not_chosen() {
        let mut sticky = Sticky::new(1000);
        assert_eq!(sticky.pick(1, 4, &[0, 2], || 1), Some(2));
        assert_eq!(sticky.pick(1, 4, &[0, 3], || 1), Some(3));
        assert_eq!(sticky.pick(1, 4, &[0], || 7), Some(0));
    }

    #[test]
    fn a_single_partition_is_used_for_ever_and_none_is_none() {
        let mut sticky = Sticky::new(1);
        assert_eq!(sticky.pick(9, 1, &[], || 5), Some(0));
        assert_eq!(sticky.pick(9, 1, &[0], || 5), Some(0));
        assert_eq!(sticky.pick(9, 0, &[], || 5), None);
    }

    #[test]
    fn a_sealed_batch_ends_the_turn_of_its_own_partition_only() {
        let mut sticky = Sticky::new(1000);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(0));
        sticky.batch_sealed(1);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(0));
        sticky.batch_sealed(0);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(1));
    }
}
