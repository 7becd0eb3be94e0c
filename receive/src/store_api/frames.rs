//! Packs series into frames.

use prost::Message;
use weir_proto::thanos::{self as pb, series_response::Result as Frame};

/// Size in bytes that a frame does not pass, unless a single chunk or label set is larger.
pub const FRAME_BYTES: usize = 1 << 20;

/// Upper bound of what a message costs inside another: tag, and length of up to 2^28.
const NESTING_BYTES: usize = 5;

/// Collects frames. A series too large for one is split into several that follow each other; with a
/// batch size above one, small series share a frame.
pub struct FramePacker {
    batch_size: usize,
    /// Series of the frame being filled, when batching.
    batch: Vec<pb::Series>,
    batch_bytes: usize,
    frames: Vec<pb::SeriesResponse>,
    /// Bytes in `frames`.
    frame_bytes: usize,
}

impl FramePacker {
    /// A packer that puts up to `batch_size` series in a frame; below two each has a frame of its
    /// own and batch frames are not used.
    pub fn new(batch_size: usize) -> Self {
        Self { batch_size, batch: Vec::new(), batch_bytes: 0, frames: Vec::new(), frame_bytes: 0 }
    }

    /// Adds a series with all its chunks.
    pub fn push_series(&mut self, labels: Vec<pb::Label>, chunks: Vec<pb::AggrChunk>) {
        let label_bytes = labels.iter().map(|label| label.encoded_len() + NESTING_BYTES).sum::<usize>();
        // Labels are repeated in each frame. If they were nearly as large as a frame, each chunk
        // would drag them along; then the frame is allowed to be larger.
        let chunk_bytes_max = FRAME_BYTES.saturating_sub(label_bytes + NESTING_BYTES).max(FRAME_BYTES / 2);

        let mut piece = pb::Series { labels, chunks: Vec::new() };
        let mut chunk_bytes = 0;
        for chunk in chunks {
            let bytes = chunk.encoded_len() + NESTING_BYTES;
            if chunk_bytes + bytes > chunk_bytes_max && !piece.chunks.is_empty() {
                let next = pb::Series { labels: piece.labels.clone(), chunks: Vec::new() };
                self.push_piece(std::mem::replace(&mut piece, next), label_bytes + chunk_bytes);
                chunk_bytes = 0;
            }
            chunk_bytes += bytes;
            piece.chunks.push(chunk);
        }
        self.push_piece(piece, label_bytes + chunk_bytes);
    }

    fn push_piece(&mut self, piece: pb::Series, bytes: usize) {
        if self.batch_size <= 1 {
            self.push_frame(Frame::Series(piece), bytes);
            return;
        }
        let bytes = bytes + NESTING_BYTES;
        if self.batch_bytes + bytes > FRAME_BYTES {
            self.flush();
        }
        self.batch.push(piece);
        self.batch_bytes += bytes;
        if self.batch.len() >= self.batch_size {
            self.flush();
        }
    }

    /// Adds a warning. It may overtake series of a batch that is not full; their order among each
    /// other stays.
    pub fn push_warning(&mut self, text: String) {
        let bytes = text.len();
        self.push_frame(Frame::Warning(text), bytes);
    }

    fn push_frame(&mut self, frame: Frame, bytes: usize) {
        self.frames.push(pb::SeriesResponse { result: Some(frame) });
        self.frame_bytes += bytes;
    }

    /// Makes a frame of what is waiting for a fuller batch.
    pub fn flush(&mut self) {
        if !self.batch.is_empty() {
            let series = std::mem::take(&mut self.batch);
            let bytes = std::mem::take(&mut self.batch_bytes);
            self.push_frame(Frame::Batch(pb::SeriesBatch { series }), bytes);
        }
    }

    /// True once about as many bytes are ready as one frame may hold.
    pub fn is_full(&self) -> bool {
        self.frame_bytes >= FRAME_BYTES / 2
    }

    /// Takes the frames that are ready.
    pub fn take(&mut self) -> Vec<pb::SeriesResponse> {
        self.frame_bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(value_bytes: usize) -> Vec<pb::Label> {
        vec![pb::Label { name: "a".to_owned(), value: "v".repeat(value_bytes) }]
    }

    fn chunk(mint: i64, bytes: usize) -> pb::AggrChunk {
        let raw = pb::Chunk { r#type: 0, data: vec![7; bytes].into(), hash: 1 };
        pb::AggrChunk { min_time: mint, max_time: mint, raw: Some(raw), ..Default::default() }
    }

    fn series_of(frame: &pb::SeriesResponse) -> &[pb::Series] {
        match frame.result.as_ref().unwrap() {
            Frame::Series(series) => std::slice::from_ref(series),
            Frame::Batch(batch) => &batch.series,
            other => panic!("not a series: {other:?}"),
        }
    }

    #[test]
    fn a_batch_holds_as_many_series_as_asked() {
        let mut packer = FramePacker::new(3);
        (0..7).for_each(|_| packer.push_series(labels(1), Vec::new()));
        assert_eq!(packer.take().len(), 2);
        packer.flush();
        packer.flush();
        let rest = packer.take();
        assert_eq!(rest.len(), 1);
        assert!(matches!(&rest[0].result, Some(Frame::Batch(batch)) if batch.series.len() == 1));
    }

    #[test]
    fn single_series_without_batches() {
        for batch_size in [0, 1] {
            let mut packer = FramePacker::new(batch_size);
            (0..2).for_each(|_| packer.push_series(labels(1), Vec::new()));
            let frames = packer.take();
            assert_eq!(frames.len(), 2);
            assert!(matches!(&frames[0].result, Some(Frame::Series(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn frames_stay_below_their_bound_and_lose_nothing(
            series in prop::collection::vec(
                (1usize..400_000, prop::collection::vec(1usize..400_000, 0..8)), 1..6),
            batch_size in 0usize..5,
        ) {
            let mut packer = FramePacker::new(batch_size);
            for (label_bytes, chunks) in &series {
                let chunks = chunks.iter().enumerate().map(|(index, bytes)| chunk(index as i64, *bytes));
                packer.push_series(labels(*label_bytes), chunks.collect());
            }
            packer.flush();
            let frames = packer.take();

            let mut got: Vec<(usize, Vec<usize>)> = Vec::new();
            for frame in &frames {
                prop_assert!(frame.encoded_len() <= FRAME_BYTES, "{} bytes", frame.encoded_len());
                prop_assert!(series_of(frame).len() <= batch_size.max(1));
                for piece in series_of(frame) {
                    // Chunk times tell whether a piece goes on with the series before.
                    let goes_on = piece.chunks.first().is_some_and(|chunk| chunk.min_time > 0);
                    if !goes_on {
                        got.push((piece.labels[0].value.len(), Vec::new()));
                    }
                    let last = got.last_mut().unwrap();
                    prop_assert_eq!(last.0, piece.labels[0].value.len());
                    for chunk in &piece.chunks {
                        prop_assert_eq!(chunk.min_time as usize, last.1.len());
                        last.1.push(chunk.raw.as_ref().unwrap().data.len());
                    }
                }
            }
            prop_assert_eq!(got, series);
        }
    }
}
