//! A cluster is founded once: the bucket remembers which cluster has a name.
//!
//! Nodes whose disks were all emptied look like those of a new cluster, and would found one over the data
//! of the old one. What says otherwise is the object `cluster/<name>.json`, made when a cluster is founded
//! and never again.

use serde::{Deserialize, Serialize};
use weir_hashring::{
    cluster::{FoundingGuard, GuardError},
    ids::ClusterId,
};

use crate::objstore::Bucket;

/// Most bytes of the object.
const OBJECT_BYTES_MAX: u64 = 64 << 10;
const VERSION: u32 = 1;

/// The object.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    version: u32,
    cluster: String,
}

/// Keeps names of clusters in the bucket that blocks go to.
#[derive(Debug)]
pub struct BucketGuard {
    bucket: Bucket,
}

impl BucketGuard {
    /// Names are kept in `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }

    /// The cluster that has the name, if one has.
    async fn owner(&self, object: &str) -> Result<Option<String>, GuardError> {
        let found = match self.bucket.get(object, OBJECT_BYTES_MAX).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(GuardError::Unavailable(error.to_string())),
        };
        let claim: Result<Claim, _> = serde_json::from_slice(&found);
        match claim {
            Ok(claim) if claim.version == VERSION => Ok(Some(claim.cluster)),
            Ok(claim) => {
                Err(GuardError::Taken(format!("{object} in the bucket is of version {}", claim.version)))
            }
            Err(error) => {
                Err(GuardError::Taken(format!("{object} in the bucket is not understood: {error}")))
            }
        }
    }
}

#[tonic::async_trait]
impl FoundingGuard for BucketGuard {
    async fn claim(&self, cluster: ClusterId, name: &str) -> Result<(), GuardError> {
        let object = format!("cluster/{name}.json");
        let own = cluster.to_string();
        let mut owner = self.owner(&object).await?;
        if owner.is_none() {
            let claim = Claim { version: VERSION, cluster: own.clone() };
            let claim = serde_json::to_vec(&claim).expect("texts and numbers");
            let created = self.bucket.create_small(&object, claim.into()).await;
            if created.map_err(|error| GuardError::Unavailable(error.to_string()))? {
                return Ok(());
            }
            // Somebody was faster.
            owner = self.owner(&object).await?;
        }
        match owner {
            Some(owner) if owner == own => Ok(()),
            Some(owner) => Err(GuardError::Taken(format!("{object} in the bucket is of cluster {owner}"))),
            None => Err(GuardError::Unavailable(format!("{object} in the bucket comes and goes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::{BucketConfig, BucketOptions};

    #[tokio::test]
    async fn a_name_is_for_one_cluster() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("bucket");
        let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", folder.display());
        let config = BucketConfig::parse(&yaml).expect("it is valid");
        let guard = BucketGuard::new(Bucket::open(&config, &BucketOptions::default()).expect("it opens"));
        let (first, second) = (ClusterId([1; 16]), ClusterId([2; 16]));
        guard.claim(first, "weir").await.expect("nobody has it");
        guard.claim(first, "weir").await.expect("it is the same cluster");
        guard.claim(second, "other").await.expect("it is another name");
        let taken = guard.claim(second, "weir").await.expect_err("it is taken");
        let expected = format!("cluster/weir.json in the bucket is of cluster {first}");
        assert_eq!(taken, GuardError::Taken(expected));
        std::fs::write(folder.join("cluster/broken.json"), "{").expect("it is written");
        assert!(matches!(guard.claim(first, "broken").await, Err(GuardError::Taken(_))));
    }
}
