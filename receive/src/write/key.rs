//! The keyed hash of a series' labels as they lie on the wire.

use rand::Rng;
use weir_proto::remote_write::SeriesWire;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::tenants::SeriesKey;

/// Bytes of the secret: the full length of XXH3's own.
const SECRET_BYTES: usize = 192;

/// Makes keys. The secret is random and never leaves the process, so nobody can prepare label sets
/// that collide: two series with one key would be stored as one.
pub struct SeriesKeys {
    secret: [u8; SECRET_BYTES],
}

impl SeriesKeys {
    /// With a new random secret.
    pub fn new() -> Self {
        let mut secret = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut secret);
        Self { secret }
    }

    /// The key of a series, if its label fields lie side by side. The bytes hold tags and lengths,
    /// so different label lists never have the same bytes.
    pub fn key(&self, series: &SeriesWire<'_>) -> Option<SeriesKey> {
        series.label_bytes().map(|bytes| SeriesKey(xxh3_128_with_secret(bytes, &self.secret)))
    }
}

impl Default for SeriesKeys {
    fn default() -> Self {
        Self::new()
    }
}

/// Without the secret.
impl std::fmt::Debug for SeriesKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SeriesKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::remote_write::WriteRequestWalker;

    use super::{super::test_message::Message, *};

    #[test]
    fn keys_follow_labels_alone_and_the_secret() {
        let key = |keys: &SeriesKeys, pairs: &[(&[u8], &[u8])], samples: &[(i64, f64)]| {
            let message = Message::default().series(pairs, samples).encode();
            keys.key(&WriteRequestWalker::new(&message).next().unwrap().unwrap()).unwrap()
        };
        let (keys, others) = (SeriesKeys::new(), SeriesKeys::new());
        let long = [b'x'; 300];
        for value in [b"a".as_slice(), &long] {
            let pairs = [(b"job".as_slice(), value)];
            let own = key(&keys, &pairs, &[(1, 2.0)]);
            assert_eq!(own, key(&keys, &pairs, &[(3, 4.0), (5, 6.0)]));
            assert_ne!(own, key(&others, &pairs, &[]));
            assert_ne!(own, key(&keys, &[(b"joba", &value[1..])], &[]), "borders count");
        }
    }
}
