//! How many bytes requests under way may hold together.
//!
//! A request takes what its body has, or will have, and what it says it decodes to, before that
//! memory is allocated. What does not fit is refused at once, so that senders wait on their side
//! and the node's memory stays bounded; nothing queues for room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use metrics::{Counter, Gauge, counter, gauge};

use crate::answer::WriteError;

/// The bytes that requests under way may hold.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    taken: AtomicUsize,
    in_flight: Gauge,
    refused: Counter,
}

/// Bytes that one request holds; given back when dropped.
#[derive(Debug)]
pub struct AdmittedBytes {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        gauge!("weir_write_bytes_in_flight_limit").set(limit as f64);
        Arc::new(Self {
            limit,
            taken: AtomicUsize::new(0),
            in_flight: gauge!("weir_write_bytes_in_flight"),
            refused: counter!("weir_write_admission_refused_total"),
        })
    }

    /// Begins a request that holds nothing yet.
    pub fn begin(self: &Arc<Self>) -> AdmittedBytes {
        AdmittedBytes { admission: self.clone(), bytes: 0 }
    }

    /// Bytes taken now.
    pub fn in_flight(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl AdmittedBytes {
    /// Takes `more` bytes, or fails at once with [`WriteError::Overloaded`] and takes none.
    pub fn take(&mut self, more: usize) -> Result<(), WriteError> {
        let admission = &self.admission;
        let fits = |taken: usize| taken.checked_add(more).filter(|sum| *sum <= admission.limit);
        // Only a count is guarded, so no order with other memory is needed.
        if admission.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            admission.refused.increment(1);
            return Err(WriteError::Overloaded { wanted: more, limit: admission.limit });
        }
        admission.in_flight.increment(more as f64);
        self.bytes += more;
        Ok(())
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for AdmittedBytes {
    fn drop(&mut self) {
        self.admission.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.in_flight.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_exact_at_the_limit() {
        let admission = Admission::new(10);
        let (mut first, mut second) = (admission.begin(), admission.begin());
        first.take(4).unwrap();
        second.take(6).unwrap();
        assert_eq!(admission.in_flight(), 10);
        let refused = first.take(1).unwrap_err();
        assert!(matches!(refused, WriteError::Overloaded { wanted: 1, limit: 10 }), "{refused}");
        first.take(0).unwrap();
        assert_eq!(first.bytes(), 4, "what is refused is not taken");
        drop(second);
        assert_eq!(admission.in_flight(), 4);
        assert!(first.take(7).is_err());
        first.take(6).unwrap();
        assert!(first.take(usize::MAX).is_err(), "no overflow");
        drop(first);
        assert_eq!(admission.in_flight(), 0);
    }
}
