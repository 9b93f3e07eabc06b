//! Keeps large buffers for reuse: a fresh 1 MiB buffer costs 256 page faults.
//!
//! Rules:
//!  - Capacities are powers of two, at least 512 bytes.
//!  - The retained bytes never exceed the pool's bound.
//!  - A returned buffer evicts only buffers of a size class that retains more bytes than its own class.

use parking_lot::Mutex;

/// Smallest capacity of a buffer, in bytes.
const MIN_CAPACITY: usize = 512;
const MIN_SHIFT: u32 = MIN_CAPACITY.trailing_zeros();
/// Size classes from 512 B to 1 GiB.
const CLASSES: usize = 22;

/// Free buffers in power-of-two sizes, shared by all threads.
#[derive(Debug)]
pub struct BufferPool {
    retained_max: usize,
    shelves: Mutex<Shelves>,
}

#[derive(Debug)]
struct Shelves {
    retained: usize,
    by_class: [Vec<Vec<u8>>; CLASSES],
}

impl BufferPool {
    /// Creates a pool that retains at most `retained_max` bytes of free buffers. 0 retains none.
    #[must_use]
    pub fn new(retained_max: usize) -> Self {
        let shelves = Shelves { retained: 0, by_class: std::array::from_fn(|_| Vec::new()) };
        Self { retained_max, shelves: Mutex::new(shelves) }
    }

    /// Returns the capacity that [`get`](Self::get) gives for `capacity`: the next power of two, at least 512 bytes.
    #[must_use]
    pub const fn class_of(capacity: usize) -> usize {
        match capacity.checked_next_power_of_two() {
            Some(class) if class > MIN_CAPACITY => class,
            Some(_) => MIN_CAPACITY,
            None => capacity,
        }
    }

    /// Returns an empty buffer whose capacity is exactly [`class_of`](Self::class_of)`(capacity)`.
    #[must_use]
    pub fn get(&self, capacity: usize) -> Vec<u8> {
        let class = Self::class_of(capacity);
        self.shelves.lock().take(class).unwrap_or_else(|| Vec::with_capacity(class))
    }

    /// Returns a buffer to the pool. The buffer is freed if its capacity is no size class or the pool has no room for
    /// it.
    pub fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let refused = self.shelves.lock().keep(buffer, self.retained_max);
        // Freed outside the lock: returning a large buffer to the system is slow.
        drop(refused);
    }

    /// Returns the bytes of free buffers that the pool retains.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.shelves.lock().retained
    }

    /// Moves the content to a smaller buffer if that buffer is at least `classes` size classes smaller.
    pub(crate) fn fit(&self, buffer: Vec<u8>, classes: u32) -> Vec<u8> {
        let class = Self::class_of(buffer.len());
        if class > buffer.capacity() >> classes {
            return buffer;
        }
        let mut smaller = self.get(class);
        smaller.extend_from_slice(&buffer);
        self.put(buffer);
        smaller
    }
}

impl Shelves {
    fn take(&mut self, class: usize) -> Option<Vec<u8>> {
        let buffer = self.by_class.get_mut(index(class)?)?.pop()?;
        self.retained -= buffer.capacity();
        Some(buffer)
    }

    /// Stores `buffer` and returns the buffers to free: none, `buffer` itself, or the evicted buffers.
    fn keep(&mut self, buffer: Vec<u8>, retained_max: usize) -> Vec<Vec<u8>> {
        let size = buffer.capacity();
        let mut freed = Vec::new();
        let Some(own) = index(size).filter(|_| size <= retained_max) else {
            return vec![buffer];
        };
        let own_bytes = self.bytes(own);
        while self.retained + size > retained_max {
            let fullest = (0..CLASSES).max_by_key(|&class| self.bytes(class)).unwrap_or(own);
            if self.bytes(fullest) <= own_bytes {
                freed.push(buffer);
                return freed;
            }
            let popped = self.by_class.get_mut(fullest).and_then(Vec::pop);
            self.retained -= popped.as_ref().map_or(0, Vec::capacity);
            freed.extend(popped);
        }
        self.retained += size;
        if let Some(shelf) = self.by_class.get_mut(own) {
            shelf.push(buffer);
        }
        freed
    }

    fn bytes(&self, class: usize) -> usize {
        let count = self.by_class.get(class).map_or(0, Vec::len);
        count << (class + MIN_SHIFT as usize)
    }
}

/// Returns the index of the size class for buffers of exactly this capacity.
fn index(capacity: usize) -> Option<usize> {
    let class = capacity.trailing_zeros().checked_sub(MIN_SHIFT)? as usize;
    (capacity.is_power_of_two() && class < CLASSES).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_capacity_equals_its_class() {
        let pool = BufferPool::new(0);
        for (asked, got) in [(0, 512), (1, 512), (512, 512), (513, 1024), (1_000_000, 1 << 20), (1 << 20, 1 << 20)] {
            assert_eq!(pool.get(asked).capacity(), got);
            assert_eq!(BufferPool::class_of(asked), got);
        }
    }

    #[test]
    fn returned_buffer_is_reused_empty() {
        let pool = BufferPool::new(4096);
        let mut buffer = pool.get(1024);
        buffer.extend_from_slice(b"left over");
        let address = buffer.as_ptr();
        pool.put(buffer);
        assert_eq!(pool.retained(), 1024);
        let again = pool.get(600);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert_eq!(pool.retained(), 0);
    }

    #[test]
    fn retained_bytes_stay_within_bound() {
        let pool = BufferPool::new(3000);
        for size in [512, 4096, 1024, 2048, 512, 512, 1024, 2048] {
            pool.put(Vec::with_capacity(size));
            assert!(pool.retained() <= 3000, "{} after {size}", pool.retained());
        }
    }

    #[test]
    fn unused_sizes_make_room() {
        let pool = BufferPool::new(8192);
        (0..16).for_each(|_| pool.put(Vec::with_capacity(512)));
        assert_eq!(pool.retained(), 8192);
        pool.put(Vec::with_capacity(4096));
        let big = pool.get(4096);
        assert_eq!((big.capacity(), pool.retained()), (4096, 4096));
    }

    #[test]
    fn odd_capacity_is_not_retained() {
        let pool = BufferPool::new(1 << 20);
        pool.put(Vec::with_capacity(1000));
        pool.put(Vec::new());
        pool.put(Vec::with_capacity(256));
        assert_eq!(pool.retained(), 0);
    }

    #[test]
    fn fit_needs_enough_classes() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.get(4096);
        buffer.extend_from_slice(&[7; 1500]);
        let same = pool.fit(buffer, 2);
        assert_eq!(same.capacity(), 4096);
        let moved = pool.fit(same, 1);
        assert_eq!((moved.capacity(), moved.as_slice()), (2048, &[7; 1500][..]));
        assert_eq!(pool.retained(), 4096);
    }
}
