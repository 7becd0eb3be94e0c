//! Which series belong to the shard a request asks for.

use tonic::Status;
use weir_proto::thanos as pb;
use xxhash_rust::xxh64::xxh64;

/// Keeps the series whose labels hash to one of several shards. The hash is that of Thanos
/// (`pkg/store/storepb/shard_info.go` of thanos-io/thanos), because all stores of a query must
/// agree.
#[derive(Clone, Debug)]
pub struct Shard {
    index: u64,
    total: u64,
    /// True: only the labels named count. False: only the others do.
    by: bool,
    labels: Vec<String>,
    /// Text to hash, kept to be reused.
    buffer: Vec<u8>,
}

impl Shard {
    /// Reads the request's field. `None` if the request is not sharded, which is also said by a
    /// total below one.
    ///
    /// # Errors
    /// `InvalidArgument` if the index is not below the total.
    pub fn from_request(info: Option<&pb::ShardInfo>) -> Result<Option<Self>, Status> {
        let Some(info) = info.filter(|info| info.total_shards >= 1) else { return Ok(None) };
        if info.shard_index < 0 || info.shard_index >= info.total_shards {
            return Err(Status::invalid_argument(format!(
                "shard_info.shard_index: {} is not between 0 and total_shards {}",
                info.shard_index, info.total_shards
            )));
        }
        Ok(Some(Self {
            index: info.shard_index.unsigned_abs(),
            total: info.total_shards.unsigned_abs(),
            by: info.by,
            labels: info.labels.clone(),
            buffer: Vec::new(),
        }))
    }

    /// True if the series with these labels, external ones included and replica labels taken off,
    /// belongs to the shard.
    pub fn keeps<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        self.buffer.clear();
        for (name, value) in labels {
            if self.labels.iter().any(|own| own == name) == self.by {
                self.buffer.extend_from_slice(name.as_bytes());
                self.buffer.push(0xff);
                self.buffer.extend_from_slice(value.as_bytes());
                self.buffer.push(0xff);
            }
        }
        xxh64(&self.buffer, 0) % self.total == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: i64, total: i64, by: bool, labels: &[&str]) -> pb::ShardInfo {
        pb::ShardInfo {
            shard_index: index,
            total_shards: total,
            by,
            labels: labels.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn reads_the_request() {
        let refused = |index, total| Shard::from_request(Some(&info(index, total, true, &[]))).unwrap_err();
        assert!(Shard::from_request(None).unwrap().is_none());
        assert!(Shard::from_request(Some(&info(0, 0, true, &[]))).unwrap().is_none());
        assert!(Shard::from_request(Some(&info(0, -1, true, &[]))).unwrap().is_none());
        assert!(Shard::from_request(Some(&info(0, 1, true, &[]))).unwrap().is_some());
        assert_eq!(refused(2, 2).code(), tonic::Code::InvalidArgument);
        assert!(refused(-1, 2).message().starts_with("shard_info.shard_index: "));
    }

    #[test]
    fn hashes_the_labels_that_count() {
        let labels = [("__name__", "up"), ("job", "a"), ("pod", "p")];
        let check = |by: bool, names: &[&str], hashed: &[u8]| {
            let total = 7;
            let owner = (xxh64(hashed, 0) % total) as i64;
            for index in 0..total as i64 {
                let mut shard =
                    Shard::from_request(Some(&info(index, total as i64, by, names))).unwrap().unwrap();
                assert_eq!(
                    shard.keeps(labels.into_iter()),
                    index == owner,
                    "by {by} {names:?} index {index}"
                );
            }
        };
        check(true, &["job"], b"job\xffa\xff");
        check(true, &["pod", "job", "absent"], b"job\xffa\xffpod\xffp\xff");
        check(true, &[], b"");
        check(false, &["job"], b"__name__\xffup\xffpod\xffp\xff");
        check(false, &[], b"__name__\xffup\xffjob\xffa\xffpod\xffp\xff");
    }
}
