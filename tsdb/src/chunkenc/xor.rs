//! The XOR encoding of floats: times as delta of delta, values as xor with the value before.
//!
//! Sample 0 is its time as varint and its value as 64 bits. Sample 1 is the time since sample 0 as
//! uvarint, then the value's xor. All others are the delta of delta, then the value's xor:
//!
//! | delta of delta | bits |
//! |---|---|
//! | 0 | `0` |
//! | -8191 to 8192 | `10` and 14 bits |
//! | -65535 to 65536 | `110` and 17 bits |
//! | -524287 to 524288 | `1110` and 20 bits |
//! | all else | `1111` and 64 bits |
//!
//! | xor | bits |
//! |---|---|
//! | 0 | `0` |
//! | its bits lie within the window of the last `11` | `10` and the bits of that window |
//! | all else | `11`, 5 bits leading zeros, 6 bits length (0 means 64), the bits: a new window |
//!
//! Differences of times wrap, so that every time can be stored.

use super::{ChunkError, bits::BitReader, in_sample, sample_count};
use crate::{
    chunkenc::Encoding,
    types::Sample,
    varint::{Decoder, zigzag},
};

/// Bytes before the first sample.
const HEADER_LEN: usize = 2;

/// `leading` of a chunk that has no window yet.
const NO_WINDOW: u8 = 0xff;

/// More leading zeros than this do not fit their field of 5 bits.
const MAX_LEADING: u8 = 31;

/// The most bytes that one sample writes: 10 of a time, 77 bits of a value, 7 bits before them.
const SAMPLE_BYTES_MAX: usize = 20;

/// What appending to a chunk needs to know. The bytes so far are not among it: they are only ever
/// added to, so they can lie where it takes long to look.
///
/// Bytes and state belong together: a state must only ever add to the chunk that it has filled so
/// far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XorState {
    /// Time of the last sample.
    t: i64,
    /// Time between the last two samples, modulo 2^64. 0 while there is one sample.
    delta: u64,
    /// Value of the last sample.
    bits: u64,
    /// Leading zeros of the window, or [`NO_WINDOW`].
    leading: u8,
    /// Trailing zeros of the window.
    trailing: u8,
    /// Zero bits at the end of the data that are still free: 0 to 7, or 8 after an old writer.
    free_bits: u8,
    /// The last byte, if some of its bits are free; 0 otherwise.
    last_byte: u8,
    count: u16,
}

/// What one sample adds to the bytes of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct SampleBytes {
    /// The first of the bytes takes the place of the last one of the chunk.
    pub replaces_last: bool,
    len: u8,
    bytes: [u8; SAMPLE_BYTES_MAX],
}

impl SampleBytes {
    const NOTHING: Self = Self { replaces_last: false, len: 0, bytes: [0; SAMPLE_BYTES_MAX] };

    /// The bytes. None if the sample only uses bits that are there and zero already.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// Eight bytes, of which the first are [`Self::bytes`], unless these are more.
    #[inline]
    pub fn first_eight(&self) -> Option<&[u8; 8]> {
        if self.len <= 8 { self.bytes.first_chunk() } else { None }
    }

    /// LEB128.
    fn push_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.push(&[value as u8]);
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        if let Some(target) = self.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
            self.len += bytes.len() as u8;
        } else {
            unreachable!("no sample has more than {SAMPLE_BYTES_MAX} bytes");
        }
    }
}

impl Default for XorState {
    fn default() -> Self {
        Self::new()
    }
}

impl XorState {
    /// The state of a chunk without samples.
    pub const fn new() -> Self {
        Self {
            t: 0,
            delta: 0,
            bits: 0,
            leading: NO_WINDOW,
            trailing: 0,
            free_bits: 0,
            last_byte: 0,
            count: 0,
        }
    }

