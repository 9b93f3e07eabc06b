//! Chooses a record's partition.
//!
//! Rules:
//!  - A key always maps to the partition that Kafka's Java client chooses for it.
//!  - An empty key is a key. A null key is none.
//!  - Random numbers and the partitions with a leader are arguments.

/// Returns the murmur2 hash of `key` as Kafka's `Utils.murmur2` computes it: 32 bits, seed 0x9747b28c.
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

/// Returns a key's partition among `partitions`, as the Java client's `BuiltInPartitioner.partitionForKey` does.
/// Numbers below one count as one.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

/// Chooses partitions for records without a key: one partition for a batch's worth of bytes, then another (KIP-480,
/// KIP-794).
#[derive(Clone, Debug)]
pub struct Sticky {
    batch_bytes: usize,
    current: Option<i32>,
    sent: usize,
}

impl Sticky {
    /// Creates a chooser that stays on a partition for `batch_bytes` bytes.
    #[must_use]
    pub fn new(batch_bytes: usize) -> Self {
        Self { batch_bytes, current: None, sent: 0 }
    }

    /// Returns the partition for the next record, which takes `bytes`, or `None` if there are no partitions.
    /// `available` lists the partitions with a leader in rising order. If the list is empty, all `partitions` are
    /// candidates. `random` is called once whenever the partition changes.
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

    /// Moves on to another partition because the batch of `partition` was sealed. This avoids batches of one record.
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

/// Returns a random candidate. Returns the old partition only if it is the single candidate.
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
    fn murmur2_matches_kafkas_vectors() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        assert_eq!(murmur2(b"21"), -973_932_308);
        assert_eq!(murmur2(b"foobar"), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971);
        assert_eq!(murmur2(b"abc"), 479_470_107);
    }

    #[test]
    fn invalid_partition_count_is_one() {
        assert_eq!(partition_for_key(b"k", 0), 0);
        assert_eq!(partition_for_key(b"k", -3), 0);
        assert_eq!(partition_for_key(b"k", 1), 0);
    }

    #[test]
    fn partition_changes_after_batch_bytes() {
        let mut sticky = Sticky::new(300);
        let first = sticky.pick(100, 3, &[], || 1);
        assert_eq!(first, Some(1));
        assert_eq!(sticky.pick(100, 3, &[], || panic!("must not draw a number")), first);
        assert_eq!(sticky.pick(100, 3, &[], || panic!("must not draw a number")), first);
        assert_eq!(sticky.pick(100, 3, &[], || 0), Some(0));
    }

    #[test]
    fn next_partition_always_differs() {
        for random in 0..12 {
            let mut sticky = Sticky::new(1);
            let first = sticky.pick(1, 4, &[], || random);
            let second = sticky.pick(1, 4, &[], || random);
            assert!(first.is_some() && second.is_some() && first != second, "{random}");
        }
    }

    #[test]
    fn every_other_partition_is_possible() {
        for available in [&[][..], &[1, 3, 4, 9]] {
            let mut drawn: Vec<_> = (0..3).filter_map(|random| another(Some(1), 4, available, random)).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, if available.is_empty() { [0, 2, 3] } else { [3, 4, 9] });
        }
    }

    #[test]
    fn partition_without_leader_is_skipped() {
        let mut sticky = Sticky::new(1000);
        assert_eq!(sticky.pick(1, 4, &[0, 2], || 1), Some(2));
        assert_eq!(sticky.pick(1, 4, &[0, 3], || 1), Some(3));
        assert_eq!(sticky.pick(1, 4, &[0], || 7), Some(0));
    }

    #[test]
    fn single_partition_is_kept() {
        let mut sticky = Sticky::new(1);
        assert_eq!(sticky.pick(9, 1, &[], || 5), Some(0));
        assert_eq!(sticky.pick(9, 1, &[0], || 5), Some(0));
        assert_eq!(sticky.pick(9, 0, &[], || 5), None);
    }

    #[test]
    fn sealed_batch_ends_own_turn() {
        let mut sticky = Sticky::new(1000);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(0));
        sticky.batch_sealed(1);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(0));
        sticky.batch_sealed(0);
        assert_eq!(sticky.pick(1, 2, &[], || 0), Some(1));
    }
}
