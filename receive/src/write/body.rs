//! Reading the body, and what it says it decodes to.

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::admission::AdmittedBytes;
use crate::answer::WriteError;

/// Reads `body` into `buffer`, which is empty. At most `limit` bytes are taken; their room is
/// taken from `admitted` before they are kept. A body that says at its start that it is longer is
/// refused unread.
pub async fn read(
    mut body: Body,
    limit: usize,
    admitted: &mut AdmittedBytes,
    buffer: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let too_large = |bytes| WriteError::TooLarge { what: "body", bytes, limit };
    // This is Content-Length, if there is one.
    let announced = body.size_hint().exact();
    if let Some(bytes) = announced {
        let len = usize::try_from(bytes).ok().filter(|len| *len <= limit).ok_or_else(|| too_large(bytes))?;
        admitted.take(len)?;
        buffer.reserve_exact(len);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| WriteError::BodyRead(error.to_string().into()))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        let len = buffer.len() + data.len();
        if len > limit {
            return Err(too_large(len as u64));
        }
        if announced.is_none() {
            admitted.take(data.len())?;
        }
        buffer.extend_from_slice(&data);
    }
    Ok(())
}

/// Bytes that a snappy block says it decodes to, at most `limit`. Nothing is decoded or allocated.
pub fn decoded_len(compressed: &[u8], limit: usize) -> Result<usize, WriteError> {
    let claimed = match snap::raw::decompress_len(compressed) {
        Ok(claimed) => claimed as u64,
        // The library's own bound; the claim does not fit into 32 bits.
        Err(snap::Error::TooBig { given, .. }) => given,
        Err(error) => return Err(WriteError::Snappy(error.to_string().into())),
    };
    let fits = usize::try_from(claimed).ok().filter(|claimed| *claimed <= limit);
    fits.ok_or(WriteError::TooLarge { what: "decoded body", bytes: claimed, limit })
}

/// Decodes a snappy block of `len` bytes, as found by [`decoded_len`], into `buffer`, which grows
/// if needed and never shrinks: bytes behind `len` are of earlier requests. Returns the message.
pub fn decode<'a>(compressed: &[u8], len: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], WriteError> {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let target = buffer.get_mut(..len).unwrap_or_default();
    let written = snap::raw::Decoder::new()
        .decompress(compressed, target)
        .map_err(|error| WriteError::Snappy(error.to_string().into()))?;
    Ok(target.get(..written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::{super::admission::Admission, *};

    type Chunks = Vec<Result<&'static [u8], std::io::Error>>;

    fn streamed(chunks: Chunks) -> Body {
        Body::from_stream(stream::iter(chunks))
    }

    async fn check(body: Body, limit: usize, room: usize) -> (Result<Vec<u8>, WriteError>, usize) {
        let mut admitted = Admission::new(room).begin();
        let mut buffer = Vec::new();
        let outcome = read(body, limit, &mut admitted, &mut buffer).await;
        (outcome.map(|()| buffer), admitted.bytes())
    }

    #[tokio::test]
    async fn limits_hold_exactly_with_and_without_a_length() {
        for with_length in [true, false] {
            let body = || {
                if with_length {
                    Body::from("0123456789")
                } else {
                    streamed(vec![Ok(b"01234"), Ok(b"56789")])
                }
            };
            let (outcome, taken) = check(body(), 10, 100).await;
            assert_eq!((outcome.unwrap().as_slice(), taken), (b"0123456789".as_slice(), 10));
            let (outcome, _) = check(body(), 9, 100).await;
            assert!(
                matches!(outcome, Err(WriteError::TooLarge { what: "body", bytes: 10, limit: 9 })),
                "{outcome:?}"
            );
            assert!(check(body(), 10, 10).await.0.is_ok());
            let (outcome, _) = check(body(), 10, 9).await;
            assert!(matches!(outcome, Err(WriteError::Overloaded { .. })), "{outcome:?}");
        }
        assert_eq!(check(Body::empty(), 10, 0).await.0.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_long_body_is_refused_unread() {
        // A body with a length that fails when read.
        let body = Body::new(http_body_util::Full::new(bytes::Bytes::from(vec![0; 11])));
        let (outcome, taken) = check(body, 10, 100).await;
        assert!(matches!(outcome, Err(WriteError::TooLarge { bytes: 11, .. })));
        assert_eq!(taken, 0);
    }

    #[tokio::test]
    async fn a_broken_body_is_told() {
        let broken = streamed(vec![Ok(b"01"), Err(std::io::Error::other("reset"))]);
        let (outcome, _) = check(broken, 10, 100).await;
        assert!(
            matches!(&outcome, Err(WriteError::BodyRead(cause)) if cause.contains("reset")),
            "{outcome:?}"
        );
    }

    #[test]
    fn claims_are_judged_before_memory_is_taken() {
        // The length is a varint at the start of the block.
        let four_gib_less_one = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        let outcome = decoded_len(&four_gib_less_one, 1 << 26);
        assert!(matches!(outcome, Err(WriteError::TooLarge { bytes: 0xffff_ffff, .. })), "{outcome:?}");
        let beyond = [0xff, 0xff, 0xff, 0xff, 0x7f, 0x00];
        let outcome = decoded_len(&beyond, 1 << 26);
        assert!(matches!(outcome, Err(WriteError::TooLarge { .. })), "{outcome:?}");
        assert!(matches!(decoded_len(&[0xff; 11], 1 << 26), Err(WriteError::Snappy(_))));
        assert_eq!(decoded_len(&[10], 10).unwrap(), 10);
        assert!(matches!(decoded_len(&[11], 10), Err(WriteError::TooLarge { bytes: 11, limit: 10, .. })));
        assert_eq!(decoded_len(&[], 10).unwrap(), 0);
    }

    #[test]
    fn decodes_into_a_buffer_used_before() {
        let mut buffer = vec![7; 4];
        let block = snap::raw::Encoder::new().compress_vec(b"hello, hello, hello").unwrap();
        let len = decoded_len(&block, 100).unwrap();
        assert_eq!(decode(&block, len, &mut buffer).unwrap(), b"hello, hello, hello");
        let block = snap::raw::Encoder::new().compress_vec(b"x").unwrap();
        assert_eq!(decode(&block, 1, &mut buffer).unwrap(), b"x");
        assert!(matches!(decode(&block[..1], 1, &mut buffer), Err(WriteError::Snappy(_))));
        assert!(matches!(decode(b"\x05garbage", 5, &mut buffer), Err(WriteError::Snappy(_))));
    }
}