    /// Reads a chunk to its end and returns the state to go on with. The spare zero byte that old
    /// writers left behind is taken as free room; anything else behind the last sample is an error.
    pub fn resume(data: &[u8]) -> Result<Self, ChunkError> {
        let mut samples = XorIter::new(data)?;
        for sample in &mut samples {
            sample?;
        }
        let mut state = samples.state;
        let free_bits = samples.reader.remaining_bits();
        let is_zero = free_bits == 0 || samples.reader.bits(free_bits.min(8) as u32) == Ok(0);
        if free_bits > 8 || !is_zero {
            return Err(ChunkError::Invalid { what: "data behind the last sample", sample: state.count });
        }
        state.free_bits = free_bits as u8;
        state.last_byte = if free_bits > 0 { data.last().copied().unwrap_or_default() } else { 0 };
        Ok(state)
    }

    /// Number of samples.
    #[inline]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Time of the last sample; 0 if there is none.
    #[inline]
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// Value of the last sample as IEEE 754 bits; 0 if there is none.
    #[inline]
    pub fn last_bits(&self) -> u64 {
        self.bits
    }

    /// Takes a sample and returns what it adds to the bytes that follow the chunk's header. The
    /// header is [`Self::count`], to be written when the chunk is read or done.
    ///
    /// # Panics
    /// If the chunk has 65,535 samples, the most its header can tell; cut chunks long before.
    #[inline]
    pub fn encode(&mut self, t: i64, bits: u64) -> SampleBytes {
        let delta = t.wrapping_sub(self.t) as u64;
        let mut out = SampleBytes::NOTHING;
        match self.count {
            0 => {
                out.push_uvarint(zigzag(t));
                out.push(&bits.to_be_bytes());
                // An old writer's chunk without samples may have a spare byte.
                out.replaces_last = self.free_bits > 0;
                (self.free_bits, self.last_byte) = (0, 0);
            }
            1 => {
                // Sample 0 ends at a byte border, so this only takes a spare byte away.
                out.replaces_last = self.free_bits > 0;
                out.push_uvarint(delta);
                self.delta = delta;
                let mut batch = BitBatch { bits: 0, len: 0 };
                self.put_value(&mut batch, bits);
                self.finish(batch, &mut out);
            }
            _ => {
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                if dod == 0 && bits == self.bits && self.free_bits >= 2 {
                    // Two zero bits, and zero they are already.
                    self.free_bits -= 2;
                    if self.free_bits == 0 {
                        self.last_byte = 0;
                    }
                } else {
                    out.replaces_last = self.free_bits > 0;
                    let mut batch = BitBatch::resume(self.last_byte, self.free_bits);
                    put_delta_of_delta(&mut batch, dod, &mut out);
                    self.put_value(&mut batch, bits);
                    self.finish(batch, &mut out);
                }
            }
        }
        self.t = t;
        self.bits = bits;
        self.count = self.count.checked_add(1).expect("a chunk is cut before it has 65,535 samples");
        out
    }

    /// Appends a sample to a chunk in one buffer, which at any moment is a whole chunk with its
    /// sample count. The first append clears `data` and writes the header.
    ///
    /// # Panics
    /// As [`Self::encode`].
    #[inline]
    pub fn append(&mut self, data: &mut Vec<u8>, t: i64, bits: u64) {
        if self.count == 0 {
            self.free_bits = 0;
            data.clear();
            data.extend_from_slice(&[0; HEADER_LEN]);
        }
        let sample = self.encode(t, bits);
        if sample.replaces_last {
            data.pop();
        }
        data.extend_from_slice(sample.bytes());
        if let Some(header) = data.first_chunk_mut() {
            *header = self.count.to_be_bytes();
        }
    }

