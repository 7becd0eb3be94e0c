//! Buffers that are used again, so that a request does not pay for memory the one before already
//! had.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::Mutex;

/// What can be kept for the next request.
pub trait Recycle: Default {
    /// Forgets the content, and gives memory back that only an unusually large request needs.
    fn recycle(&mut self);
}

/// Keeps a bounded number of idle values.
#[derive(Debug)]
pub struct Pool<T> {
    idle: Mutex<Vec<T>>,
    idle_max: usize,
}

impl<T: Recycle> Pool<T> {
    /// A pool that keeps at most `idle_max` values.
    pub fn new(idle_max: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::new(Vec::with_capacity(idle_max)), idle_max })
    }

    /// An idle value, or a new one.
    pub fn take(self: &Arc<Self>) -> Pooled<T> {
        let value = self.idle.lock().pop().unwrap_or_default();
        Pooled { value, pool: self.clone() }
    }

    /// Number of idle values.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}

/// A value that goes back to its pool when dropped.
#[derive(Debug)]
pub struct Pooled<T: Recycle> {
    value: T,
    pool: Arc<Pool<T>>,
}

impl<T: Recycle> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Recycle> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Recycle> Drop for Pooled<T> {
    fn drop(&mut self) {
        // After a panic the value may be in any state.
        if std::thread::panicking() {
            return;
        }
        let mut value = std::mem::take(&mut self.value);
        value.recycle();
        let mut idle = self.pool.idle.lock();
        if idle.len() < self.pool.idle_max {
            idle.push(value);
        }
    }
}

/// A buffer for a body as it comes from the network.
#[derive(Debug, Default)]
pub struct BodyBuffer(pub Vec<u8>);

/// Capacity up to which a body buffer is kept. Usual bodies have tens of kilobytes.
const BODY_BYTES_KEPT: usize = 1 << 20;

impl Recycle for BodyBuffer {
    fn recycle(&mut self) {
        self.0.clear();
        if self.0.capacity() > BODY_BYTES_KEPT {
            self.0 = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_bounded_number_and_no_giants() {
        let pool: Arc<Pool<BodyBuffer>> = Pool::new(1);
        let (mut first, second) = (pool.take(), pool.take());
        first.0.extend_from_slice(b"abc");
        let address = first.0.as_ptr();
        drop(first);
        drop(second);
        assert_eq!(pool.idle(), 1);
        let mut again = pool.take();
        assert_eq!((again.0.as_ptr(), again.0.len()), (address, 0), "the same memory, without content");
        again.0.reserve(BODY_BYTES_KEPT + 1);
        drop(again);
        assert_eq!(pool.take().0.capacity(), 0);
    }
}
