use proptest::prelude::*;

use super::*;
use crate::types::STALE_NAN_BITS;

/// The four samples of the golden bytes.
pub(crate) fn golden_samples() -> [Sample; 4] {
    [
        Sample::new(1_700_000_000_000, 1.0),
        Sample::new(1_700_000_015_000, 2.0),
        Sample::new(1_700_000_030_000, 2.0),
        Sample::new(1_700_000_046_000, 3.5),
    ]
}

const GOLDEN: [u8; 26] =
    *b"\x00\x04\x80\xa0\xab\xfe\xf9\x62\x3f\xf0\0\0\0\0\0\0\x98\x75\xc2\x5f\xff\x20\xfa\x36\x05\x80";

fn encode(samples: &[Sample]) -> Vec<u8> {
    let mut data = Vec::new();
    encode_xor(samples.iter().copied(), &mut data);
    data
}

fn decode(data: &[u8]) -> Result<Vec<Sample>, ChunkError> {
    XorIter::new(data)?.collect()
}

#[test]
fn golden_bytes() {
    assert_eq!(encode(&golden_samples()), GOLDEN);
    assert_eq!(decode(&GOLDEN), Ok(golden_samples().to_vec()));
    assert_eq!(xor_first_time(&GOLDEN), Some(1_700_000_000_000));
    assert_eq!(encode(&[]), [0, 0]);
    assert_eq!(decode(&[0, 0]), Ok(Vec::new()));
    assert_eq!(xor_first_time(&[0, 0]), None);
}

#[test]
fn state_is_small() {
    assert!(size_of::<XorState>() <= 32, "{}", size_of::<XorState>());
}

#[test]
fn the_spare_byte_of_old_writers_is_reused() {
    let nan = Sample { t: 1_700_000_000_000, bits: 0x7ff8_0000_0000_0001 };
    let new = encode(&[nan]);
    assert_eq!(new, *b"\0\x01\x80\xa0\xab\xfe\xf9\x62\x7f\xf8\0\0\0\0\0\x01");
    let mut old = [&new[..], &[0]].concat();
    assert_eq!(decode(&old), Ok(vec![nan]));
    let mut state = XorState::resume(&old).expect("a spare byte is allowed");
    let next = Sample::new(1_700_000_015_000, 1.0);
    state.append(&mut old, next.t, next.bits);
    assert_eq!(old, encode(&[nan, next]));
    let mut empty = vec![0; 3];
    let mut state = XorState::resume(&empty).expect("a spare byte is allowed");
    state.append(&mut empty, nan.t, nan.bits);
    state.append(&mut empty, next.t, next.bits);
    assert_eq!(empty, encode(&[nan, next]));

    let two_spare = [&new[..], &[0, 0]].concat();
    let not_zero = [&new[..], &[1]].concat();
    for data in [two_spare, not_zero] {
        let error = ChunkError::Invalid { what: "data behind the last sample", sample: 1 };
        assert_eq!(XorState::resume(&data), Err(error));
    }
}

/// Upstream goes on with a chunk of equal values as if it had a window over all bits.
#[test]
fn a_known_window_without_a_window_is_all_bits() {
    let mut data = encode(&[Sample { t: 0, bits: 1 }]);
    data[1] = 2;
    data.push(5);
    let bits = (0b10u128 << 64 | 0xff00_0000_0000_0000) << (128 - 66);
    data.extend_from_slice(&bits.to_be_bytes()[..9]);
    assert_eq!(
        decode(&data),
        Ok(vec![Sample { t: 0, bits: 1 }, Sample { t: 5, bits: 0xff00_0000_0000_0001 }])
    );
}

#[test]
fn damage_is_told() {
    for len in 0..GOLDEN.len() {
        let error = decode(&GOLDEN[..len]).expect_err("a sample is missing");
        match len {
            0 | 1 => assert_eq!(error, ChunkError::NoHeader),
            _ => assert!(matches!(error, ChunkError::Truncated { count: 4, .. }), "{error}"),
        }
    }
    assert_eq!(decode(&GOLDEN[..21]), Err(ChunkError::Truncated { sample: 2, count: 4 }));
    // A new window of 31 leading zeros and 34 bits.
    let mut data = encode(&[Sample { t: 0, bits: 1 }]);
    data[1] = 2;
    data.extend([5, 0b1111_1111, 0b0001_0000]);
    assert_eq!(decode(&data), Err(ChunkError::Invalid { what: "window", sample: 1 }));
    // After an error there is nothing more.
    let mut samples = XorIter::new(&GOLDEN[..21]).expect("a header");
    assert_eq!(samples.by_ref().filter(Result::is_ok).count(), 2);
    assert_eq!(samples.next(), None);
}

fn any_time() -> impl Strategy<Value = i64> {
    let near = |edge: i64| edge - 2..=edge + 2;
    // Edges of the fields of the delta of delta.
    let edges = [0, -8_191, 8_192, -65_535, 65_536, -524_287, 524_288].map(near);
    prop_oneof![
        4 => prop::sample::select(edges.to_vec()).prop_flat_map(|edge| edge),
        4 => Just(15_000),
        1 => any::<i64>(),
    ]
}

fn any_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => any::<u64>(),
        3 => (0u32..64, 0u32..64, any::<u64>()).prop_map(|(up, down, bits)| bits >> down << up),
        3 => (0u8..4).prop_map(|value| f64::from(value).to_bits()),
        1 => prop::sample::select(vec![STALE_NAN_BITS, f64::NAN.to_bits(), (-0.0f64).to_bits(), 1]),
    ]
}

proptest! {
    /// Times are made from deltas of deltas, so that all fields are met; they need not rise.
    #[test]
    fn samples_survive(steps in prop::collection::vec((any_time(), any_bits()), 0..60), cut in 0usize..60) {
        let (mut t, mut delta) = (0i64, 0i64);
        let samples: Vec<_> = steps.into_iter().map(|(dod, bits)| {
            delta = delta.wrapping_add(dod);
            t = t.wrapping_add(delta);
            Sample { t, bits }
        }).collect();
        let mut data = vec![9, 9, 9];
        let mut state = XorState::new();
        for (index, sample) in samples.iter().enumerate() {
            state.append(&mut data, sample.t, sample.bits);
            prop_assert_eq!(usize::from(state.count()), index + 1);
            // At any moment a whole chunk, with no byte too many, from which one can go on.
            if index == cut {
                prop_assert_eq!(decode(&data), Ok(samples[..=index].to_vec()));
                prop_assert_eq!(XorState::resume(&data), Ok(state));
            }
        }
        if !samples.is_empty() {
            prop_assert_eq!(decode(&data), Ok(samples));
        }
    }

    #[test]
    fn damaged_chunks_do_no_harm(data: Vec<u8>) {
        let read = XorIter::new(&data).map(Iterator::count);
        if let Ok(read) = read {
            prop_assert!(read <= usize::from(u16::from_be_bytes([data[0], data[1]])));
        }
    }
}
