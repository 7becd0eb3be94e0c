//! Fewer system calls for whoever walks through neighbours in a file.

use std::io;

use crate::fs::ReadFile;

/// First read at a new place.
const WINDOW_BYTES_MIN: usize = 2 << 10;

/// Longest read ahead.
const WINDOW_BYTES_MAX: usize = 128 << 10;

/// A piece of one file in memory. A read near the last one makes the next piece twice as long, a
/// jump makes it short again: so a walk costs few system calls, and one look-up few bytes.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    data: Vec<u8>,
    /// Where `data` begins in the file.
    offset: u64,
    window: usize,
}

impl ReadAhead {
    /// The bytes of `file` from `offset` on: at least `least`, or all up to the end of the file.
    /// Must be asked for the same file always; or call [`ReadAhead::forget`].
    pub(crate) fn get(&mut self, file: &dyn ReadFile, offset: u64, least: usize) -> io::Result<&[u8]> {
        if !self.holds(offset, least) {
            let end = self.offset + self.data.len() as u64;
            let is_near = !self.data.is_empty()
                && offset >= self.offset
                && offset <= end.saturating_add(self.window as u64);
            self.window = if is_near { self.window * 2 } else { WINDOW_BYTES_MIN };
            self.window = self.window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
            let len = self.window.max(least);
            self.data.resize(len, 0);
            let read = file.read_at(&mut self.data, offset);
            self.data.truncate(*read.as_ref().unwrap_or(&0));
            self.offset = offset;
            read?;
        }
        let start = (offset - self.offset) as usize;
        Ok(self.data.get(start..).unwrap_or_default())
    }

    fn holds(&self, offset: u64, least: usize) -> bool {
        let end = self.offset + self.data.len() as u64;
        offset >= self.offset && offset.checked_add(least as u64).is_some_and(|needed| needed <= end)
    }

    /// Drops what is in memory, because another file comes now.
    pub(crate) fn forget(&mut self) {
        self.data.clear();
        self.window = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug)]
    struct CountingFile {
        data: Vec<u8>,
        reads: AtomicUsize,
    }

    impl ReadFile for CountingFile {
        fn size(&self) -> io::Result<u64> {
            Ok(self.data.len() as u64)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let rest = self.data.get(offset as usize..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    #[test]
    fn a_walk_takes_few_reads_and_a_jump_reads_little() {
        let data: Vec<u8> = (0..1_000_000u32).map(|index| (index / 7) as u8).collect();
        let file = CountingFile { data, reads: AtomicUsize::new(0) };
        let mut ahead = ReadAhead::default();
        for offset in (0..1_000_000 - 100).step_by(100) {
            let got = ahead.get(&file, offset, 100).expect("no error");
            assert_eq!(got[..100], file.data[offset as usize..][..100]);
        }
        assert!(file.reads.load(Ordering::Relaxed) < 16, "{file:?}");
        // Back to the start: a short window again.
        assert_eq!(ahead.get(&file, 0, 1).expect("no error").len(), WINDOW_BYTES_MIN);
        assert_eq!(ahead.get(&file, 0, 500_000).expect("no error").len(), 500_000);
        // Near and behind the end.
        assert_eq!(ahead.get(&file, 999_990, 100).expect("no error").len(), 10);
        assert!(ahead.get(&file, 2_000_000, 1).expect("no error").is_empty());
        assert!(ahead.get(&file, u64::MAX, 1).expect("no error").is_empty());
    }
}
