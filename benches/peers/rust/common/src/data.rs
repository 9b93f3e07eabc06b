//! The data, byte for byte the same as in the other generators.

/// Returns the pool of `n` values of `size` bytes.
pub fn values(size: usize, n: usize) -> Vec<Vec<u8>> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut state: u64 = 42;
    let mut letter = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        LETTERS[((z >> 33) % 62) as usize]
    };
    let mut value = |i: usize| {
        // The exact capacity. Spare capacity from doubling would count as the client's memory.
        let mut value = Vec::with_capacity(size.max(64));
        value.extend_from_slice(format!("{{\"id\":{i:08},\"type\":\"click\",\"data\":\"").as_bytes());
        while value.len() + 2 < size {
            value.push(letter());
        }
        value.extend_from_slice(b"\"}");
        value.truncate(size);
        value
    };
    (0..n).map(&mut value).collect()
}

pub fn keys(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| format!("key-{i}").into_bytes()).collect()
}

/// Returns the index of the value of message `i`. The index shifts against the key with each pass over the pool.
pub fn value_index(i: u64, n: usize) -> usize {
    ((i + 337 * (i / n as u64)) % n as u64) as usize
}

/// Returns the murmur2 hash of Kafka's Java client, for a client that chooses no partitions.
pub fn murmur2(data: &[u8]) -> u32 {
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
    h ^ (h >> 15)
}
