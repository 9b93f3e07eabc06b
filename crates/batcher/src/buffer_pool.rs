//! Big buffers, kept for their next use: a fresh 1 MiB buffer costs 256 page faults.
//!
//! Rules: capacities are powers of two from 512 bytes; what is kept never exceeds the bound given at the start;
//! a buffer that comes back pushes out only buffers of a size that holds more bytes than its own.

use parking_lot::Mutex;

/// The smallest capacity handed out, bytes.
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
    /// A pool that keeps at most `retained_max` bytes of free buffers; 0 keeps none.
    #[must_use]
    pub fn new(retained_max: usize) -> Self {
        let shelves = Shelves { retained: 0, by_class: std::array::from_fn(|_| Vec::new()) };
        Self { retained_max, shelves: Mutex::new(shelves) }
    }

    /// The capacity that [`get`](Self::get) answers to a wish for `capacity` bytes: the next power of two, at least 512.
    #[must_use]
    pub const fn class_of(capacity: usize) -> usize {
        match capacity.checked_next_power_of_two() {
            Some(class) if class > MIN_CAPACITY => class,
            Some(_) => MIN_CAPACITY,
            None => capacity,
        }
    }

    /// An empty buffer whose capacity is exactly [`class_of`](Self::class_of)`(capacity)`.
    #[must_use]
    pub fn get(&self, capacity: usize) -> Vec<u8> {
        let class = Self::class_of(capacity);
        self.shelves.lock().take(class).unwrap_or_else(|| Vec::with_capacity(class))
    }

    /// Takes a buffer back. One whose capacity is no size of this pool, or for which there is no room, is freed.
    pub fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let refused = self.shelves.lock().keep(buffer, self.retained_max);
        // Freed outside the lock: giving a big buffer back to the system takes a while.
        drop(refused);
    }

    /// Bytes of free buffers held now.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.shelves.lock().retained
    }

    /// Moves the content to a smaller buffer if that is at least `classes` sizes smaller.
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

    /// Answers what must be freed: nothing, the buffer itself, or others in its place.
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

/// The shelf for buffers of exactly this capacity.
fn index(capacity: usize) -> Option<usize> {
    let class = capacity.trailing_zeros().checked_sub(MIN_SHIFT)? as usize;
    (capacity.is_power_of_two() && class < CLASSES).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_exactly_the_capacity_of_its_class() {
        let pool = BufferPool::new(0);
        for (asked, got) in [(0, 512), (1, 512), (512, 512), (513, 1024), (1_000_000, 1 << 20), (1 << 20, 1 << 20)] {
            assert_eq!(pool.get(asked).capacity(), got);
            assert_eq!(BufferPool::class_of(asked), got);
        }
    }

    #[test]
    fn a_buffer_given_back_is_handed_out_again_empty() {
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
    fn what_is_kept_never_exceeds_the_bound() {
        let pool = BufferPool::new(3000);
        for size in [512, 4096, 1024, 2048, 512, 512, 1024, 2048] {
            pool.put(Vec::with_capacity(size));
            assert!(pool.retained() <= 3000, "{} after {size}", pool.retained());
        }
    }

    #[test]
    fn sizes_that_are_no_longer_used_make_room_for_those_that_are() {
        let pool = BufferPool::new(8192);
        (0..16).for_each(|_| pool.put(Vec::with_capacity(512)));
        assert_eq!(pool.retained(), 8192);
        pool.put(Vec::with_capacity(4096));
        let big = pool.get(4096);
        assert_eq!((big.capacity(), pool.retained()), (4096, 4096));
    }

    #[test]
    fn a_buffer_of_an_odd_size_is_not_kept() {
        let pool = BufferPool::new(1 << 20);
        pool.put(Vec::with_capacity(1000));
        pool.put(Vec::new());
        pool.put(Vec::with_capacity(256));
        assert_eq!(pool.retained(), 0);
    }

    #[test]
    fn content_moves_only_to_a_buffer_small_enough() {
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