    /// At most 77 bits.
    #[inline]
    fn put_value(&mut self, out: &mut BitBatch, bits: u64) {
        let xor = bits ^ self.bits;
        if xor == 0 {
            out.push(0, 1);
            return;
        }
        let leading = (xor.leading_zeros() as u8).min(MAX_LEADING);
        let trailing = xor.trailing_zeros() as u8;
        // NO_WINDOW is greater than any number of leading zeros.
        if leading >= self.leading && trailing >= self.trailing {
            let len = 64 - self.leading - self.trailing;
            out.push(0b10, 2);
            out.push(xor >> self.trailing, len.into());
        } else {
            let len = 64 - leading - trailing;
            (self.leading, self.trailing) = (leading, trailing);
            let window = 0b11 << 11 | u64::from(leading) << 6 | u64::from(len & 63);
            out.push(window, 13);
            out.push(xor >> trailing, len.into());
        }
    }

    /// Adds all bits of `batch`, at least one, and fills the last byte with zeros.
    #[inline]
    fn finish(&mut self, batch: BitBatch, out: &mut SampleBytes) {
        let BitBatch { bits, len } = batch;
        let bytes = len.div_ceil(8);
        self.free_bits = (8 * bytes - len) as u8;
        self.last_byte = if self.free_bits > 0 { (bits << self.free_bits) as u8 } else { 0 };
        if len <= 64 && out.len == 0 {
            // Most samples. At least one bit was pushed, so the shift is less than 64.
            if let Some(target) = out.bytes.first_chunk_mut() {
                *target = ((bits as u64) << (64 - len)).to_be_bytes();
            }
            out.len = bytes as u8;
        } else {
            out.push((bits << (128 - len)).to_be_bytes().get(..bytes as usize).unwrap_or_default());
        }
    }
}

/// The largest field has 68 bits; it is handed on at once so that there is room for a value.
#[inline]
fn put_delta_of_delta(batch: &mut BitBatch, dod: i64, out: &mut SampleBytes) {
    let low = |width: u32| dod as u64 & ((1 << width) - 1);
    match dod {
        0 => batch.push(0, 1),
        -8_191..=8_192 => batch.push(0b10 << 14 | low(14), 16),
        -65_535..=65_536 => batch.push(0b110 << 17 | low(17), 20),
        -524_287..=524_288 => batch.push(0b1110 << 20 | low(20), 24),
        _ => {
            batch.push(0b1111, 4);
            batch.push(dod as u64, 64);
            batch.flush_whole_bytes(out);
        }
    }
}

/// Collects the bits of one sample, with those before them in the last byte. Room for 128 bits.
struct BitBatch {
    bits: u128,
    len: u32,
}

impl BitBatch {
    /// Begins with the bits of the last byte that are in use.
    #[inline]
    fn resume(last_byte: u8, free_bits: u8) -> Self {
        if free_bits == 0 {
            return Self { bits: 0, len: 0 };
        }
        Self { bits: u128::from(last_byte) >> free_bits, len: 8 - u32::from(free_bits) }
    }

    /// Adds the low `len` bits of `value`, all above which are zero.
    #[inline]
    fn push(&mut self, value: u64, len: u32) {
        debug_assert!(len == 64 || value >> len == 0);
        debug_assert!(self.len + len <= 128);
        self.bits = self.bits << len | u128::from(value);
        self.len += len;
    }

    #[inline]
    fn flush_whole_bytes(&mut self, out: &mut SampleBytes) {
        let left = self.len % 8;
        let whole = (self.bits >> left) << (128 - (self.len - left));
        out.push(whole.to_be_bytes().get(..(self.len / 8) as usize).unwrap_or_default());
        self.bits &= (1 << left) - 1;
        self.len = left;
    }
}

/// Encodes samples as one chunk, whatever its size. Replaces what is in `data`.
///
/// # Panics
/// If there are more than 65,535 samples.
pub fn encode_xor(samples: impl IntoIterator<Item = Sample>, data: &mut Vec<u8>) {
    data.clear();
    data.extend_from_slice(&[0; HEADER_LEN]);
    let mut state = XorState::new();
    for sample in samples {
        state.append(data, sample.t, sample.bits);
    }
}

/// Time of the first sample of a chunk, if it has one.
pub fn xor_first_time(data: &[u8]) -> Option<i64> {
    Decoder::new(data.get(HEADER_LEN..)?).varint().ok()
}

