//! Tests of the bytes of entries.

use super::*;

fn one_of_each() -> Vec<Entry> {
    let partition = Partition { topic: TopicNumber(2), index: 7 };
    let (first, end) = (Ordinal(3), Ordinal(9));
    let stamp = Stamp { producer_id: 5, epoch: 1, base_sequence: 17 };
    let batch = BatchHead { partition, life: Life(1), first, count: 6, notes: (*b"notes").into() };
    let topic = Topic { number: TopicNumber(2), name: "orders".into(), id: [4; 16], partitions: 12 };
    let mut items = ItemSet { check: u64::MAX, ..ItemSet::default() };
    [3, 4, 9].iter().for_each(|number| items.insert(Ordinal(*number), 7));
    let (key, payload, at_ms, ordinal) = ([1; 16], [2; 16], 1 << 40, Ordinal(3));
    let key = RecordKey { key, payload, at_ms, partition, ordinal, index: 0, count: 2 };
    vec![
        Entry::Cluster("cluster".into()),
        Entry::Topic(topic),
        Entry::Batch(JournalBatch { head: batch, bytes: (*b"batch").into() }),
        Entry::Begin { partition, life: Life(1), from: first },
        Entry::Move { partition, from: first, stamp, skips: vec![(Ordinal(4), end)] },
        Entry::Anchor { partition, stamp, skips: vec![(first, Ordinal(4)), (Ordinal(5), end)], has_out: true },
        Entry::Out { partition, first, end, why: OutReason::Lost },
        Entry::Mark { partition, settled: end, end_offset: -1 },
        Entry::Base(Base { resumes: FrameSequence(3), first: FrameSequence(7), last: FrameSequence(8) }),
        Entry::End { partition, end },
        Entry::Input { input: InputNumber(3), name: "/data/events".into() },
        Entry::Items { input: InputNumber(3), items },
        Entry::Leader { partition, epoch: 4 },
        Entry::Keys { forget_before_ms: 600, keys: vec![key, RecordKey { index: 1, ..key }] },
    ]
}

fn encoded(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes
}

/// Reads entries, batches included.
fn decoded(bytes: &[u8]) -> Result<Vec<Entry>, EntryDecodeError> {
    let entry = |entry| match entry {
        DecodedEntry::Control(entry) => entry,
        DecodedEntry::Batch { head, body } => {
            let batch = decode_batch(&bytes[body]).unwrap();
            assert_eq!(batch.head, head);
            Entry::Batch(batch)
        }
    };
    Ok(decode_all(bytes)?.into_iter().map(entry).collect())
}

#[test]
fn entries_read_back() {
    let entries = one_of_each();
    assert_eq!(decoded(&encoded(&entries)), Ok(entries));
}

#[test]
fn damaged_batch_is_not_read() {
    let batch = one_of_each().remove(2);
    let bytes = encoded(&[batch]);
    for bit in 5 * 8..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_batch(&damaged[5..]), None, "bit {bit}");
    }
}

#[test]
fn every_shorter_body_is_malformed() {
    for entry in one_of_each() {
        // A text, the bytes of a batch and a list of ranges may end early.
        let (fixed, step) = match &entry {
            Entry::Cluster(_) => continue,
            Entry::Topic(topic) => (topic.name.len(), 1),
            Entry::Input { name, .. } => (name.len(), 1),
            Entry::Batch(batch) => (batch.bytes.len(), 1),
            Entry::Move { skips, .. } | Entry::Anchor { skips, .. } => (skips.len() * 16, 16),
            Entry::Items { items, .. } => (items.numbers.iter().count() * 16, 16),
            Entry::Keys { keys, .. } => (keys.len() * RECORD_KEY_BYTES, RECORD_KEY_BYTES),
            _ => (0, 1),
        };
        let whole = encoded(&[entry]);
        for length in 5..whole.len() {
            let is_whole = length >= whole.len() - fixed && (whole.len() - length).is_multiple_of(step);
            let mut bytes = whole[..length].to_vec();
            bytes[1..5].copy_from_slice(&(length as u32 - 5).to_le_bytes());
            let malformed = Err(EntryDecodeError::Malformed(whole[0]));
            assert_eq!(decode_all(&bytes) == malformed, !is_whole, "{length} bytes of {whole:?}");
        }
    }
}

#[test]
fn key_beyond_its_request_is_malformed() {
    let mut bytes = encoded(&one_of_each()[13..]);
    assert!(decode_all(&bytes).is_ok());
    let index_at = bytes.len() - 8;
    bytes[index_at] = 2;
    assert_eq!(decode_all(&bytes), Err(EntryDecodeError::Malformed(14)));
}

#[test]
fn unknown_kinds_skip_or_refuse() {
    let skipped = [200, 2, 0, 0, 0, 1, 2];
    assert_eq!(decode_all(&skipped), Ok(vec![]));
    assert_eq!(decode_all(&[100, 0, 0, 0, 0]), Err(EntryDecodeError::UnknownKind(100)));
}

#[test]
fn length_of_keys_is_exact() {
    let keys = one_of_each().pop().unwrap();
    assert_eq!((keys_len(0), keys_len(2)), (0, encoded(&[keys]).len()));
}
