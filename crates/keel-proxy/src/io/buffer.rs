//! Buffers that go back when a connection idles.

use std::cell::RefCell;

/// The size of a pooled buffer. Holds a large head, or four response buffers of nginx's default size.
pub(crate) const BUFFER_BYTES: usize = 16 << 10;

/// Buffers that one worker keeps for reuse; beyond it they are freed.
const POOLED_MAX: usize = 1024;

/// One worker's free buffers, last in first out so that the ones in use are warm.
#[derive(Default)]
pub(crate) struct BufferPool {
    free: RefCell<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// Borrows an empty buffer of [`BUFFER_BYTES`].
    pub(crate) fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back. One that has grown is freed, as is the placeholder that never held anything.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.capacity() == BUFFER_BYTES && free.len() < POOLED_MAX {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuses_only_what_has_its_size() {
        let pool = BufferPool::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"secret");
        let place = buffer.as_ptr();
        pool.give(buffer);
        pool.give(Vec::new());
        pool.give(Vec::with_capacity(2 * BUFFER_BYTES));
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(pool.free.borrow().is_empty());
    }
}