/// Iterates over the samples of an XOR chunk. What lies behind the last sample is not looked at:
/// writers before 2.55 left a spare zero byte there. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct XorIter<'a> {
    reader: BitReader<'a>,
    /// Its count is that of the samples read so far.
    state: XorState,
    count: u16,
}

impl<'a> XorIter<'a> {
    /// Reads the header. `data` begins with the sample count.
    pub fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let count = sample_count(Encoding::Xor, data)?;
        let reader = BitReader::new(data.get(HEADER_LEN..).unwrap_or_default());
        Ok(Self { reader, state: XorState::new(), count })
    }

    /// Number of samples according to the header, read or not.
    pub fn sample_count(&self) -> u16 {
        self.count
    }

    #[inline]
    fn read(&mut self) -> Result<Sample, ChunkError> {
        let in_sample = in_sample(self.state.count, self.count);
        match self.state.count {
            0 => {
                self.state.t = self.reader.varint().map_err(&in_sample)?;
                self.state.bits = self.reader.bits(64).map_err(&in_sample)?;
            }
            1 => {
                self.state.delta = self.reader.uvarint().map_err(&in_sample)?;
                self.state.t = self.state.t.wrapping_add_unsigned(self.state.delta);
                self.read_value()?;
            }
            _ => {
                let width = match self.reader.ones(4).map_err(&in_sample)? {
                    0 => 0,
                    1 => 14,
                    2 => 17,
                    3 => 20,
                    _ => 64,
                };
                if width > 0 {
                    let dod = self.reader.delta(width).map_err(&in_sample)?;
                    self.state.delta = self.state.delta.wrapping_add_signed(dod);
                }
                self.state.t = self.state.t.wrapping_add_unsigned(self.state.delta);
                self.read_value()?;
            }
        }
        self.state.count += 1;
        Ok(Sample { t: self.state.t, bits: self.state.bits })
    }

    #[inline]
    fn read_value(&mut self) -> Result<(), ChunkError> {
        let sample = self.state.count;
        let in_sample = in_sample(sample, self.count);
        let state = &mut self.state;
        match self.reader.ones(2).map_err(&in_sample)? {
            0 => return Ok(()),
            1 => {
                // Without a window before it, this is a window over all 64 bits: upstream writes
                // that when it goes on with a chunk in which all values were equal.
                let leading = if state.leading == NO_WINDOW { 0 } else { state.leading };
                let len = 64 - leading - state.trailing;
                let xor = self.reader.bits(len.into()).map_err(&in_sample)?;
                state.bits ^= xor << state.trailing;
            }
            _ => {
                let (leading, trailing) = read_window(&mut self.reader)
                    .map_err(&in_sample)?
                    .ok_or(ChunkError::Invalid { what: "window", sample })?;
                (state.leading, state.trailing) = (leading, trailing);
                let xor = self.reader.bits((64 - leading - trailing).into()).map_err(&in_sample)?;
                state.bits ^= xor << trailing;
            }
        }
        Ok(())
    }
}

/// Reads 5 bits leading zeros and 6 bits length, and returns leading and trailing zeros; `None` if
/// they reach beyond 64 bits.
#[inline]
pub(super) fn read_window(
    reader: &mut BitReader<'_>,
) -> Result<Option<(u8, u8)>, crate::varint::DecodeError> {
    let fields = reader.bits(11)?;
    let leading = (fields >> 6) as u8;
    let len = match (fields & 63) as u8 {
        0 => 64,
        len => len,
    };
    Ok((64 - leading).checked_sub(len).map(|trailing| (leading, trailing)))
}

impl Iterator for XorIter<'_> {
    type Item = Result<Sample, ChunkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.state.count >= self.count {
            return None;
        }
        let sample = self.read();
        if sample.is_err() {
            self.count = self.state.count;
        }
        Some(sample)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count > self.state.count), Some(usize::from(self.count - self.state.count)))
    }
}

#[cfg(test)]
mod tests;
